"""Laws and mutants of the routing to experts."""

from __future__ import annotations

import math

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.expert_routing"


def _probs(draw, c):
    """Rows that add up to about 1, in sixteenths: ties are common."""
    return rng(draw).integers(0, 9 if c.ties else 2000, (c.T, c.E)) / (16.0 if c.ties else 2048.0)


space = cases(
    ID, T=dims(0, 9, 200), E=dims(1, 6, 40), k=lambda draw, c: draw(choose(*range(1, min(c.E, 3) + 1))),
    ties=choose(False, True), probs=_probs, capacity_factor=choose(None, 0.0, 0.25, 0.5, 1.0, 1.25, 2.0),
    flags={
        "empty": Flag(lambda c: c.T == 0, {"T": 0}),
        "crowded": Flag(
            lambda c: max(asked(c)) > slots(c) > 0,
            {"T": dims(5, 9), "E": dims(2, 4), "capacity_factor": choose(0.25, 0.5)},
        ),
        "several": Flag(lambda c: c.k > 1, {"E": dims(3, 6), "k": choose(2, 3)}),
    },
)  # fmt: skip


def best(probs, k):
    """The k best experts of a row, by Python's sort: greatest first, the lower of equal ones first."""
    return sorted(range(len(probs)), key=lambda e: (-float(probs[e]), e))[:k]


def asked(c):
    """How many choices name each expert."""
    choices = [e for row in c.probs for e in best(row, c.k)]
    return [choices.count(e) for e in range(c.E)]


def slots(c):
    return c.k * c.T if c.capacity_factor is None else math.ceil(c.capacity_factor * c.k * c.T / c.E)


@law(
    ID, "L1", closed_form=True, given=space.reach("several"),
    kills=["least_first", "higher_of_equals", "choices_by_number"],
)  # fmt: skip
def choices_are_the_greatest(impl, c, expect):
    "expert[t] are the k greatest of row t, the greatest first, the lower of equal ones first."
    expert, _, _ = impl(c)
    expect.same(expert, np.array([best(row, c.k) for row in c.probs], np.int64).reshape(c.T, c.k), "experts")


@law(
    ID, "L2", closed_form=True, given=space.reach("crowded", "several", "empty"),
    kills=["one_slot_more", "rounded_down", "load_of_the_kept", "capacity_a_choice"],
)  # fmt: skip
def kept_is_the_lesser_of_load_and_capacity(impl, c, expect):
    "load[e] is how many choices name e; min(load[e], C) of them are kept, so sum_e max(load[e] - C, 0) are dropped."
    expert, kept, load = impl(c)
    wanted = asked(c)
    expect.same(load, np.array(wanted, np.int64), "load")
    for e, n in enumerate(wanted):
        expect.same(int(kept[expert == e].sum()), min(n, slots(c)), f"kept of expert {e}")
    expect.same(int((~kept).sum()), sum(max(n - slots(c), 0) for n in wanted), "dropped")


@law(
    ID, "L3", closed_form=True, given=space.where(crowded=True),
    kills=["last_tokens_first", "token_by_token", "one_slot_more"],
)  # fmt: skip
def first_choices_and_first_tokens_first(impl, c, expect):
    "A choice is kept if fewer than C name its expert before it: earlier choices of any token, then earlier tokens."
    _, kept, _ = impl(c)
    seen, wanted = [], np.zeros((c.T, c.k), bool)
    for j in range(c.k):
        for t in range(c.T):
            e = best(c.probs[t], c.k)[j]
            wanted[t, j] = seen.count(e) < slots(c)
            seen.append(e)
    expect.same(kept, wanted, "kept")


# Mutants ---------------------------------------------------------------------------------------------


def of(k=1, factor=None):
    """The default-size test: four tokens, each its own expert."""
    return lambda: ((np.eye(4) / 2 + np.arange(4) / 64.0,), {"k": k, "capacity_factor": factor})


def routed(probs, k, factor, *, order=None, walk=None, room=None, cap=None):
    """The routing in loops, parts of which an edit replaces."""
    T, E = probs.shape
    order = order or (lambda row: best(row, k))
    expert = np.array([order(row) for row in probs], np.int64).reshape(T, k)
    C = (cap or (lambda T, E: k * T if factor is None else math.ceil(factor * k * T / E)))(T, E)
    walk = walk or [(t, j) for j in range(k) for t in range(T)]
    kept, seen = np.zeros((T, k), bool), []
    for t, j in walk:
        e = expert[t, j]
        kept[t, j] = (room or (lambda seen, e, j: sum(s == e for s, _ in seen) < C))(seen, e, j)
        seen.append((e, j))
    return expert, kept, np.array([(expert == e).sum() for e in range(E)], np.int64)


@mutant(ID, default_case=of())
def choices_by_number(probs, *, k=1, capacity_factor=None):
    "The k best, in the order of their numbers."
    return routed(probs, k, capacity_factor, order=lambda row: sorted(best(row, k)))


@mutant(ID, default_case=lambda: ((np.full((2, 1), 1.0),), {}))
def least_first(probs, *, k=1, capacity_factor=None):
    "Ascending."
    return routed(probs, k, capacity_factor, order=lambda row: best(-row, k))


@mutant(ID, default_case=of())
def higher_of_equals(probs, *, k=1, capacity_factor=None):
    "A sort that is flipped: between equal ones the higher."
    order = lambda row: sorted(range(len(row)), key=lambda e: (-float(row[e]), -e))[:k]  # noqa: E731
    return routed(probs, k, capacity_factor, order=order)


@mutant(ID, default_case=of(factor=1.0))
def one_slot_more(probs, *, k=1, capacity_factor=None):
    "<= where < must stand: C + 1 are kept."
    cap = lambda T, E: k * T if capacity_factor is None else math.ceil(capacity_factor * k * T / E) + 1  # noqa: E731
    return routed(probs, k, capacity_factor, cap=cap)


@mutant(ID, default_case=of(factor=1.0))
def rounded_down(probs, *, k=1, capacity_factor=None):
    "int(factor k T / E)."
    cap = lambda T, E: k * T if capacity_factor is None else int(capacity_factor * k * T / E)  # noqa: E731
    return routed(probs, k, capacity_factor, cap=cap)


@mutant(ID, default_case=of(factor=1.0))
def load_of_the_kept(probs, *, k=1, capacity_factor=None):
    "The load counts what is kept."
    expert, kept, load = routed(probs, k, capacity_factor)
    return expert, kept, np.array([((expert == e) & kept).sum() for e in range(len(load))], np.int64)


@mutant(ID, default_case=of(factor=1.0))
def capacity_a_choice(probs, *, k=1, capacity_factor=None):
    "First and second choices have slots of their own."
    T, E = probs.shape
    C = k * T if capacity_factor is None else math.ceil(capacity_factor * k * T / E)
    return routed(probs, k, capacity_factor, room=lambda seen, e, j: sum(s == (e, j) for s in seen) < C)


@mutant(ID, default_case=of(factor=1.0))
def last_tokens_first(probs, *, k=1, capacity_factor=None):
    "The walk goes backwards."
    walk = [(t, j) for j in range(k) for t in reversed(range(len(probs)))]
    return routed(probs, k, capacity_factor, walk=walk)


@mutant(ID, default_case=of(factor=1.0))
def token_by_token(probs, *, k=1, capacity_factor=None):
    "All choices of a token before the next token's: a second choice takes a first one's place."
    walk = [(t, j) for t in range(len(probs)) for j in range(k)]
    return routed(probs, k, capacity_factor, walk=walk)
