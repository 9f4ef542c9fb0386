"""Tables of a Bayes net from data: relative frequencies, smoothed.

Source: Koller & Friedman 2009, Eq. 17.5 (maximum likelihood) and 17.15 (Dirichlet prior); Laplace 1774 for a = 1.

    T_i[s, pa] = (N[s, pa] + a) / (N[pa] + a S_i)
    at a = 0 the loss of the data, in nats a row, is sum_i H(x_i | pa_i) of the empirical distribution; with all earlier
    nodes as parents of each (the full tree) it is the empirical entropy of the rows

Notation
    x[N n], a -> smoothing, S_i -> states[i], T_i -> the result, laid out as in `density.bayes_net`.

Conventions
    C1  a is added to every entry (Laplace, Lidstone): a column starts from a S_i, not from a.
    C2  A column whose parents never took those states is uniform, also at a = 0.
    C3  float64.

Laws
    L1 a_node_alone_has_its_frequencies     L2 the_full_tree_has_the_entropy_of_the_data
    L3 loss_is_the_sum_of_conditional_entropies
    L4 smoothed_counts_by_loops             L5 no_other_tables_fit_better
"""

from __future__ import annotations

import math
import operator

import numpy as np

from ref.density.bayes_net import check_nodes
from ref.density.topological_order import check_parents, order_of
from ref.spec import bind, spec


@spec("density.fit_tables", "x:int[N n], parents:tree, states:int[n] -> tables:tree", backends=("numpy",))
def fit_tables(x, parents, states, *, smoothing=0.0):
    """Conditional probability tables of given parents, from rows of observed states.

    Parameters
    ----------
    x : int[N n]
        A state of each node in each row.
    parents : sequence of sequences of int
    states : int[n]
        How many states each node has.
    smoothing : float
        Added to every count.

    Returns
    -------
    tuple of float arrays
        One table a node.

    Raises
    ------
    ValueError
        A cycle (named), a state out of range, smoothing < 0, or numbers of nodes that differ.
    TypeError
        x is not int.

    Complexity: N n + entries of all tables.

    >>> rain, wet = fit_tables(np.array([[0, 0], [0, 1], [0, 0], [1, 1]]), ((), (0,)), np.array([2, 2]))
    >>> rain
    array([0.75, 0.25])
    >>> wet.round(2)
    array([[0.67, 0.  ],
           [0.33, 1.  ]])
    """
    parents = check_parents("fit_tables", parents)
    order_of("fit_tables", parents)
    check_nodes("fit_tables", "x", bind("fit_tables", "x:int[N n], states:int[n]", x=x, states=states)["n"], parents)
    states = _check(x, states, smoothing)
    tables = []
    for i, each in enumerate(parents):
        shape = [states[j] for j in (i, *each)]
        at = np.ravel_multi_index([x[:, j] for j in (i, *each)], shape)
        counts = np.bincount(at, minlength=math.prod(shape)).reshape(shape) + float(smoothing)
        total = counts.sum(0)
        tables.append(np.where(total > 0, counts, 1.0) / np.where(total > 0, total, states[i]))
    return tuple(tables)


def _check(x, states, smoothing):
    states = [operator.index(s) for s in states]
    for i, count in enumerate(states):
        if count < 1:
            raise ValueError(f"fit_tables: states has {count} for node {i}; needed at least 1")
        wrong = (x[:, i] < 0) | (x[:, i] >= count)
        if wrong.any():
            raise ValueError(f"fit_tables: x holds the state {x[wrong, i][0]} of node {i}; needed 0..{count - 1}")
    if not (smoothing >= 0 and math.isfinite(smoothing)):
        raise ValueError(f"fit_tables: smoothing={smoothing}; needed a finite number >= 0")
    return states
