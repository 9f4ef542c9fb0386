"""Checkpointing unequal layers under a budget of bytes, by dynamic programming.

Source: Griewank & Walther 2008, Evaluating Derivatives, ch. 12 (non-uniform steps); Herrmann et al. 2019
(1911.13214) for heterogeneous chains, of which this is the case with states and single tapes.

    u_i time of step i, a_i bytes of its input (state i), b_i bytes held while it is turned, its input included

    cost(i, j, m) = 0 if j = i + 1 and b_i <= m;   kept(i, j, m - a_i) otherwise
    kept(i, j, m) = 0 if j = i + 1 and b_i <= m + a_i
                    min over i < k < j of  u_i + .. + u_{k-1} + cost(k, j, m) + kept(i, k, m)

    cost(0, l, M) is the least time of steps run again and again without a tape, M bytes being the budget.

Notation
    u -> times, a -> states, b -> tapes, M -> budget, l = len(times).

Conventions
    C1  Schedules are persistent: a kept state stays until its step is turned, and is freed just before. Others can be
        cheaper in odd cases, and cost a search that is exponential.
    C2  What counts at a turn: the kept states, and all that the turned step holds. A state on its way is not counted.
    C3  `unit` rounds sizes up and the budget down: fewer different sums, and never more bytes than the budget.
    C4  Of equally cheap splits the longest first part is taken, as in `training.revolve`.

Laws
    L1 equal_layers_are_revolve              L2 three_layers_by_hand
    L3 every_turn_fits                       L4 no_persistent_schedule_is_cheaper
    L5 more_bytes_never_cost_more            L6 the_engine_holds_the_peak
"""

from __future__ import annotations

import math
import operator
from functools import cache
from itertools import accumulate

from autodiff import Action
from ref.spec import bind, spec

SIGNATURE = "times[l], states:int[l], tapes:int[l], budget:int[]"


@spec("training.budgeted_schedule", f"{SIGNATURE} -> schedule:tree", backends=("numpy",))
def budgeted_schedule(times, states, tapes, budget, *, unit=1):
    """The cheapest persistent schedule within a budget, for `autodiff.checkpoint_schedule`.

    Parameters
    ----------
    times : float[l]
        Cost of running a step, not negative.
    states : int[l]
        Bytes of a step's input.
    tapes : int[l]
        Bytes held while a step is turned, its input included.
    budget : int
        Bytes.
    unit : int
        Bytes that sizes are counted in.

    Returns
    -------
    list of Action

    Raises
    ------
    ValueError
        Lengths differ, no step, a negative number, unit < 1, or a budget that no schedule fits (the message says which
        would).
    TypeError
        times are not float, sizes not int.

    Complexity: l^3 for each number of free units that occurs, at most budget / unit of them.

    >>> import numpy as np
    >>> u, a = np.ones(3), np.array([8, 8, 8])
    >>> [sum(x.to - x.at for x in budgeted_schedule(u, a, a, m) if x.kind == "advance") for m in (16, 24)]
    [3, 2]
    """
    l, times, states, tapes, budget = _checked(times, states, tapes, budget, unit)  # noqa: E741
    until = [0, *accumulate(times)]

    @cache
    def kept(i, j, m):
        """(cost, first part) of steps i .. j - 1 with state i kept and m units free besides."""
        if j == i + 1:
            return (0 if tapes[i] <= m + states[i] else math.inf), 0
        ways = ((until[k] - until[i] + cost(k, j, m) + kept(i, k, m)[0], -k) for k in range(i + 1, j))
        best, k = min(ways)
        return best, -k

    def cost(i, j, m):
        if j == i + 1:
            return 0 if tapes[i] <= m else math.inf
        return kept(i, j, m - states[i])[0] if states[i] <= m else math.inf

    def reverse(i, j, m):
        if j > i + 1:
            m -= states[i]
            yield Action("snapshot", i, i)
            while j > i + 1:
                k = kept(i, j, m)[1]
                yield Action("advance", i, k)
                yield from reverse(k, j, m)
                yield Action("restore", i, i)
                j = k
            yield Action("discard", i, i)
        yield Action("turn", i, i + 1)

    return list(reverse(0, l, budget))


def least_budget(states, tapes):
    """Bytes that suffice when each step is run from the initial state, and nothing less does.

    >>> least_budget([8, 16], [8, 24])
    32
    """
    behind = max(tapes[1:], default=0)
    return max(tapes[0], states[0] + behind) if len(tapes) > 1 else tapes[0]


def _checked(times, states, tapes, budget, unit):
    f = "budgeted_schedule"
    l = bind(f, SIGNATURE, times=times, states=states, tapes=tapes)["l"]  # noqa: E741
    if l < 1:
        raise ValueError(f"{f}: times has l=0 steps; needed at least 1")
    budget, unit = operator.index(budget), operator.index(unit)
    if unit < 1:
        raise ValueError(f"{f}: unit={unit} bytes; needed at least 1")
    for name, array in (("times", times), ("states", states), ("tapes", tapes)):
        if not min(array.tolist()) >= 0:
            raise ValueError(f"{f}: {name} has {min(array.tolist())}; needed numbers that are not negative")
    sizes = [[-(-n // unit) for n in array.tolist()] for array in (states, tapes)]
    least = least_budget(*sizes)
    if budget // unit < least:
        raise ValueError(f"{f}: budget={budget} bytes; the cheapest in bytes takes {least * unit}")
    return l, times.tolist(), *sizes, budget // unit
