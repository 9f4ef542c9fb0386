"""Laws and mutants of ancestral sampling."""

from __future__ import annotations

import itertools

import numpy as np

from ref.density.common_laws import (
    WHOLE,
    all_states,
    draw_states,
    draw_tables,
    graph_fields,
    graph_flags,
    joint,
)
from ref.density.topological_order import order_of
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, dims, rng

ID = "density.ancestral_sample"
space = cases(
    ID,
    **graph_fields(dims(1, 4)),
    B=batch(2, 3, large=80),
    states=draw_states,
    tables=draw_tables,
    u=lambda draw, c: rng(draw).integers(0, 256, (*c.B, c.n)) / 256,
    flags={
        **graph_flags(),
        "impossible": Flag(lambda c: any((t == 0).any() for t in c.tables), {"n": dims(2, 4)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": (3,)}),
    },
)


def quarters(draw, c):
    return draw_tables(draw, c, total=4)


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE,
    given=space.where(n=dims(1, 3), tables=quarters).reach("edges", "backward"),
    kills=["as_numbered", "parents_reversed", "one_number_for_all", "numbers_in_order_of_visit"],
)  # fmt: skip
def a_grid_of_numbers_has_the_joint(impl, c, expect):
    """Tables of quarters, every u_i on the grid 1/8, 3/8, 5/8, 7/8: of the 4^n grid points, 4^n p(x) give x, exactly;
    and the state of a node does not fall as its number rises."""
    grid = np.array(list(itertools.product((0.125, 0.375, 0.625, 0.875), repeat=c.n)), c.dtype)
    x = impl(c.replace(u=grid, B=(4**c.n,)))
    wanted = joint(c.parents, c.tables)
    rows = all_states(c.states)
    counts = [int((x == row).all(-1).sum()) for row in rows]
    expect.same(np.array(counts), np.array([4**c.n * wanted[tuple(map(int, row))] for row in rows]))
    cube = x.reshape(*(4,) * c.n, c.n)
    for i in range(c.n):
        expect.at_most(0, np.diff(cube[..., i], axis=i), f"0, and the rise of the state of node {i} with its number,")


@law(
    ID, "L2", closed_form=True, given=space.where(tables=lambda draw, c: draw_tables(draw, c, total=1)).reach("edges"),
    kills=["as_numbered", "parents_reversed", "closed_on_the_right"],
)  # fmt: skip
def certain_tables_are_followed(impl, c, expect):
    "Tables of zeros and ones: the only assignment of probability 1, whatever u is, u = 0 included."
    row = next(row for row, p in joint(c.parents, c.tables).items() if p == 1)
    for u in (c.u, np.zeros_like(c.u)):
        expect.same(impl(c.replace(u=u)), np.broadcast_to(np.array(row), (*c.B, c.n)))


@law(
    ID, "L3", given=space.where(n=dims(2, 4), some=True).reach("edges"),
    kills=["numbers_in_order_of_visit", "one_number_for_all"], dtypes=WHOLE,
    passes_null=["zeros", "constant", "identity", "nan"],
)  # fmt: skip
def a_number_moves_its_descendants_alone(impl, c, expect):
    "Another u_i leaves every node that is neither i nor below i."
    x = impl(c)
    for i in range(c.n):
        below = {i}
        for _ in range(c.n):
            below |= {j for j, each in enumerate(c.parents) if below & set(map(int, each))}
        u = c.u.copy()
        u[..., i] = (u[..., i] + 0.5) % 1
        free = [j for j in range(c.n) if j not in below]
        expect.same(impl(c.replace(u=u))[..., free], x[..., free], f"nodes that are not below {i}")


@law(
    ID, "L4", closed_form=True, given=space.where(impossible=True, some=True),
    kills=["closed_on_the_right", "last_state_if_none"],
)  # fmt: skip
def states_without_probability_never_come(impl, c, expect):
    """u = 0, u just under 1 and u = 1/2, in all nodes: the entry of each table is positive. So it is for a last column
    of which rounding has lost a little."""
    top = float(np.nextafter(np.array(1, c.dtype), np.array(0, c.dtype)))
    short = tuple(np.concatenate([t[:-1] * t.dtype.type(1 - 2e-7), t[-1:], 0 * t[:1]]) if t.ndim == 1 else t
                  for t in c.tables)  # fmt: skip
    roots = {i for i, t in enumerate(c.tables) if t.ndim == 1}
    none = np.zeros(0, np.int64)
    lone = c.replace(tables=tuple(short[i] for i in roots), parents=tuple(none for _ in roots), n=len(roots),
                     u=np.full((1, len(roots)), top, c.dtype), B=(1,))  # fmt: skip
    for k, state in enumerate(impl(lone)[0]):
        expect.holds(lone.tables[k][state] > 0, f"state {state} of a root has probability 0")
    for u in (0.0, top, 0.5):
        x = impl(c.replace(u=np.full_like(c.u, u)))
        for i, each in enumerate(c.parents):
            p = c.tables[i][tuple(x[..., j] for j in (i, *map(int, each)))]
            expect.holds((p > 0).all(), f"a state of node {i} has probability 0 under u = {u}")


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: two nodes without an edge, numbers between the sums, the same for both."""
    none = np.zeros(0, np.int64)
    u = np.array([[0.125, 0.125], [0.875, 0.875]])
    return (u, (none, none), (np.array([0.5, 0.5]), np.array([0.25, 0.75]))), {}


def chosen(table, u):
    return np.minimum((np.cumsum(table, 0) <= u).sum(), len(table) - 1)


def drawn(u, parents, tables, *, order=None, column=None, pick=chosen, number=lambda k, i: i):
    """Sampling a row at a time, with parts that an edit replaces."""
    column = column or (lambda t, row, each: t[(slice(None), *(row[j] for j in each))])
    order = order_of("drawn", [list(map(int, each)) for each in parents]) if order is None else order
    x = np.zeros(u.shape, np.int64)
    for at in np.ndindex(u.shape[:-1]):
        for k, i in enumerate(order):
            x[(*at, i)] = pick(column(tables[i], x[at], list(map(int, parents[i]))), u[(*at, number(k, i))])
    return x


@mutant(ID, default_case=default)
def as_numbered(u, parents, tables):
    "Nodes 0 .. n - 1 in turn: a child before its parent sees state 0."
    return drawn(u, parents, tables, order=range(len(parents)))


@mutant(ID, default_case=default)
def parents_reversed(u, parents, tables):
    "The axes of the parents in the reverse order."

    def column(t, row, each):
        return t[(slice(None), *(min(row[j], n - 1) for j, n in zip(each[::-1], t.shape[1:], strict=True)))]

    return drawn(u, parents, tables, column=column)


@mutant(ID, default_case=default)
def one_number_for_all(u, parents, tables):
    "The first number of a sample for all its nodes."
    return drawn(u, parents, tables, number=lambda k, i: 0)


@mutant(ID, default_case=default)
def numbers_in_order_of_visit(u, parents, tables):
    "The k-th number for the k-th node of the order: right for nets numbered along their edges."
    return drawn(u, parents, tables, number=lambda k, i: k)


@mutant(ID, default_case=default)
def closed_on_the_right(u, parents, tables):
    "u <= the sum: u = 0 draws a first state of probability 0."
    return drawn(u, parents, tables, pick=lambda t, u: min((np.cumsum(t) < u).sum(), len(t) - 1))


@mutant(ID, default_case=default)
def last_state_if_none(u, parents, tables):
    "Where rounding leaves every sum below u, the last state, though its probability is 0."
    return drawn(u, parents, tables)
