"""Saved values on their way back to a rule, and the nodes of primitives with several outputs.

A plain backward gives a rule the node itself. Where saved values must be fetched first, or stand as
tensors on their edges (``create_graph``), the rule gets a copy of the node that holds those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy import ndarray

from autodiff.primitive import SCALARS
from autodiff.tape import WRITES, Held, Node, called_at, storage, tick
from autodiff.tensor import Dual, Tensor, raw


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


def plain(node: Node) -> Node:
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
    view.saved = out = []
    for i, value in enumerate(saved):
        if value.__class__ not in SCALARS:
            edge = edges[i] if i < inputs else _output(node, i - inputs, raw(value))
            if value.__class__ is Dual:
                value = _live(value, edge)
            else:
                t = Tensor()
                t.data = value if value.__class__ is ndarray else raw(value)
                t.node = edge
                t.grad = None
                value = t
        out.append(value)
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


def saved_bytes(*outs: Tensor, besides: Sequence[Any] = ()) -> int:
    """Bytes of the arrays that the tape of these tensors keeps for a backward, each once.

    Memory shared by views is counted once, in full; that of `besides` (tensors or arrays: the
    parameters, which are there in any case) not at all.
    """
    stack = [t.node for t in outs if t.node is not None]
    seen = {n.seq for n in stack}
    stores: dict[int, Any] = {}
    while stack:
        node = stack.pop()
        saved = node.saved
        held = saved.arrays() if isinstance(saved, Held) else (saved or ())
        for value in held:
            if hasattr(value, "shape"):
                store = storage(value)
                stores[id(store)] = store
        for edge in node.edges:
            if edge is not None and edge.seq not in seen:
                seen.add(edge.seq)
                stack.append(edge)
    for array in besides:
        stores.pop(id(storage(raw(array))), None)
    return sum(s.nbytes for s in stores.values())
