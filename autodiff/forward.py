"""Forward mode: tangents, tagged by level.

Each `jvp` takes a new level, higher than those around it. A `Dual` carries its tangents by level;
the tangent at level L is computed from values that carry the levels below L only, so a
derivative inside a derivative can never mistake one direction for the other.

Few primitives need a rule of their own. An elementwise Jacobian is diagonal, hence its own
transpose, and the vjp rule serves; a linear function is its own derivative, a multilinear one the
sum over its inputs. For the rest J t = d/dg <J^T g, t>: the vjp rule is linear in g, so its own
vjp, at any g, is J.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from autodiff.backward import sweep, turned
from autodiff.primitive import cast
from autodiff.space import space_of
from autodiff.tape import SPECIAL, STATE, Held, Node, enable_grad, leaf
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, is_complex, raw

LIVE: set[int] = set()


class _Levels(threading.local):
    made: tuple[list[int], ...] = ()  # where running checkpoints note the levels of jvps in them
    again: Iterator[int] = iter(())  # levels to take again: a checkpoint runs a second time


_LEVELS = _Levels()


def new_level(clock: Callable[[], int]) -> int:
    """A level by the clock, or while a checkpoint runs again the one of the first run."""
    level = next(_LEVELS.again, None) or clock()
    for made in _LEVELS.made:
        made.append(level)
    return level


@contextmanager
def levels(made: tuple[list[int], ...], again: Iterator[int]) -> Iterator[None]:
    """Note new levels in `made`, and take them from `again` first."""
    before = _LEVELS.made, _LEVELS.again
    _LEVELS.made, _LEVELS.again = made, again
    try:
        yield
    finally:
        _LEVELS.made, _LEVELS.again = before


def noted(made: list[int]) -> AbstractContextManager:
    """Note in `made`, too, the levels of what runs inside."""
    return levels((*_LEVELS.made, made), _LEVELS.again)


@contextmanager
def relived(levels: Set[int]) -> Iterator[None]:
    """These levels count as live: what ran under them runs again."""
    ended = levels - LIVE
    LIVE.update(ended)
    try:
        yield
    finally:
        LIVE.difference_update(ended)


class Lifted(Held):
    """Saved values of which some carry tangents."""

    def __init__(self, kept: tuple):
        self.kept = kept

    def values(self, node: Node) -> tuple:
        return self.kept

    def reach(self) -> tuple:
        """What leads on from here besides the edges of the node."""
        return self.kept

    def arrays(self) -> list:
        return [raw(v) for v in self.kept if hasattr(v, "shape")]


class Relifted(Lifted):
    """Saved values with the output among them, whose tangents are on the tape.

    Those tangents are made of the output, so their nodes lead back to the node that would hold
    them: a cycle. They are made again from the arguments when they are asked for.
    """

    def __init__(self, prim: Any, args: tuple, params: dict, kept: tuple, levels: list[int]):
        self.prim, self.args, self.params, self.levels = prim, args, params, levels
        self.kept = (*kept[: len(args)], raw(kept[len(args)]))

    def without_tangents(self, node: Node) -> tuple:
        return self.kept

    def values(self, node: Node) -> tuple:
        out = Dual()
        out.data, out.node, out.tangents = self.kept[-1], node, {}
        live = [k for k in self.levels if k in LIVE]
        with enable_grad():
            _differentiate(self.prim, self.args, self.params, out, live)
        return (*self.kept[:-1], dual(out.data, None, out.tangents))

    def reach(self) -> tuple:
        return (*self.kept, *self.args)


def dual(data: Any, node: Node | None, tangents: dict[int, Any]) -> Tensor:
    """A tensor with these tangents; a plain one when there are none."""
    if not tangents:
        return _tensor(data, node)
    d = Dual()
    d.data = data
    d.node = node
    d.tangents = tangents
    return d


def live(value: Dual, node: Node | None) -> Tensor:
    """`value` on another node, without the tangents of transforms that have ended."""
    return dual(value.data, node, {k: t for k, t in value.tangents.items() if k in LIVE})


def below(x: Any, level: int) -> Any:
    """`x` with the tangents below `level`; a raw array when nothing is left to differentiate."""
    if not isinstance(x, Tensor):
        return x
    lower = {}
    if x.__class__ is Dual:
        lower = {k: t for k, t in x.tangents.items() if k < level and k in LIVE}
    if lower or x.node is not None:
        return dual(x.data, x.node, lower)
    return x.data


def push(prim: Any, args: tuple, params: dict, data: Any, node: Node | None) -> Tensor:
    """The result of a primitive on duals: its data and node are there, its tangents are made."""
    levels = sorted({k for a in args if a.__class__ is Dual for k in a.tangents if k in LIVE})
    out = Dual()
    out.data = data
    out.node = node
    out.tangents = {}
    _differentiate(prim, args, params, out, levels)
    if node is not None:
        if levels:
            needs = tuple([e is not None for e in node.edges])
            held = tuple([a if a.__class__ is Dual else raw(a) for a in args])
            kept = prim.keep(needs, (*held, dual(data, None, out.tangents)))
        else:
            kept = node.saved
        if SPECIAL and STATE.saver is not None:
            node.saved = STATE.saver(node, kept)
        elif len(kept) > len(args) and _taped(kept[len(args)]):
            node.saved = Relifted(prim, args, params, kept, levels)
        elif any(isinstance(v, Tensor) for v in kept):
            node.saved = Lifted(kept)
    return out if levels else _tensor(data, node)


def _differentiate(prim: Any, args: tuple, params: dict, out: Dual, levels: list[int]) -> None:
    """Fill in the tangents of `out`, from the lowest level up."""
    for level in levels:
        tangents = [a.tangents.get(level) if a.__class__ is Dual else None for a in args]
        values = [below(a, level) for a in args]
        lower = below(out, level)
        out.tangents[level] = _tangent(prim, values, tangents, params, lower, out.data)


def _taped(x: Any) -> bool:
    """Whether a value, or a tangent of it, is on the tape."""
    if x.__class__ is Dual and any(map(_taped, x.tangents.values())):
        return True
    return isinstance(x, Tensor) and x.node is not None


def _tangent(
    prim: Any, values: list, tangents: list, params: dict, out: Any, data: Any
) -> Any:
    some = any(isinstance(x, Tensor) for x in (*values, *tangents, out))
    backend = backend_of(data)
    xp = space_of(backend) if some else backend
    used = [i for i, t in enumerate(tangents) if t is not None]
    if some:
        # A rule's operators need tensors on both sides, or arrays on both.
        values = [_as_tensor(v) for v in values]
        tangents = [_as_tensor(t) for t in tangents]
        out = _as_tensor(out)
    if prim.jvp is not None:
        return prim.jvp(xp, tangents, _context(prim, values, params, out, used, None))
    if prim.kind == "linear":
        if len(values) > 1:
            pairs = zip(tangents, values, strict=True)
            tangents = [backend.zeros_like(raw(v)) if t is None else t for t, v in pairs]
        return prim(*tangents, **params)
    if prim.kind == "multilinear":
        parts = [prim(*values[:i], tangents[i], *values[i + 1 :], **params) for i in used]
    elif prim.kind == "elementwise" and (is_complex(data) or not _any_complex(values)):
        parts = []
        for i in used:
            t = tangents[i]
            if t.dtype != data.dtype:
                t = cast(xp, t, data.dtype)
            if t.shape != data.shape:
                t = xp.broadcast_to(t, data.shape)
            context = _context(prim, values, params, out, [i], data)
            parts.append(prim.vjp(xp, t, context)[i])
    else:
        return _transposed(prim, values, tangents, params, out, data, some)
    total = parts[0]
    for part in parts[1:]:
        total = xp.add(total, part)
    return total


def _any_complex(values: list) -> bool:
    """A real result of complex numbers has no diagonal Jacobian."""
    return any(is_complex(v) for v in values if hasattr(v, "dtype"))


def _as_tensor(x: Any) -> Any:
    return _tensor(x, None) if hasattr(x, "shape") and not isinstance(x, Tensor) else x


def _context(prim: Any, values: list, params: Any, out: Any, used: list, like: Any) -> Node:
    """What a rule reads, without a tape: `used` inputs need a cotangent, shaped as `like`."""
    node = Node()
    node.prim = prim
    node.params = params
    node.edges = tuple(
        leaf(raw(v) if like is None else like) if i in used else None for i, v in enumerate(values)
    )
    node.saved = prim.keep(tuple([e is not None for e in node.edges]), (*values, out))
    return node


def _transposed(
    prim: Any, values: list, tangents: list, params: dict, out: Any, data: Any, some: bool
) -> Any:
    backend = backend_of(data)
    zero = backend.zeros_like(data)
    source = leaf(zero)
    xp = space_of(backend)
    used = [i for i, t in enumerate(tangents) if t is not None]
    with enable_grad():
        g = _tensor(zero, source)
        values = [_as_tensor(v) for v in values]
        out = _as_tensor(out)
        cotangents = prim.vjp(xp, g, _context(prim, values, params, out, used, None))
        seeds = []
        for i in used:
            c = cotangents[i]
            if isinstance(c, Tensor) and c.node is not None:
                # J t, not its adjoint: undo the conjugates of the sweep.
                seeds.append((c.node, turned(tangents[i])))
        found = sweep(seeds, xp if some else backend, not some, {source.seq: 0}, source.seq)
        return turned(found.get(source.seq, zero))
