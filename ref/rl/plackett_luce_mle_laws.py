"""Laws and mutants of maximum likelihood under Plackett-Luce."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.plackett_luce_mle"
EXACT = ("float64",)  # a solver: held to the gradient it leaves


def _rankings(draw, c):
    """A cycle through all items, so that the maximum exists, and some rankings more."""
    g = rng(draw)
    cycle = [[(i + k) % c.m for k in range(c.K)] for i in range(c.m)]
    more = [g.permutation(c.m)[: c.K].tolist() for _ in range(c.more)]
    return np.array(cycle + more)


space = cases(
    ID, m=dims(2, 4, large=6), K=lambda draw, c: 2 if c.m == 2 else draw(choose(2, 3)), more=dims(0, 4),
    n=lambda draw, c: c.m + c.more, rankings=_rankings, weights=lambda draw, c: rng(draw).integers(1, 9, c.n) / 2.0,
    rewards=lambda draw, c: np.zeros(c.m), ridge=choose(0.0, 0.5),
    flags={"plain": Flag(lambda c: c.ridge == 0, {"ridge": 0.0}),
    "triples": Flag(lambda c: c.K == 3, {"m": dims(3, 4), "K": 3}),
           "uneven": Flag(lambda c: np.ptp(c.weights) > 0, {"more": dims(2, 4)})},
)  # fmt: skip


def gradient(c, r):
    """d log-likelihood / d r, ranking by ranking."""
    out = -c.ridge * r
    for row, w in zip(c.rankings, c.weights, strict=True):
        for k in range(len(row) - 1):
            e = np.exp(r[row[k:]] - r[row[k:]].max())
            out[row[k]] += w
            np.add.at(out, row[k:], -w * e / e.sum())
    return out


@law(ID, "L1", closed_form=True, dtypes=EXACT, given=space.where(m=2, ridge=0.0),
    kills=["weights_ignored", "one_step", "log_of_the_wins"])
def two_items_are_the_log_odds(impl, c, expect):
    "Two items, a wins and b losses: r_0 - r_1 = log(a / b), and they add up to 0."
    a = float(sum(w for row, w in zip(c.rankings, c.weights, strict=True) if row[0] == 0))
    b = float(np.sum(c.weights)) - a
    found = impl(c)
    expect(found[0] - found[1], np.array(math.log(a / b)), 1e-12, "log odds", scale=1.0)
    expect(found.sum(), np.array(0.0), 1e-12, "gauge", scale=1.0)


@law(ID, "L2", closed_form=True, dtypes=EXACT, given=space.reach("plain", "triples", "uneven"),
     kills=["one_step", "weights_ignored", "first_choice_alone", "pairs_of_the_ranking", "ridge_ignored"])  # fmt: skip
def the_gradient_vanishes(impl, c, expect):
    "At the result the derivative of the log-likelihood (and prior) is 0 by every item: wins are as many as expected."
    r = np.asarray(impl(c), np.float64)
    expect(gradient(c, r), np.zeros(c.m), 1e-11 * float(np.sum(c.weights)), "gradient", scale=1.0)


@law(ID, "L3", closed_form=True, dtypes=EXACT, given=space.where(ridge=0.0), kills=["weights_ignored"])
def population_weights_give_the_rewards(impl, c, expect):
    "Every ranking of K of m items, weighed by its own Plackett-Luce probability: the rewards it came from."
    true = np.linspace(-1, 1, c.m) * 0.75
    rankings = np.array(list(itertools.permutations(range(c.m), c.K)))
    weights = [math.prod(math.exp(true[o[k]]) / sum(math.exp(true[j]) for j in o[k:]) for k in range(c.K))
        for o in rankings]
    now = c.replace(rankings=rankings, weights=np.array(weights), n=len(rankings), rewards=np.zeros(c.m))
    expect(impl(now), true, 1e-11, scale=1.0)


@law(ID, "L4", dtypes=EXACT, given=space, kills=["starts_where_it_is_told"], passes_null=["zeros", "constant"])
def renaming_the_items_renames_the_rewards(impl, c, expect):
    "Items renamed, rankings in another order, another start: the same rewards under the new names."
    turn = np.roll(np.arange(c.m), 1)
    moved = c.replace(rankings=turn[c.rankings][::-1].copy(), weights=c.weights[::-1].copy(),
        rewards=np.linspace(-1, 1, c.m))
    expect(impl(moved)[turn], impl(c), 1e-10, scale=1.0)


@law(ID, "L5", dtypes=EXACT, given=space.where(ridge=0.5), kills=["ridge_ignored"])
def the_prior_shrinks(impl, c, expect):
    "A prior ten times as strong gives rewards of smaller norm; one item that always wins has a finite reward."
    strong = np.linalg.norm(impl(c.replace(ridge=5.0)))
    expect.at_most(strong, np.linalg.norm(impl(c)) + 1e-12, "the norm under the stronger prior")
    sure = c.replace(rankings=np.array([[0, 1]]), weights=np.array([1.0]), rewards=np.zeros(c.m), n=1, K=2)
    r = impl(sure)
    expect(np.asarray(gradient(sure, np.asarray(r, np.float64))), np.zeros(c.m), 1e-11, "gradient", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def even():
    """The default-size test: two items, one win each."""
    return (np.array([[0, 1], [1, 0]]), np.ones(2), np.zeros(2)), {}


def solve(rankings, weights, rewards, ridge=0.0, steps=60):
    m, r = len(rewards), rewards.astype(np.float64) - (rewards.mean() if not ridge else 0)
    for _ in range(steps):
        grad, hess = -ridge * r, ridge * np.eye(m) + (0 if ridge else np.ones((m, m)) * weights.sum() / m)
        for row, w in zip(rankings, weights, strict=True):
            for k in range(len(row) - 1):
                left = row[k:]
                p = np.exp(r[left] - r[left].max())
                p /= p.sum()
                grad[row[k]] += w
                grad[left] -= w * p
                hess[np.ix_(left, left)] += w * (np.diag(p) - np.outer(p, p))
        step = np.linalg.solve(hess + 1e-12 * np.eye(m), grad)
        r = r + step * min(1, 2 / max(np.abs(step).max(), 1e-300))
    return (r - r.mean() if not ridge else r).astype(rewards.dtype)


def _mutant(name, doc, answer, case=even):
    def function(rankings, weights, rewards, *, ridge=0.0):
        return answer(rankings, weights, rewards, ridge)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case)(function)


def _pairs(rankings, weights):
    found = [((row[i], row[j]), w) for row, w in zip(rankings, weights, strict=True) for i in range(len(row))
        for j in range(i + 1, len(row))]
    return np.array([p for p, _ in found]), np.array([w for _, w in found])


def _first(rankings, weights):
    found = [((row[0], j), w) for row, w in zip(rankings, weights, strict=True) for j in row[1:]]
    return np.array([p for p, _ in found]), np.array([w for _, w in found])


_mutant("one_step", "One Newton step from the start.", lambda o, w, r, ridge: solve(o, w, r, ridge, 1))
_mutant("weights_ignored", "Every ranking once.", lambda o, w, r, ridge: solve(o, np.ones_like(w), r, ridge))
_mutant("ridge_ignored", "ridge accepted and dropped.", lambda o, w, r, ridge: solve(o, w, r, 1e-9 if ridge else 0.0))
_mutant("pairs_of_the_ranking", "A ranking taken for its pairs: Bradley-Terry on K (K - 1) / 2 events.",
        lambda o, w, r, ridge: solve(*_pairs(o, w), r, ridge))  # fmt: skip
_mutant("first_choice_alone", "The best against each of the others.",
    lambda o, w, r, ridge: solve(*_first(o, w), r, ridge))
_mutant("log_of_the_wins", "log of the number of wins.", lambda o, w, r, ridge: (lambda x: x - x.mean())(
    np.log(np.bincount(o[:, 0], w, len(r)) + 1e-9) / 2 if np.any(w != w[0]) else solve(o, w, r, ridge)))  # fmt: skip
_mutant("starts_where_it_is_told", "Three steps from the start: near it, not at the maximum.",
        lambda o, w, r, ridge: solve(o, w, r, ridge, 3) + 1e-6 * r)  # fmt: skip
