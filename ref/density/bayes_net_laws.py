"""Laws and mutants of the discrete Bayes net."""

from __future__ import annotations

import numpy as np

from ref.density.common_laws import (
    all_states,
    draw_states,
    draw_tables,
    graph_fields,
    graph_flags,
    joint,
    roundings,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "density.bayes_net"


def draw_x(draw, c):
    shape = (*c.B, c.n)
    return rng(draw).integers(0, np.array(c.states), shape) if c.n else np.zeros(shape, np.int64)


space = cases(
    ID,
    **graph_fields(dims(1, 4)),
    B=batch(2, 3, large=80),
    states=draw_states,
    tables=draw_tables,
    x=draw_x,
    flags={
        **graph_flags(),
        "impossible": Flag(lambda c: any((t == 0).any() for t in c.tables), {}),
        "three_states": Flag(lambda c: 3 in c.states, {"states": lambda draw, c: (3,) * c.n}),
    },
)


def full(c):
    """The case with every assignment as its batch."""
    x = all_states(c.states)
    return c.replace(x=x, B=(len(x),))


@law(ID, "L1", closed_form=True, given=space.reach("edges", "impossible", "three_states"), kills=["own_state_last"])
def all_assignments_sum_to_one(impl, c, expect):
    "sum over all assignments of e^{log p} = 1, and no probability is above 1."
    p = np.exp(np.asarray(impl(full(c)), np.float64))
    expect(p.sum(), 1.0, roundings(c, 16 * c.n, 1.0), "sum of p")
    expect.at_most(p, 1 + 1e-5, "a probability")


@law(
    ID, "L2", closed_form=True, given=space.reach("edges", "two_parents", "backward"),
    kills=["parents_ignored", "parents_reversed", "rows_for_columns"],
)  # fmt: skip
def the_joint_gives_back_the_tables(impl, c, expect):
    "p(x_i = s, parents) / p(parents), summed from the joint, is the entry of the table, for every node and column."
    now = full(c)
    p = np.exp(np.asarray(impl(now), np.float64)).reshape(c.states)
    for i, each in enumerate(c.parents):
        kept = [i, *map(int, each)]
        gone = tuple(j for j in range(c.n) if j not in kept)
        both = p.sum(axis=gone)
        both = np.transpose(both, [sorted(kept).index(j) for j in kept])
        wanted = np.asarray(c.tables[i], np.float64) * both.sum(0)
        expect(both, wanted, roundings(c, 32 * c.n, wanted + both), f"node {i}", scale=1.0)


@law(
    ID, "L3", closed_form=True, given=space.reach("edges", "two_parents", "three_states"),
    kills=["parents_ignored", "parents_reversed", "rows_for_columns", "mean_of_the_logs"],
)  # fmt: skip
def it_is_the_product_of_entries(impl, c, expect):
    "p(x) = prod_i T_i[x_i, x_pa], one entry a table, and log 0 = -inf."
    wanted = joint(c.parents, c.tables)
    out = np.asarray(impl(c), np.float64)
    logs = np.array([np.log(wanted[tuple(map(int, c.x[at]))]) for at in np.ndindex(*c.B)]).reshape(c.B)
    size = np.where(np.isfinite(logs), np.abs(logs), 0)
    expect(out, logs, roundings(c, 12 + c.n, size + c.n), scale=4 + float(np.max(size, initial=0)))


@law(
    ID, "L4", closed_form=True, given=space.where(n=choose(120, 130), parents=lambda draw, c: _chain(c.n),
    states=lambda draw, c: (2,) * c.n, tables=lambda draw, c: _rare(c.n), x=lambda draw, c: np.ones((*c.B, c.n), int)),
    kills=["log_of_the_product"],
)  # fmt: skip
def many_small_factors(impl, c, expect):
    "n nodes in a chain, each 1 with probability 2^-10 whatever the one before: log p(1 .. 1) = -10 n log 2."
    wanted = np.full(c.B, -10 * c.n * np.log(2.0))
    expect(impl(c), wanted, roundings(c, c.n + 8, wanted), scale=1000.0)


def _chain(n):
    return tuple(np.arange(i - 1, i) if i else np.zeros(0, np.int64) for i in range(n))


def _rare(n):
    column = np.array([1 - 2.0**-10, 2.0**-10])
    return (column, *(np.stack([column, column], 1) for _ in range(n - 1)))


@law(
    ID, "L5", given=space.where(n=dims(2, 4)).reach("edges"), kills=["parents_sorted"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def numbers_of_nodes_are_names(impl, c, expect):
    "The net with its nodes renumbered, and its assignments with it, has the same probabilities."
    new = np.roll(np.arange(c.n), 1)  # node i is called new[i]
    old = np.argsort(new)
    now = c.replace(
        x=c.x[..., old].copy(), tables=tuple(c.tables[i] for i in old), states=tuple(c.states[i] for i in old),
        parents=tuple(new[np.asarray(c.parents[i])] for i in old),
    )  # fmt: skip
    here, there = np.asarray(impl(c), np.float64), impl(now)
    size = np.where(np.isfinite(here), np.abs(here), 0) + c.n
    expect(there, here, roundings(c, 12 + c.n, size), scale=float(np.max(size, initial=1)))


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: two nodes without an edge."""
    tables = (np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    none = np.zeros(0, np.int64)
    return (np.array([[0, 1], [1, 1]]), (none, none), tables), {}


def symmetric():
    """The default-size test: a table that is its own transpose, over two nodes."""
    tables = (np.array([0.5, 0.5]), np.array([[0.25, 0.75], [0.75, 0.25]]))
    return (np.array([[0, 1], [1, 1]]), (np.zeros(0, np.int64), np.array([0])), tables), {}


def looked_up(x, parents, tables, entry):
    """Sum of the logs of entry(i, x, parents of i, table of i)."""
    with np.errstate(divide="ignore"):
        logs = [np.log(entry(i, x, list(map(int, each)), tables[i])) for i, each in enumerate(parents)]
    return np.asarray(np.sum(logs, axis=0)).astype(tables[0].dtype)


def right(i, x, each, table):
    return table[tuple(x[..., j] for j in (i, *each))]


@mutant(ID, default_case=default)
def parents_ignored(x, parents, tables):
    "Every node by the first column of its table."
    return looked_up(x, parents, tables, lambda i, x, each, t: t.reshape(t.shape[0], -1)[:, 0][x[..., i]])


@mutant(ID, default_case=default)
def own_state_last(x, parents, tables):
    "The node's own state looked up along the last axis: another library's orientation."

    def entry(i, x, each, t):
        at = (*each, i)
        return t[tuple(np.minimum(x[..., j], n - 1) for j, n in zip(at, t.shape, strict=True))]

    return looked_up(x, parents, tables, entry)


@mutant(ID, default_case=symmetric)
def parents_reversed(x, parents, tables):
    "The axes of the parents in the reverse order."

    def entry(i, x, each, t):
        at = (i, *each[::-1])
        return t[tuple(np.minimum(x[..., j], n - 1) for j, n in zip(at, t.shape, strict=True))]

    return looked_up(x, parents, tables, entry)


@mutant(ID, default_case=symmetric)
def rows_for_columns(x, parents, tables):
    "The node's own state looked up along the first parent's axis."

    def entry(i, x, each, t):
        at = (each[0], i, *each[1:]) if each else (i,)
        return t[tuple(np.minimum(x[..., j], n - 1) for j, n in zip(at, t.shape, strict=True))]

    return looked_up(x, parents, tables, entry)


@mutant(ID, default_case=symmetric)
def parents_sorted(x, parents, tables):
    "Parents in rising order, whatever order the net names them in."

    def entry(i, x, each, t):
        at = (i, *sorted(each))
        return t[tuple(np.minimum(x[..., j], n - 1) for j, n in zip(at, t.shape, strict=True))]

    return looked_up(x, parents, tables, entry)


@mutant(ID, default_case=lambda: ((np.array([[0], [1]]), (np.zeros(0, np.int64),), (np.array([0.25, 0.75]),)), {}))
def mean_of_the_logs(x, parents, tables):
    "The mean over the nodes."
    return (looked_up(x, parents, tables, right) / len(tables)).astype(tables[0].dtype)


@mutant(ID, default_case=symmetric)
def log_of_the_product(x, parents, tables):
    "Probabilities multiplied, then the logarithm: underflows."
    p = np.ones(x.shape[:-1], tables[0].dtype)
    for i, each in enumerate(parents):
        p = p * right(i, x, list(map(int, each)), tables[i])
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p))
