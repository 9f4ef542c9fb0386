"""Laws and mutants of the Plackett-Luce and K-wise losses."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "rl.plackett_luce_loss"
space = cases(
    ID, B=batch(1, 3, large=6), K=dims(1, 4, large=8), of=choose("ranking", "pairs"), rewards=dyadics("*B K", -3, 3, 8),
    flags={"some": Flag(lambda c: 0 not in c.B, {"B": choose((), (2,)), "K": dims(2, 4)}),
    "one": Flag(lambda c: c.K == 1, {"K": 1}),
           "three": Flag(lambda c: c.K > 2 and 0 not in c.B, {"K": dims(3, 4), "B": choose((), (2,))})},
)  # fmt: skip


def limit(c):
    K = c.rewards.shape[-1]
    return bounds.rounding(8 * K + 32, 8.0 * K, c.dtype)


@law(ID, "L1", closed_form=True, given=space.where(three=True, of="ranking", B=()),
    kills=["pairs_as_events", "normalised_over_all", "last_left_out", "always_pairs"])
def all_orders_add_to_one(impl, c, expect):
    "The probabilities e^-L of all K! orders add up to 1, and each is the product of its draws without replacement."
    r = np.asarray(c.rewards, np.float64)
    orders = np.array(list(itertools.permutations(range(c.K))))
    found = np.exp(-np.asarray(impl(c.replace(rewards=c.rewards[orders].copy(), B=(len(orders),))), np.float64))
    wanted = [math.prod(math.exp(r[o[k]]) / sum(math.exp(r[j]) for j in o[k:]) for k in range(c.K)) for o in orders]
    expect(found, np.array(wanted), limit(c), "probability of an order", scale=1.0)
    expect(found.sum(), np.array(1.0), len(orders) * limit(c), "sum", scale=1.0)


@law(ID, "L2", closed_form=True, given=space.where(three=True, of="ranking", B=()),
    kills=["normalised_over_all", "pairs_as_events"])
def marginals_are_bradley_terry(impl, c, expect):
    "The orders with i before j together have sigma(r_i - r_j)."
    r = np.asarray(c.rewards, np.float64)
    orders = np.array(list(itertools.permutations(range(c.K))))
    p = np.exp(-np.asarray(impl(c.replace(rewards=c.rewards[orders].copy(), B=(len(orders),))), np.float64))
    place = np.argsort(orders, axis=1)
    for i, j in itertools.combinations(range(c.K), 2):
        wanted = 1 / (1 + math.exp(r[j] - r[i]))
        expect(p[place[:, i] < place[:, j]].sum(), np.array(wanted), len(orders) * limit(c), f"P({i} before {j})",
            scale=1.0)


@law(ID, "L3", closed_form=True, given=space.where(of="pairs").reach("some", "one"),
    kills=["always_ranking", "sum_over_pairs", "neighbours_alone"])
def pairs_in_closed_form(impl, c, expect):
    "of='pairs': the mean of softplus(r_j - r_i) over the pairs i < j; 0 for K = 1."
    r = np.asarray(c.rewards, np.float64)
    pairs = list(itertools.combinations(range(c.K), 2))
    wanted = sum((np.logaddexp(0, r[..., j] - r[..., i]) for i, j in pairs), np.zeros(c.B)) / max(len(pairs), 1)
    expect(impl(c), wanted, limit(c), scale=8.0)


@law(ID, "L4", closed_form=True, needs=("vjp",), given=space.where(some=True),
    kills=["slope_of_the_first", "slope_negated"])
def gradient_in_closed_form(impl, c, expect):
    "Of a ranking: each item's chances at every draw it is still in, less its own draw; of pairs: mean sigmas."
    r, K = np.asarray(c.rewards, np.float64), c.K
    wanted = np.zeros(r.shape)
    for at in np.ndindex(*c.B):
        x = r[at]
        if c.of == "ranking":
            for k in range(K - 1):
                p = np.exp(x[k:]) / np.exp(x[k:]).sum()
                wanted[at][k:] += p
                wanted[at][k] -= 1
        else:
            for i, j in itertools.combinations(range(K), 2):
                s = 1 / (1 + math.exp(x[i] - x[j])) / (K * (K - 1) / 2)
                wanted[at][i] -= s
                wanted[at][j] += s
    g = np.cos(1.0 + np.arange(np.prod(c.B, dtype=int))).reshape(c.B).astype(c.dtype)
    expect(impl.vjp(c, g)["rewards"], np.asarray(g, np.float64)[..., None] * wanted, 4 * limit(c), "d rewards",
        scale=1.0)


@law(ID, "L5", given=space.where(some=True), kills=["not_invariant"], passes_null=["zeros", "constant"])
def gauge(impl, c, expect):
    "Rewards + 64: the same loss."
    moved = c.replace(rewards=c.rewards + c.dtype.type(64))
    expect(impl(moved), impl(c), 2 * limit(c) + bounds.rounding(8 * c.K, 128.0, c.dtype), scale=64.0)


@law(ID, "L6", closed_form=True, given=space.where(some=True), kills=["overflows"])
def far_rewards_stay_finite(impl, c, expect):
    "Rewards 0, 1000, 2000, .. from the best on: each draw or pair costs 1000 for each place it is off."
    r = 1000.0 * np.arange(c.K)
    wanted = sum(r[-1] - r[k] for k in range(c.K - 1))
    if c.of == "pairs":
        wanted = np.mean([r[j] - r[i] for i, j in itertools.combinations(range(c.K), 2)])
    now = c.replace(rewards=np.broadcast_to(r, c.rewards.shape).astype(c.dtype))
    expect(impl(now), np.full(c.B, wanted), bounds.rounding(4 * c.K + 8, 4000.0 * c.K, c.dtype), scale=1000.0)


# Mutants ---------------------------------------------------------------------------------------------


def two(of="ranking"):
    """The default-size test: two items of equal reward."""
    return lambda: ((np.zeros((1, 2)),), {"of": of})


def _lse(x):
    top = x.max(-1, keepdims=True)
    return (np.log(np.exp(x - top).sum(-1)) + top[..., 0]).astype(x.dtype)


def ranking(x, start=lambda k: k, stop=None):
    K = x.shape[-1]
    return sum((_lse(x[..., start(k) :]) - x[..., k] for k in range(K - 1 if stop is None else stop(K))),
        np.zeros(x.shape[:-1], x.dtype))


def pairs(x, mean=True, neighbours=False):
    K = x.shape[-1]
    terms = [np.logaddexp(0, x[..., j] - x[..., i]) for i, j in itertools.combinations(range(K), 2) if not neighbours
        or j == i + 1]
    return sum(terms, np.zeros(x.shape[:-1], x.dtype)) / (max(len(terms), 1) if mean else 1)


def right(x, of):
    return ranking(x) if of == "ranking" else pairs(x)


def numeric(g, x, of, h=1e-6, f=right):
    d = np.zeros(x.shape)
    for j in range(x.shape[-1]):
        e = np.zeros(x.shape[-1])
        e[j] = h
        d[..., j] = (f(x + e, of) - f(x - e, of)) / (2 * h)
    return g[..., None] * d


def _mutant(name, doc, loss=right, case=None, vjp=None):
    def function(rewards, *, of="ranking"):
        with np.errstate(all="ignore"):
            return np.asarray(loss(rewards, of), rewards.dtype)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or two(), vjp=vjp)(function)


_mutant("always_ranking", "The ranking under either name.", lambda x, of: ranking(x), two("pairs"))
_mutant("always_pairs", "The pairs under either name.", lambda x, of: pairs(x))
_mutant("pairs_as_events", "The product of all pairs' chances: as if they were independent.",
        lambda x, of: pairs(x, mean=False) if of == "ranking" else pairs(x))  # fmt: skip
_mutant("normalised_over_all", "Every draw from all items, those already drawn too.",
        lambda x, of: ranking(x, start=lambda k: 0) if of == "ranking" else pairs(x))  # fmt: skip
_mutant("last_left_out", "Only the best is drawn.", lambda x, of: ranking(x, stop=lambda K: min(1, K - 1))
    if of == "ranking" else pairs(x))
_mutant("sum_over_pairs", "Not divided by their number.", lambda x, of: ranking(x) if of == "ranking"
    else pairs(x, mean=False))
_mutant("neighbours_alone", "Neighbours in the ranking alone.", lambda x, of: ranking(x) if of == "ranking"
    else pairs(x, neighbours=True))
_mutant("not_invariant", "A drift with the mean reward.", lambda x, of: right(x, of) + 1e-3 * x.mean(-1))
_mutant("overflows", "exp of the rewards as they are.", lambda x, of: (
    sum(np.log(np.exp(x[..., k:]).sum(-1)) - x[..., k] for k in range(x.shape[-1] - 1)) if of == "ranking"
    else pairs(x)))  # fmt: skip
_mutant("slope_of_the_first", "The gradient of the first draw alone.", vjp=lambda g, x, *, of="ranking": (
    numeric(g, x, of, f=lambda x, of: ranking(x, stop=lambda K: min(1, K - 1)) if of == "ranking"
    else pairs(x, neighbours=True)).astype(x.dtype),))  # fmt: skip
_mutant("slope_negated", "The gradient of -L.", vjp=lambda g, x, *, of="ranking": (-numeric(g, x, of).astype(x.dtype),))
