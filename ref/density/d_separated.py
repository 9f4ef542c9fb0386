"""d-separation: what the graph of a Bayes net alone says of independence.

Source: Pearl 1988 sec. 3.3.1; the search: Shachter 1998 (Bayes-ball), as Koller & Friedman 2009, Algorithm 3.1.

    a path is blocked by Z if it has a chain or fork node in Z, or a collider with neither itself nor a descendant in Z
    X and Y are separated by Z if every path between them is blocked
    separated     =>  X independent of Y given Z, for every choice of tables
    not separated =>  dependent, for all tables but a set of measure 0 (Meek 1995)

    search from X, along (node, came from a child) and (node, came from a parent):
        from a child, node not in Z:    on to its parents and to its children
        from a parent, node not in Z:   on to its children
        from a parent, node or a descendant in Z:   back to its parents

Notation
    parents: as in `density.topological_order`; X, Y, Z -> x, y, given: sets of nodes, disjoint.

Conventions
    C1  Observing a descendant of a collider opens it, as observing the collider does.
    C2  The answer is about the graph: tables may hold more independences.

Laws
    L1 the_four_elementary_paths            L2 the_moral_graph_of_the_ancestors_says_the_same
    L3 separated_is_independent_for_every_table
    L4 connected_is_dependent_for_random_tables
    L5 parents_screen_off_what_is_not_below L6 either_way_round
"""

from __future__ import annotations

import operator

import numpy as np

from ref.density.topological_order import check_parents, children_of, order_of
from ref.spec import spec


@spec("density.d_separated", "parents:tree, x:tree, y:tree -> separated:bool[]", backends=("numpy",))
def d_separated(parents, x, y, *, given=()):
    """Whether the nodes x and y are d-separated by the nodes `given`.

    Parameters
    ----------
    parents : sequence of sequences of int
        A directed acyclic graph.
    x, y, given : sequence of int
        Disjoint sets of nodes; x and y not empty.

    Returns
    -------
    bool[]

    Raises
    ------
    ValueError
        A cycle (named), sets that share a node, an empty x or y, or no such node.
    TypeError
        A node is no integer.

    Complexity: nodes + edges.

    >>> collider = ((), (), (0, 1))
    >>> d_separated(collider, (0,), (1,)), d_separated(collider, (0,), (1,), given=(2,))
    (array(True), array(False))
    """
    parents = check_parents("d_separated", parents)
    order_of("d_separated", parents)
    x, y, given = _check(len(parents), x, y, given)
    children, above = children_of(parents), _ancestors(parents, given)
    todo, seen = [(i, "child") for i in x], set()
    while todo:
        node, came = todo.pop()
        if (node, came) in seen:
            continue
        seen.add((node, came))
        if node in y:
            return np.array(False)
        if node not in given:
            todo += [(c, "parent") for c in children[node]]
        if (came == "child" and node not in given) or (came == "parent" and node in above):
            todo += [(p, "child") for p in parents[node]]
    return np.array(True)


def _ancestors(parents, nodes):
    """The nodes and all that stand above them."""
    found, todo = set(), list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += parents[node]
    return found


def _check(n, x, y, given):
    sets = {name: {operator.index(i) for i in nodes} for name, nodes in (("x", x), ("y", y), ("given", given))}
    for name, nodes in sets.items():
        if bad := sorted(i for i in nodes if not 0 <= i < n):
            raise ValueError(f"d_separated: {name} holds the node {bad[0]}; needed 0..{n - 1}")
        if not nodes and name != "given":
            raise ValueError(f"d_separated: {name} is empty; needed a node")
    for a, b in (("x", "y"), ("x", "given"), ("y", "given")):
        if both := sorted(sets[a] & sets[b]):
            raise ValueError(f"d_separated: node {both[0]} is in {a} and in {b}; needed disjoint sets")
    return sets.values()
