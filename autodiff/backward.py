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
from autodiff.primitive import TABLE
from autodiff.saved import SELECT, plain, wrapped
from autodiff.space import TensorNamespace, space_of
from autodiff.tape import SPECIAL, STATE, WRITES, Node, enable_grad
from autodiff.tensor import Tensor, _tensor, backend_of, is_complex, raw

_deposits = Lock()
_ndarray = np.ndarray
_add = np.add


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
        saved = node.saved
        if saved.__class__ is tuple and seq > WRITES.last and not (create_graph and saved):
            cotangents = prim.vjp(xp, held.pop(seq), node)
        else:
            cotangents = prim.vjp(xp, held.pop(seq), wrapped(node) if create_graph else plain(node))
        saved = None
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
            elif t.grad is not None:
                t.grad = t.grad + held.pop(key)
            elif held[key].__class__ is _ndarray:
                t.grad = held.pop(key) if _owned(held, key) else held.pop(key).copy()
            elif held[key].__class__ is not Tensor:
                t.grad = _handed_over(held, key)
            else:
                # Another leaf, or the caller, may hold the same tensor.
                g = held.pop(key)
                data = g.data
                data = data.copy() if data.__class__ is _ndarray else backend_of(data).asarray(data, copy=True)
                t.grad = _tensor(data, g.node)
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
