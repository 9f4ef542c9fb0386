"""Revolve: the cheapest reversal of a chain with a given number of snapshots.

Source: Griewank & Walther 2000, Algorithm 799 (ACM TOMS 26:1) sec. 2, Eq. 2-5; Griewank 1992 for the optimum.

    beta(s, r) = C(s + r, s)                the longest chain that s snapshots reverse, no step run over r times more
    r: the least with l <= beta(s, r)
    t(l, s) = r l - beta(s + 1, r - 1)      steps run besides the l that are taped; t(1, s) = 0
    t(l, s) = min_k k + t(l - k, s - 1) + t(k, s)

    reverse(from state i to state j, s snapshots): keep state i, run on k steps, reverse what is behind with s - 1,
    come back to state i, reverse the k steps before; a chain of one step is taped and pulled back.

Notation
    l -> steps, s -> snaps, r -> repetitions(l, s), beta -> capacity(s, r), t -> extra_steps(l, s). State i is the input
    of step i. An Action is (kind, at, to): "snapshot" keeps the current state `at`, "advance" runs steps at .. to - 1
    without a tape, "restore" goes back to a kept state, "discard" frees it, "turn" tapes step `at` and pulls back.

Conventions
    C1  The initial state counts as one of the s snapshots, as in the paper; the state that a step is taped from does
        not. Libraries that keep the input besides take s - 1.
    C2  Of the optimal splits the longest k is taken. All cost the same; this one advances most in the first run.
    C3  Every step costs the same here; `training.budgeted_schedule` weighs steps and states.

Laws
    L1 evaluations_are_the_closed_form       L2 snapshots_are_used_and_no_more
    L3 cost_is_the_dynamic_programme         L4 no_step_runs_more_than_r_times
    L5 more_snapshots_never_cost_more        L6 no_schedule_is_cheaper
    L7 the_engine_counts_the_same
"""

from __future__ import annotations

import operator
from math import comb

from autodiff import Action
from ref.spec import spec


@spec("training.revolve", "steps:int[], snaps:int[] -> schedule:tree", backends=("numpy",))
def revolve(steps, snaps):
    """The schedule that reverses a chain, for `autodiff.checkpoint_schedule`.

    Parameters
    ----------
    steps : int
        Length of the chain, at least 1.
    snaps : int
        States that may be kept at a time, the initial one included; at least 1.

    Returns
    -------
    list of Action
        Turns go from the last step to the first.

    Raises
    ------
    ValueError
        steps < 1 or snaps < 1.
    TypeError
        Not integers.

    Complexity: t(steps, snaps) advances in at most 4 steps + t actions.

    >>> for action in revolve(3, 1):
    ...     print(*action)
    snapshot 0 0
    advance 0 2
    turn 2 3
    restore 0 0
    advance 0 1
    turn 1 2
    restore 0 0
    discard 0 0
    turn 0 1
    """
    steps, snaps = _positive("revolve", steps=steps, snaps=snaps)
    actions, kept, at = [], [], 0
    for end in range(steps, 0, -1):
        if end < steps:
            at = kept[-1]
            actions.append(Action("restore", at, at))
        while at < end - 1:
            if not kept or kept[-1] != at:
                kept.append(at)
                actions.append(Action("snapshot", at, at))
            k = split(end - at, snaps - len(kept) + 1)
            actions.append(Action("advance", at, at + k))
            at += k
        if kept and kept[-1] == at:
            actions.append(Action("discard", at, kept.pop()))
        actions.append(Action("turn", at, end))
    return actions


def capacity(s, r):
    """beta(s, r) = C(s + r, s), 0 for r < 0.

    >>> capacity(3, 2)
    10
    """
    return comb(s + r, s) if r >= 0 else 0


def repetitions(l, s):  # noqa: E741  the paper's letter
    """The least r with l <= beta(s, r)."""
    r = 0
    while capacity(s, r) < l:
        r += 1
    return r


def extra_steps(l, s):  # noqa: E741
    """t(l, s) = r l - beta(s + 1, r - 1).

    >>> [extra_steps(*ls) + ls[0] for ls in ((10, 3), (10, 2), (20, 4), (35, 3))]
    [25, 30, 59, 140]
    """
    r = repetitions(l, s)
    return r * l - capacity(s + 1, r - 1)


def split(l, s):  # noqa: E741
    """Steps to run before the next snapshot: the longest part before it that keeps both parts optimal.

    The part before may have beta(s, r - 1) steps, and the one behind needs beta(s - 1, r - 1).
    """
    if s == 1:
        return l - 1
    r = repetitions(l, s)
    return min(capacity(s, r - 1), l - capacity(s - 1, r - 1))


def _positive(function, **numbers):
    numbers = {name: operator.index(n) for name, n in numbers.items()}
    for name, n in numbers.items():
        if n < 1:
            raise ValueError(f"{function}: {name}={n}; needed at least 1")
    return numbers.values()
