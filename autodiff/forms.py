"""Primitives with a fused form.

`fusable` marks a readable composite. Where `backends.fused` has a form for the arrays' backend the
call becomes one node with the fused vjp; under ``create_graph`` and in forward mode the composite is
differentiated at the saved inputs, so a gradient is never silently without derivatives.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from autodiff.opaque import Opaque, form_chosen, forms
from autodiff.tape import STATE
from autodiff.tensor import Dual, Tensor, backend_of, raw
from backends import fused

__all__ = ["forms", "fusable"]


_EMPTY = inspect.Parameter.empty
_LOG = logging.getLogger(__name__)


def _described(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else repr(x)


def _live(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.node is not None or x.__class__ is Dual)


def fusable(
    id: str,  # noqa: A002  the name in the table of forms
    tensors: tuple[str, ...],
    reference: Callable | None = None,
) -> Callable:
    """Decorator of a composite that may have fused forms.

    Parameters
    ----------
    id : str
        Key in ``backends.fused.FORMS``, e.g. "attention.flash".
    tensors : tuple of str
        Names of the arguments that carry gradients, in the order the fused form takes them. All
        others are options and go through untouched.
    reference : callable, optional
        What to differentiate in place of the composite, where the composite itself is not
        differentiable; same signature.

    Returns
    -------
    callable
        The composite's signature; ``.composite`` and ``.id`` are attached.

    Notes
    -----
    The composite runs when no form supports the call, when an option is a tensor that requires
    grad, in forward mode, and where a gradient is wanted of a form without a vjp. That no form supports
    a call is said to the logger ``autodiff.forms`` at debug level.
    """

    def decorate(composite: Callable) -> Callable:
        signature = inspect.signature(composite)
        names, defaults = tuple(signature.parameters), {n: p.default for n, p in signature.parameters.items()}
        missing = [t for t in tensors if t not in names]
        if missing:
            raise ValueError(f"fusable: {id} has no argument {', '.join(missing)}")
        smooth = reference or composite
        chosen: dict[tuple[Any, str], list[tuple[Opaque, Any]]] = {}

        def run_composite(values: tuple, options: dict) -> Any:
            return smooth(**dict(zip(tensors, values, strict=True)), **options)

        def forms_of(backend: Any, form: str) -> list[tuple[Opaque, Any]]:
            """(primitive, its `supports`) of each form that may be taken, the fastest first."""
            found = chosen.get((backend, form))
            if found is None:
                modules = [fused.find_compiled(id, backend.name)] if form == "compiled" else []
                modules.append(fused.find(id, backend.name))
                found = chosen[backend, form] = [
                    (Opaque(id, tensors, m.forward, getattr(m, "vjp", None), run_composite, False,
                            getattr(m, "READS_OUTPUT", True)), getattr(m, "supports", None))
                    for m in modules if m is not None
                ]  # fmt: skip
            return found

        @wraps(composite)
        def call(*args: Any, **options: Any) -> Any:
            given = dict(zip(names, args, strict=False))
            if len(args) > len(names) or not defaults.keys() >= options.keys() or not given.keys().isdisjoint(options):
                return composite(*args, **options)  # which says what is wrong
            given.update(options)
            values = []
            for name in tensors:
                value = given.pop(name, defaults[name])
                if value is _EMPTY:
                    return composite(*args, **options)
                values.append(value)
            if any(v.__class__ is Dual for v in values) or any(map(_live, given.values())):
                return smooth(*args, **options)
            form = form_chosen()
            if form == "composite":
                return composite(*args, **options)
            raws = [raw(v) for v in values]
            found = forms_of(backend_of(*raws), form)
            if not found:
                return composite(*args, **options)
            given = {k: raw(v) for k, v in given.items()}
            for prim, supports in found:
                if prim.pull is None and STATE.grad and any(map(_live, values)):
                    return composite(*args, **options)
                if supports is None or supports(*raws, **given):
                    return prim(tuple(values), given)
            if _LOG.isEnabledFor(logging.DEBUG):
                what = {**dict(zip(tensors, raws, strict=True)), **given}
                _LOG.debug("%s: no fused form takes %s; the composite runs", id,
                           ", ".join(f"{name}={_described(x)}" for name, x in what.items()))  # fmt: skip
            return composite(*args, **options)

        call.composite = composite
        call.id = id
        return call

    return decorate
