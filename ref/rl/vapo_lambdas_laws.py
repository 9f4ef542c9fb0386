"""Laws and mutants of VAPO's length-adaptive lambda."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "rl.vapo_lambdas"
WHOLE = ("float64",)  # integers in
space = cases(
    ID, B=batch(2, 4), alpha=choose(0.05, 0.25, 1.0), lengths=lambda draw, c: rng(draw).integers(1, 400, c.B),
    flags={"some": Flag(lambda c: 0 not in c.B, {"B": choose((4,), (2, 3))})},
)  # fmt: skip


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.where(some=True),
    kills=["not_clamped", "over_the_length", "alpha_divides", "ppo_lambda"])
def one_less_the_inverse_in_fractions(impl, c, expect):
    "max(0, 1 - 1 / (alpha len)), in fractions."
    wanted = [float(max(Fraction(0), 1 - 1 / (Fraction(c.alpha) * n))) for n in np.ravel(c.lengths).tolist()]
    expect(impl(c), np.array(wanted).reshape(c.B), bounds.rounding(4, 1.0, "float64"), scale=1.0)


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(some=True), kills=["ppo_lambda", "over_the_length"])
def the_geometric_sum_is_alpha_len(impl, c, expect):
    """len >= 1 / alpha: sum over t >= 0 of lambda^t = alpha len, added term by term. And by GAE's recursion (gamma 1,
    V = 0) a reward of 1 on the last of T tokens reaches token 0 with lambda^(T - 1); with the critic's 1, with 1."""
    n = np.array([40, 80, 200])
    found = np.asarray(impl(c.replace(lengths=n, B=(3,))), np.float64)
    for length, lam in zip(n.tolist(), found, strict=True):
        total, term = 0.0, 1.0
        for _ in range(60 * length):
            total, term = total + term, term * lam
        wanted = max(c.alpha * length, 1.0)
        expect(np.array(total), np.array(wanted), 1e-9 * wanted * length, f"len {length}")
        advantage = 1.0
        for _ in range(length - 1):
            advantage = 0.0 + lam * advantage  # delta + gamma lambda A'
        expect(np.array(advantage), np.array(max(1 - 1 / (c.alpha * length), 0.0) ** (length - 1)), 1e-9,
            "weight at token 0", scale=1.0)


@law(ID, "L3", closed_form=True, dtypes=WHOLE, given=space, kills=["not_clamped"], passes_null=["zeros"])
def clamped_where_it_would_be_negative(impl, c, expect):
    "len <= 1 / alpha: exactly 0."
    short = np.arange(1, int(1 / c.alpha) + 1)
    expect.same(impl(c.replace(lengths=short, B=short.shape)), np.zeros(short.shape))


# Mutants ---------------------------------------------------------------------------------------------


def long():
    """The default-size test: one length where all agree."""
    return (np.array([400]),), {"alpha": 0.05}


def _mutant(name, doc, value, case=long):
    def function(lengths, *, alpha=0.05):
        return np.asarray(value(lengths.astype(np.float64), alpha))

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case)(function)


def unit():
    return (np.array([40]),), {"alpha": 1.0}


_mutant("not_clamped", "Negative for short responses.", lambda n, a: 1 - 1 / (a * n))
_mutant("over_the_length", "1 - 1 / len.", lambda n, a: np.maximum(1 - 1 / n, 0), unit)
_mutant("alpha_divides", "1 - alpha / len.", lambda n, a: np.maximum(1 - a / n, 0), unit)
_mutant("ppo_lambda", ".95 for every length: right for 400 tokens.", lambda n, a: np.full(n.shape, 0.95))
