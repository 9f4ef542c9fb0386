"""Gradient checkpointing: drop what the tape saves, compute it again when it is asked for.

Reference: Chen et al. 2016, Training deep nets with sublinear memory cost (arXiv:1604.06174).

A checkpoint keeps the nodes and their order and drops their saved values alone; the first value
that a backward asks for runs the function again and fills in all of them. So gradients have the
bits of the plain run: nothing but memory and time has changed.

C1  Every saved value leaves a checksum. A value that comes back different raises: the function is
    not deterministic, or something it reads was changed.
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from autodiff.forward import LIVE, Lifted, dual, levels, noted, relived
from autodiff.opaque import form_chosen, forms
from autodiff.tape import STATE, WRITES, Held, Node, enable_grad, intercepting, leaf, saving, tick
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, raw
from autodiff.tree import tree_flatten, tree_unflatten
from backends.fused.compiled._loop import available, plain

__all__ = ["checkpoint"]


class _Arguments:
    """Stands where a primitive would, for the arguments that a segment keeps."""

    name = "checkpoint"

    def label(self, position: int, inputs: int) -> str:
        return f"argument leaf {position}"


_ARGUMENTS = _Arguments()
_WORDS, _LINES = 1024, 32  # of 8 bytes, in a row of `_digest`'s table; rows of a block
_LONG = 2**15  # bytes: from here on a compiled loop pays for its call


class _Dropped(Held):
    """The place of one node's saved values."""

    def __init__(self, segment: _Segment, index: int):
        self.segment, self.index, self.kept = segment, index, None

    def values(self, node: Node) -> tuple:
        if self.kept is None:
            self.segment.recompute()
        return self.kept

    def arrays(self) -> list:
        mine = [raw(v) for v in self.kept or () if hasattr(v, "shape")]
        return mine + self.segment.arrays()


class Keeping:
    """A function that keeps arrays between its runs; a checkpoint of it counts them as its own."""

    def arrays(self) -> list:
        raise NotImplementedError


class _Segment:
    """One checkpointed call."""

    def __init__(self, f: Callable, args: tuple, rng: np.random.Generator | None):
        self.f = f
        self.form = form_chosen()
        self.interceptor = None if STATE.interceptor is None else STATE.interceptor.again()
        self.live = frozenset(LIVE)
        self.levels: list[int] = []
        self.rng = rng
        self.state = None if rng is None else rng.bit_generator.state
        flat, self.shape = tree_flatten(args)
        self.others = [None if isinstance(x, Tensor) else x for x in flat]
        self.tracked = [isinstance(x, Tensor) and x.node is not None for x in flat]
        self.is_tensor = [isinstance(x, Tensor) for x in flat]
        # In forward mode saved values carry tangents, which must lead back to the real arguments.
        self.nodes = [getattr(x, "node", None) if self.live else None for x in flat]
        self.sums: list[tuple] = []
        self.summed = _Sums()
        self.places: list[weakref.ref] = []
        self.node = Node()
        self.node.prim = _ARGUMENTS
        self.node.edges = ()
        self.node.seq = tick()
        kept = [x if x.__class__ is Dual else raw(x) for x in flat if isinstance(x, Tensor)]
        self.node.saved = tuple(kept)
        if STATE.saver is not None:
            # An outer checkpoint drops the arguments of an inner one too.
            self.node.saved = STATE.saver(self.node, tuple(kept))

    def drop(self, node: Node, saved: tuple) -> Any:
        if all(v is None for v in saved):
            return saved
        # Kept until f has run: f may differentiate inside itself.
        place = _Dropped(self, len(self.places))
        place.kept = saved
        self.places.append(weakref.ref(place))
        self.sums.append((node.prim, len(node.edges), self.summed.of(saved)))
        return place

    def forget(self) -> None:
        """f has run: from here on its values are dropped."""
        self.summed = None
        for ref in self.places:
            if (place := ref()) is not None:
                place.kept = None

    def recompute(self) -> None:
        count = 0
        summed = _Sums()

        def fill(node: Node, saved: tuple) -> tuple:
            nonlocal count
            if all(v is None for v in saved):
                return saved
            if count < len(self.places):
                self._compare(count, node, summed.of(saved))
                place = self.places[count]()
                if place is not None and place.kept is None:
                    place.kept = saved
            count += 1
            return Lifted(saved) if any(isinstance(v, Tensor) for v in saved) else saved

        args = self._arguments()  # outside the modes: an outer checkpoint may run again for them
        modes = enable_grad(), forms(self.form), relived(self.live), saving(fill)
        modes = *modes, levels((), iter(self.levels)), intercepting(self.interceptor)
        with ExitStack() as stack:
            for mode in (*modes, _rewound(self.rng, self.state)):
                stack.enter_context(mode)
            self.f(*args)
        if count != len(self.sums):
            raise RuntimeError(
                f"checkpoint: {_name(self.f)} is not deterministic: it saved {len(self.sums)} "
                f"times, and {count} times when it was run again"
            )

    def _compare(self, count: int, node: Node, again: tuple) -> None:
        prim, inputs, sums = self.sums[count]
        if prim.name != node.prim.name:
            raise RuntimeError(
                f"checkpoint: {_name(self.f)} is not deterministic: its operation number {count} "
                f"was {prim.name}, and {node.prim.name} when it was run again"
            )
        for i, (old, new) in enumerate(zip(sums, again, strict=False)):
            if old != new:
                raise RuntimeError(
                    f"checkpoint: {_name(self.f)} is not deterministic: the {prim.label(i, inputs)}"
                    f" that {prim.name} saved (number {count}) differs when it was run again; pass "
                    "rng= if it draws random numbers"
                )

    def _arguments(self) -> Any:
        saved = self.node.saved
        if saved.__class__ is not tuple:
            saved = saved.values(self.node)
        if self.node.seq < WRITES.last:
            WRITES.check(self.node, tuple(map(raw, saved)))
        kept = iter(saved)
        flat = []
        for other, tracked, is_tensor, node in zip(
            self.others, self.tracked, self.is_tensor, self.nodes, strict=True
        ):
            if not is_tensor:
                flat.append(other)
                continue
            x = next(kept)
            if tracked and node is None:
                node = leaf(raw(x))
            tangents = x.tangents if x.__class__ is Dual else {}
            flat.append(dual(raw(x), node, tangents) if tangents else _tensor(raw(x), node))
        return tree_unflatten(self.shape, flat)

    def arrays(self) -> list:
        saved = self.node.saved
        held = saved.arrays() if isinstance(saved, Held) else [raw(v) for v in saved]
        return held + (self.f.arrays() if isinstance(self.f, Keeping) else [])


