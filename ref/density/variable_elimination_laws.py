"""Laws and mutants of variable elimination."""

from __future__ import annotations

import numpy as np

from ref.density.common_laws import (
    WHOLE,
    answer,
    draw_states,
    draw_tables,
    graph_fields,
    graph_flags,
    joint,
    roundings,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "density.variable_elimination"


def draw_query(draw, c):
    return tuple(int(i) for i in rng(draw).permutation(c.n)[: draw(dims(1, min(2, c.n)).strategy(False))])


def draw_evidence(draw, c):
    """States of some of the other nodes, taken from an assignment that can happen."""
    g, rows = rng(draw), [row for row, p in joint(c.parents, c.tables).items() if p > 0]
    row = rows[g.integers(len(rows))]
    others = [i for i in range(c.n) if i not in c.query]
    seen = [i for i in others if g.random() < 0.5]
    return {i: row[i] for i in seen} or None


space = cases(
    ID,
    **graph_fields(dims(1, 5)),
    states=draw_states,
    tables=draw_tables,
    query=draw_query,
    evidence=draw_evidence,
    order=None,
    Q=lambda draw, c: tuple(c.states[q] for q in c.query),
    flags={
        **graph_flags(),
        "two_asked": Flag(lambda c: len(c.query) > 1 and c.query[0] > c.query[1] and len(set(c.Q)) > 1,
                          {"n": dims(3, 4), "states": lambda draw, c: (2, 3, 2, 3)[: c.n]}),
        "observed": Flag(lambda c: bool(c.evidence) and sum(map(len, c.parents)) > 1, {"n": dims(3, 5)}),
        "hidden": Flag(lambda c: c.n - len(c.query) - len(c.evidence or {}) > 1 and sum(map(len, c.parents)) > 2,
                       {"n": dims(4, 5)}),
    },
)  # fmt: skip


def by_enumeration(parents, tables, query, evidence):
    """P(query | evidence) from the joint, an assignment at a time."""
    out = np.zeros([tables[q].shape[0] for q in query])
    for row, p in joint(parents, tables).items():
        if all(row[i] == s for i, s in (evidence or {}).items()):
            out[tuple(row[q] for q in query)] += p
    return out / out.sum()


@law(
    ID, "L1", closed_form=True, given=space.reach("two_asked", "observed", "hidden"),
    kills=["joint_not_conditional", "axes_in_rising_order", "evidence_in_its_own_table", "maximum_for_sum",
           "parents_reversed", "summed_before_multiplied"],
)  # fmt: skip
def it_is_the_conditional_of_the_joint(impl, c, expect):
    "P(Q | e) = sum of the joint over the hidden nodes at e, over its own sum, an assignment at a time."
    wanted = by_enumeration(c.parents, c.tables, c.query, c.evidence)
    expect(answer(expect, impl(c), c.Q), wanted, roundings(c, 16 * c.n, 0 * wanted + 1))


@law(
    ID, "L2", given=space.where(hidden=True), dtypes=WHOLE, kills=["neighbours_forgotten"],
    passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def any_order_gives_the_same(impl, c, expect):
    "The hidden nodes eliminated in rising order, in falling order and by the greedy rule: one result."
    hidden = [i for i in range(c.n) if i not in c.query and i not in (c.evidence or {})]
    out = answer(expect, impl(c), c.Q)
    limit = roundings(c, 32 * c.n, 0 * out + 1)
    for order in (hidden, hidden[::-1]):
        expect(answer(expect, impl(c.replace(order=tuple(order))), c.Q), out, limit, f"order {order}", scale=1.0)


@law(ID, "L3", closed_form=True, given=space.where(query=lambda draw, c: (_root(c),), evidence=None, n=dims(2, 5)),
     kills=["maximum_for_sum"], passes_null=["wrong_dtype"])  # fmt: skip
def a_root_alone_is_its_table(impl, c, expect):
    "No evidence: a node without parents has the distribution of its table."
    wanted = np.asarray(c.tables[c.query[0]], np.float64)
    expect(answer(expect, impl(c), c.Q), wanted, roundings(c, 16 * c.n, 0 * wanted + 1))


def _root(c):
    return next(i for i, each in enumerate(c.parents) if len(each) == 0)


CHAIN = 40
CHAIN_FIELDS = {
    "n": 2 * CHAIN,
    "parents": tuple(np.arange(i - 1, i) if 0 < i < CHAIN else np.arange(i - CHAIN, i - CHAIN + (i > 0))
                     for i in range(2 * CHAIN)),
    "states": (2,) * (2 * CHAIN),
    "query": lambda draw, c: (CHAIN - 1,),
    "evidence": lambda draw, c: {CHAIN + k: int(s) for k, s in enumerate(rng(draw).integers(0, 2, CHAIN))},
    "stays": choose(0.75, 0.5, 0.9375),
    "seen": choose(2.0**-30, 2.0**-36),
    "tables": lambda draw, c: _hidden_markov(c.stays, c.seen),
}  # fmt: skip


def _hidden_markov(stays, seen):
    """A chain of hidden nodes, each with a child of three states, two of them rare and telling."""
    walk = np.array([[stays, 1 - stays], [1 - stays, stays]])
    emit = np.array([[2 * seen, seen], [seen, 2 * seen], [1 - 3 * seen, 1 - 3 * seen]])
    return (np.array([0.5, 0.5]), *(walk for _ in range(CHAIN - 1)), *(emit for _ in range(CHAIN)))


@law(
    ID, "L4", closed_form=True, given=cases(ID, memory="C", order=None, Q=(2,), **CHAIN_FIELDS), dtypes=WHOLE,
    kills=["factors_not_scaled"], passes_null=["mutated"],
)  # fmt: skip
def a_noisy_chain_of_rare_observations(impl, c, expect):
    """A hidden Markov chain of 40 nodes, each with an observation of probability near 2^-30 or 2^-36: the odds of the
    last node follow the forward recursion r <- l (s r + 1 - s) / ((1 - s) r + s), l = 2 or 1/2, s to stay."""
    r, s = 1.0, c.stays
    for k in range(CHAIN):
        r = r if k == 0 else (s * r + 1 - s) / ((1 - s) * r + s)
        r *= 2.0 if c.evidence[CHAIN + k] == 0 else 0.5
    expect(answer(expect, impl(c), (2,)), np.array([r, 1]) / (1 + r), roundings(c, 12 * CHAIN, np.ones(2)))


@law(
    ID, "L5", given=space.where(n=dims(2, 4)).reach("edges", "observed"), dtypes=WHOLE, kills=["neighbours_forgotten"],
    passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def nodes_below_are_immaterial(impl, c, expect):
    "A new node below all others, unobserved, changes nothing."
    below = np.zeros((3, *c.states))
    below[0] = 0.25
    below[1] = np.arange(below[1].size).reshape(c.states) % 2 * 0.5
    below[2] = 1 - below[0] - below[1]
    more = c.replace(
        parents=(*c.parents, np.arange(c.n)),
        tables=(*c.tables, below.astype(c.dtype)),
        states=(*c.states, 3),
        n=c.n + 1,
    )
    out = answer(expect, impl(c), c.Q)
    expect(answer(expect, impl(more), c.Q), out, roundings(c, 32 * c.n, 0 * out + 1), scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------

NONE = np.zeros(0, np.int64)


def default(query=(0,), **options):
    """The default-size test: two nodes without an edge."""
    return lambda: (((NONE, NONE), (np.array([0.5, 0.5]), np.array([0.25, 0.75])), query), options)


def summed(parents, tables, query, evidence, *, combine="sum", at=None, normalise=True):
    """P(query | evidence) from the whole joint as one array, with parts that an edit replaces."""
    n, dtype = len(tables), tables[0].dtype
    whole = np.ones([t.shape[0] for t in tables])
    for i, each in enumerate(parents):
        axes = (i, *(int(j) for j in each))
        table = np.transpose(np.asarray(tables[i], np.float64), np.argsort(axes))
        whole = whole * table.reshape([tables[j].shape[0] if j in axes else 1 for j in range(n)])
    for i, s in (evidence or {}).items():
        whole = np.take(whole, [s], axis=i)
    gone = tuple(i for i in range(n) if i not in query)
    left = whole.sum(gone) if combine == "sum" else whole.max(gone)
    order = [sorted(query).index(q) for q in query]
    out = np.transpose(left, order) if at is None else at(left)
    return np.asarray(out / out.sum() if normalise else out).astype(dtype)


@mutant(ID, default_case=default())
def joint_not_conditional(parents, tables, query, *, evidence=None, order=None):
    "P(q, e): right where nothing is observed."
    return summed(parents, tables, query, evidence, normalise=False)


@mutant(ID, default_case=default((0, 1)))
def axes_in_rising_order(parents, tables, query, *, evidence=None, order=None):
    "The axes by the numbers of the nodes, not as asked."

    def at(left):
        shape = [tables[q].shape[0] for q in query]
        return left if left.shape == tuple(shape) else left.reshape(shape)

    return summed(parents, tables, query, evidence, at=at)


@mutant(ID, default_case=default(evidence={1: 0}))
def evidence_in_its_own_table(parents, tables, query, *, evidence=None, order=None):
    "The observed node's own table is cut, its children's are summed over it."
    cut = list(tables)
    for i, s in (evidence or {}).items():
        cut[i] = np.where(np.arange(tables[i].shape[0]).reshape(-1, *(1,) * (tables[i].ndim - 1)) == s, tables[i], 0)
    free = [np.take(t, [0], axis=0) * 0 + t.sum(0, keepdims=True) if i in (evidence or {}) else t
            for i, t in enumerate(cut)]  # fmt: skip
    wide = [np.broadcast_to(f, t.shape) for f, t in zip(free, tables, strict=True)]
    return summed(parents, wide, query, None)


@mutant(ID, default_case=default())
def maximum_for_sum(parents, tables, query, *, evidence=None, order=None):
    "The most probable completion for the sum over all."
    return summed(parents, tables, query, evidence, combine="max")


@mutant(ID, default_case=default())
def parents_reversed(parents, tables, query, *, evidence=None, order=None):
    "The axes of the parents in the reverse order."
    turned = tuple(np.transpose(t, (0, *range(t.ndim - 1, 0, -1))) for t in tables)
    turned = tuple(t if t.shape == u.shape else u for t, u in zip(turned, tables, strict=True))
    return summed(parents, turned, query, evidence)


@mutant(ID, default_case=default())
def summed_before_multiplied(parents, tables, query, *, evidence=None, order=None):
    "Each factor summed over its hidden nodes alone, then the product."
    seen, out = evidence or {}, np.ones([tables[q].shape[0] for q in query])
    for i, each in enumerate(parents):
        axes = (i, *(int(j) for j in each))
        t = np.asarray(tables[i], np.float64)[tuple(seen.get(j, slice(None)) for j in axes)]
        left = [j for j in axes if j not in seen]
        t = t.sum(tuple(k for k, j in enumerate(left) if j not in query))
        kept = [j for j in left if j in query]
        t = np.transpose(t, np.argsort([query.index(j) for j in kept]))
        out = out * t.reshape([tables[q].shape[0] if q in kept else 1 for q in query])
    return (out / max(out.sum(), 1e-300)).astype(tables[0].dtype)


@mutant(ID, default_case=default())
def neighbours_forgotten(parents, tables, query, *, evidence=None, order=None):
    "The first hidden node of the order (else the last of all) takes the factors it touches along."
    seen = evidence or {}
    hidden = list(order) if order is not None else [i for i in range(len(tables)) if i not in query and i not in seen]
    flat = list(tables)
    for i, each in enumerate(parents):
        node = hidden[0] if order is not None and hidden else hidden[-1] if hidden else None
        if node is not None and node in map(int, each) and i not in query:
            flat[i] = np.full_like(tables[i], 1 / tables[i].shape[0])
    return summed(parents, flat, query, evidence)


@mutant(ID, default_case=default())
def factors_not_scaled(parents, tables, query, *, evidence=None, order=None):
    "Plain products: the forward recursion of a long chain underflows to 0 / 0."
    if len(tables) < 2 * CHAIN:
        return summed(parents, tables, query, evidence)
    a = tables[0] * tables[CHAIN][evidence[CHAIN]]
    for k in range(1, CHAIN):
        a = (tables[k] @ a) * tables[CHAIN + k][evidence[CHAIN + k]]
    total = a.sum()
    return a / total if total > 0 else np.zeros_like(a)
