"""Timing that holds on a shared machine: cases alternate, medians and ratios are read.

One thread: CPU time of the process, cases alternating within it. A burst of other work then hits
all cases alike, and a median over rounds leaves it out.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable


def settle_allocator() -> list:
    """Free places in every small size class; keep what it returns while timing.

    Without them an object that is made and dropped in a loop can land on the edge of an arena,
    which the allocator then maps and unmaps each time: ten times slower, for whoever is unlucky.
    """
    return [[bytes(size) for _ in range(400)][::2] for size in range(1, 480, 16)]


def alternating(
    cases: dict[str, Callable[[int], None]], repeats: dict[str, int] | int, rounds: int = 40
) -> dict[str, float]:
    """Median seconds of one repetition of each case.

    Parameters
    ----------
    cases : dict of name to callable
        ``case(n)`` does its work n times.
    repeats : int or dict of int
        n of each case in one round.
    rounds : int
        Every case runs once a round.

    Returns
    -------
    dict of name to float
    """
    if isinstance(repeats, int):
        repeats = dict.fromkeys(cases, repeats)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for name, case in cases.items():
        case(max(repeats[name] // 4, 1))
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, case in cases.items():
                start = time.process_time_ns()
                case(repeats[name])
                times[name].append((time.process_time_ns() - start) * 1e-9 / repeats[name])
    finally:
        if was_on:
            gc.enable()
    return {name: statistics.median(row) for name, row in times.items()}
