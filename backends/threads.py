"""Threads: how many, what BLAS may use of them, and a fixed grid of tiles run on them.

    with threads(2):            # this thread's kernels, and BLAS, use two threads
        run_tiles(fn, jobs)     # fn(job) for every job; BLAS on one thread inside

Conventions
  C1  Who computes is free, what is computed is not: `jobs` is cut by shapes alone and every job
      writes its own place, so the bits are the same for any number of threads.
  C2  Inside a tile BLAS has one thread; a nested `run_tiles` runs its jobs in place, in order.
  C3  The BLAS setting belongs to the process (OpenBLAS has no other); `threads(n)` to the calling
      thread and to the tiles it starts.
  C4  The default is what BLAS was told at its start (OPENBLAS_NUM_THREADS, OMP_NUM_THREADS, the
      CPUs of the process), so that one variable rules both.
"""

import contextlib
import contextvars
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from backends import openblas

__all__ = ["blas_controlled", "blas_threads", "num_threads", "run_tiles", "threads"]

_MAX_WORKERS = 64  # the pool makes a worker when one is wanted and none is idle


_default = max(1, openblas.get_threads() if openblas.get_threads else os.cpu_count() or 1)
_count = contextvars.ContextVar("threads", default=_default)
_in_tile = contextvars.ContextVar("in_tile", default=False)


class _BlasWishes:
    """Who wants how many BLAS threads now: tiles in flight force one, else the latest wish."""

    def __init__(self):
        self.lock = threading.Lock()
        self.wishes = {}
        self.tiles = 0
        self.base = None

    def change(self, *, add=None, drop=None, tiles=0):
        if not blas_controlled():
            return
        get, set_ = openblas.get_threads, openblas.set_threads
        with self.lock:
            if self.base is None:
                self.base = get()
            self.tiles += tiles
            if add is not None:
                self.wishes[add[0]] = add[1]
            self.wishes.pop(drop, None)
            wanted = 1 if self.tiles else next(reversed(self.wishes.values()), self.base)
            if get() != wanted:
                set_(wanted)
            if not self.tiles and not self.wishes:
                self.base = None


_wishes = _BlasWishes()
_pool = None
_pool_lock = threading.Lock()


def _after_fork():
    """Workers do not survive a fork, and a lock may have been held: begin anew in the child."""
    global _wishes, _pool, _pool_lock
    base, _wishes = _wishes.base, _BlasWishes()
    _pool, _pool_lock = None, threading.Lock()
    if base is not None and not _in_tile.get():
        openblas.set_threads(base)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def blas_controlled():
    """Whether NumPy's BLAS obeys `blas_threads` (else the context managers leave it alone)."""
    return openblas.set_threads is not None


def num_threads():
    """How many threads `run_tiles` uses when called here: 1 inside a tile."""
    return 1 if _in_tile.get() else _count.get()


@contextlib.contextmanager
def blas_threads(n):
    """BLAS calls of this process use n threads inside the `with` block.

    Parameters
    ----------
    n : int
        At least 1. Where `blas_controlled()` is False nothing happens.

    Raises
    ------
    ValueError
        n < 1.
    """
    _check("blas_threads", n)
    token = object()
    _wishes.change(add=(token, n))
    try:
        yield
    finally:
        _wishes.change(drop=token)


@contextlib.contextmanager
def threads(n):
    """Kernels started here use n threads inside the `with` block, and BLAS outside tiles too.

    Parameters
    ----------
    n : int
        At least 1.

    Raises
    ------
    ValueError
        n < 1.

    Examples
    --------
    >>> with threads(3):
    ...     num_threads()
    3
    """
    _check("threads", n)
    with blas_threads(n):
        token = _count.set(n)
        try:
            yield
        finally:
            _count.reset(token)


def run_tiles(fn, jobs):
    """Call fn(job) for every job, on up to `num_threads()` threads.

    Parameters
    ----------
    fn : callable
        Writes its result where no other job writes; its return value is dropped.
    jobs : iterable
        A grid that shapes alone decide (C1). Long jobs first balances best.

    Raises
    ------
    Exception
        What the earliest failing job raised; jobs not yet begun are dropped.

    Examples
    --------
    >>> out = [0] * 4
    >>> run_tiles(lambda i: out.__setitem__(i, i * i), range(4))
    >>> out
    [0, 1, 4, 9]
    """
    jobs = list(jobs)
    if _in_tile.get():
        for job in jobs:
            fn(job)
        return
    _wishes.change(tiles=1)
    token = _in_tile.set(True)
    try:
        n = min(_count.get(), len(jobs))
        if n > 1:
            _run_shared(fn, jobs, n)
        else:
            for job in jobs:
                fn(job)
    finally:
        _in_tile.reset(token)
        _wishes.change(tiles=-1)


def _run_shared(fn, jobs, n):
    todo = deque(enumerate(jobs))
    failures = []

    def work():
        while not failures:
            try:
                i, job = todo.popleft()
            except IndexError:
                return
            try:
                fn(job)
            except BaseException as error:
                failures.append((i, error))

    # A copied context carries np.errstate, the grad mode and "we are in a tile" to the workers.
    helpers = [_submit(contextvars.copy_context().run, work) for _ in range(n - 1)]
    work()
    for helper in helpers:
        # The caller has drained the queue: a helper that has not begun has nothing to do.
        if not helper.cancel():
            helper.result()
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]


def _submit(fn, *args):
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MAX_WORKERS, thread_name_prefix="tiles")
        return _pool.submit(fn, *args)


def _check(function, n):
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
        raise ValueError(f"{function}: n is {n!r}; needs an integer of at least 1")
