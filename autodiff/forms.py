"""Primitives with a fused form, and primitives of the user's.

`fusable` marks a readable composite. Where `backends.fused` has a form for the arrays' backend the
call becomes one node with the fused vjp; under ``create_graph`` and in forward mode the composite is
differentiated at the saved inputs, so a gradient is never silently without derivatives.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from functools import wraps
from typing import Any, NamedTuple

from autodiff.backward import select
from autodiff.space import TensorNamespace
from autodiff.tape import SPECIAL, STATE, Node, tick
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, is_real, raw
from backends import fused

__all__ = ["custom", "forms", "fusable"]


class _Choice(threading.local):
    form = "fused"


_CHOICE = _Choice()


class forms(ContextDecorator):  # noqa: N801  a context manager, spelt as a function
    """Context of this thread: which form `fusable` functions take.

    Parameters
    ----------
    form : "fused" or "composite"
        "fused", the default, where there is one that supports the call; "composite" never.
    """

    def __init__(self, form: str):
        if form not in ("fused", "composite"):
            raise ValueError(f"forms: got {form!r}; needs 'fused' or 'composite'")
        self.form, self.before = form, []

    def __enter__(self):
        self.before.append(_CHOICE.form)
        _CHOICE.form = self.form
        return self

    def __exit__(self, *error):
        _CHOICE.form = self.before.pop()

    def _recreate_cm(self):
        # As a decorator: calls in several threads must not share `before`.
        return forms(self.form)


def form_chosen() -> str:
    """What `forms` has selected in this thread."""
    return _CHOICE.form


class _Call(NamedTuple):
    """What a node of a fused call remembers besides arrays."""

    outputs: int  # 0: one array, not in a tuple
    options: dict


class _Form:
    """The primitive behind one fused module or custom function."""

    kind = None
    jvp = None

    def __init__(self, name: str, labels: tuple, forward: Callable, vjp: Callable,
                 composite: Callable | None, differentiable: bool):
        self.name, self.labels = name, labels
        self.forward, self.pull = forward, vjp
        self.composite, self.differentiable = composite, differentiable

    def label(self, position: int, inputs: int) -> str:
        if position >= inputs:
            return f"output or intermediate {position - inputs}"
        name = self.labels[position] if position < len(self.labels) else "input"
        return f"argument {position} ({name})"

    def __call__(self, tensors: tuple, options: dict) -> Any:
        watch = STATE.watch if SPECIAL else None
        if watch is not None:
            tensors = watch.arguments(self, tensors)
        raws = tuple([raw(t) for t in tensors])
        out, extra = (self.forward(*raws, **options) if watch is None
                      else watch.run(self, self.forward, raws, options))  # fmt: skip
        if not any(isinstance(t, Tensor) for t in tensors):
            return out
        edges = tuple([t.node if isinstance(t, Tensor) else None for t in tensors])
        several = isinstance(out, (tuple, list))
        outs = tuple(out) if several else (out,)
        if not STATE.grad or all(e is None for e in edges):
            made = tuple(_tensor(o, None) for o in outs)
            return made if several else made[0]
        node = Node()
        node.prim = self
        node.edges = edges
        node.params = _Call(len(outs) if several else 0, options)
        node.shape, node.dtype = outs[0].shape, outs[0].dtype
        node.seq = tick()
        node.saved = (*raws, *outs, *extra)
        if SPECIAL and STATE.saver is not None:
            node.saved = STATE.saver(node, node.saved)
        if not several:
            return _tensor(out, node)
        count = len(outs)
        return tuple(
            _tensor(o, select(node, i, count, o)) if is_real(o) else o for i, o in enumerate(outs)
        )

    def vjp(self, xp: Any, g: Any, node: Node) -> tuple:
        n = len(node.edges)
        call = node.params
        stop = n + (call.outputs or 1)
        if isinstance(g, list):
            g = tuple(g)
        if xp.__class__ is TensorNamespace and not self.differentiable:
            return self._through_composite(g, node)
        needs = tuple(e is not None for e in node.edges)
        out = tuple(node.saved[n:stop]) if call.outputs else node.saved[n]
        extra = tuple(node.saved[stop:])
        cotangents = self.pull(g, out, extra, needs, *node.saved[:n], **call.options)
        if not isinstance(cotangents, (tuple, list)) or len(cotangents) != n:
            got = len(cotangents) if isinstance(cotangents, (tuple, list)) else "no tuple of"
            raise ValueError(
                f"{self.name}: its vjp returned {got} cotangents, needed a tuple of {n}, one for "
                "each tensor argument"
            )
        return tuple(self._checked(i, c, node.edges[i]) for i, c in enumerate(cotangents))

    def _checked(self, i: int, c: Any, edge: Node | None) -> Any:
        if edge is None or c is None:
            return None
        if tuple(c.shape) != tuple(edge.shape) or c.dtype != edge.dtype:
            raise ValueError(
                f"{self.name}: its vjp returned {c.dtype}{tuple(c.shape)} for {self.label(i, 99)}, "
                f"needed {edge.dtype}{tuple(edge.shape)}"
            )
        return c

    def _through_composite(self, g: Any, node: Node) -> tuple:
        from autodiff.transforms import vjp

        if self.composite is None:
            raise RuntimeError(
                f"{self.name}: create_graph needs a composite, or a vjp declared differentiable"
            )
        n = len(node.edges)
        inputs = list(node.saved[:n])
        used = [i for i, e in enumerate(node.edges) if e is not None]
        parts = g if isinstance(g, tuple) else (g,)
        wanted = [k for k, part in enumerate(parts) if part is not None]

        def f(*xs: Any) -> tuple:
            for i, x in zip(used, xs, strict=True):
                inputs[i] = x
            with forms("composite"):
                out = self.composite(tuple(inputs), node.params.options)
            outs = out if node.params.outputs else (out,)
            return tuple(outs[k] for k in wanted)

        _, pullback = vjp(f, *[inputs[i] for i in used])
        found = dict(zip(used, pullback(tuple(parts[k] for k in wanted)), strict=True))
        return tuple(found.get(i) for i in range(n))


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
    grad, and in forward mode.
    """

    def decorate(composite: Callable) -> Callable:
        signature = inspect.signature(composite)
        names = tuple(signature.parameters)
        missing = [t for t in tensors if t not in names]
        if missing:
            raise ValueError(f"fusable: {id} has no argument {', '.join(missing)}")
        smooth = reference or composite
        chosen: dict[Any, _Form | None] = {}

        def run_composite(values: tuple, options: dict) -> Any:
            return smooth(**dict(zip(tensors, values, strict=True)), **options)

        def form_of(backend: Any) -> tuple[_Form, Any] | None:
            if backend not in chosen:
                module = fused.find(id, backend.name)
                if module is None:
                    chosen[backend] = None
                else:
                    prim = _Form(id, tensors, module.forward, module.vjp, run_composite, False)
                    chosen[backend] = (prim, getattr(module, "supports", None))
            return chosen[backend]

        @wraps(composite)
        def call(*args: Any, **options: Any) -> Any:
            if len(args) > len(names) or any(k not in signature.parameters for k in options):
                return composite(*args, **options)
            given = dict(zip(names, args, strict=False))
            if any(k in given for k in options):
                return composite(*args, **options)
            given.update(options)
            values = []
            for name in tensors:
                value = given.pop(name, signature.parameters[name].default)
                if value is inspect.Parameter.empty:
                    return composite(*args, **options)
                values.append(value)
            if any(v.__class__ is Dual for v in values) or any(map(_live, given.values())):
                return smooth(*args, **options)
            if _CHOICE.form == "composite":
                return composite(*args, **options)
            raws = [raw(v) for v in values]
            found = form_of(backend_of(*raws))
            if found is None:
                return composite(*args, **options)
            given = {k: raw(v) for k, v in given.items()}
            prim, supports = found
            if supports is not None and not supports(*raws, **given):
                return composite(*args, **options)
            return prim(tuple(values), given)

        call.composite = composite
        call.id = id
        return call

    return decorate


