"""The primitive behind a fused form or a function of the user's, and the choice between forms.

Its vjp is opaque to the engine: it works on raw arrays. So under ``create_graph`` the composite is
differentiated in its place, at the saved inputs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any, NamedTuple

from autodiff.primitive import refuse_complex
from autodiff.saved import select
from autodiff.space import TensorNamespace
from autodiff.tape import SPECIAL, STATE, Node, tick
from autodiff.tensor import Tensor, _tensor, is_real, raw

__all__ = ["Opaque", "form_chosen", "forms"]


class _Choice(threading.local):
    form = "compiled"


_CHOICE = _Choice()


class forms(ContextDecorator):  # noqa: N801  a context manager, spelt as a function
    """Context of this thread: which form `fusable` functions take.

    Parameters
    ----------
    form : "compiled", "fused" or "composite"
        The fastest to take where it is there and supports the call. "compiled", the default: loops that Numba has
        compiled for NumPy's arrays, else what "fused" takes: NumPy's own passes or a CUDA kernel, else the composite.
    """

    def __init__(self, form: str):
        if form not in ("compiled", "fused", "composite"):
            raise ValueError(f"forms: got {form!r}; needs 'compiled', 'fused' or 'composite'")
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


class Opaque:
    """The primitive behind one fused module or custom function."""

    kind = None
    jvp = None
    reads_output = True  # else the tape does not keep it

    def __init__(self, name: str, labels: tuple, forward: Callable, vjp: Callable,
                 composite: Callable | None, differentiable: bool, reads_output: bool = True):
        self.name, self.labels = name, labels
        self.forward, self.pull = forward, vjp
        self.composite, self.differentiable = composite, differentiable
        self.reads_output = reads_output

    def label(self, position: int, inputs: int) -> str:
        if position >= inputs:
            return f"output or intermediate {position - inputs}"
        name = self.labels[position] if position < len(self.labels) else "input"
        return f"argument {position} ({name})"

    def __call__(self, tensors: tuple, options: dict) -> Any:
        between = STATE.interceptor if SPECIAL else None
        if between is not None:
            tensors = between.arguments(self, tensors)
        raws = tuple([raw(t) for t in tensors])
        out, extra = (self.forward(*raws, **options) if between is None
                      else between.run(self, self.forward, raws, options))  # fmt: skip
        if not any(isinstance(t, Tensor) for t in tensors):
            return out
        edges = tuple([t.node if isinstance(t, Tensor) else None for t in tensors])
        several = isinstance(out, (tuple, list))
        outs = tuple(out) if several else (out,)
        if any(e is not None for e in edges):
            refuse_complex(self.name, *raws, *outs)
        if SPECIAL and STATE.watch is not None:
            STATE.watch.made(self, raws, outs)
        if not STATE.grad or all(e is None for e in edges):
            made = tuple(_tensor(o, None) for o in outs)
            return made if several else made[0]
        node = Node()
        node.prim = self
        node.edges = edges
        node.params = _Call(len(outs) if several else 0, options)
        node.shape, node.dtype = outs[0].shape, outs[0].dtype
        node.seq = tick()
        node.saved = (*raws, *(outs if self.reads_output else [None] * len(outs)), *extra)
        if SPECIAL and STATE.watch is not None:
            STATE.watch.recorded(node)
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
            asked = [self.label(i, 99) for i, e in enumerate(node.edges) if e is not None]
            raise RuntimeError(
                f"{self.name}: create_graph needs a composite, or a vjp declared differentiable, "
                f"to give {' and '.join(asked)} a gradient that can be differentiated again"
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
