"""Discrete Bayes net: the log-probability of full assignments.

Source: Pearl 1988, Probabilistic Reasoning in Intelligent Systems, sec. 3.3; Koller & Friedman 2009, Def. 3.5 and
Eq. 3.17 (the chain rule of Bayesian networks).

    p(x_1 .. x_n) = prod_i p(x_i | parents of i) = prod_i T_i[x_i, x_{pa_1}, .., x_{pa_k}]

Notation
    T_i -> tables[i], one conditional probability table (CPT) a node; its first axis is the node's own state, the
    others are the states of parents[i], in that order. A column is the first axis at one configuration of the parents.

Conventions
    C1  Columns sum to 1 (pgmpy's orientation). Koller & Friedman print configurations as rows: the last axis there.
    C2  A probability of 0 gives -inf, which is lawful.
    C3  Logarithms are summed: a product of 400 probabilities of 1/8 is 0 in float64.

Laws
    L1 all_assignments_sum_to_one           L2 the_joint_gives_back_the_tables
    L3 it_is_the_product_of_entries         L4 many_small_factors
    L5 numbers_of_nodes_are_names
"""

from __future__ import annotations

import numpy as np

from ref.density.topological_order import check_parents, order_of
from ref.spec import bind, spec


@spec("density.bayes_net", "x:int[*B n], parents:tree, tables:tree -> [*B]", backends=("numpy",), infinite=True)
def bayes_net(x, parents, tables):
    """Log-probability of assignments to all nodes of a Bayes net.

    Parameters
    ----------
    x : int[*B n]
        A state of each node.
    parents : sequence of n sequences of int
    tables : sequence of n float arrays
        tables[i][state of i, states of parents[i]].

    Returns
    -------
    float[*B]
        Nats; -inf where a factor is 0.

    Raises
    ------
    ValueError
        A cycle (named), a table whose axes are not those of its node and parents, a column that does not sum to 1, a
        negative probability, or a state out of range.
    TypeError
        x is not int, or the tables are not float arrays of one dtype.

    Complexity: B n look-ups.

    >>> rain, wet = np.array([0.75, 0.25]), np.array([[0.5, 0.0], [0.5, 1.0]])
    >>> np.exp(bayes_net(np.array([[1, 1], [0, 1]]), ((), (0,)), (rain, wet)))
    array([0.25 , 0.375])
    """
    parents, tables = check_net("bayes_net", parents, tables)
    check_nodes("bayes_net", "x", bind("bayes_net", "x:int[*B n]", x=x)["n"], parents)
    _check_states(x, tables)
    total = np.zeros(x.shape[:-1], tables[0].dtype if tables else np.float64)
    with np.errstate(divide="ignore"):
        for i, each in enumerate(parents):
            total = total + np.log(tables[i][tuple(x[..., j] for j in (i, *each))])
    return np.asarray(total)


def check_net(function, parents, tables):
    """(parents, tables), or the error that says what is wrong with the net."""
    parents = check_parents(function, parents)
    order_of(function, parents)
    tables = tuple(tables)
    if len(tables) != len(parents):
        raise ValueError(f"{function}: {len(parents)} nodes and {len(tables)} tables; needed one table a node")
    for i, (each, table) in enumerate(zip(parents, tables, strict=True)):
        if getattr(table, "dtype", None) != tables[0].dtype or table.dtype.kind != "f":
            raise TypeError(
                f"{function}: table {i} is {getattr(table, 'dtype', type(table).__name__)}, "
                f"table 0 {getattr(tables[0], 'dtype', type(tables[0]).__name__)}; needed float arrays of one dtype"
            )
        if table.ndim != 1 + len(each) or 0 in table.shape:
            raise ValueError(
                f"{function}: table {i} has shape {table.shape}; node {i} has {len(each)} parents, so it needs "
                f"{1 + len(each)} axes, none of them empty"
            )
    for i, each in enumerate(parents):
        wanted = tuple(tables[p].shape[0] for p in each)
        if tables[i].shape[1:] != wanted:
            raise ValueError(
                f"{function}: table {i} has {tables[i].shape[1:]} states of its parents {each}; they have {wanted}"
            )
        _check_columns(function, i, tables[i])
    return parents, tables


def _check_columns(function, i, table):
    if not (table >= 0).all():
        raise ValueError(f"{function}: table {i} holds {table.min():g}; needed probabilities >= 0")
    sums = table.sum(0)
    slack = max(1e-6, 8 * table.shape[0] * float(np.finfo(table.dtype).eps))
    wrong = np.argwhere(~(np.abs(sums - 1) <= slack))
    if len(wrong):
        column = tuple(map(int, wrong[0]))
        raise ValueError(f"{function}: column {column} of table {i} sums to {sums[column]:.9g}; needed 1")


def check_nodes(function, name, found, parents):
    """ValueError unless an array has a column for each node."""
    if found != len(parents):
        raise ValueError(f"{function}: {name} has n={found} columns; needed one for each of the {len(parents)} nodes")


def _check_states(x, tables):
    """ValueError unless every column of x holds states of its node."""
    for i, table in enumerate(tables):
        wrong = (x[..., i] < 0) | (x[..., i] >= table.shape[0])
        if wrong.any():
            raise ValueError(
                f"bayes_net: x holds the state {int(x[..., i][wrong].flat[0])} of node {i}; "
                f"needed 0..{table.shape[0] - 1}"
            )