def custom(
    name: str,
    forward: Callable,
    vjp: Callable,
    *,
    composite: Callable | None = None,
    differentiable: bool = False,
    labels: tuple[str, ...] = ("x", "y", "z"),
) -> Callable:
    """A primitive of the user's own.

    Parameters
    ----------
    name : str
        For messages.
    forward : callable
        ``forward(*arrays, **options) -> (out, saved)`` over raw arrays; out an array or a tuple of
        arrays, saved a tuple of arrays kept besides inputs and outputs.
    vjp : callable
        ``vjp(g, out, saved, needs, *arrays, **options)`` -> a cotangent for each input, None where
        `needs` is False.
    composite : callable, optional
        The same function written with `namespace`: what forward mode and ``create_graph``
        differentiate.
    differentiable : bool
        The vjp itself uses operators and `namespace` alone and keeps nothing besides inputs and
        outputs, so ``create_graph`` may run it on tensors.
    labels : tuple of str
        Names of the inputs.

    Returns
    -------
    callable
        ``f(*tensors_or_arrays, **options)``.

    Examples
    --------
    >>> import numpy as np
    >>> from autodiff import grad
    >>> cube = custom("cube", lambda x: (x**3, ()), lambda g, y, saved, needs, x: (3 * g * x * x,))
    >>> grad(lambda x: cube(x).sum())(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """

    def run_composite(values: tuple, options: dict) -> Any:
        return composite(*values, **options)

    through = None if composite is None else run_composite
    prim = _Form(name, labels, forward, vjp, through, differentiable)

    def call(*tensors: Any, **options: Any) -> Any:
        if any(t.__class__ is Dual for t in tensors):
            if composite is None:
                raise RuntimeError(f"{name}: forward mode needs a composite")
            return composite(*tensors, **options)
        if composite is not None and _CHOICE.form == "composite":
            return composite(*tensors, **options)
        return prim(tensors, options)

    call.__name__ = name
    call.primitive = prim
    return call
