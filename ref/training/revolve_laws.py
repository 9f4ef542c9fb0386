"""Laws and mutants of Revolve."""

from __future__ import annotations

import heapq
import itertools
import math
from functools import cache

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose
from ref.training.common_laws import EXACT, on_the_engine, played

ID = "training.revolve"


def _int(*values):
    return lambda draw, c: np.array(draw(choose(*values)))


space = cases(
    ID,
    steps=_int(*range(1, 41)),
    snaps=_int(*range(1, 9)),
    flags={
        "one": Flag(lambda c: c.steps == 1, {"steps": _int(1)}),
        "plenty": Flag(lambda c: c.snaps >= c.steps, {"steps": _int(1, 2, 3, 5, 8), "snaps": _int(8, 9)}),
        "full": Flag(
            lambda c: int(c.steps) in [math.comb(int(c.snaps) + r, r) for r in range(9)],
            {"steps": _int(10, 20, 35), "snaps": _int(3)},
        ),
    },
)


def extra(c):
    """r l - C(s + r, s + 1), the least r with l <= C(s + r, s), said with factorials."""
    s, n = int(c.snaps), int(c.steps)
    choose_ = lambda a, b: math.factorial(a) // math.factorial(b) // math.factorial(a - b) if a >= b else 0  # noqa: E731
    r = next(r for r in itertools.count() if choose_(s + r, s) >= n)
    return r * n - choose_(s + r, s + 1), r


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.reach("one", "plenty", "full"),
    kills=["halved", "one_step_too_far", "longest_part_first"],
)  # fmt: skip
def evaluations_are_the_closed_form(impl, c, expect):
    """Steps run without a tape: r l - beta(s + 1, r - 1), beta(s, r) = C(s + r, s); with the taped ones (10, 3) takes
    25 evaluations, (10, 2) 30, (20, 4) 59, (35, 3) 140."""
    runs, _, _ = played(impl(c), int(c.steps), expect)
    expect.same(sum(runs), extra(c)[0], "steps run besides the taped ones")
    known = {(10, 3): 25, (10, 2): 30, (20, 4): 59, (35, 3): 140}
    (n, s), wanted = list(known.items())[int(c.steps) % 4]
    runs, _, _ = played(impl(c.replace(steps=np.array(n), snaps=np.array(s))), n, expect)
    expect.same(sum(runs) + n, wanted, f"evaluations of {n} steps with {s} snapshots")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.reach("one", "plenty"),
    kills=["input_not_counted", "never_freed"],
)  # fmt: skip
def snapshots_are_used_and_no_more(impl, c, expect):
    "At most min(s, l - 1) states are kept at a time, the initial one included, and that many are; none is left."
    _, peak, _ = played(impl(c), int(c.steps), expect)
    expect.same(peak, min(int(c.snaps), int(c.steps) - 1), "snapshots at a time")


@cache
def programme(n, s):
    if n <= 1:
        return 0
    if s == 1:
        return n * (n - 1) // 2
    return min(k + programme(n - k, s - 1) + programme(k, s) for k in range(1, n))


@law(
    ID, "L3", dtypes=EXACT, given=space.reach("full"), kills=["halved", "always_from_the_start", "longest_part_first"],
)  # fmt: skip
def cost_is_the_dynamic_programme(impl, c, expect):
    "t(l, s) = min over k of k + t(l - k, s - 1) + t(k, s), t(l, 1) = l (l - 1) / 2."
    runs, _, _ = played(impl(c), int(c.steps), expect)
    expect.same(sum(runs), programme(int(c.steps), int(c.snaps)), "steps run besides the taped ones")


@law(ID, "L4", closed_form=True, dtypes=EXACT, given=space.reach("full"), kills=["always_from_the_start", "halved"])
def no_step_runs_more_than_r_times(impl, c, expect):
    "No step is advanced over more than r times, r the least with l <= C(s + r, s), and some step r times."
    runs, _, _ = played(impl(c), int(c.steps), expect)
    expect.same(max(runs), extra(c)[1], "advances over one step")


@law(ID, "L5", closed_form=True, dtypes=EXACT, given=space.reach("plenty"), kills=["never_more_than_three"])
def more_snapshots_never_cost_more(impl, c, expect):
    "t(l, s + 1) <= t(l, s), and t(l, s) = l - 1 as soon as s >= l."
    n, s = int(c.steps), int(c.snaps)
    costs = [sum(played(impl(c.replace(snaps=np.array(k))), n, expect)[0]) for k in (s, s + 1, n)]
    expect.at_most(costs[1], costs[0], "the steps run with one snapshot more")
    expect.same(costs[2], n - 1, "steps run with a snapshot for every state")


