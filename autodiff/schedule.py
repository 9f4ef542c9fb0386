"""Checkpointing a chain by a schedule: states are kept, dropped and run again as a list of actions says.

Reference: Griewank & Walther 2000, Algorithm 799 (the actions of its `revolve`).

    snapshot i     keep the current state, the input of layer i
    advance i j    run layers i .. j - 1, keeping nothing
    restore i      go back to the kept state i
    discard i      free it
    turn i         run layer i with its tape; the backward passes through it

C1  The actions up to the first turn are the forward. The rest runs in the backward, each part as soon
    as the backward asks for what a layer saved.
C2  As under `checkpoint` the graph keeps its nodes and their order, and loses saved values alone: the
    gradients have the bits of the plain run, also with weights shared and differentiated twice.
C3  With a unit a layer the tape holds the kept states and one unit more, the layer being turned.
C4  In forward mode, where saved values carry tangents, the input of every layer is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from autodiff.checkpoint import _ARGUMENTS, _rewound, checkpoint
from autodiff.forms import form_chosen, forms
from autodiff.tape import STATE, WRITES, Held, Node, intercepting, no_grad, saving, tick
from autodiff.tensor import Dual, Tensor, _tensor, raw
from autodiff.tree import tree_flatten, tree_unflatten

__all__ = ["Action", "checkpoint_schedule"]


class Action(NamedTuple):
    """One step of a schedule; `to` is `at` for snapshot, restore and discard, `at` + 1 for turn."""

    kind: str
    at: int
    to: int


def checkpoint_schedule(
    fs: Sequence[Callable], x: Any, schedule: Sequence[Action], *, rng: np.random.Generator | None = None
) -> Any:
    """``fs[-1](...fs[0](x))``, reversed in the backward as the schedule says.

    Parameters
    ----------
    fs : sequence of callables
        Layers, each from one value to one; deterministic but for `rng`.
    x : tree
    schedule : sequence of Action
        Turns go from the last layer to the first (`training.revolve` makes such a list).
    rng : numpy.random.Generator, optional
        As for `checkpoint`.

    Returns
    -------
    what the last layer returns

    Raises
    ------
    ValueError
        An action that cannot be done where it stands, or layers that are never turned.
    RuntimeError
        In the backward: a layer saved other values when it was run again; the message names the first.
    """
    actions = check(len(fs), schedule)
    if not STATE.grad:
        for f in fs:
            x = f(x)
        return x
    run = _Run(fs, iter(actions), rng)
    for action in run.actions:
        if action.kind == "turn":
            return fs[action.at](x)
        if action.kind == "snapshot":
            run.kept[action.at] = _Kept(x, run.outer)
        else:
            for i in range(action.at, action.to):
                x = run.forward(i, x)
    raise AssertionError("unreachable: a checked schedule turns its last layer")


def check(n: int, schedule: Sequence[Action]) -> list[Action]:
    """The schedule as a list of Actions, if a chain of n layers can follow it; ValueError if not."""
    actions = [Action(*a) for a in schedule]
    kept: set[int] = set()
    at, end = 0, n
    for k, a in enumerate(actions):
        legal = {
            "snapshot": a.at == at and at not in kept,
            "advance": a.at == at and at < a.to < end,
            "restore": a.at in kept and a.at < end,
            "discard": a.at in kept,
            "turn": a.at == at == end - 1,
        }
        if a.kind not in legal:
            raise ValueError(f"checkpoint_schedule: action {k} is {a.kind!r}; needed one of {', '.join(legal)}")
        if not legal[a.kind]:
            raise ValueError(
                f"checkpoint_schedule: action {k}, {a.kind} {a.at} {a.to}, cannot be done in state {at} with "
                f"states {sorted(kept)} kept and layers 0 .. {end - 1} of {n} to turn"
            )
        if a.kind == "snapshot":
            kept.add(at)
        elif a.kind == "discard":
            kept.remove(a.at)
        elif a.kind == "turn":
            at, end = None, end - 1
        else:
            at = a.to if a.kind == "advance" else a.at
    if end or not n:
        raise ValueError(f"checkpoint_schedule: layers 0 .. {end - 1} of {n} are never turned")
    return actions


class _Kept:
    """A kept state, off the tape; an outer checkpoint may drop it like any saved value."""

    def __init__(self, x: Any, outer: Callable | None):
        flat, self.shape = tree_flatten(x)
        self.others = [None if isinstance(v, Tensor) else v for v in flat]
        self.is_tensor = [isinstance(v, Tensor) for v in flat]
        self.node = node = Node()
        node.prim, node.edges, node.seq = _ARGUMENTS, (), tick()
        node.saved = tuple([raw(v) for v in flat if isinstance(v, Tensor)])
        if outer is not None:
            node.saved = outer(node, node.saved)

    def value(self) -> Any:
        saved = self.node.saved
        if isinstance(saved, Held):
            saved = saved.values(self.node)
        if self.node.seq < WRITES.last:
            WRITES.check(self.node, tuple(map(raw, saved)))
        tensors = iter(saved)
        pairs = zip(self.others, self.is_tensor, strict=True)
        return tree_unflatten(self.shape, [_tensor(raw(next(tensors)), None) if t else v for v, t in pairs])

    def arrays(self) -> list:
        saved = self.node.saved
        return saved.arrays() if isinstance(saved, Held) else [raw(v) for v in saved]


class _Run:
    """A chain under way: the actions still to come, the kept states, and what running again needs."""

    def __init__(self, fs: Sequence[Callable], actions: Any, rng: np.random.Generator | None):
        self.fs, self.actions, self.rng = fs, actions, rng
        self.outer, self.form = STATE.saver, form_chosen()
        self.interceptor = None if STATE.interceptor is None else STATE.interceptor.again()
        self.kept: dict[int, _Kept] = {}
        self.draws: list[Any] = []
        self.state: Any = None

    def forward(self, i: int, x: Any) -> Any:
        """The output of layer i; what it saved, its input too, is dropped."""
        self.draws.append(None if self.rng is None else self.rng.bit_generator.state)
        with saving(lambda node, saved: saved if _live(saved) else _Input(self, i)):
            return checkpoint(self.fs[i], x, rng=self.rng)

    def input_of(self, i: int) -> tuple:
        """The arrays of state i: follow the schedule to the turn of layer i."""
        for a in self.actions:
            if a.kind == "snapshot":
                self.kept[a.at] = _Kept(self.state, None)
            elif a.kind == "advance":
                self._advance(a.at, a.to)
            elif a.kind == "restore":
                self.state = self.kept[a.at].value()
            elif a.kind == "discard":
                del self.kept[a.at]
            else:
                state, self.state = self.state, None
                if a.at == i:
                    return tuple([raw(v) for v in tree_flatten(state)[0] if isinstance(v, Tensor)])
        raise RuntimeError(
            f"checkpoint_schedule: a backward asks for layer {i} after its turn; the layers must be "
            "gone through from the last to the first"
        )

    def _advance(self, start: int, stop: int) -> None:
        for k in range(start, stop):
            with no_grad(), forms(self.form), intercepting(self.interceptor), _rewound(self.rng, self.draws[k]):
                self.state = self.fs[k](self.state)

    def arrays(self) -> list:
        state = [raw(v) for v in tree_flatten(self.state)[0] if hasattr(v, "shape")]
        return state + [a for kept in self.kept.values() for a in kept.arrays()]


def _live(saved: tuple) -> bool:
    return any(v.__class__ is Dual for v in saved)


class _Input(Held):
    """The place of a layer's dropped input."""

    def __init__(self, run: _Run, i: int):
        self.run, self.i = run, i

    def values(self, node: Node) -> tuple:
        return self.run.input_of(self.i)

    def arrays(self) -> list:
        return self.run.arrays()
