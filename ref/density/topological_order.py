"""Topological order of a directed graph, or its cycle by name.

Source: Kahn 1962 (CACM 5:11), "Topological sorting of large networks".

    repeat: of the nodes whose parents are all placed, place the smallest

Notation
    parents: one sequence of parents a node, nodes are 0 .. n - 1; the result lists the nodes, parents first.

Conventions
    C1  Of several ready nodes the smallest comes first, so the order is the first in the dictionary of all orders.
    C2  A graph is given by the parents of each node, as a Bayes net is; libraries that list children differ.

Laws
    L1 parents_come_first                   L2 first_of_all_orders_in_the_dictionary
    L3 a_chain_is_followed
"""

from __future__ import annotations

import heapq
import operator

import numpy as np

from ref.spec import spec


@spec("density.topological_order", "parents:tree -> order:int[n]", backends=("numpy",))
def topological_order(parents):
    """The nodes of a directed acyclic graph, every parent before its children.

    Parameters
    ----------
    parents : sequence of sequences (or int arrays)
        parents[i] are the parents of node i.

    Returns
    -------
    int[n]

    Raises
    ------
    ValueError
        A parent that is no node or is named twice, or a cycle; the message walks along it.
    TypeError
        A parent is no integer.

    Complexity: (n + edges) log n.

    >>> topological_order(((2,), (0,), ()))
    array([2, 0, 1])
    >>> topological_order(((1,), (0,)))
    Traceback (most recent call last):
        ...
    ValueError: topological_order: parents hold the cycle 0 -> 1 -> 0; needed an acyclic graph
    """
    parents = check_parents("topological_order", parents)
    return np.array(order_of("topological_order", parents), dtype=np.int64)


def check_parents(function, parents):
    """The parents as a tuple of tuples of int, each of them a node, none twice."""
    parents = tuple(tuple(operator.index(p) for p in each) for each in parents)
    for i, each in enumerate(parents):
        for p in each:
            if not 0 <= p < len(parents):
                raise ValueError(f"{function}: node {i} has the parent {p}; needed 0..{len(parents) - 1}")
        if len(set(each)) < len(each):
            raise ValueError(f"{function}: node {i} has the parents {each}; needed each once")
    return parents


def children_of(parents):
    """children[i], in rising order."""
    children = [[] for _ in parents]
    for i, each in enumerate(parents):
        for p in each:
            children[p].append(i)
    return children


def order_of(function, parents):
    """The order as a list of int."""
    waiting, children = [len(each) for each in parents], children_of(parents)
    ready = [i for i, count in enumerate(waiting) if count == 0]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for child in children[i]:
            waiting[child] -= 1
            if waiting[child] == 0:
                heapq.heappush(ready, child)
    if len(order) < len(parents):
        cycle = _cycle(parents, set(range(len(parents))) - set(order))
        raise ValueError(f"{function}: parents hold the cycle {' -> '.join(map(str, cycle))}; needed an acyclic graph")
    return order


def _cycle(parents, left):
    """A cycle among the nodes that were never placed, along its edges, from its smallest node to itself.

    Each of them has a parent that was not placed either, so going from parent to parent must come back.
    """
    walk, node = [], min(left)
    while node not in walk:
        walk.append(node)
        node = min(p for p in parents[node] if p in left)
    cycle = walk[walk.index(node) :][::-1]
    start = cycle.index(min(cycle))
    cycle = cycle[start:] + cycle[:start]
    return [*cycle, cycle[0]]
