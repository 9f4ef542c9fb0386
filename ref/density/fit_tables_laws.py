"""Laws and mutants of tables fitted to data."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from ref.density.common_laws import WHOLE, draw_states, graph_fields, graph_flags, roundings
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "density.fit_tables"
space = cases(
    ID,
    **graph_fields(dims(1, 4)),
    N=dims(1, 12, large=200),
    states=lambda draw, c: np.array(draw_states(draw, c)),
    x=lambda draw, c: rng(draw).integers(0, c.states, (c.N, c.n)),
    smoothing=choose(1.0, 0.5, 0.0),
    flags={
        **graph_flags(),
        "unseen": Flag(lambda c: _unseen(c), {"n": dims(3, 4), "N": dims(1, 2)}),
        "three_states": Flag(lambda c: 3 in c.states, {"states": lambda draw, c: np.full(c.n, 3)}),
    },
)
plain = space.where(smoothing=0.0)


def _unseen(c):
    return any(len(set(map(tuple, c.x[:, list(map(int, each))]))) < math.prod(c.states[list(map(int, each))])
               for each in c.parents)  # fmt: skip


def counts(c, nodes):
    """{states of those nodes: rows that have them}."""
    return Counter(tuple(map(int, row[list(nodes)])) for row in c.x)


def entropy(c, nodes):
    """Of the empirical distribution of those nodes, in nats."""
    return -sum(k / c.N * math.log(k / c.N) for k in counts(c, nodes).values())


def loss(c, tables, expect):
    """Mean of -log p over the rows, entry by entry; the tables must be there in their shapes."""
    total = 0.0
    for i, each in enumerate(c.parents):
        axes = (i, *map(int, each))
        shape = tuple(int(c.states[j]) for j in axes)
        expect.holds(len(tables) == c.n and tables[i].shape == shape, f"table {i} must have the shape {shape}")
        for row in c.x:
            p = float(tables[i][tuple(row[j] for j in axes)])
            total -= math.log(p) if p > 0 else -math.inf
    return total / c.N


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE, given=plain.where(n=1),
    kills=["smoothed_anyway", "one_row_less"],
)  # fmt: skip
def a_node_alone_has_its_frequencies(impl, c, expect):
    "n = 1, a = 0: T[s] = N[s] / N."
    seen = counts(c, (0,))
    wanted = np.array([seen[(s,)] / c.N for s in range(int(c.states[0]))])
    expect(impl(c)[0], wanted, roundings(c, 4, 0 * wanted + 1))


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE,
    given=plain.where(n=dims(2, 4), parents=lambda draw, c: tuple(np.arange(i) for i in range(c.n))),
    kills=["joint_for_conditional", "smoothed_anyway", "parents_reversed"],
)  # fmt: skip
def the_full_tree_has_the_entropy_of_the_data(impl, c, expect):
    "Each node given all before it, a = 0: the mean of -log p over the rows is the entropy of the rows."
    wanted = entropy(c, range(c.n))
    limit = roundings(c, 16 * c.n * c.N, 1 + wanted)
    expect(np.asarray(loss(c, impl(c), expect)), np.asarray(wanted), limit, "loss", scale=1.0)


@law(
    ID, "L3", closed_form=True, dtypes=WHOLE, given=plain.reach("edges", "two_parents", "backward"),
    kills=["joint_for_conditional", "smoothed_anyway", "one_row_less"],
)  # fmt: skip
def loss_is_the_sum_of_conditional_entropies(impl, c, expect):
    "a = 0: the mean of -log p is sum_i H(x_i, pa_i) - H(pa_i) of the empirical distribution."
    wanted = sum(entropy(c, (i, *map(int, each))) - entropy(c, tuple(map(int, each)))
                 for i, each in enumerate(c.parents))  # fmt: skip
    limit = roundings(c, 16 * c.n * c.N, 1 + wanted)
    expect(np.asarray(loss(c, impl(c), expect)), np.asarray(wanted), limit, "loss", scale=1.0)


@law(
    ID, "L4", closed_form=True, dtypes=WHOLE, given=space.reach("edges", "unseen", "three_states"),
    kills=["smoothing_once_a_column", "smoothing_by_two", "parents_reversed", "unseen_is_zero",
           "unseen_is_the_marginal"],
)  # fmt: skip
def smoothed_counts_by_loops(impl, c, expect):
    "T_i[s, pa] = (N[s, pa] + a) / (N[pa] + a S_i), and 1 / S_i where that is 0 / 0."
    found = impl(c)
    for i, each in enumerate(c.parents):
        nodes = [i, *map(int, each)]
        both, alone, S = counts(c, nodes), counts(c, nodes[1:]), int(c.states[i])
        wanted = np.zeros([int(c.states[j]) for j in nodes])
        for at in np.ndindex(wanted.shape):
            below = alone[at[1:]] + c.smoothing * S
            wanted[at] = (both[at] + c.smoothing) / below if below else 1 / S
        expect(found[i], wanted, roundings(c, 8, 0 * wanted + 1), f"table {i}")


@law(
    ID, "L5", closed_form=True, dtypes=WHOLE, given=plain.where(N=dims(3, 12)).reach("edges", "three_states"),
    kills=["smoothed_anyway", "one_row_less", "parents_reversed"],
)  # fmt: skip
def no_other_tables_fit_better(impl, c, expect):
    "a = 0: mixed with any other table the loss is no less; columns are non-negative and sum to 1."
    found = impl(c)
    best = loss(c, found, expect)
    g = np.random.default_rng(c.N)
    for i, table in enumerate(found):
        expect(table.sum(0), np.ones(table.shape[1:]), roundings(c, 8, np.ones(table.shape[1:])), f"sums of table {i}")
        expect.at_most(0, table, f"an entry of table {i}")
        other = g.random(table.shape)
        mixed = [0.9 * t + 0.1 * other / other.sum(0) if k == i else t for k, t in enumerate(found)]
        expect.at_most(best, loss(c, mixed, expect) + 1e-12, "the loss")
    small = sum(entropy(c, (i, *map(int, e))) - entropy(c, tuple(map(int, e))) for i, e in enumerate(c.parents))
    expect.at_most(best, small + 1e-12 * c.N, "the loss")


# Mutants ---------------------------------------------------------------------------------------------


def default(**options):
    """The default-size test: a thousand rows of one node, half of them 1."""
    x = np.arange(100_000)[:, None] % 2
    return lambda: ((x, (np.zeros(0, np.int64),), np.array([2])), options)


def fitted(x, parents, states, smoothing, *, axes=lambda each: each, table):
    """table(counts, S) for each node, from counts by loops."""
    out = []
    for i, each in enumerate(parents):
        nodes = (i, *axes([int(j) for j in each]))
        counts = np.zeros([int(states[j]) for j in nodes])
        np.add.at(counts, tuple(x[:, j] for j in nodes), 1)
        made = table(counts, int(states[i]), x)
        shape = [int(states[j]) for j in (i, *map(int, each))]
        out.append(made if list(made.shape) == shape else made.reshape(shape))
    return tuple(out)


def column(counts, S, a, added):
    """(counts + a) over the column's count and `added`, uniform where that is 0."""
    below = np.broadcast_to(counts.sum(0) + added, counts.shape)
    return np.where(below > 0, (counts + a) / np.where(below > 0, below, 1), 1 / S)


