"""Laws and mutants of the times of a prefetching loader, on whole numbers of seconds."""

from __future__ import annotations

from collections import deque

import numpy as np

from ref.distributed.common_laws import EXACT
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.prefetch_times"


def _seconds(draw, c):
    return rng(draw).integers(0 if c.idle else 1, 6, c.N) * 1.0


space = cases(
    ID, N=dims(0, 9), idle=choose(False, True), make=_seconds, use=_seconds, capacity=choose(None, 1, 2, 3),
    flags={
        "empty": Flag(lambda c: c.N == 0, {"N": 0}),
        "full": Flag(lambda c: (c.capacity or c.N) + 1 < c.N, {"N": dims(6, 9), "capacity": choose(1, 2)}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.where(capacity=None).reach("empty"),
    kills=["one_after_the_other", "starts_with_the_use"],
)  # fmt: skip
def without_a_bound_it_is_the_longest_path(impl, c, expect):
    "p_i = a_0 + .. + a_i, and e_i = max over k <= i of a_0 + .. + a_k + b_k + .. + b_i, s_i = e_i - b_i."
    put, start, end = impl(c)
    wanted = np.array([max(c.make[: k + 1].sum() + c.use[k : i + 1].sum() for k in range(i + 1)) for i in range(c.N)])
    expect.same(put, np.cumsum(c.make), "put")
    expect.same(end, wanted.reshape(c.N), "end")
    expect.same(start, wanted.reshape(c.N) - c.use, "start")


def _equal(draw, c):
    return np.full(c.N, draw(choose(1.0, 2.0, 3.0, 5.0)))


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.where(N=dims(1, 9), make=_equal, use=_equal).reach("full"),
    kills=["one_after_the_other"],
)  # fmt: skip
def equal_times_cost_the_slower_of_the_two(impl, c, expect):
    "With a and b constant e_i = a + i max(a, b) + b, whatever the capacity."
    a, b = c.make[0], c.use[0]
    expect.same(impl(c)[2], a + np.arange(c.N) * max(a, b) + b, "end")


def played(make, use, capacity):
    """(put, start, end), second by second: who can act at a time acts, until nobody can; then time goes on."""
    N, now, queue = len(make), 0.0, deque()
    put, start, end, hand, busy = [], [], [], None, 0.0
    ready = make[0] if N else 0.0  # when what is being made is made
    while len(end) < N:
        acted = True
        while acted:
            acted = False
            if hand is None and len(put) < N and ready <= now:
                hand, acted = len(put), True
            if hand is not None and (capacity is None or len(queue) < capacity):
                queue.append(hand)
                put.append(now)
                hand, acted = None, True
                ready = now + make[len(put)] if len(put) < N else 0.0
            if queue and busy <= now:
                i = queue.popleft()
                start.append(now)
                busy = now + use[i]
                end.append(busy)
                acted = True
        now += 1.0
    return (np.array(x, np.float64) for x in (put, start, end))


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.reach("full", "empty"),
    kills=["one_place_more", "bound_ignored", "place_free_at_the_end", "nothing_in_hand"],
)  # fmt: skip
def a_queue_that_is_played_says_the_same(impl, c, expect):
    "Second by second with a real queue of c places, one item in the loader's hand and one in use: the same times."
    for name, found, wanted in zip(("put", "start", "end"), impl(c), played(c.make, c.use, c.capacity), strict=True):
        expect.same(found, wanted, name)


# Mutants ---------------------------------------------------------------------------------------------


def of(N=1, **options):
    """The default-size test."""
    return lambda: ((np.full(N, 2.0), np.full(N, 3.0)), options)


def timed(make, use, capacity, *, overlap=True, later=0, free="start", hand=True):
    """The recursion, parts of which an edit replaces."""
    p, s, e = [], [], []
    for i, (a, b) in enumerate(zip(make, use, strict=True)):
        before, k = (p[-1] if p else 0.0), None if capacity is None else i - capacity - later
        limit = ({"start": s, "end": e}[free][k] if k is not None and k >= 0 else 0.0)
        at = max(before + a, limit) if hand else max(before, limit) + a
        p.append(at if overlap else (e[-1] if e else 0.0) + a)
        s.append(max(p[-1], e[-1] if e else 0.0))
        e.append(s[-1] + b)
    return tuple(np.array(v, np.float64).astype(make.dtype) for v in (p, s, e))


@mutant(ID, default_case=of())
def one_after_the_other(make, use, *, capacity=None):
    "No overlap: an item is made when the use of the one before has ended."
    return timed(make, use, capacity, overlap=False)


@mutant(ID, default_case=of(0))
def starts_with_the_use(make, use, *, capacity=None):
    "start and end change places."
    put, start, end = timed(make, use, capacity)
    return put, end, start


@mutant(ID, default_case=of(3, capacity=3))
def one_place_more(make, use, *, capacity=None):
    "The item in hand counted with the queue: c + 1 places."
    return timed(make, use, capacity, later=1)


@mutant(ID, default_case=of(3, capacity=3))
def bound_ignored(make, use, *, capacity=None):
    "A queue without a bound."
    return timed(make, use, None)


@mutant(ID, default_case=of(2, capacity=2))
def place_free_at_the_end(make, use, *, capacity=None):
    "A place is free when the use has ended."
    return timed(make, use, capacity, free="end")


@mutant(ID, default_case=of(2, capacity=2))
def nothing_in_hand(make, use, *, capacity=None):
    "The loader begins an item when there is a place for it."
    return timed(make, use, capacity, hand=False)
