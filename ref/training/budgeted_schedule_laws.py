"""Laws and mutants of schedules under a budget of bytes."""

from __future__ import annotations

import heapq
import itertools
import math

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng
from ref.training.common_laws import EXACT, on_the_engine, played

ID = "training.budgeted_schedule"


def _sizes(draw, c):
    return 8 * rng(draw).integers(1, 5, c.l)


def _times(draw, c):
    return rng(draw).integers(0, 5, c.l) / 2.0


def _budget(draw, c):
    low = least(c)
    return np.array(low + 8 * draw(choose(*range(0, 12))))


def _units(draw, c):
    return np.full(c.l, 8)


def least(c):
    """What is needed when only the initial state is kept."""
    return int(max([c.tapes[0], *(c.states[0] + c.tapes[1:])]))


space = cases(
    ID,
    l=dims(1, 7),
    times=_times,
    states=_sizes,
    tapes=lambda draw, c: c.states + 8 * rng(draw).integers(0, 4, c.l),
    budget=_budget,
    memory="C",
    flags={
        "one": Flag(lambda c: c.l == 1, {"l": 1}),
        "tight": Flag(lambda c: int(c.budget) == least(c), {"budget": lambda draw, c: np.array(least(c))}),
        "unequal": Flag(lambda c: len(set(c.states.tolist())) > 1 and c.l > 3, {"l": dims(4, 7)}),
    },
)


def time_of(c, expect, schedule):
    runs, _, turns = played(schedule, c.l, expect)
    return sum(u * n for u, n in zip(c.times.tolist(), runs, strict=True)), turns


def bytes_at(c, turns):
    return {i: sum(int(c.states[k]) for k in held) + int(c.tapes[i]) for i, held in turns.items()}


@law(
    ID, "L1", closed_form=True, dtypes=EXACT,
    given=space.where(l=dims(1, 12), times=lambda draw, c: np.ones(c.l), states=_units, tapes=_units,
                      budget=lambda draw, c: np.array(8 * draw(choose(2, 3, 4, 5)))),
    kills=["always_from_the_start", "tape_not_counted", "halves"],
)  # fmt: skip
def equal_layers_are_revolve(impl, c, expect):
    "Unit times, sizes of 8 bytes, 8 (s + 1) bytes: r l - C(s + r, s + 1), the least r with l <= C(s + r, s)."
    s = int(c.budget) // 8 - 1
    r = next(r for r in itertools.count() if math.comb(s + r, s) >= c.l)
    wanted = r * c.l - (math.comb(s + r, s + 1) if r else 0)
    expect.same(time_of(c, expect, impl(c))[0], wanted, "time of steps run without a tape")


@law(ID, "L2", closed_form=True, dtypes=EXACT, given=space.where(l=3), kills=["always_from_the_start", "times_ignored"])
def three_layers_by_hand(impl, c, expect):
    "u_0 + u_1 if a_0 + a_1 + b_2 <= M, else 2 u_0 + u_1 (a_0 + max(b_1, b_2) <= M always); two layers cost u_0."
    spent, _ = time_of(c, expect, impl(c))
    u, a, b = c.times.tolist(), c.states.tolist(), c.tapes.tolist()
    fits = a[0] + a[1] + b[2] <= int(c.budget)
    expect.same(spent, u[0] * (1 if fits else 2) + u[1], "time of steps run without a tape")
    heavy = c.replace(times=np.array([8.0, 1.0, 0.0, 1.0]), states=np.array([8, 8, 8, 8]), tapes=np.array([8, 8, 8, 8]),
                      budget=np.array(24), l=4)  # fmt: skip
    expect.same(time_of(heavy, expect, impl(heavy))[0], 10.0, "time of (8, 1, 0, 1), state 1 kept: 8 + 1 + 0, then 1")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.reach("one", "tight", "unequal"),
    kills=["tape_not_counted", "sizes_averaged"],
)  # fmt: skip
def every_turn_fits(impl, c, expect):
    "At every turn the kept states and the turned step's tape take at most M bytes."
    _, turns = time_of(c, expect, impl(c))
    for i, held in bytes_at(c, turns).items():
        expect.at_most(held, int(c.budget), f"bytes at the turn of step {i}")


@law(
    ID, "L4", dtypes=EXACT, given=space.where(l=dims(1, 6)).reach("unequal", "tight"),
    kills=["times_ignored", "sizes_averaged", "halves"],
)  # fmt: skip
def no_persistent_schedule_is_cheaper(impl, c, expect):
    "Of all schedules that free a state only at its turn and fit at every turn, searched by cost, none takes less time."
    spent, _ = time_of(c, expect, impl(c))
    expect.same(spent, cheapest(c), "time of steps run without a tape")


