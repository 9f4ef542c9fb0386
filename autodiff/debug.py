"""Debug mode: find the write, and the operation, that a wrong number comes from.

D1  Saved arrays cannot be written for the life of their node: NumPy raises at the write itself.
    The array and what it is a view of are frozen; another view made earlier is out of reach.
D2  A NaN that no argument had, or an infinity out of finite arguments, raises and names the
    primitive that made it, forward and backward. Infinities that arrive (masks) are no error.
D3  Every node remembers where its forward was called, and errors of its backward say it.

Off, it costs nothing: operations look at one empty set, as for every other mode.
"""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from autodiff.tape import STATE, TRACES, Held, Node, called_at, saving, watching
from autodiff.tensor import backend_of, is_complex, is_real, raw

_OURS = tuple(str(Path(__file__).resolve().parents[1] / top) for top in ("autodiff", "backends"))
_FRAMES = 4


@contextmanager
def debug(*, freeze: bool = True, nonfinite: bool = True) -> Iterator[None]:
    """Context or decorator of this thread: raise where a wrong number is made.

    Parameters
    ----------
    freeze : bool
        Make saved arrays read-only until their backward has run or their graph is gone.
    nonfinite : bool
        Raise FloatingPointError where a NaN or an infinity appears.

    Raises
    ------
    ValueError
        By NumPy: a write into a saved array.
    FloatingPointError
        A NaN or an infinity was made; the message names the primitive and where it was called.

    Examples
    --------
    >>> from autodiff import tensor
    >>> x = tensor([1.0, 4.0], requires_grad=True)
    >>> with debug():
    ...     y = (x * x).sum()
    >>> x.data[0] = 2.0
    Traceback (most recent call last):
    ValueError: assignment destination is read-only
    >>> y.backward()
    >>> x.data[0] = 2.0
    """
    outer = STATE.saver

    def saver(node: Node, saved: tuple) -> Any:
        saved = saved if outer is None else outer(node, saved)
        if saved.__class__ is not tuple or all(v is None for v in saved):
            return saved
        return _Frozen(saved)

    with watching(_Watch(nonfinite)), saving(saver if freeze else outer):
        yield


# --- where it was called ----------------------------------------------------------------------


def _stack() -> str:
    """The innermost frames outside the engine."""
    frames = [f for f in traceback.extract_stack() if not f.filename.startswith(_OURS)]
    lines = [f"  {f.filename}:{f.lineno} in {f.name}: {f.line}" for f in frames[-_FRAMES:]]
    return "\n".join(lines)


# --- numbers that are not finite --------------------------------------------------------------


def _bad(x: Any) -> str:
    """'nan', 'inf' or '' for an array."""
    x = raw(x)
    if not hasattr(x, "dtype"):
        return "nan" if x != x else "inf" if x in (np.inf, -np.inf) else ""
    if not is_real(x) and not is_complex(x):
        return ""
    xp = backend_of(x)
    if bool(xp.any(xp.isnan(x))):
        return "nan"
    return "inf" if bool(xp.any(xp.isinf(x))) else ""


def _new(out: Any, known: list[str]) -> str:
    """What `out` has that none of its sources had: a NaN, or the first infinity."""
    kind = _bad(out)
    if kind == "nan" and "nan" not in known:
        return "NaN"
    return "an infinity" if kind == "inf" and not any(known) else ""


def _said(x: Any) -> str:
    x = raw(x)
    return f"{x.dtype}{tuple(x.shape)}" if hasattr(x, "shape") else repr(x)


class _Watch:
    """What operations and sweeps of a thread report to."""

    def __init__(self, nonfinite: bool):
        self.nonfinite = nonfinite
        self.known = ""
        self.rule: Node | None = None  # the node whose rule runs

    def made(self, prim: Any, args: Any, outs: Any) -> None:
        """A primitive has run forward."""
        if not self.nonfinite:
            return
        args = [a for a in args if isinstance(a, (float, complex)) or hasattr(a, "dtype")]
        known = [_bad(a) for a in args]
        for out in outs:
            if kind := _new(out, known):
                node, self.rule = self.rule, None
                where = f"; called at\n{_stack()}"
                if node is not None:  # under create_graph a rule is made of primitives
                    where = f", in the backward of {node.prim.name}{called_at(node)}"
                raise FloatingPointError(
                    f"{prim.name} made {kind} in its output {_said(out)}, out of "
                    f"{', '.join(map(_said, args))}{where}"
                )

    def recorded(self, node: Node) -> None:
        """A node was made."""
        TRACES[node.seq] = _stack()
        weakref.finalize(node, TRACES.pop, node.seq, None)

    def arrives(self, node: Node, g: Any) -> None:
        """A cotangent is complete and about to be pulled back through `node`."""
        self.rule = node
        parts = g if isinstance(g, list) else [g]
        self.known = "".join(_bad(p) for p in parts if p is not None)
        if self.nonfinite and self.known:
            kind = "NaN" if "nan" in self.known else "infinite"
            raise FloatingPointError(
                f"backward of {node.prim.name}: the cotangent that arrives, a sum of finite ones "
                f"or given by the caller, is {kind}{called_at(node)}"
            )

    def pulled(self, node: Node, cotangents: Any) -> None:
        """The rule of `node` has run."""
        self.rule = None
        if not self.nonfinite:
            return
        for i, g in enumerate(cotangents):
            if g is not None and (kind := _new(g, [self.known])):
                raise FloatingPointError(
                    f"backward of {node.prim.name} made {kind} for "
                    f"{node.prim.label(i, len(node.edges))}, a cotangent {_said(g)}"
                    f"{called_at(node)}"
                )


# --- arrays that nobody may write -------------------------------------------------------------

_lock = RLock()  # a collection inside the lock may end another node
_frozen: dict[int, int] = {}  # id of an array -> how many nodes hold it; those hold it alive
_waiting: list[weakref.ref] = []  # views set free while what they view is still held


class _Frozen(Held):
    """Saved values that are read-only as long as this object lives."""

    def __init__(self, saved: tuple):
        self.saved = saved
        self.held = [a for v in saved for a in _chain(raw(v))]
        with _lock:
            self.held = [a for a in self.held if id(a) in _frozen or a.flags.writeable]
            for a in self.held:
                _frozen[id(a)] = _frozen.get(id(a), 0) + 1
                a.flags.writeable = False

    def values(self, node: Node) -> tuple:
        return self.saved

    def arrays(self) -> list:
        return [raw(v) for v in self.saved if hasattr(v, "shape")]

    def __del__(self):
        with _lock:
            for a in self.held:
                _frozen[id(a)] -= 1
                if not _frozen[id(a)]:
                    del _frozen[id(a)]
                    _waiting.append(weakref.ref(a))
            done = -1
            while done:  # a view can be set free after what it views
                left = [ref for ref in _waiting if not _thawed(ref())]
                done = len(_waiting) - len(left)
                _waiting[:] = left


def _thawed(a: np.ndarray | None) -> bool:
    """Whether `a` is done with: dead, held again, or writable now."""
    if a is None or id(a) in _frozen:
        return True
    if isinstance(a.base, np.ndarray) and not a.base.flags.writeable:
        return False
    a.flags.writeable = True
    return True


def _chain(x: Any) -> list[np.ndarray]:
    """The array that owns the memory of `x`, then its views down to `x`."""
    x = getattr(x, "_array", x)  # array-api-strict wraps a NumPy array
    found = []
    while isinstance(x, np.ndarray):
        found.append(x)
        x = x.base
    return found[::-1]