@law(
    ID, "L6", dtypes=EXACT, given=space.where(steps=_int(*range(2, 8)), snaps=_int(1, 2, 3)),
    kills=["always_from_the_start", "one_step_too_far"],
)  # fmt: skip
def no_schedule_is_cheaper(impl, c, expect):
    "Of all ways to keep, drop and run again, searched by cost, none reverses the chain with fewer steps."
    runs, _, _ = played(impl(c), int(c.steps), expect)
    expect.same(sum(runs), cheapest(int(c.steps), int(c.snaps)), "steps run besides the taped ones")


@cache
def cheapest(n, s):
    """Dijkstra over (kept states, current state, steps left); only running a step costs."""
    queue, done, order = [(0, 0, (frozenset(), 0, n))], set(), itertools.count()
    while queue:
        cost, _, node = heapq.heappop(queue)
        if node in done:
            continue
        done.add(node)
        kept, at, left = node
        if left == 0:
            return cost
        moves = [(0, (kept, i, left)) for i in kept] + [(0, (kept - {i}, at, left)) for i in kept]
        if at is not None:
            moves += [(0, (kept | {at}, at, left))] if len(kept | {at}) <= s else []
            moves += [(1, (kept, at + 1, left))] if at < left - 1 else []
            moves += [(0, (kept, None, left - 1))] if at == left - 1 else []
        for step, target in moves:
            if target not in done:
                heapq.heappush(queue, (cost + step, next(order), target))
    raise AssertionError("unreachable: the initial state may always be kept")


@law(
    ID, "L7", closed_form=True, dtypes=EXACT, given=space.where(steps=_int(*range(1, 15)), snaps=_int(1, 2, 3, 4)),
    kills=["input_not_counted", "halved", "never_freed"],
)  # fmt: skip
def the_engine_counts_the_same(impl, c, expect):
    """The engine, run on unit layers so: r l - beta(s + 1, r - 1) + l runs of layers, min(s, l - 1) + 1 saved values at
    the peak, and the bits of the plain gradient."""
    n = int(c.steps)
    schedule = impl(c)
    played(schedule, n, expect)
    peak, runs, found, wanted = on_the_engine(schedule, [4] * (n + 1))
    expect.same(runs, extra(c)[0] + n, "runs of layers")
    expect.same(peak, 32 * (min(int(c.snaps), n - 1) + 1), "saved bytes at the peak")
    expect.same(found, wanted, "the gradient")


# Mutants ---------------------------------------------------------------------------------------------


def of(steps, snaps):
    return lambda: ((np.array(steps), np.array(snaps)), {})


def by(split, steps, snaps, free=True):
    """A schedule whose parts are cut by `split(length, snapshots)`."""
    actions, kept, at = [], [], 0
    for end in range(int(steps), 0, -1):
        if end < steps:
            at = kept[-1]
            actions.append(("restore", at, at))
        while at < end - 1:
            if not kept or kept[-1] != at:
                kept.append(at)
                actions.append(("snapshot", at, at))
            left = snaps - len(kept) + 1
            k = split(end - at, left) if left > 1 else end - at - 1
            actions.append(("advance", at, at + k))
            at += k
        if kept and kept[-1] == at:
            kept.pop()
            if free:
                actions.append(("discard", at, at))
        actions.append(("turn", at, end))
    return actions if free else actions + [("discard", a, a) for k, a, _ in actions if k == "snapshot"]


def best(n, s):
    return max(range(1, n), key=lambda k: (-k - programme(n - k, s - 1) - programme(k, s), k))


@mutant(ID, default_case=of(4, 2))
def halved(steps, snaps):
    "Parts of half the length: right for three snapshots of four steps, logarithmic in between."
    return by(lambda n, s: best(n, s) if n <= 4 else max(1, n // 2), steps, int(snaps))


@mutant(ID, default_case=of(5, 1))
def one_step_too_far(steps, snaps):
    "Each snapshot but the first stands one step late."
    return by(lambda n, s: min(best(n, s) + 1, n - 1), steps, int(snaps))


@mutant(ID, default_case=of(4, 1))
def longest_part_first(steps, snaps):
    "The part before the snapshot as long as can be, whatever the part behind then costs."
    return by(lambda n, s: min(n - 1, max(best(n, s), math.comb(s + 1, s))), steps, int(snaps))


@mutant(ID, default_case=of(3, 1), thread="checkpoint_schedules: the count without the initial state")
def input_not_counted(steps, snaps):
    "The initial state is kept besides the s snapshots."
    return by(best, steps, int(snaps) + (steps > 3))


@mutant(ID, default_case=of(1, 1))
def never_freed(steps, snaps):
    "Snapshots are freed when all is done."
    return by(best, steps, int(snaps), free=False)


@mutant(ID, default_case=of(5, 1))
def always_from_the_start(steps, snaps):
    "Each step is run from the initial state, with whatever snapshots there are."
    return by(lambda n, s: n - 1, steps, int(snaps))


@mutant(ID, default_case=of(5, 3))
def never_more_than_three(steps, snaps):
    "A fourth snapshot lies idle."
    return by(best, steps, min(int(snaps), 3))
