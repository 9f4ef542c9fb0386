"""Laws and mutants of the canonical norm."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ref.distributed.common_laws import EXACT, RANKS, traffic, world
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.canonical_norm"


def _at(draw, c):
    owner = rng(draw).integers(0, c.n, c.rows)
    return [np.flatnonzero(owner == r)[:: draw(choose(1, -1))].copy() for r in range(c.n)]


def _x(draw, c):
    g = rng(draw)
    shape = (c.rows, c.B)
    wild = g.standard_normal(shape) * 4.0 ** g.integers(-3, 4, shape)
    full = g.integers(-3, 4, shape) * 1.0 if c.kind == "whole" else wild
    return [full[at].copy() for at in c.at]


space = cases(
    ID, n=RANKS, comm=world, rows=dims(0, 7), B=dims(1, 5), kind=choose("whole", "wild"), at=_at, x=_x,
    flags={
        "none": Flag(lambda c: c.rows == 0, {"rows": 0}),
        "without": Flag(lambda c: any(len(a) == 0 for a in c.at) and c.rows > 0, {"n": dims(3, 8), "rows": dims(1, 2)}),
        "many": Flag(lambda c: c.n > 2 and c.rows > 4, {"n": dims(3, 8), "rows": dims(5, 9)}),
    },
)  # fmt: skip
filled = space.where(rows=dims(1, 7))


def entries(c):
    """All entries, row by row."""
    full = np.zeros((c.rows, c.B))
    for x, at in zip(c.x, c.at, strict=True):
        full[at] = x
    return full


def on_all(out, c, expect):
    """The result, once it is one float64 for each rank."""
    out = np.asarray(out)
    right = out.shape == (c.n,) and out.dtype == np.float64
    expect.holds(right, f"a float64 on each rank, got {out.dtype} {out.shape}")
    return out


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "without"),
    kills=["own_rows_alone", "sum_of_norms", "squares_not_rooted", "last_row_dropped"],
)  # fmt: skip
def pythagorean_rows(impl, c, expect):
    """sqrt(sum x^2), the sum in fractions. And rows (3 k), (4 k), .. of a Pythagorean chain: 3, 4 -> 5, 12 -> 13, 84 ->
    85, exactly."""
    exact = sum(Fraction(float(v)) ** 2 for v in entries(c).ravel())
    norm = math.sqrt(exact)
    expect(on_all(impl(c), c, expect), np.full(c.n, norm), bounds.rounding(c.rows * c.B + 12, norm, "float64"))
    chain, at = np.array([[3.0], [4.0], [12.0], [84.0]], c.dtype), [np.arange(r, 4, c.n) for r in range(c.n)]
    out = impl(c.replace(rows=4, B=1, at=at, x=[chain[a] for a in at]))
    expect(on_all(out, c, expect), np.full(c.n, 85.0), bounds.rounding(12, 85.0, "float64"), "norm of 3, 4, 12, 84")


@law(
    ID, "L2", dtypes=EXACT, given=filled.where(kind="wild").reach("many", "without"),
    kills=["sum_of_the_shards", "rows_as_they_come"], passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def the_cut_is_immaterial(impl, c, expect):
    "Whoever has which row, in whatever order, on one rank or on eight: the same bits."
    full, out = entries(c), on_all(impl(c), c, expect)
    for owner in (np.zeros(c.rows, int), np.arange(c.rows) % c.n, np.arange(c.rows) * c.n // c.rows):
        at = [np.flatnonzero(owner == r) for r in range(c.n)]
        expect.same(impl(c.replace(at=at, x=[full[a] for a in at])), out, "the norm under another cut")
    expect.same(out, np.full(c.n, out[0]), "the norm on rank r and on rank 0")


@law(
    ID, "L3", closed_form=True, given=filled.where(kind="whole"), kills=["plus_epsilon"],
    passes_null=["zeros"],
)  # fmt: skip
def a_power_of_two_comes_out(impl, c, expect):
    "|2^k x| = 2^k |x| to the bit, k = -3, 5; |0| = 0."
    out = on_all(impl(c), c, expect)
    for k in (-3, 5):
        scaled = impl(c.replace(x=[x * c.dtype.type(2.0**k) for x in c.x]))
        expect.same(scaled, out * 2.0**k, f"the norm of 2^{k} x")
    expect.same(impl(c.replace(x=[x * 0 for x in c.x])), np.zeros(c.n), "the norm of zeros")


@law(
    ID, "L4", closed_form=True, given=filled.where(kind="whole"), kills=["squares_in_its_dtype", "plus_epsilon"],
)  # fmt: skip
def squares_may_overflow_or_vanish(impl, c, expect):
    """Entries 3 h and 4 h at both ends of the dtype's range: 5 h, as float64. An infinity gives infinity and a NaN
    gives NaN, everywhere."""
    top = 2.0 ** (np.finfo(c.dtype).maxexp - 4)
    for h in (top, 1 / top):
        x = np.array([[3 * h], [4 * h]]).astype(c.dtype)
        at = [np.arange(2)[r :: c.n] for r in range(c.n)]
        out = on_all(impl(c.replace(rows=2, B=1, at=at, x=[x[a] for a in at])), c, expect)
        expect(out / h, np.full(c.n, 5.0), bounds.rounding(12, 5.0, "float64"), "norm over h")
    for odd in (np.inf, np.nan):
        x = np.array([[1.0], [odd]]).astype(c.dtype)
        expect.same(impl(c.replace(rows=2, B=1, at=at, x=[x[a] for a in at])), np.full(c.n, odd), f"norm with {odd}")


@law(
    ID, "L5", closed_form=True, dtypes=EXACT, given=space.reach("none"), kills=["rows_gathered"],
    passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def bytes_are_two_numbers_a_row(impl, c, expect):
    "All ranks together send 2 (n - 1) 16 K bytes, whatever B is."
    _, sent = traffic(impl, c)
    expect.same(sum(k.bytes_sent for k in sent), 2 * (c.n - 1) * 16 * c.rows, "bytes")


# Mutants: all ranks at once in plain NumPy -------------------------------------------------------------


def of(x=((3.0, 4.0), (0.0, 0.0)), owners=1):
    """The default-size test of a mutant: rank 0 has all rows."""
    from backends.communicators import ThreadWorld

    def make():
        full = np.array(x)
        at = [np.arange(len(full))] + [np.arange(0)] * (owners - 1)
        return (ThreadWorld(owners), [full[a] for a in at], at), {"rows": len(full)}

    return make


def normed(x, at, rows, *, of_rows=None, order=None):
    """The norm of all rows on every rank, a step of which an edit replaces."""
    full = np.zeros((rows, x[0].shape[1]))
    for mine, a in zip(x, at, strict=True):
        full[a] = mine
    if order is not None:
        full = full[order]
    top = np.max(np.abs(full), initial=0.0)
    scale = top if 0 < top < np.inf else 1.0
    squares = np.sum((full / scale) ** 2, axis=1)
    return np.full(len(x), scale * np.sqrt((of_rows or np.sum)(squares)))


@mutant(ID, default_case=of())
def own_rows_alone(world, x, at, *, rows):
    "grad-norm-placement: each rank's own rows, as if nobody else had any."
    return np.array([np.sqrt(np.sum(np.float64(mine) ** 2)) for mine in x])


@mutant(ID, default_case=of())
def sum_of_norms(world, x, at, *, rows):
    "The sum of the ranks' norms."
    return np.full(len(x), sum(np.sqrt(np.sum(np.float64(mine) ** 2)) for mine in x))


@mutant(ID, default_case=of(((1.0, 0.0), (0.0, 0.0))))
def squares_not_rooted(world, x, at, *, rows):
    "The sum of squares: right for a unit vector."
    return np.full(len(x), sum(np.sum(np.float64(mine) ** 2) for mine in x))


@mutant(ID, default_case=of())
def last_row_dropped(world, x, at, *, rows):
    "The last row is taken for padding."
    return normed(x, at, rows, of_rows=lambda s: np.sum(s[:-1]))


@mutant(ID, default_case=of())
def sum_of_the_shards(world, x, at, *, rows):
    "The sum over ranks of each rank's sum: right up to rounding, and other bits for each cut."
    return np.full(len(x), np.sqrt(sum(np.sum(np.float64(mine) ** 2) for mine in x)))


@mutant(ID, default_case=of())
def rows_as_they_come(world, x, at, *, rows):
    "Rows in the order of ranks, not in their own."
    return normed(x, at, rows, order=np.concatenate([np.asarray(a, int) for a in at]), of_rows=lambda s: sum(s))


@mutant(ID, default_case=of())
def plus_epsilon(world, x, at, *, rows):
    "1e-12 under the root: harmless, and not the norm of small or scaled gradients."
    return np.sqrt(normed(x, at, rows) ** 2 + 1e-12)


@mutant(ID, default_case=of())
def squares_in_its_dtype(world, x, at, *, rows):
    "Squares are taken without a scale, in the gradients' dtype."
    total = sum(np.sum(mine**2, dtype=mine.dtype) for mine in x)
    return np.full(len(x), np.float64(np.sqrt(total)))


@mutant(ID, default_case=of())
def rows_gathered(world, x, at, *, rows):
    "The rows themselves go around."
    from backends.communicators import on_world
    from ref.distributed.canonical_all_reduce import canonical_all_reduce

    def program(comm, mine, a):
        full = np.zeros((rows, mine.shape[1]))
        full[np.asarray(a, int)] = mine
        canonical_all_reduce(comm, full, out=full)
        return normed([full], [np.arange(rows)], rows)[0]

    return on_world(program, world, x, at)
