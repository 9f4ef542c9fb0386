"""What makes a function of one rank a collective: announced, on its own tags, and callable on a whole world.

    @collective
    def all_gather(comm, x, *, out=None): ...     # what one rank does

    all_gather(comm, x)           # on a communicator: this rank's part; every rank calls it
    all_gather(world, xs)         # on a world: all ranks run it, rank r on xs[r]; results stacked on axis 0

The second form is a function of arrays, so that laws, mutants and somebody's own function are judged as any other
algorithm is. Positional arguments are one a rank, keyword arguments are shared by all.
"""

from __future__ import annotations

import functools
import inspect

import numpy as np

from backends.communicators.core import COLLECTIVE, Communicator


class Call:
    """A collective's name and what must agree between ranks, in words: `all_reduce(f4, 12)`."""

    __slots__ = ("name", "arrays", "options", "ragged")

    def __init__(self, name, arrays, options, ragged):
        self.name, self.arrays, self.options, self.ragged = name, arrays, options, ragged

    def __str__(self):
        x = next((a for a in self.arrays if hasattr(a, "dtype")), None)
        parts = [] if x is None else [_dtype(x.dtype)] + ([] if self.ragged else [str(x.size)])
        for name, value in self.options.items():
            if value is not None and not hasattr(value, "dtype"):
                parts.append(f"{name}={getattr(value, '__name__', value)}")
        return f"{self.name}({', '.join(parts)})"


def _dtype(dtype):
    text = getattr(dtype, "str", str(dtype))
    return text.lstrip("<>=|")


def collective(function=None, *, ragged=False):
    """Decorator of f(comm, *arrays, **options).

    Parameters
    ----------
    ragged : bool
        Ranks may bring arrays of different sizes, so that the debug mode does not compare these.
    """
    if function is None:
        return functools.partial(collective, ragged=ragged)
    name = function.__name__

    def on_rank(comm, *arrays, **options):
        if comm.base >= COLLECTIVE:  # a part of another collective
            return function(comm, *arrays, **options)
        comm.base, comm.now = COLLECTIVE, Call(name, arrays, options, ragged)
        try:
            comm.begin(comm.now)
            return function(comm, *arrays, **options)
        finally:
            comm.base, comm.now = 0, None

    return _lifted(function, on_rank)


def on_ranks(function):
    """Decorator of any f(comm, *arrays, **options): callable on a world too, as `collective` says."""
    return _lifted(function, function)


def _lifted(function, on_rank):
    @functools.wraps(function)
    def call(comm, *arrays, **options):
        if isinstance(comm, Communicator):
            return on_rank(comm, *arrays, **options)
        return on_world(on_rank, comm, *arrays, **options)

    call.lift = on_ranks
    call.__signature__ = inspect.signature(function)
    return call


def on_world(function, world, *arrays, **options):
    """Run function(comm, *arrays[rank], **options) on every rank; the results, stacked where they have one shape."""
    for a in arrays:
        if a is not None and len(a) != world.size:
            raise ValueError(f"{function.__name__}: {len(a)} arrays for {world.size} ranks; needed one a rank")

    world.check_same((arrays, options))

    def program(comm):
        # With the ellipsis a number comes as an array without axes: a view, as other shapes do.
        mine = [a[comm.rank, ...] if isinstance(a, np.ndarray) else a and a[comm.rank] for a in arrays]
        return (_as_a_plan if world.planned else call)(function, comm, mine, options)

    def call(function, comm, mine, options):
        return function(comm, *mine, **options)

    return stacked(world.run(program))


def _as_a_plan(function, comm, mine, options):
    """The function's result on `mine`, by a plan that was made on other numbers."""
    buffers = [np.full_like(a, 1) if isinstance(a, np.ndarray) else a for a in mine]
    plan = comm.plan(function, *buffers, **options)
    for a, buffer in zip(mine, buffers, strict=True):
        if isinstance(a, np.ndarray):
            buffer[...] = a
    plan()
    result = plan.result.copy() if isinstance(plan.result, np.ndarray) else plan.result
    plan.free()
    return result


def stacked(results):
    """One array of results of one shape and dtype; a tuple of such for tuples; else the list as it is."""
    first = results[0]
    if isinstance(first, tuple):
        return tuple(stacked(list(parts)) for parts in zip(*results, strict=True))
    if all(isinstance(x, np.ndarray | np.generic) for x in results) and len({(x.shape, x.dtype) for x in results}) == 1:
        # Of one rank a view, so that a result which is the input shows.
        return np.stack(results) if len(results) > 1 else np.asarray(first)[None]
    return results
