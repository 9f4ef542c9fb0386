"""Laws and mutants of the selection by a measured table."""

from __future__ import annotations

import math

import numpy as np

from ref.distributed.common_laws import EXACT
from ref.distributed.select import measured
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "distributed.select"
NAMES = ("ring", "segmented_ring", "recursive_doubling", "halving_doubling")


def _int(*values):
    return lambda draw, c: np.array(draw(choose(*values)))


def _table(draw, c):
    """Rows at some ranks and sizes, their times a permutation of 1, 2, 3, 4 microseconds."""
    g = rng(draw)
    ranks = sorted(g.choice([2, 3, 4, 8, 16], 2, replace=False).tolist())
    return {
        n: {
            int(size): dict(zip(NAMES, (1e-6 * (1 + g.permutation(4))).tolist(), strict=True))
            for size in sorted(g.choice([8, 64, 1000, 4096, 1 << 16, 1 << 20], 3, replace=False))
        }
        for n in ranks
    }


space = cases(
    ID, n=_int(1, 2, 3, 4, 5, 6, 8, 12, 64), table=_table,
    size=_int(0, 1, 8, 20, 64, 300, 1000, 2000, 4096, 30000, 1 << 16, 1 << 22),
    flags={
        "measured": Flag(lambda c: c.table is None, {"table": None}),
        "between": Flag(lambda c: c.table is not None and int(c.size) not in next(iter(c.table.values())),
                        {"size": _int(20, 300, 2000, 30000)}),
    },
)  # fmt: skip


def by_hand(n, size, table):
    """Ratios compared as fractions are: v of two candidates a < b is nearer to a if v v <= a b."""

    def nearest(values, v):
        best, *rest = sorted(values)
        for b in rest:
            if v * v > best * b:
                best = b
        return best

    row = table[nearest(table, n)]
    times = row[nearest(row, max(size, 1))]
    return [name for name in times if times[name] == min(times.values())]


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.reach("between"),
    kills=["the_slowest", "nearest_by_difference", "any_number_of_ranks", "counts_elements", "next_larger_size"],
)  # fmt: skip
def the_fastest_of_the_nearest_row(impl, c, expect):
    "The row nearest by ratio (v^2 <= a b for the smaller of two), and the name with the least time in it."
    found = impl(c)
    wanted = by_hand(int(c.n), int(c.size), c.table)
    expect.holds(str(found) in wanted, f"{wanted[0]} for {c.n} ranks and {c.size} bytes, got {found}")


@law(
    ID, "L2", dtypes=EXACT, given=space.where(measured=True, n=_int(2, 4, 8)), kills=["border_of_the_paper"],
)  # fmt: skip
def measured_rows_are_followed(impl, c, expect):
    "Without a table: at every measured size the name with the least time; the library's own is never there."
    for size, times in measured()[int(c.n)].items():
        found = str(impl(c.replace(size=np.array(size))))
        expect.holds(set(times) <= set(NAMES), f"the table of {c.n} ranks lists {sorted(times)}")
        expect.holds(
            times.get(found) == min(times.values()), f"{size} bytes on {c.n} ranks: {found} is not the fastest"
        )


# Mutants ---------------------------------------------------------------------------------------------


def of(**table):
    table = {2: {8: {"ring": 3e-6, "recursive_doubling": 2e-6}, 1 << 20: {"ring": 3e-4, "recursive_doubling": 4e-4}}}
    return lambda: ((np.array(2), np.array(8)), {"table": table})


def picked(n, size, table, *, best=min, near=lambda v, w: abs(math.log(max(v, 1)) - math.log(w)), ranks=True):
    table = measured() if table is None else table
    row = table[min(sorted(table), key=lambda v: near(v, int(n)))] if ranks else table[min(table)]
    times = row[min(sorted(row), key=lambda v: near(v, max(int(size), 1)))]
    return best(times, key=times.get)


@mutant(ID, default_case=lambda: ((np.array(2), np.array(8)), {"table": {2: {8: {"ring": 3e-6}}}}))
def the_slowest(n, size, *, table=None):
    "The greatest number, as if the table held bandwidths."
    return picked(n, size, table, best=max)


@mutant(ID, default_case=of())
def nearest_by_difference(n, size, *, table=None):
    "The nearest size by difference."
    return picked(n, size, table, near=lambda v, w: abs(v - w))


@mutant(ID, default_case=of())
def any_number_of_ranks(n, size, *, table=None):
    "The rows of the fewest ranks, for any number."
    return picked(n, size, table, ranks=False)


@mutant(ID, default_case=of())
def counts_elements(n, size, *, table=None):
    "Elements of 4 bytes looked up as bytes."
    return picked(n, int(size) // 4, table)


@mutant(ID, default_case=of())
def next_larger_size(n, size, *, table=None):
    "The next measured size from below is passed over for the next larger one."
    return picked(n, size, table, near=lambda v, w: (v < w, abs(math.log(v) - math.log(w))))


@mutant(ID, default_case=of())
def border_of_the_paper(n, size, *, table=None):
    "Recursive doubling below 2 KiB and the ring above, on any machine."
    if table is not None:
        return picked(n, size, table)
    return "recursive_doubling" if size < 2048 else "ring"
