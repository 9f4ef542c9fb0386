"""The tile executor: every job once, the same bits, errors through, BLAS put back."""

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest

from backends import openblas
from backends import threads as t


def blas_now():
    return openblas.get_threads()


needs_blas = pytest.mark.skipif(not t.blas_controlled(), reason="NumPy's BLAS is not OpenBLAS")


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("jobs", [0, 1, 2, 50])
def test_every_job_runs_once(n, jobs):
    seen = [0] * jobs

    def job(i):
        seen[i] += 1

    with t.threads(n):
        t.run_tiles(job, range(jobs))
    assert seen == [1] * jobs


def test_jobs_do_run_at_once():
    """Two jobs that wait for each other: only two threads get through."""
    meet = threading.Barrier(2, timeout=20)
    with t.threads(2):
        t.run_tiles(lambda _: meet.wait(), range(2))


def test_the_count_is_the_callers_own():
    outside, inside = t.num_threads(), []
    with t.threads(3):
        assert t.num_threads() == 3
        thread = threading.Thread(target=lambda: inside.append(t.num_threads()))
        thread.start()
        thread.join()
        with t.threads(1):
            assert t.num_threads() == 1
        assert t.num_threads() == 3
    assert t.num_threads() == outside and inside == [outside]


@needs_blas
def test_blas_has_one_thread_inside_and_its_own_after():
    before = blas_now()
    inside = []
    with t.threads(2):
        assert blas_now() == 2
        t.run_tiles(lambda _: inside.append((blas_now(), t.num_threads())), range(8))
        with t.blas_threads(1):
            assert blas_now() == 1
        assert blas_now() == 2
    assert set(inside) == {(1, 1)} and blas_now() == before


@needs_blas
def test_blas_wishes_that_end_out_of_order():
    before = blas_now()
    first, second = t.blas_threads(1), t.blas_threads(2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_now() == 2
    second.__exit__(None, None, None)
    assert blas_now() == before


@needs_blas
def test_a_failure_puts_everything_back():
    before = blas_now()

    def job(i):
        if i >= 3:
            raise KeyError(i)

    for n in (1, 2, 4):
        with t.threads(n), pytest.raises(KeyError) as caught:
            t.run_tiles(job, range(100))
        assert caught.value.args == (3,) if n == 1 else caught.value.args[0] >= 3
        assert t.num_threads() and not t._in_tile.get() and blas_now() == before


def test_nested_tiles_run_in_place():
    seen = [[] for _ in range(6)]

    def outer(i):
        me = threading.get_ident()

        def inner(j):
            assert threading.get_ident() == me
            seen[i].append(j)

        t.run_tiles(inner, range(5))

    with t.threads(3):
        t.run_tiles(outer, range(6))
    assert seen == [list(range(5))] * 6


def test_two_callers_at_once():
    results = {}

    def caller(name):
        out = [None] * 40
        with t.threads(2):
            t.run_tiles(lambda i: out.__setitem__(i, (name, i)), range(40))
        results[name] = out

    callers = [threading.Thread(target=caller, args=(name,)) for name in "abcd"]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert results == {name: [(name, i) for i in range(40)] for name in "abcd"}


def test_errstate_reaches_the_workers():
    meet = threading.Barrier(2, timeout=20)

    def job(_):
        meet.wait()
        np.float64(1.0) / np.zeros(1)

    with t.threads(2), np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        t.run_tiles(job, range(2))


def _in_child(queue):
    out = [0] * 20
    with t.threads(2):
        t.run_tiles(lambda i: out.__setitem__(i, i), range(20))
    queue.put((out, float((np.ones((300, 300)) @ np.ones((300, 300))).sum())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_makes_its_own_pool():
    with t.threads(2):
        t.run_tiles(lambda _: time.sleep(0.01), range(4))  # the parent's pool is alive
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_in_child, args=(queue,))
        child.start()
        out, total = queue.get(timeout=60)
        child.join(timeout=60)
    assert out == list(range(20)) and total == 300**3 and child.exitcode == 0


@pytest.mark.parametrize("n", [0, -1, 1.5, True, None])
def test_a_count_below_one_is_refused(n):
    for manager in (t.threads, t.blas_threads):
        with pytest.raises(ValueError, match="at least 1"), manager(n):
            pass
