"""Laws and mutants of the cost in closed form."""

from __future__ import annotations

import importlib

import numpy as np

from backends.communicators.simulator import Model, Phantom, simulate
from ref.distributed.common_laws import EXACT
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "distributed.cost"
ALL_REDUCES = (
    "ring_all_reduce", "recursive_doubling_all_reduce", "halving_doubling_all_reduce", "canonical_all_reduce",
)  # fmt: skip
NAMES = (
    *ALL_REDUCES, "ring_reduce_scatter", "canonical_reduce_scatter", "ring_all_gather", "bruck_all_gather",
    "binomial_broadcast", "scatter_gather_broadcast", "binomial_reduce", "pairwise_all_to_all",
    "dissemination_barrier",
)  # fmt: skip


def _int(values):
    return lambda draw, c: np.array(draw(choose(*values(c))))


def _rates(draw, c):
    return np.array([draw(choose(0.0, 1.0, 16.0)), draw(choose(0.0, 0.125, 1.0)), draw(choose(0.0, 0.25, 2.0))])


def odd(c):
    return int(c.ranks) & (int(c.ranks) - 1) > 0


# 3360 = 2^5 3 5 7: whatever the ranks up to 8, and the power of two below them, they divide the elements.
space = cases(
    ID, name=choose(*NAMES), ranks=_int(lambda c: range(1, 9)), size=_int(lambda c: (0, 3360, 6720)), rates=_rates,
    three=3, memory="C",
    flags={
        "odd": Flag(odd, {"ranks": _int(lambda c: (3, 5, 6, 7))}),
        "bytes": Flag(lambda c: c.size > 0 and c.rates.min() > 0 and c.ranks > 1,
                      {"size": _int(lambda c: (3360,)), "ranks": _int(lambda c: (2, 3, 4, 7, 8)),
                       "rates": lambda draw, c: np.array([1.0, 0.125, 0.25])}),
    },
)  # fmt: skip
reducing = space.where(name=choose(*ALL_REDUCES))


def near(c, value):
    return bounds.rounding(8, value, c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.where(ranks=_int(lambda c: (1, 2))),
    kills=["combined_twice", "tree_of_n_rounds"],
)  # fmt: skip
def two_ranks_in_closed_form(impl, c, expect):
    """One rank: nothing. Two: alpha (a + b) + S beta (s) + S gamma (g), by name: rings (2, 1, 1/2), doubling (1, 1, 1),
    halves (2, 1, 1/2), one half of it (1, 1/2, 1/2 or 0), trees (1, 1, 1 or 0), scatter and gather (2, 1, 0)."""
    messages, sent, combined = {
        "ring_all_reduce": (2, 1, 0.5), "canonical_all_reduce": (2, 1, 0.5), "halving_doubling_all_reduce": (2, 1, 0.5),
        "recursive_doubling_all_reduce": (1, 1, 1), "ring_reduce_scatter": (1, 0.5, 0.5),
        "canonical_reduce_scatter": (1, 0.5, 0.5), "ring_all_gather": (1, 0.5, 0), "bruck_all_gather": (1, 0.5, 0),
        "binomial_broadcast": (1, 1, 0), "binomial_reduce": (1, 1, 1), "scatter_gather_broadcast": (2, 1, 0),
        "pairwise_all_to_all": (1, 0.5, 0), "dissemination_barrier": (1, 8, 8),
    }[c.name]  # fmt: skip
    unit = 1 if c.name == "dissemination_barrier" else int(c.size)
    alpha, beta, gamma = (float(x) for x in c.rates)
    wanted = alpha * messages + beta * sent * unit + gamma * combined * unit if c.ranks == 2 else 0.0
    expect(impl(c), wanted, near(c, wanted))