def cheapest(c):
    """Dijkstra over (kept states, current state, steps left)."""
    u, a, b, M = c.times.tolist(), c.states.tolist(), c.tapes.tolist(), int(c.budget)
    queue, done, order = [(0.0, 0, (frozenset(), 0, c.l))], set(), itertools.count(1)
    while True:
        spent, _, node = heapq.heappop(queue)
        if node in done:
            continue
        done.add(node)
        kept, at, left = node
        if left == 0:
            return spent
        moves = [(0.0, (kept, i, left)) for i in kept]
        if at is not None and at < left - 1:
            moves.append((u[at], (kept, at + 1, left)))
            if at not in kept and sum(a[i] for i in kept) + a[at] <= M:
                moves.append((0.0, (kept | {at}, at, left)))
        rest = kept - {at}
        if at == left - 1 and sum(a[i] for i in rest) + b[at] <= M:
            moves.append((0.0, (rest, None, left - 1)))
        for step, target in moves:
            if target not in done:
                heapq.heappush(queue, (spent + step, next(order), target))


@law(ID, "L5", dtypes=EXACT, given=space, kills=["worse_when_there_is_room"])
def more_bytes_never_cost_more(impl, c, expect):
    "A greater budget takes no more time, and one for all states u_0 + .. + u_{l-2}."
    all_ = int(c.states.sum() + c.tapes.max())
    budgets = (int(c.budget), int(c.budget) + 16, all_)
    costs = [time_of(c, expect, impl(c.replace(budget=np.array(m))))[0] for m in budgets]
    expect.at_most(costs[1], costs[0], "the time with 16 bytes more")
    expect.same(costs[2], sum(c.times.tolist()[:-1]), "the time with room for every state")


@law(
    ID, "L6", dtypes=EXACT, given=space.where(tapes=lambda draw, c: c.states).reach("unequal"),
    kills=["sizes_averaged", "tape_not_counted"],
)  # fmt: skip
def the_engine_holds_the_peak(impl, c, expect):
    "The engine, on layers of these sizes, holds the greatest sum of the turns and gives the plain gradient."
    schedule = impl(c)
    _, turns = time_of(c, expect, schedule)
    peak, runs, found, wanted = on_the_engine(schedule, [*(c.states // 8).tolist(), 1])
    expect.same(peak, max(bytes_at(c, turns).values()), "saved bytes at the peak")
    expect.at_most(peak, int(c.budget), "saved bytes at the peak")
    expect.same(found, wanted, "the gradient")


# Mutants ---------------------------------------------------------------------------------------------


def of(sizes, budget, times=None):
    def make():
        a = np.array(sizes)
        return (np.ones(len(sizes)) if times is None else np.array(times), a, a, np.array(budget)), {}

    return make


def searched(u, a, b, M, split=None):
    """A schedule by the recurrence, or with the first part's length said by `split(i, j)`."""
    u, a, b = u.tolist(), a.tolist(), b.tolist()

    def plan(i, j, m, kept):
        if not kept and j > i + 1:
            m -= a[i]
        if j == i + 1:
            return (0 if b[i] <= m + (a[i] if kept else 0) else math.inf), [("discard", i, i)] * kept + [("turn", i, j)]
        if m < 0:
            return math.inf, []
        ways = [split(i, j)] if split else range(i + 1, j)
        best = (math.inf, [])
        for k in ways:
            behind, before = plan(k, j, m, False), plan(i, k, m, True)
            spent = sum(u[i:k]) + behind[0] + before[0]
            if spent < best[0]:
                actions = [("advance", i, k), *behind[1], ("restore", i, i), *before[1]]
                best = spent, ([] if kept else [("snapshot", i, i)]) + actions
        return best

    return plan(0, len(u), int(M), False)[1]


def from_the_start(u, a, b, M):
    return searched(u, a, b, max(10**9, int(M)), split=lambda i, j: j - 1)


@mutant(ID, default_case=of([8, 8], 16))
def always_from_the_start(times, states, tapes, budget, *, unit=1):
    "Every step from the initial state."
    return from_the_start(times, states, tapes, budget)


@mutant(ID, default_case=of([8, 8], 16))
def tape_not_counted(times, states, tapes, budget, *, unit=1):
    "The budget is spent on states alone."
    return searched(times, states, 0 * tapes, int(budget)) or from_the_start(times, states, tapes, budget)


@mutant(ID, default_case=of([8, 8], 16))
def times_ignored(times, states, tapes, budget, *, unit=1):
    "Every step is taken to cost the same."
    found = searched(np.ones(len(times)) + np.arange(len(times)) / 100, states, tapes, budget)
    return found or from_the_start(times, states, tapes, budget)


@mutant(ID, default_case=of([8, 8, 8], 24))
def sizes_averaged(times, states, tapes, budget, *, unit=1):
    "All states of the mean size."
    mean = np.full(len(states), states.sum() / len(states))
    return searched(times, mean, mean + (tapes - states), budget) or from_the_start(times, states, tapes, budget)


@mutant(ID, default_case=of([8, 8], 16))
def halves(times, states, tapes, budget, *, unit=1):
    "A snapshot in the middle, if it fits."
    found = searched(times, states, tapes, budget, split=lambda i, j: (i + j) // 2)
    return found or from_the_start(times, states, tapes, budget)


@mutant(ID, default_case=of([8, 8], 16))
def worse_when_there_is_room(times, states, tapes, budget, *, unit=1):
    "With more than half of all states' bytes it gives up searching."
    if 2 * int(budget) > states.sum() + tapes.max() and len(times) > 2:
        return from_the_start(times, states, tapes, budget)
    return searched(times, states, tapes, budget)
