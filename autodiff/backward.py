"""Reverse mode: one sweep over the tape, from the latest node to the earliest.

Order and bits. Nodes leave a heap by descending `seq`; a cotangent that arrives at a node that
has one already is added to it. So fan-out is summed in descending order of the consumers, and
within one consumer by argument, in every run. A leaf forms the sum of the whole sweep before it
adds it to ``grad``.

Ownership. A cotangent may be a view of another, or the same array twice (the rule of `add` returns
``g, g``). It is written into, or handed over as ``grad`` without a copy, only when nothing else can
see it: the reference count says that the sweep alone holds the array and the memory under it.

Memory. A plain sweep frees each node's saved values as it passes, and each cotangent as it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from sys import getrefcount
from threading import Lock
from typing import Any

import numpy as np

from autodiff.hooks import AFTER, ON, run_hooks
from autodiff.primitive import SCALARS, TABLE
from autodiff.space import TensorNamespace, space_of
from autodiff.tape import SPECIAL, STATE, WRITES, Node, called_at, enable_grad, tick
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, is_complex, raw

_deposits = Lock()
_ndarray = np.ndarray
_add = np.add


class _Select:
    """Output `index` of a primitive with several; its cotangent takes its place in a list."""

    name = "select"
    kind = "select"
    _plans: dict = {}

    def plan(self, needs: tuple) -> tuple:
        return self._plans.setdefault(needs, (False,))

    def label(self, position: int, inputs: int) -> str:
        return "output"


SELECT = _Select()


def select(main: Node, index: int, count: int, out: Any) -> Node:
    """Node of one output of `main`."""
    node = Node()
    node.prim = SELECT
    node.edges = (main,)
    node.saved = ()
    node.params = (index, count)
    node.shape = out.shape
    node.dtype = out.dtype
    node.seq = tick()
    return node


# --- saved values -----------------------------------------------------------------------------


def unpack(node: Node, tangents: bool = True) -> tuple:
    """Saved values; raises when they were freed, or written in place since."""
    saved = node.saved
    if saved.__class__ is not tuple:
        if saved is None:
            raise RuntimeError(
                f"backward of {node.prim.name}: its saved values were freed by an earlier "
                "backward; pass retain_graph=True to that one to go through the graph twice"
                f"{called_at(node)}"
            )
        saved = saved.values(node) if tangents else saved.without_tangents(node)
    if node.seq < WRITES.last:
        WRITES.check(node, tuple(map(raw, saved)))
    return saved


def _plain(node: Node) -> Node:
    """`node` with its saved values as raw arrays."""
    view = _view(node)
    view.saved = tuple(map(raw, unpack(node, False)))
    return view


def wrapped(node: Node) -> Node:
    """`node` with its saved values as tensors on the edges they came from."""
    view = _view(node)
    edges = node.edges
    inputs = len(edges)
    saved = node.saved
    if saved.__class__ is not tuple or node.seq < WRITES.last:
        saved = unpack(node)
    out = []
    for i, value in enumerate(saved):
        if value.__class__ not in SCALARS:
            edge = edges[i] if i < inputs else _output(node, i - inputs, raw(value))
            if value.__class__ is Dual:
                value = _live(value, edge)
            else:
                t = Tensor()
                t.data = raw(value)
                t.node = edge
                value = t
        out.append(value)
    view.saved = out
    return view


def _view(node: Node) -> Node:
    view = Node()
    view.prim = node.prim
    view.edges = node.edges
    view.params = getattr(node, "params", None)
    view.shape = node.shape
    view.dtype = node.dtype
    view.seq = node.seq
    return view


def _output(node: Node, index: int, value: Any) -> Node | None:
    outputs = getattr(getattr(node, "params", None), "outputs", 1)
    if index >= max(outputs, 1):
        return None  # what a fused form keeps besides inputs and outputs
    return select(node, index, outputs, value) if outputs > 1 else node


def _live(value: Dual, edge: Node | None) -> Tensor:
    from autodiff.forward import live

    return live(value, edge)


def turned(g: Any) -> Any:
    """A complex `g` conjugated: from a gradient to what the rules pass on, or back."""
    return TABLE["conj"](g) if is_complex(g) else g


# --- adding cotangents ------------------------------------------------------------------------


def _owned(held: dict, key: int) -> bool:
    """Whether the sweep alone holds ``held[key]`` and its memory (so it may be written into)."""
    # The dict's reference, and the argument of the call.
    if getrefcount(held[key]) != 2 or held[key].__class__ is not _ndarray:
        return False
    if held[key].base is None:
        return True
    # The view's reference, and the argument of the call; a local name may or may not count.
    if held[key].base.__class__ is not _ndarray or getrefcount(held[key].base) != 2:
        return False
    base = held[key].base
    return base.base is None and base.size == held[key].size and held[key].flags.writeable


def _handed_over(held: dict, key: int) -> Any:
    """The finished cotangent, as memory of its own."""
    if held[key].__class__ is _ndarray:
        return held.pop(key) if _owned(held, key) else held.pop(key).copy()
    g = held.pop(key)
    if isinstance(g, (Tensor, np.generic)):
        return g
    return backend_of(g).asarray(g, copy=True)


def sweep(
    seeds: Iterable[tuple[Node, Any]],
    xp: Any,
    free: bool,
    wanted: dict[int, int] | None = None,
    floor: int = 0,
) -> dict[int, Any] | None:
    """Push cotangents from the seeds down the tape.

    Parameters
    ----------
    seeds : pairs of node and cotangent
        Where to begin.
    xp : Backend or TensorNamespace
        A backend: cotangents are raw arrays. A tensor namespace: they are tensors, and the rules
        record themselves.
    free : bool
        Drop saved values on the way.
    wanted : dict with node seqs as keys, optional
        Return the cotangents of these nodes instead of adding to the ``grad`` of leaves.
    floor : int
        Nodes older than this cannot reach a wanted one and are left out.

    Returns
    -------
    dict of seq to cotangent, or None

    Notes
    -----
    Complex cotangents are conjugated on the way in and on the way out (see `rules_complex`).
    """
    create_graph = xp.__class__ is TensorNamespace
    held: dict[int, Any] = {}
    heap: list[tuple[int, Node]] = []
    leaves: list[Node] = []
    found: dict[int, Any] = {}
    for node, g in seeds:
        seq = node.seq
        g = turned(g)
        if seq in held:
            held[seq] = held[seq] + g
            continue
        held[seq] = g
        if node.prim is None:
            leaves.append(node)
        else:
            heappush(heap, (-seq, node))
    seeds = g = None
    watch = STATE.watch if SPECIAL else None
    waiting = _uses([n for _, n in heap]) if AFTER and wanted is None else None
    while heap:
        seq, node = heappop(heap)
        seq = -seq
        prim = node.prim
        if ON and seq in ON:
            held[seq] = run_hooks(node, held[seq])
        if wanted is not None and seq in wanted:
            found[seq] = turned(held.pop(seq))
            continue
        if prim is SELECT:
            _to_output(node, held.pop(seq), held, heap)
            continue
        if watch is not None:
            watch.arrives(node, held[seq])
        if node.saved == () and seq > WRITES.last:
            cotangents = prim.vjp(xp, held.pop(seq), node)
        elif create_graph:
            cotangents = prim.vjp(xp, held.pop(seq), wrapped(node))
        elif node.saved.__class__ is tuple and seq > WRITES.last:
            cotangents = prim.vjp(xp, held.pop(seq), node)
        else:
            cotangents = prim.vjp(xp, held.pop(seq), _plain(node))
        if watch is not None:
            watch.pulled(node, cotangents)
        if free:
            node.saved = None
        for edge, g in zip(node.edges, cotangents, strict=False):
            if g is not None and edge is not None:
                key = edge.seq
                if key in held:
                    if g.__class__ is _ndarray and _owned(held, key):
                        _add(held[key], g, held[key])
                    else:
                        held[key] = held[key] + g
                elif key >= floor:
                    held[key] = g
                    if edge.prim is None:
                        leaves.append(edge)
                    else:
                        heappush(heap, (-key, edge))
        # Names that would keep the last cotangents alive, and so never owned.
        g = cotangents = None
        if waiting is not None:
            _finish(node, waiting, leaves, held)
    if wanted is not None:
        for edge in leaves:
            if edge.seq in wanted:
                if ON and edge.seq in ON:
                    held[edge.seq] = run_hooks(edge, held[edge.seq])
                found[edge.seq] = turned(_handed_over(held, edge.seq))
        return found
    _deposit(leaves, held)
    return None


def _to_output(node: Node, g: Any, held: dict, heap: list) -> None:
    main = node.edges[0]
    index, count = node.params
    if main.seq not in held:
        held[main.seq] = [None] * count
        heappush(heap, (-main.seq, main))
    parts = held[main.seq]
    parts[index] = g if parts[index] is None else parts[index] + g


def _finish(node: Node, waiting: dict, leaves: list, held: dict) -> None:
    """Hand over each leaf whose last use was this node."""
    for edge in node.edges:
        if edge is not None and edge.prim is None:
            waiting[edge.seq] -= 1
            if not waiting[edge.seq] and edge.seq in held:
                leaves.remove(edge)
                _deposit([edge], held)


def _uses(roots: Iterable[Node]) -> dict[int, int]:
    """How many edges lead to each leaf: when all are spent, its gradient is complete."""
    counts: dict[int, int] = {}
    stack = list(roots)
    seen = {n.seq for n in stack}
    while stack:
        for edge in stack.pop().edges:
            if edge is None:
                continue
            if edge.prim is None:
                counts[edge.seq] = counts.get(edge.seq, 0) + 1
            elif edge.seq not in seen:
                seen.add(edge.seq)
                stack.append(edge)
    return counts


def _deposit(leaves: list[Node], held: dict) -> None:
    """Hand the finished sums of leaves to their tensors."""
    for node in leaves if ON else ():
        if node.seq in ON:
            held[node.seq] = run_hooks(node, held[node.seq])
    for node in leaves:
        if is_complex(node):
            held[node.seq] = turned(held[node.seq])
    with _deposits:
        for node in leaves:
            key = node.seq
            t = node.tensor()
            if t is None:
                del held[key]
            elif t._grad is not None:
                t._grad = t._grad + held.pop(key)
            elif getrefcount(held[key]) == 2 and held[key].__class__ is _ndarray and (
                held[key].base is None
            ):
                t._grad = held.pop(key)
            elif held[key].__class__ is Tensor:
                # Another leaf, or the caller, may hold the same tensor.
                g = held.pop(key)
                t._grad = _tensor(backend_of(g.data).asarray(g.data, copy=True), g.node)
            else:
                t._grad = _handed_over(held, key)
    for node in leaves if AFTER else ():
        for hook in tuple(AFTER.get(node.seq, {}).values()):
            if (t := node.tensor()) is not None:
                hook(t)


# --- the method -------------------------------------------------------------------------------


def backward(
    t: Tensor, gradient: Any = None, *, retain_graph: bool = False, create_graph: bool = False
) -> None:
    """Add d(self)/d(leaf), contracted with `gradient`, to ``leaf.grad`` of every leaf.

    Parameters
    ----------
    gradient : dtype[shape], optional
        Cotangent of this tensor; needed unless it has one value.
    retain_graph : bool
        Keep the saved values for another backward.
    create_graph : bool
        Record the backward itself, so that gradients can be differentiated; keeps the graph too.

    Raises
    ------
    RuntimeError
        No graph, a graph already freed, or a saved value changed in place.
    ValueError, TypeError
        `gradient` is missing, or has another shape or dtype.
    """
    node = t.node
    if node is None:
        raise RuntimeError(
            "backward: this tensor has no graph; none of its inputs had requires_grad=True, or "
            "it was made under no_grad()"
        )
    data = t.data
    backend = backend_of(data)
    if gradient is None:
        if data.size != 1 or is_complex(data):
            kind = f"{t.dtype} " if is_complex(data) else ""
            raise ValueError(
                f"backward: {kind}tensor of shape {t.shape} needs a gradient of that shape; only a "
                "single real value has 1 as its default"
            )
        gradient = backend.ones_like(data)
    elif (
        gradient.__class__ is not data.__class__
        or gradient.shape != data.shape
        or gradient.dtype is not data.dtype
    ):
        gradient = checked(gradient, data, "backward: gradient")
    if create_graph:
        g = gradient if isinstance(gradient, Tensor) else _tensor(gradient, None)
        if STATE.grad:
            sweep(((node, g),), space_of(backend), False)
        else:
            with enable_grad():
                sweep(((node, g),), space_of(backend), False)
        return
    seeds = iter(((node, raw(gradient)),))
    del gradient
    sweep(seeds, backend, not retain_graph)


Tensor.backward = backward


def checked(g: Any, like: Any, name: str) -> Any:
    """`g` as a cotangent or tangent of the array `like`: same backend, shape and dtype."""
    if isinstance(g, (bool, int, float)) or (isinstance(g, complex) and is_complex(like)):
        g = backend_of(like).asarray(g, dtype=like.dtype)
    if g.__class__ is complex:
        raise TypeError(f"{name} is the complex number {g}, needed {like.dtype}")
    if backend_of(raw(g)) is not backend_of(like):
        raise TypeError(f"{name} is a {type(raw(g)).__name__}, needed a {type(like).__name__}")
    if tuple(g.shape) != tuple(like.shape):
        raise ValueError(f"{name} has shape {tuple(g.shape)}, needed {tuple(like.shape)}")
    if g.dtype != like.dtype:
        raise TypeError(f"{name} has dtype {g.dtype}, needed {like.dtype}")
    return g