def recorded(c):
    """Seconds of the slowest rank when the algorithm itself runs on the event queue."""
    n, L = int(c.ranks), int(c.size) // 4
    function = getattr(importlib.import_module(f"ref.distributed.{c.name}"), c.name)

    def program(comm):
        if c.name == "dissemination_barrier":
            return function(comm, 0.0)
        if "all_gather" in c.name:
            return function(comm, Phantom(L // n), length=L)
        return function(comm, Phantom(L))

    return simulate(n, program, Model(*(float(x) for x in c.rates))).seconds.max()


@law(
    ID, "L2", dtypes=EXACT, given=space.reach("odd", "bytes"),
    kills=["whole_size", "ranks_not_less_one", "logarithm_rounded_down", "folding_free", "tree_of_n_rounds"],
)  # fmt: skip
def is_what_the_rounds_take(impl, c, expect):
    "The slowest rank of the real algorithm, its messages recorded and run through an event queue."
    wanted = recorded(c)
    expect(impl(c), wanted, near(c, wanted))


@law(
    ID, "L3", closed_form=True, given=reducing.reach("bytes"), kills=["combining_shared"],
    passes_null=["constant"] if False else [],
)  # fmt: skip
def no_cheaper_than_the_bound(impl, c, expect):
    """ceil(log2 n) alpha + 2 (n - 1)/n S beta + (n - 1)/n S gamma is the least any all-reduce takes; ring and canonical
    reach its beta and gamma, and halving and doubling, for powers of two, is one more logarithm of alpha above."""
    n, S = int(c.ranks), int(c.size)
    alpha, beta, gamma = (float(x) for x in c.rates)
    m, q = (n - 1).bit_length(), (n - 1) / n * S
    least = m * alpha + 2 * q * beta + q * gamma
    found = np.asarray(impl(c), np.float64)
    expect.at_most(least - near(c, least), found, "the bound")
    if "ring" in c.name or "canonical" in c.name:
        expect(found, 2 * (n - 1) * alpha + 2 * q * beta + q * gamma, near(c, found), "the ring")
    if "halving" in c.name and not odd(c):
        expect(found, least + m * alpha, near(c, least + m * alpha), "halving and doubling")


@law(ID, "L4", given=space, kills=["latency_hidden"], passes_null=["zeros", "cached"])
def is_linear_in_the_rates(impl, c, expect):
    "cost(a + b) = cost(a) + cost(b), and cost(2 a) = 2 cost(a)."
    other = np.array([2.0, 0.5, 1.0], c.dtype)
    parts = [float(impl(c.replace(rates=x))) for x in (c.rates, other)]
    expect(impl(c.replace(rates=c.rates + other)), sum(parts), 2 * near(c, sum(parts)), scale=sum(parts) + 1)
    expect(impl(c.replace(rates=2 * c.rates)), 2 * parts[0], 2 * near(c, parts[0]), scale=parts[0] + 1)


# Mutants ---------------------------------------------------------------------------------------------


def of(name="ring_all_reduce", n=1, size=4096):
    return lambda: ((np.array(n), np.array(size), np.array([1.0, 0.5, 0.25])), {"name": name})


def counted(n, S, name, *, q=None, less=1, log=None, fold=True, tree=None, combined=1.0):
    """The table of the header, whose parts an edit replaces."""
    p = 1 << (n.bit_length() - 1)
    logp = p.bit_length() - 1
    m = log(n) if log else (n - 1).bit_length()
    m = tree(n) if tree else m
    q = (n - 1) / n * S if q is None else q
    k = n - less if n > 1 else 0
    f = (2, 2 * S, S) if n > p and fold else (0, 0, 0)
    half = (p - 1) / p * S
    table = {
        "ring_all_reduce": (2 * k, 2 * q, q), "canonical_all_reduce": (2 * k, 2 * q, q),
        "recursive_doubling_all_reduce": (logp + f[0], logp * S + f[1], logp * S + f[2]),
        "halving_doubling_all_reduce": (2 * logp + f[0], 2 * half + f[1], half + f[2]),
        "ring_reduce_scatter": (k, q, q), "canonical_reduce_scatter": (k, q, q), "ring_all_gather": (k, q, 0),
        "bruck_all_gather": (m, q, 0), "binomial_broadcast": (m, m * S, 0), "binomial_reduce": (m, m * S, m * S),
        "scatter_gather_broadcast": (m + k, 2 * q, 0), "pairwise_all_to_all": (k, q, 0),
        "dissemination_barrier": (m, 8 * m, 8 * m),
    }  # fmt: skip
    return table[name][0], table[name][1], combined * table[name][2]


def seconds(rates, factors):
    return np.asarray(rates[0] * factors[0] + rates[1] * factors[1] + rates[2] * factors[2]).astype(rates.dtype)


@mutant(ID, default_case=of())
def whole_size(ranks, size, rates, *, name):
    "S, not (n - 1)/n S: nearly right for many ranks."
    n, S = int(ranks), int(size)
    return seconds(rates, counted(n, S, name, q=S if n > 1 else 0))


@mutant(ID, default_case=of())
def ranks_not_less_one(ranks, size, rates, *, name):
    "n messages around the ring, not n - 1."
    return seconds(rates, counted(int(ranks), int(size), name, less=0))


@mutant(ID, default_case=of("binomial_broadcast", 4))
def logarithm_rounded_down(ranks, size, rates, *, name):
    "floor(log2 n) rounds of a tree."
    return seconds(rates, counted(int(ranks), int(size), name, log=lambda n: n.bit_length() - 1))


@mutant(ID, default_case=of("recursive_doubling_all_reduce", 4))
def folding_free(ranks, size, rates, *, name):
    "The ranks beyond a power of two cost nothing."
    return seconds(rates, counted(int(ranks), int(size), name, fold=False))


@mutant(ID, default_case=of("binomial_broadcast", 1))
def tree_of_n_rounds(ranks, size, rates, *, name):
    "n rounds of a tree of n ranks."
    return seconds(rates, counted(int(ranks), int(size), name, tree=lambda n: n if n > 1 else 0))


@mutant(ID, default_case=of("ring_all_gather", 4))
def combined_twice(ranks, size, rates, *, name):
    "Both ends of a message combine."
    return seconds(rates, counted(int(ranks), int(size), name, combined=2.0))


@mutant(ID, default_case=of("ring_all_gather", 4))
def combining_shared(ranks, size, rates, *, name):
    "The combining of all ranks, shared among them as if it overlapped the messages."
    return seconds(rates, counted(int(ranks), int(size), name, combined=0.5))


@mutant(ID, default_case=of("ring_all_gather", 1))
def latency_hidden(ranks, size, rates, *, name):
    "The greater of latency and transfer: a pipeline that is not there."
    a, b, g = counted(int(ranks), int(size), name)
    return np.asarray(max(rates[0] * a, rates[1] * b) + rates[2] * g).astype(rates.dtype)