@mutant(ID, default_case=default())
def smoothed_anyway(x, parents, states, *, smoothing=0.0):
    "A tenth is added also at smoothing 0: unseen over many rows."
    a = smoothing or 0.1
    return fitted(x, parents, states, a, table=lambda k, S, x: column(k, S, a, a * S))


@mutant(ID, default_case=default())
def one_row_less(x, parents, states, *, smoothing=0.0):
    "The last row is not counted."
    a = smoothing
    return fitted(x[:-1], parents, states, a, table=lambda k, S, x: column(k, S, a, a * S))


@mutant(ID, default_case=default())
def joint_for_conditional(x, parents, states, *, smoothing=0.0):
    "Counts over the number of rows: a table without parents does not tell."
    return fitted(x, parents, states, smoothing, table=lambda k, S, x: (k + smoothing) / (len(x) + smoothing * S))


@mutant(ID, default_case=default())
def smoothing_once_a_column(x, parents, states, *, smoothing=0.0):
    "a in the denominator once, not once a state: columns sum to more than 1."
    return fitted(x, parents, states, smoothing, table=lambda k, S, x: column(k, S, smoothing, smoothing))


@mutant(ID, default_case=default(smoothing=1.0))
def smoothing_by_two(x, parents, states, *, smoothing=0.0):
    "2 a in the denominator, right for nodes of two states."
    return fitted(x, parents, states, smoothing, table=lambda k, S, x: column(k, S, smoothing, 2 * smoothing))


@mutant(ID, default_case=default())
def parents_reversed(x, parents, states, *, smoothing=0.0):
    "The axes of the parents in the reverse order."
    return fitted(x, parents, states, smoothing, axes=lambda each: each[::-1],
                  table=lambda k, S, x: column(k, S, smoothing, smoothing * S))  # fmt: skip


@mutant(ID, default_case=default())
def unseen_is_zero(x, parents, states, *, smoothing=0.0):
    "A column without data is 0 throughout."

    def table(k, S, x):
        below = np.broadcast_to(k.sum(0) + smoothing * S, k.shape)
        return np.where(below > 0, (k + smoothing) / np.where(below > 0, below, 1), 0.0)

    return fitted(x, parents, states, smoothing, table=table)


@mutant(ID, default_case=default())
def unseen_is_the_marginal(x, parents, states, *, smoothing=0.0):
    "A column without data takes the node's frequencies over all rows."

    def table(k, S, x):
        alone = k.reshape(S, -1).sum(1) / max(k.sum(), 1)
        return np.where(k.sum(0) + smoothing > 0, column(k, S, smoothing, smoothing * S),
                        alone.reshape(S, *(1,) * (k.ndim - 1)))  # fmt: skip

    return fitted(x, parents, states, smoothing, table=table)
