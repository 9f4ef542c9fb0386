"""Laws and mutants of the topological order."""

from __future__ import annotations

import itertools

import numpy as np

from ref.density.common_laws import WHOLE, graph_fields, graph_flags
from ref.spec import law, mutant
from ref.spec.cases import cases, dims

ID = "density.topological_order"
space = cases(ID, **graph_fields(dims(0, 6)), flags=graph_flags())


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("edges", "backward", "none"),
    kills=["as_numbered", "children_come_first", "edges_reversed"],
)  # fmt: skip
def parents_come_first(impl, c, expect):
    "The order is a permutation of the nodes, and every parent stands before its child."
    order = impl(c).tolist()
    expect.same(np.array(sorted(order)), np.arange(c.n), "nodes in the order")
    for child, each in enumerate(c.parents):
        for parent in each:
            expect.holds(order.index(parent) < order.index(child), f"{parent} must stand before its child {child}")


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(n=dims(0, 5)).reach("edges"),
    kills=["greatest_ready_first", "oldest_ready_first"],
)  # fmt: skip
def first_of_all_orders_in_the_dictionary(impl, c, expect):
    "Of all permutations that keep parents first, tried in the order of the dictionary, it is the first."
    wanted = next(p for p in itertools.permutations(range(c.n)) if _lawful(p, c.parents))
    expect.same(impl(c), np.array(wanted, dtype=np.int64))


def _lawful(order, parents):
    place = {node: k for k, node in enumerate(order)}
    return all(place[p] < place[i] for i, each in enumerate(parents) for p in each)


@law(ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(n=dims(2, 6)), kills=["as_numbered", "edges_reversed"])
def a_chain_is_followed(impl, c, expect):
    "Nodes in one chain have one order, whichever numbers they bear: here i -> i + k mod n for a k prime to n."
    for k in (k for k in range(1, c.n) if np.gcd(k, c.n) == 1):
        walk = [(j * k) % c.n for j in range(c.n)]
        parents = [np.zeros(0, np.int64)] * c.n
        for before, after in itertools.pairwise(walk):
            parents[after] = np.array([before])
        expect.same(impl(c.replace(parents=tuple(parents))), np.array(walk))


# Mutants ---------------------------------------------------------------------------------------------


def default(*parents):
    return lambda: ((tuple(np.array(each, np.int64) for each in parents),), {})


def placed(parents, take):
    """Kahn's algorithm with another rule for which ready node comes next."""
    left, order = [set(each) for each in parents], []
    ready = [i for i, each in enumerate(left) if not each]
    while ready:
        i = take(ready)
        order.append(i)
        for child, each in enumerate(left):
            if i in each:
                each.remove(i)
                if not each:
                    ready.append(child)
    return np.array(order, dtype=np.int64)


@mutant(ID, default_case=default((), (0,), (1,)))
def as_numbered(parents):
    "0 .. n - 1: right for every graph that is numbered along its edges."
    return np.arange(len(parents))


@mutant(ID, default_case=default(()))
def children_come_first(parents):
    "The post-order of a search along the edges, not reversed."
    return placed(parents, lambda ready: ready.pop(ready.index(min(ready))))[::-1].copy()


@mutant(ID, default_case=default((), ()))
def edges_reversed(parents):
    "Parents taken for children."
    flipped = [[i for i, each in enumerate(parents) if j in each] for j in range(len(parents))]
    return placed(flipped, lambda ready: ready.pop(ready.index(min(ready))))


@mutant(ID, default_case=default((), (0,), (1,)))
def greatest_ready_first(parents):
    "A stack where the smallest is wanted."
    return placed(parents, lambda ready: ready.pop(ready.index(max(ready))))


@mutant(ID, default_case=default((), (), (0, 1)))
def oldest_ready_first(parents):
    "A queue: the node that was ready first, not the smallest."
    return placed(parents, lambda ready: ready.pop(0))
