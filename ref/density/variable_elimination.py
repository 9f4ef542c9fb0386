"""Variable elimination: the distribution of some nodes of a Bayes net given others, exactly.

Source: Zhang & Poole 1994, "A simple approach to Bayesian network computations"; Koller & Friedman 2009, Algorithms 9.1
and 9.2; the greedy order: sec. 9.4.3.2 (min-weight).

    P(Q | e) = sum over the hidden nodes of prod_i T_i at e, over its own sum
    for each hidden node h:  F <- F without the factors that mention h, and sum over h of their product

Notation
    parents, T_i -> tables: as in `density.bayes_net`. A factor is (its nodes, an array with an axis each).

Conventions
    C1  The axes of the result are the nodes of `query`, in its order; it sums to 1.
    C2  Any order of elimination gives the same; without one, the node whose product is smallest goes next.
    C3  Each new factor is scaled to a largest entry of 1, so hundreds of rare observations do not underflow.

Laws
    L1 it_is_the_conditional_of_the_joint   L2 any_order_gives_the_same
    L3 a_root_alone_is_its_table            L4 a_noisy_chain_of_rare_observations
    L5 nodes_below_are_immaterial
"""

from __future__ import annotations

import math
import operator

import numpy as np

from ref.density.bayes_net import check_net
from ref.spec import spec


@spec("density.variable_elimination", "parents:tree, tables:tree, query:tree -> distribution:tree", backends=("numpy",))
def variable_elimination(parents, tables, query, *, evidence=None, order=None):
    """P(query | evidence) of a Bayes net.

    Parameters
    ----------
    parents, tables : as in `bayes_net`
    query : sequence of int
        Nodes, at least one.
    evidence : {int: int}, optional
        The state of each observed node.
    order : sequence of int, optional
        The hidden nodes (all but query and evidence), as they are to be eliminated.

    Returns
    -------
    float array
        An axis for each node of the query; sums to 1.

    Raises
    ------
    ValueError
        As `bayes_net`; a query that is empty, repeated or observed; evidence out of range or of probability 0; an order
        that is not one of the hidden nodes.
    TypeError
        As `bayes_net`.

    Complexity: exponential in the largest factor that the order makes (the treewidth at best), not in n.

    >>> rain, wet = np.array([0.75, 0.25]), np.array([[0.5, 0.0], [0.5, 1.0]])
    >>> variable_elimination(((), (0,)), (rain, wet), (0,), evidence={1: 1})
    array([0.6, 0.4])
    """
    parents, tables = check_net("variable_elimination", parents, tables)
    query, evidence, order = _check(tables, query, evidence or {}, order)
    factors = [_observed((i, *each), tables[i], evidence) for i, each in enumerate(parents)]
    hidden = set(range(len(tables))) - set(query) - evidence.keys()
    for k in range(len(hidden)):
        node = order[k] if order is not None else min(hidden, key=lambda h: (_size(factors, h, tables), h))
        hidden.discard(node)
        touched = [f for f in factors if node in f[0]]
        factors = [f for f in factors if node not in f[0]]
        nodes, product = _product(touched)
        total = product.sum(nodes.index(node))
        factors.append((tuple(n for n in nodes if n != node), _scaled(total, evidence)))
    nodes, product = _product(factors)
    product = _scaled(np.transpose(product, [nodes.index(q) for q in query]), evidence)
    return product / product.sum()


def _check(tables, query, evidence, order):
    n = len(tables)
    query = tuple(operator.index(q) for q in query)
    evidence = {operator.index(i): operator.index(s) for i, s in evidence.items()}
    if not query or len(set(query)) < len(query) or not all(0 <= q < n for q in query):
        raise ValueError(f"variable_elimination: query={query}; needed one or more of 0..{n - 1}, each once")
    for i, state in evidence.items():
        if not 0 <= i < n or i in query:
            raise ValueError(f"variable_elimination: evidence on node {i}; needed nodes of 0..{n - 1} outside {query}")
        if not 0 <= state < tables[i].shape[0]:
            raise ValueError(
                f"variable_elimination: evidence has the state {state} of node {i}; needed 0..{tables[i].shape[0] - 1}"
            )
    if order is not None:
        order = [operator.index(i) for i in order]
        hidden = sorted(set(range(n)) - set(query) - evidence.keys())
        if sorted(order) != hidden:
            raise ValueError(f"variable_elimination: order={order}; needed an order of the hidden nodes {hidden}")
    return query, evidence, order


def _observed(nodes, table, evidence):
    """The factor with the axes of observed nodes taken at their states."""
    return tuple(n for n in nodes if n not in evidence), table[tuple(evidence.get(n, slice(None)) for n in nodes)]


def _size(factors, node, tables):
    """Entries of the product of the factors that mention `node`."""
    nodes = set().union(*(f[0] for f in factors if node in f[0]))
    return math.prod(tables[n].shape[0] for n in nodes)


def _product(factors):
    """(nodes in rising order, the product of all factors with an axis for each)."""
    nodes = tuple(sorted(set().union(*(f[0] for f in factors))))
    product = np.ones((1,) * len(nodes), factors[0][1].dtype)
    for mine, array in factors:
        array = np.transpose(array, np.argsort(mine))
        sizes = iter(array.shape)
        product = product * array.reshape([next(sizes) if n in mine else 1 for n in nodes])
    return nodes, product


def _scaled(factor, evidence):
    """The factor over its largest entry."""
    largest = factor.max()
    if largest == 0:
        raise ValueError(f"variable_elimination: evidence {evidence} has probability 0; needed one that can happen")
    return factor / largest
