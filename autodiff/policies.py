"""Selective checkpointing: which primitives keep their result, which run again, which go to a file.

Reference: Chen et al. 2016 (arXiv:1604.06174) sec. 4.2; Korthikanti et al. 2022 (arXiv:2205.05198) sec. 5.

A policy names for each primitive what becomes of its result:

    "save"       the result is kept, and the primitive does not run again
    "offload"    the same, but kept in a memory-mapped file
    "recompute"  nothing is kept (what a policy does not name)

When the backward asks for the first value that was dropped, the function is run again; the kept results
are handed out in their order in place of running the primitives that made them.

C1  What is kept is the result of a call, whatever the tape of that call needs: of y = x w the tape needs
    x and w, which the second run finds on its way.
C2  Results, arguments and dropped values are those of the plain run, bit for bit: so are the gradients.
C3  Offloaded bytes are counted when written and when read. The file has no name and dies with its owner; it is
    emptied when nothing in it is wanted any more, so that one file serves step after step.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from autodiff.checkpoint import _ARGUMENTS, Keeping, checkpoint
from autodiff.primitive import TABLE
from autodiff.tape import STATE, Held, Interceptor, Node, intercepting, tick
from autodiff.tensor import backend_of, raw
from autodiff.tree import tree_flatten, tree_unflatten
from backends.fused import FORMS

__all__ = ["Spill", "checkpoint_selective", "counted"]

CHOICES = ("save", "recompute", "offload")


class Spill:
    """A temporary memory-mapped file of arrays.

    Parameters
    ----------
    folder : path, optional
        Where the file lies; the system's folder for temporary files if not given.

    Attributes
    ----------
    written, read : int
        Bytes so far.
    size : int
        Bytes of the file now.
    """

    def __init__(self, folder: Any = None):
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  lives as long as this object
        self.written = self.read = self.size = 0
        self.wanted = 0  # arrays in the file that somebody can still read

    def _dropped(self) -> None:
        self.wanted -= 1
        if not self.wanted:
            self.file.truncate(0)
            self.size = 0

    def put(self, array: Any) -> Callable[[], Any]:
        """Write an array; what is returned reads it back into memory of its own."""
        backend = backend_of(array)
        if backend.name == "rounded":  # two bytes an element go to the file too
            values, again = backend.stored(array)
        else:
            values, again = backend.to_numpy(array), backend.from_numpy
        values = np.ascontiguousarray(values).reshape(array.shape)
        at = self.file.seek(self.size)
        self.file.write(values.tobytes())
        self.file.flush()
        self.written += values.nbytes
        self.size += values.nbytes
        shape, dtype = values.shape, values.dtype

        def get() -> Any:
            self.read += values_bytes
            if not values_bytes:
                return again(np.zeros(shape, dtype))
            mapped = np.memmap(self.file, np.uint8, "r", offset=at, shape=(values_bytes,))
            return again(np.array(mapped).view(dtype).reshape(shape))

        values_bytes = values.nbytes
        del array, values
        self.wanted += 1
        weakref.finalize(get, self._dropped).atexit = False
        return get


def checkpoint_selective(
    f: Callable,
    *args: Any,
    policy: Mapping[str, str] | Callable[[str], str],
    rng: np.random.Generator | None = None,
    spill: Spill | None = None,
) -> Any:
    """``f(*args)``, keeping the arguments and the results of the primitives that the policy names.

    Parameters
    ----------
    f : callable
        Deterministic but for `rng`.
    *args : trees
    policy : {primitive: choice}, or callable from a primitive's name to a choice
        Choices are "save", "recompute" and "offload"; a primitive that is not named is recomputed. Names are
        those of the table of primitives, and ids of fused forms.
    rng : numpy.random.Generator, optional
        As for `checkpoint`.
    spill : Spill, optional
        The file for what is offloaded; one of its own if not given.

    Returns
    -------
    what f returns

    Raises
    ------
    ValueError
        A choice that there is not, or a name that no primitive has.
    RuntimeError
        In the backward: f saved other values, or called other primitives, when it was run again.

    Examples
    --------
    >>> from autodiff import saved_bytes, tensor
    >>> x = tensor(np.ones(4), requires_grad=True)
    >>> kept = [{}, {"sin": "save"}, {"sin": "offload"}]
    >>> [saved_bytes(checkpoint_selective(lambda x: x.sin().exp(), x, policy=p)) for p in kept]
    [32, 64, 32]
    """
    choose = _chooser(policy)
    if not STATE.grad:
        return f(*args)
    return checkpoint(_Book(f, choose, spill), *args, rng=rng)


def _chooser(policy: Any) -> Callable[[str], str]:
    if callable(policy):
        return lambda name: _choice(name, policy(name))
    forms = {id for id, _ in FORMS}
    unknown = sorted(policy.keys() - TABLE.keys() - forms)
    if unknown:
        raise ValueError(
            f"checkpoint_selective: policy names {', '.join(unknown)}, which no primitive is called; "
            f"there are {', '.join(sorted(TABLE.keys() | forms))} (a callable may name others)"
        )
    for name, choice in policy.items():
        _choice(name, choice)
    return lambda name: policy.get(name, "recompute")


def _choice(name: str, choice: Any) -> str:
    if choice not in CHOICES:
        raise ValueError(f"checkpoint_selective: policy has {choice!r} for {name}; needed one of {', '.join(CHOICES)}")
    return choice


class _Result:
    """A kept result; an outer checkpoint may drop it like any saved value."""

    def __init__(self, out: Any, outer: Callable | None):
        flat, self.shape = tree_flatten(out)
        self.node = node = Node()
        node.prim, node.edges, node.seq = _ARGUMENTS, (), tick()
        node.saved = tuple(flat)
        if outer is not None:
            node.saved = outer(node, node.saved)

    def get(self) -> Any:
        saved = self.node.saved
        return tree_unflatten(self.shape, list(saved.values(self.node) if isinstance(saved, Held) else saved))

    def arrays(self) -> list:
        saved = self.node.saved
        return saved.arrays() if isinstance(saved, Held) else [raw(v) for v in saved if hasattr(v, "shape")]


class _Spilled:
    """A result in a file."""

    def __init__(self, out: Any, spill: Spill):
        flat, self.shape = tree_flatten(out)
        self.parts = [spill.put(v) if hasattr(v, "shape") else (lambda v=v: v) for v in flat]

    def get(self) -> Any:
        return tree_unflatten(self.shape, [part() for part in self.parts])

    def arrays(self) -> list:
        return []


class _Book(Interceptor, Keeping):
    """The function, and what its first run noted of every call: the primitive, and its result if kept."""

    def __init__(self, f: Callable, choose: Callable[[str], str], spill: Spill | None):
        self.f, self.choose, self.spill = f, choose, spill
        self.__name__ = getattr(f, "__name__", type(f).__name__)
        self.saver = STATE.saver
        self.calls: list[tuple[str, Any]] = []
        self.next: int | None = None

    def __call__(self, *args: Any) -> Any:
        self.outer = STATE.interceptor
        with intercepting(self):
            out = self.f(*args)
        if self.next not in (None, len(self.calls)):
            raise self._other(f"{self.next} primitives were called, and {len(self.calls)} before")
        self.next = 0
        self.outer = None
        return out

    def run(self, prim: Any, f: Callable, raws: Any, params: dict) -> Any:
        if self.next is None:
            out = super().run(prim, f, raws, params)
            self.calls.append((prim.name, self._kept(prim.name, out)))
            return out
        name, kept = self.calls[self.next] if self.next < len(self.calls) else ("nothing", None)
        if name != prim.name:
            raise self._other(f"call number {self.next} was {name}, and {prim.name} when it was run again")
        self.next += 1
        return super().run(prim, f, raws, params) if kept is None else kept.get()

    def _kept(self, name: str, out: Any) -> _Result | _Spilled | None:
        choice = self.choose(name)
        if choice == "recompute":
            return None
        if choice == "save":
            return _Result(out, self.saver)
        self.spill = self.spill or Spill()
        return _Spilled(out, self.spill)

    def _other(self, what: str) -> RuntimeError:
        return RuntimeError(f"checkpoint_selective: {self.__name__} is not deterministic: {what}")

    def arrays(self) -> list:
        return [a for _, kept in self.calls if kept is not None for a in kept.arrays()]


class _Counter(Interceptor):
    def __init__(self):
        self.counts: Counter[str] = Counter()

    def run(self, prim: Any, f: Callable, raws: Any, params: dict) -> Any:
        self.counts[prim.name] += 1
        return super().run(prim, f, raws, params)

    def again(self) -> Interceptor:
        return self


@contextmanager
def counted() -> Iterator[Counter]:
    """Context: how often each primitive was computed, in this thread, second runs of checkpoints included.

    Examples
    --------
    >>> from autodiff import checkpoint, tensor
    >>> x = tensor(np.ones(4), requires_grad=True)
    >>> with counted() as counts:
    ...     checkpoint(lambda x: x.sin().exp(), x).sum().backward()
    >>> dict(counts)
    {'sin': 2, 'exp': 2, 'sum': 1}
    """
    counter = _Counter()
    counter.outer = STATE.interceptor
    with intercepting(counter):
        yield counter.counts
