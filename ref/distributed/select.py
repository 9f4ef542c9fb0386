"""Selection: which all-reduce is the fastest for this length on this many ranks, by a measured table.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 5: short arrays by recursive doubling, long ones by
halving and doubling, the border measured; here a table of times takes the place of the border.

    row = the measured (n', S') with the least |log n' - log n|, then the least |log S' - log S|
    the algorithm with the least time in that row

Notation
    n -> ranks, S -> size in bytes, n' and S' -> those of the table.

Conventions
    C1  The table holds seconds, {n': {S': {algorithm: seconds}}}; all_reduce_times.json beside this file is the one
        that `python -m bench.collectives --table` wrote, and says where.
    C2  Between two measured values the nearer one by ratio counts, the smaller one of two equally near.
    C3  The library's own all-reduce is no candidate: the table never lists it.

Laws
    L1 the_fastest_of_the_nearest_row       L2 measured_rows_are_followed
"""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cache
from pathlib import Path

from ref.spec import spec


@spec("distributed.select", "n:int[], size:int[] -> :tree", backends=("numpy",))
def select(n, size, *, table=None):
    """The name of the all-reduce to use.

    Parameters
    ----------
    n : int
        Ranks.
    size : int
        Bytes of the array.
    table : dict, optional
        {ranks: {bytes: {algorithm: seconds}}}; the measured one if not given.

    Returns
    -------
    str
        "ring", "segmented_ring", "recursive_doubling" or "halving_doubling".

    Raises
    ------
    ValueError
        n < 1, size < 0, or an empty table.

    Complexity: linear in the rows of the table.

    >>> select(2, 100, table={2: {8: {"ring": 3e-6, "recursive_doubling": 2e-6}}})
    'recursive_doubling'
    """
    n, size = int(n), int(size)
    if n < 1 or size < 0:
        raise ValueError(f"select: n={n}, size={size}; needed n >= 1 and size >= 0")
    table = measured() if table is None else table
    if not table or not all(table.values()):
        raise ValueError("select: the table has no rows; needed {ranks: {bytes: {algorithm: seconds}}}")
    row = table[_nearest(table, n)]
    times = row[_nearest(row, max(size, 1))]
    return min(times, key=times.get)


def _nearest(values, wanted):
    return min(sorted(values), key=lambda v: Fraction(max(v, wanted), min(v, wanted)))


@cache
def measured():
    """The table in all_reduce_times.json."""
    found = json.loads((Path(__file__).parent / "all_reduce_times.json").read_text())["seconds"]
    return {int(n): {int(size): times for size, times in row.items()} for n, row in found.items()}
