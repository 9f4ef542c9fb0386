"""Laws and mutants of pass@k."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "rl.pass_at_k"
WHOLE = ("float64",)  # integers in
space = cases(
    ID, B=batch(2, 4), n=dims(1, 7, large=200), k=lambda draw, c: draw(choose(1, c.n, max(c.n // 2, 1))),
    correct=lambda draw, c: rng(draw).integers(0, c.n + 1, c.B),
    flags={"some": Flag(lambda c: 0 not in c.B, {"B": choose((4,), (2, 3)), "n": dims(3, 7)})},
)  # fmt: skip


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.where(some=True),
    kills=["with_replacement", "mean_of_k", "one_less"])
def binomials_in_fractions(impl, c, expect):
    "1 - C(n - c, k) / C(n, k), in exact binomials."
    wanted = [float(1 - Fraction(math.comb(c.n - int(x), c.k), math.comb(c.n, c.k))) for x in np.ravel(c.correct)]
    expect(impl(c), np.array(wanted).reshape(c.B), bounds.rounding(2 * c.n + 4, 1.0, "float64"), scale=1.0)


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space, kills=["with_replacement", "one_less"])
def unbiased_over_all_outcomes(impl, c, expect):
    "Each sample right with chance p: the mean over all counts of right ones, binomially, is 1 - (1 - p)^k."
    counts = np.arange(c.n + 1)
    found = np.asarray(impl(c.replace(correct=counts, B=counts.shape)), np.float64)
    for p in (0.25, 0.875):
        chance = [math.comb(c.n, int(x)) * p**x * (1 - p) ** (c.n - x) for x in counts]
        expect(np.dot(chance, found), np.array(1 - (1 - p) ** c.k), bounds.rounding(8 * c.n + 32, 1.0, "float64"),
            f"p = {p}", scale=1.0)


@law(ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(n=dims(150, 200)), kills=["floats_of_factorials"])
def edges(impl, c, expect):
    "0 where nothing is right, 1 where fewer than k are wrong, c / n for k = 1; n of thousands overflows nothing."
    n = 4 * c.n
    now = c.replace(n=n, k=n // 2, correct=np.array([0, n // 2 + 1, n]), B=(3,))
    expect.same(impl(now), np.array([0.0, 1.0, 1.0]), "edges")
    one = c.replace(n=n, k=1, correct=np.array([1, n // 3]), B=(2,))
    expect(impl(one), np.array([1 / n, (n // 3) / n]), bounds.rounding(2 * n, 1.0, "float64"), "k = 1", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def one_sample():
    """The default-size test: k = 1 of one sample."""
    return (np.array([0, 1]),), {"n": 1, "k": 1}


def _mutant(name, doc, value):
    def function(correct, *, n, k):
        with np.errstate(all="ignore"):
            return np.asarray(value(correct.astype(np.float64), n, k), np.float64)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=one_sample)(function)


def _factorials(c, n, k):
    f = np.concatenate([[1.0], np.cumprod(np.arange(1, n + 1, dtype=np.float64))])
    left = np.maximum(n - c, 0).astype(int)
    few = np.where(left >= k, f[left] / f[k] / f[np.maximum(left - k, 0)], 0)
    return 1 - few / (f[n] / f[k] / f[n - k])


_mutant("with_replacement", "1 - (1 - c / n)^k.", lambda c, n, k: 1 - (1 - c / n) ** k)
_mutant("mean_of_k", "min(1, k c / n).", lambda c, n, k: np.minimum(1, k * c / n))
_mutant("one_less", "C(n - c, k) over C(n, k) one sample short.",
    lambda c, n, k: np.where(c > 0, 1 - np.maximum(1 - c / n, 0) ** (k + 0.5) * (n > 1), 0))
_mutant("floats_of_factorials", "Binomials of factorials in floating point: n! is infinite from 171 on.", _factorials)
