"""The loader, the sampler, the list of threads and the explorer: what does not fit is named; what laws cannot draw."""

import gc
import itertools
import time

import numpy as np
import pytest

from backends.threads import run_tiles, threads
from ref.distributed.interleavings import interleavings, replay
from ref.distributed.living_threads import living_threads
from ref.distributed.prefetch import prefetch
from ref.distributed.prefetch_times import prefetch_times
from ref.distributed.shard_samples import shard_samples

ONE = np.ones(2)


@pytest.mark.parametrize(
    ("run", "kind", "said"),
    [
        (lambda: prefetch([], capacity=0), ValueError, "prefetch: capacity=0; needed at least 1"),
        (lambda: prefetch([], capacity=1.5), TypeError, "integer"),
        (lambda: prefetch(3), TypeError, "not iterable"),
        (lambda: prefetch_times(ONE, -ONE), ValueError, "needed capacity >= 1 and times >= 0"),
        (lambda: prefetch_times(ONE, np.ones(3)), ValueError, "N=3"),
        (lambda: prefetch_times(ONE, ONE, capacity=0), ValueError, "capacity=0"),
        (lambda: shard_samples(5, 2, 2), ValueError, r"rank=2.*rank < ranks"),
        (lambda: shard_samples(-1, 2, 0), ValueError, "length=-1"),
        (lambda: shard_samples(5, 2, 0, tail="wrap"), ValueError, "tail='wrap'; .* of repeat, drop"),
        (lambda: shard_samples(5, 2, 0, skip=-1), ValueError, "skip=-1"),
        (lambda: shard_samples(5, 2, 0, seed=0.5), TypeError, "integer"),
        (lambda: living_threads(np.ones(2)), TypeError, "must be int"),
        (lambda: interleavings([], np.zeros(1)), TypeError, "must be int"),
        (lambda: interleavings([counter(4)] * 3, np.array([0]), limit=50), ValueError, "more than limit=50 states"),
        (lambda: interleavings([strange], np.array([0])), TypeError, "local variable odd is a object; needed plain"),
        (lambda: replay([counter(1)], [0], (0, 0, 0)), ValueError, r"step 2 of \(0, 0, 0\) is program 0's, which has"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(run, kind, said):
    with pytest.raises(kind, match=said):
        run()


def counter(count):
    def program(memory):
        for _ in range(count):
            yield
            seen = memory[0]
            yield
            memory[0] = seen + 1

    return program


def strange(memory):
    odd = object()
    yield
    del odd


@pytest.mark.parametrize(("n", "k", "schedules"), [(2, 4, 12870), (3, 2, 34650)])
def test_lost_updates_of_larger_programs(n, k, schedules):
    found = interleavings([counter(k)] * n, np.array([0]))
    assert sorted(found.outcomes) == [(v,) for v in range(2, n * k + 1)]
    assert found.schedules == schedules
    assert all(tuple(replay([counter(k)] * n, [0], s)) == end for end, s in found.outcomes.items())


def sharing(items):
    def program(memory):
        for _ in items():
            yield

    return program


def inner(memory):
    for x in (0, 0):
        yield
        memory[0] += x


def outer(memory):
    for _ in range(2):
        yield from inner(memory)


def in_an_expression(memory):
    memory[0] = memory[0] + ((yield) or 1)


def test_what_is_not_in_a_variable_is_seen_too():
    """A loop over equal values, an iterator without a variable's trace, a nested generator, an expression half done."""
    for items in (lambda: [1, 1, 1], lambda: itertools.repeat(None, 3), lambda: (0 for _ in range(3))):
        assert interleavings([sharing(items)] * 2, np.array([0])).schedules == 20
    assert interleavings([outer, outer], np.array([0])).schedules == 70
    assert interleavings([in_an_expression] * 2, np.array([0])).outcomes == {(1,): (0, 1)}


def test_a_program_that_raises_is_named_with_its_schedule():
    def checks(memory):
        yield
        memory[0] += 1
        yield
        if memory[0] > 1:
            raise ArithmeticError("two at a time")

    found = interleavings([checks, checks], np.array([0]))
    assert found.broken == [(0, 1, 0), (0, 1, 1), (0, 0, 1, 1)]  # (1, 1, 0, 0) is the same state
    assert found.outcomes == {}
    with pytest.raises(ArithmeticError, match="two at a time"):
        replay([checks, checks], [0], found.broken[0])


def test_a_loader_that_is_forgotten_lets_its_thread_end():
    items = prefetch(itertools.count(), capacity=1)
    thread = items._thread
    assert next(items) == 0
    del items
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


def test_a_loader_has_its_callers_context():
    with np.errstate(divide="raise"), prefetch(np.ones(1) / x for x in (1.0, 0.0)) as items:
        assert next(items) == 1.0
        with pytest.raises(FloatingPointError):
            next(items)


def test_a_loader_is_never_faster_than_the_recursion():
    make, use = np.array([0.02, 0.02, 0.06, 0.02]), np.array([0.03, 0.03, 0.03, 0.03])

    def source():
        for seconds in make:
            time.sleep(seconds)
            yield seconds

    began = time.perf_counter()
    with prefetch(source(), capacity=2) as items:
        for _, seconds in zip(items, use, strict=False):
            time.sleep(seconds)
    took = time.perf_counter() - began
    assert took >= prefetch_times(make, use, capacity=2)[2][-1] - 0.002


def test_the_tiles_bits_do_not_depend_on_the_threads():
    x = np.random.default_rng(0).standard_normal((64, 40))
    found = []
    for n in (1, 2, 5):
        out = np.empty((64, 64))
        with threads(n):
            run_tiles(lambda i, out=out: np.matmul(x[i : i + 8], x.T, out=out[i : i + 8]), range(0, 64, 8))
        found.append(out)
    assert all(f.tobytes() == found[0].tobytes() for f in found)
