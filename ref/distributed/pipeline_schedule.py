"""Pipeline schedules: which stage works on which micro-batch, when.

Source: Huang et al. 2019, GPipe (1811.06965) sec. 2.3 and Fig. 2c; Narayanan et al. 2021, PipeDream-Flush (2006.09503)
sec. 3.2, also called 1F1B (2104.04473 sec. 2.2.1).

    F(r, k) needs F(r - 1, k); B(r, k) needs B(r + 1, k), on the last stage F(p - 1, k); a rank does one thing at a time

    gpipe   rank r: F 0 .. m - 1, then B m - 1 .. 0
    1f1b    rank r: F 0 .. w - 1, then F w + j and B j by turns, then the B that are left; w = min(p - 1 - r, m)

    time    (m + p - 1) (t_F + t_B);  bubble, the share of it in which a rank is idle: (p - 1)/(m + p - 1)
    peak    of micro-batches in flight (F begun, B not ended): m under gpipe, min(p - r, m) under 1f1b

Notation
    p -> stages, m -> micro, r -> rank, k -> micro-batch, t_F and t_B -> forward and backward.

Conventions
    C1  Everything starts as early as its order allows, sending takes no time, and all stages are equally long.
    C2  gpipe goes back from the last micro-batch, as in the paper's figure; others go from the first: same time.
    C3  A list is sorted by start, then by rank. The order of one rank is what `pipeline_parallel` runs; times are for
        pictures and counts.

Laws
    L1 everything_once_after_what_it_needs  L2 the_bubble_is_the_closed_form
    L3 the_peak_is_the_closed_form          L4 starts_are_the_closed_form
"""

from __future__ import annotations

import operator
from typing import NamedTuple

from ref.spec import spec


class Work(NamedTuple):
    """One entry: the rank, when it starts, "forward" or "backward", the micro-batch."""

    rank: int
    start: int
    kind: str
    micro: int


@spec("distributed.pipeline_schedule", "stages:int[], micro:int[] -> :tree", backends=("numpy",))
def pipeline_schedule(stages, micro, *, name="1f1b", forward=1, backward=1):
    """What every rank does, and when.

    Parameters
    ----------
    stages : int
        Ranks of the pipeline, at least 1.
    micro : int
        Micro-batches, at least 1.
    name : str
        "gpipe" or "1f1b".
    forward, backward : int
        Time that one micro-batch takes on one stage.

    Returns
    -------
    list of Work

    Raises
    ------
    ValueError
        Unknown name, or a number below 1.
    TypeError
        A number that is no integer.

    Complexity: 2 p m entries.

    >>> for work in pipeline_schedule(2, 2, name="gpipe"):
    ...     print(*work)
    0 0 forward 0
    0 1 forward 1
    1 1 forward 0
    1 2 forward 1
    1 3 backward 1
    0 4 backward 1
    1 4 backward 0
    0 5 backward 0
    """
    p, m, t_f, t_b = (operator.index(n) for n in (stages, micro, forward, backward))
    if name not in ORDERS or min(p, m, t_f, t_b) < 1:
        raise ValueError(
            f"pipeline_schedule: stages={p}, micro={m}, forward={t_f}, backward={t_b}, name={name!r}; needed "
            f"numbers of at least 1 and one of {', '.join(ORDERS)}"
        )
    todo = [ORDERS[name](p, m, r) for r in range(p)]
    at, free, ends, out = [0] * p, [0] * p, {}, []
    while len(out) < 2 * p * m:
        for r in range(p):
            while at[r] < 2 * m:
                kind, k = todo[r][at[r]]
                need = _need(kind, r, k, p)
                if need is not None and need not in ends:
                    break
                start = max(free[r], ends.get(need, 0))
                free[r] = ends[kind, r, k] = start + (t_f if kind == "forward" else t_b)
                out.append(Work(r, start, kind, k))
                at[r] += 1
    return sorted(out, key=lambda w: (w.start, w.rank))


def _gpipe(p, m, r):
    return [("forward", k) for k in range(m)] + [("backward", k) for k in reversed(range(m))]


def _one_forward_one_backward(p, m, r):
    warm = min(p - 1 - r, m)
    order = [("forward", k) for k in range(warm)]
    for j in range(m - warm):
        order += [("forward", warm + j), ("backward", j)]
    return order + [("backward", k) for k in range(m - warm, m)]


ORDERS = {"gpipe": _gpipe, "1f1b": _one_forward_one_backward}


def _need(kind, r, k, p):
    """What must have ended before: (kind, rank, micro-batch), or None."""
    if kind == "forward":
        return ("forward", r - 1, k) if r else None
    return ("backward", r + 1, k) if r < p - 1 else ("forward", r, k)