class _Sums:
    """Checksums of the values of one run of f; an array that two nodes save is read once.

    While an entry stands its array cannot die and pass its id on.
    """

    def __init__(self):
        self.known: dict[int, tuple] = {}

    def of(self, saved: tuple) -> tuple:
        return tuple(map(self._one, saved))

    def _one(self, value: Any) -> Any:
        value = raw(value)
        entry = self.known.get(id(value))
        if entry is None or entry[1] < WRITES.last:
            entry = self.known[id(value)] = value, tick(), _checksum(value)
        return entry[2]


def _name(f: Callable) -> str:
    return getattr(f, "__name__", type(f).__name__)


def _checksum(value: Any) -> Any:
    """Shape, dtype and a digest of the bytes.

    A checksum of all bytes would cost as much as the layer. Sums over the rows and the columns of a
    table of words run at the speed of memory, a block that stays in cache at a time; an exchange of
    words leaves both unchanged only if it is made to.
    """
    value = raw(value)
    if not hasattr(value, "shape"):
        return value
    array = value
    if not isinstance(array, (np.ndarray, np.generic)):
        array = backend_of(array).to_numpy(array)
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    words = flat[: flat.size // 8 * 8].view(np.uint64)
    if flat.size >= _LONG and available():
        from backends.fused.compiled.digest import digest

        sums = digest(plain(words))  # wherever it lies: the same values again may lie elsewhere
    else:
        sums = _digest(words)
    return tuple(value.shape), value.dtype, zlib.crc32(flat[words.nbytes :]), sums


def _digest(words: np.ndarray) -> tuple[int, ...]:
    """What a compiled digest does, in NumPy's own passes."""
    table, rest = words[: words.size // _WORDS * _WORDS].reshape(-1, _WORDS), words[words.size // _WORDS * _WORDS :]
    columns, rows = np.zeros(_WORDS if len(table) else 0, np.uint64), np.empty(len(table), np.uint64)
    for i in range(0, len(table), _LINES):
        block = table[i : i + _LINES]
        columns += np.add.reduce(block, 0)
        np.add.reduce(block, 1, out=rows[i : i + _LINES])
    return zlib.crc32(rest), zlib.crc32(columns), zlib.crc32(rows)


@contextmanager
def _rewound(rng: np.random.Generator | None, state: Any):
    if rng is None:
        yield
        return
    now = rng.bit_generator.state
    rng.bit_generator.state = state
    try:
        yield
    finally:
        rng.bit_generator.state = now


def checkpoint(f: Callable, *args: Any, rng: np.random.Generator | None = None) -> Any:
    """``f(*args)``, keeping the arguments for the backward and nothing in between.

    Parameters
    ----------
    f : callable
        Deterministic but for `rng`.
    *args : trees
        Tensors, arrays, anything.
    rng : numpy.random.Generator, optional
        The generator that f draws from. It is rewound while f runs again and put back after, so
        that its later draws are those of a run without checkpoint.

    Returns
    -------
    what f returns

    Raises
    ------
    RuntimeError
        In the backward: f saved other values when it was run again; the message names the first.
    """
    if not STATE.grad:
        return f(*args)
    segment = _Segment(f, args, rng)
    try:
        with saving(segment.drop), noted(segment.levels):
            return f(*args)
    finally:
        segment.forget()
