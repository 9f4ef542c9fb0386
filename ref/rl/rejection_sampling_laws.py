"""Laws and mutants of rejection sampling."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, bools, cases, dims, rng

ID = "rl.rejection_sampling"
space = cases(
    ID, K=dims(1, 5, large=20), probs=lambda draw, c: (rng(draw).multinomial(64 - c.K, np.full(c.K, 1 / c.K)) + 1) / 64,
    accepted=bools("K", 0.5),
    flags={"possible": Flag(lambda c: np.any(c.accepted)),
    "some": Flag(lambda c: np.any(c.accepted) and not np.all(c.accepted), {"K": dims(3, 5)})},
).where(possible=True)  # fmt: skip


@law(ID, "L1", closed_form=True, given=space.reach("some"),
    kills=["not_normalised", "uniform_over_the_accepted", "rejected_kept", "draws_less_one"])
def proportions_of_the_accepted(impl, c, expect):
    "pi over its mass on the accepted there, 0 elsewhere; 1 / mass draws; in fractions."
    p = [Fraction(float(v)) if a else Fraction(0) for v, a in zip(c.probs, c.accepted, strict=True)]
    policy, draws = impl(c)
    expect(policy, np.array([float(v / sum(p)) for v in p]), bounds.rounding(c.K + 4, 1.0, c.dtype), "policy",
        scale=1.0)
    expect(draws, np.array(float(1 / sum(p))), bounds.rounding(c.K + 4, float(1 / sum(p)), c.dtype), "draws")


@law(ID, "L2", closed_form=True, given=space, kills=["draws_less_one", "expected_failures"])
def draws_by_the_geometric_series(impl, c, expect):
    "sum over k of k (1 - p)^(k - 1) p, added up."
    p = float(np.sum(np.where(c.accepted, np.asarray(c.probs, np.float64), 0)))
    steps = int(40 / p) + 2
    wanted = math.fsum(k * (1 - p) ** (k - 1) * p for k in range(1, steps))
    expect(impl(c)[1], np.array(wanted), 1e-9 * wanted + bounds.rounding(c.K + 4, wanted, c.dtype), "draws")


@law(ID, "L3", closed_form=True, given=space.where(some=True), kills=["uniform_over_the_accepted", "sharpened"])
def the_likelihood_is_least_here(impl, c, expect):
    "A model fitted to what is accepted has the least cross entropy at the result: any other policy costs KL more."
    best = np.where(c.accepted, np.asarray(c.probs, np.float64), 0)
    best = best / best.sum()
    q = np.asarray(impl(c)[0], np.float64)
    cost = lambda q: -float(np.sum(best[best > 0] * np.log(np.maximum(q[best > 0], 1e-300))))  # noqa: E731
    expect(np.array(cost(q)), np.array(cost(best)), bounds.rounding(16 * c.K, 8.0, c.dtype), "cross entropy", scale=1.0)
    # Off by d, the cost is only KL ~ d^2 more: the result itself too.
    expect(q, best, bounds.rounding(c.K + 4, 1.0, c.dtype), "policy", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def all_accepted(K=4):
    """The default-size test: equally likely responses, all accepted."""
    return (np.full(K, 1 / K), np.ones(K, bool)), {}


def _mutant(name, doc, policy=None, draws=None, case=all_accepted):
    def function(probs, accepted):
        kept = np.where(accepted, probs, 0).astype(np.float64)
        p = kept.sum()
        found = (kept / p if policy is None else policy(probs.astype(np.float64), accepted, p), 1 / p if draws is None
            else draws(p))
        return tuple(np.asarray(x, probs.dtype) for x in found)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case)(function)


_mutant("not_normalised", "pi on the accepted, not divided.", lambda pi, a, p: np.where(a, pi, 0))
_mutant("uniform_over_the_accepted", "All accepted alike.", lambda pi, a, p: a / a.sum())
_mutant("sharpened", "pi^2 on the accepted, normalised.",
    lambda pi, a, p: np.where(a, pi**2, 0) / np.where(a, pi**2, 0).sum())
_mutant("rejected_kept", "Divided, but not filtered.", lambda pi, a, p: pi)
_mutant("draws_less_one", "The number of rejections.", draws=lambda p: 1 / p - 1 + 1 * (p == 1))
_mutant("expected_failures", "(1 - p) / p + p.", draws=lambda p: (1 - p) / p + p)
