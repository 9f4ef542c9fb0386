"""Laws and mutants of best of n."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.best_of_n"


def _probs(draw, c):
    """Shares of 64, none of them 0."""
    w = rng(draw).multinomial(64 - c.K, np.full(c.K, 1 / c.K)) + 1
    return w / 64


space = cases(
    ID, K=dims(1, 4, large=10), n=choose(1, 2, 3, 4), probs=_probs, rewards=dyadics("K", -1, 1, 2),
    flags={"tied": Flag(lambda c: len(set(c.rewards.tolist())) < c.K, {"K": dims(3, 4)}),
           "distinct": Flag(lambda c: len(set(c.rewards.tolist())) == c.K, {"K": dims(2, 3)}),
           "one": Flag(lambda c: c.n == 1, {"n": 1})},
)  # fmt: skip


@law(ID, "L1", closed_form=True, given=space.where(K=dims(1, 3)).reach("tied", "distinct"),
     kills=["ties_to_the_first", "worst_of_n", "n_less_one", "softmax_of_n"])  # fmt: skip
def enumeration_of_all_draws(impl, c, expect):
    "All K^n draws, each with its probability; the best is taken, one of several equals as they were drawn first."
    wanted = np.zeros(c.K)
    p, r = np.asarray(c.probs, np.float64), np.asarray(c.rewards, np.float64)
    for draw in itertools.product(range(c.K), repeat=c.n):
        best = max(draw, key=lambda i: r[i])
        wanted[best] += math.prod(p[i] for i in draw)
    expect(impl(c), wanted, bounds.rounding(4 * c.n * c.K + 16, 1.0, c.dtype), scale=1.0)


@law(ID, "L2", closed_form=True, given=space.where(n=1), kills=["density_of_the_continuous"], passes_null=["identity"])
def one_draw_is_the_policy(impl, c, expect):
    "n = 1: the base policy; and any n adds up to 1."
    expect(impl(c), np.asarray(c.probs, np.float64), bounds.rounding(8, 1.0, c.dtype), scale=1.0)
    for n in (3, 17):
        total = np.sum(np.asarray(impl(c.replace(n=n)), np.float64))
        expect(total, np.array(1.0), bounds.rounding(8 * n * c.K + 16, 1.0, c.dtype), f"n = {n}")


@law(ID, "L3", closed_form=True, given=space, kills=["worst_of_n", "n_less_one"])
def uniform_rewards_have_mean_n_over_n_plus_one(impl, c, expect):
    "64 equally likely rewards (2 j - 1) / 128: E max is 1 - sum_j (j / 64)^n / 64 + 1 / 128, n / (n + 1) as K grows."
    K = 64
    r = (2 * np.arange(1, K + 1) - 1) / 128
    found = np.asarray(impl(c.replace(K=K, probs=np.full(K, 1 / K, c.dtype), rewards=r.astype(c.dtype))),
        np.float64) @ r
    wanted = 1 - math.fsum((j / K) ** c.n for j in range(1, K)) / K - 1 / 128
    expect(found, np.array(wanted), bounds.rounding(8 * K, 1.0, c.dtype), "E max")
    expect(np.array(wanted), np.array(c.n / (c.n + 1)), 2 / K, "n / (n + 1)")


@law(ID, "L4", closed_form=True, given=space.where(distinct=True, n=choose(2, 3, 4)), kills=["worst_of_n"],
    passes_null=["identity"])
def divergence_below_the_bound(impl, c, expect):
    "KL(best of n | policy) <= log n - (n - 1) / n, and E reward does not fall."
    q, p = np.asarray(impl(c), np.float64), np.asarray(c.probs, np.float64)
    kl = float(np.sum(np.where(q > 0, q * np.log(np.maximum(q, 1e-300) / p), 0)))
    slack = bounds.rounding(64 * c.n, 1.0, c.dtype)
    expect.at_most(kl, math.log(c.n) - (c.n - 1) / c.n + slack, "KL")
    expect(q.sum(), np.array(1.0), slack, "sum")
    expect.at_most(p @ np.asarray(c.rewards, np.float64) - slack, q @ np.asarray(c.rewards, np.float64),
        "E reward of the policy")


@law(ID, "L5", given=space.where(tied=True), kills=["ties_to_the_first"], passes_null=["constant", "zeros", "identity"])
def order_of_the_responses_is_free(impl, c, expect):
    "The responses turned round: each keeps its probability."
    back = c.replace(probs=c.probs[::-1].copy(), rewards=c.rewards[::-1].copy())
    expect(impl(back)[::-1], impl(c), bounds.rounding(8 * c.n * c.K + 16, 1.0, c.dtype), scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: one draw of two."""
    return (np.array([0.5, 0.5]), np.array([0.0, 1.0])), {"n": 1}


def _powers(probs, rewards, n):
    below = np.array([probs[rewards < r].sum() for r in rewards])
    level = np.array([probs[rewards == r].sum() for r in rewards])
    return below, level, probs / level * ((below + level) ** n - below**n)


def _mutant(name, doc, answer, case=default):
    def function(probs, rewards, *, n):
        return np.asarray(answer(probs.astype(np.float64), rewards, n)).astype(probs.dtype)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case)(function)


def _first(p, r, n):
    out = np.zeros(len(p))
    order = np.lexsort((-np.arange(len(p)), r))
    upto = np.cumsum(p[order])
    out[order] = upto**n - np.concatenate([[0], upto[:-1]]) ** n
    return out


_mutant("ties_to_the_first", "Of equal rewards the first response wins.", _first)
_mutant("worst_of_n", "The least reward.", lambda p, r, n: _powers(p, -r, n)[2])
_mutant("n_less_one", "n - 1 draws.", lambda p, r, n: _powers(p, r, max(n - 1, 1))[2],
    lambda: ((np.array([1.0]), np.array([0.0])), {"n": 3}))
_mutant("density_of_the_continuous", "n F^(n - 1) p: right where no response has a mass.",
        lambda p, r, n: p * n * (_powers(p, r, n)[0] + _powers(p, r, n)[1]) ** (n - 1))  # fmt: skip
_mutant("softmax_of_n", "p^n, normalised.", lambda p, r, n: (lambda w: w / w.sum())(p * (1 + (n - 1) * (r == r.max()))))
