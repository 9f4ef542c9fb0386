"""Ancestral sampling of a Bayes net: parents before children, each state from one uniform number.

Source: Koller & Friedman 2009, Algorithm 12.1 (Forward-Sample); the inverse of a distribution function, Devroye 1986
sec. III.2.

    in a topological order:  x_i = min {s : u_i < sum_{r <= s} T_i[r, x_pa]}

Notation
    u[*B n] uniform in [0, 1), one number a node and sample; T_i -> tables[i], as in `density.bayes_net`.

Conventions
    C1  u_i belongs to node i, whenever it is visited: another order of visits gives the same sample.
    C2  Half-open: u equal to a cumulative sum goes to the next state, so a state of probability 0 is never drawn. Where
        rounding leaves the last sum below u, the last state of positive probability is taken.

Laws
    L1 a_grid_of_numbers_has_the_joint      L2 certain_tables_are_followed
    L3 a_number_moves_its_descendants_alone L4 states_without_probability_never_come
"""

from __future__ import annotations

import numpy as np

from ref.density.bayes_net import check_net, check_nodes
from ref.density.topological_order import order_of
from ref.spec import bind, spec


@spec("density.ancestral_sample", "u[*B n], parents:tree, tables:tree -> x:int[*B n]", backends=("numpy",))
def ancestral_sample(u, parents, tables):
    """Samples of a Bayes net as a function of uniform numbers.

    Parameters
    ----------
    u : float[*B n]
        In [0, 1), independent: `rng.random((B, n))`.
    parents, tables : as in `bayes_net`

    Returns
    -------
    int[*B n]
        A state of each node.

    Raises
    ------
    ValueError
        As `bayes_net`, or a number outside [0, 1).
    TypeError
        As `bayes_net`, or u is not float.

    Complexity: B times the number of states of all nodes.

    >>> rain, wet = np.array([0.75, 0.25]), np.array([[0.5, 0.0], [0.5, 1.0]])
    >>> ancestral_sample(np.array([[0.8, 0.1], [0.7, 0.1]]), ((), (0,)), (rain, wet))
    array([[1, 1],
           [0, 0]])
    """
    parents, tables = check_net("ancestral_sample", parents, tables)
    check_nodes("ancestral_sample", "u", bind("ancestral_sample", "u[*B n]", u=u)["n"], parents)
    outside = ~((u >= 0) & (u < 1))
    if outside.any():
        raise ValueError(f"ancestral_sample: u holds {u[outside].flat[0]:g}; needed numbers in [0, 1)")
    x = np.zeros(u.shape, np.int64)
    for i in order_of("ancestral_sample", parents):
        column = tables[i][(slice(None), *(x[..., j] for j in parents[i]))]  # [S *B], or [S] without parents
        column = np.moveaxis(column, 0, -1)
        state = (np.cumsum(column, -1) <= u[..., i, None]).sum(-1)
        last = column.shape[-1] - 1 - np.argmax(column[..., ::-1] > 0, -1)
        x[..., i] = np.minimum(state, last)
    return x
