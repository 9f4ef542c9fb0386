"""Laws and mutants of d-separation."""

from __future__ import annotations

import itertools

import numpy as np

from ref.density.common_laws import WHOLE, graph_fields, graph_flags
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, dims, rng

ID = "density.d_separated"


def graph(n, *edges):
    """Parents of n nodes from edges (parent, child)."""
    return tuple(np.array([a for a, b in edges if b == i], np.int64) for i in range(n))


def below(parents, i):
    found = {i}
    for _ in parents:
        found |= {j for j, each in enumerate(parents) if found & set(map(int, each))}
    return found


def draw_sets(draw, c):
    """Disjoint x, y and given: one or two nodes, one, and any of the rest."""
    g = rng(draw)
    nodes = [int(i) for i in g.permutation(c.n)]
    x = nodes[: 1 + (c.n > 3 and g.random() < 0.3)]
    y = nodes[len(x) : len(x) + 1]
    return tuple(x), tuple(y), tuple(i for i in nodes[len(x) + 1 :] if g.random() < 0.5)


space = cases(
    ID,
    **graph_fields(dims(2, 5)),
    sets=draw_sets,
    x=lambda draw, c: c.sets[0],
    y=lambda draw, c: c.sets[1],
    given=lambda draw, c: c.sets[2],
    flags={
        **graph_flags(),
        "observed": Flag(lambda c: len(c.given) > 0 and sum(map(len, c.parents)) > 2, {"n": dims(4, 5)}),
        "opened_below": Flag(
            lambda c: any(
                len(each) > 1 and i not in c.given and below(c.parents, i) & set(c.given)
                for i, each in enumerate(c.parents)
            ),
            {"n": 4, "parents": lambda draw, c: graph(4, (0, 1), (2, 1), (1, 3)), "sets": ((0,), (2,), (3,))},
        ),
        "closed_collider": Flag(
            lambda c: (
                moral_separation(c.parents, c.x, c.y, set(c.given))
                and any(set(c.x) & set(map(int, p)) and set(c.y) & set(map(int, p)) for p in c.parents)
            ),
            {"n": 3, "parents": lambda draw, c: graph(3, (0, 1), (2, 1)), "sets": ((0,), (2,), ())},
        ),
        "two_ways_in": Flag(
            lambda c: any(
                {w, q} <= set(map(int, c.parents[x])) and q in c.parents[w]
                for x in c.x
                for w in range(c.n)
                for q in range(c.n)
            ),
            {
                "n": 4,
                "sets": ((3,), (2,), ()),
                "parents": lambda draw, c: tuple(map(rng(draw).permutation, graph(4, (0, 1), (0, 3), (1, 3), (2, 1)))),
            },
        ),
    },
)
FEW = dims(2, 4)


PATHS = (
    (graph(3, (0, 1), (1, 2)), (), False, "a chain"),
    (graph(3, (0, 1), (1, 2)), (1,), True, "a chain, its middle seen"),
    (graph(3, (1, 0), (1, 2)), (), False, "a fork"),
    (graph(3, (1, 0), (1, 2)), (1,), True, "a fork, its middle seen"),
    (graph(3, (0, 1), (2, 1)), (), True, "a collider"),
    (graph(3, (0, 1), (2, 1)), (1,), False, "a collider, seen"),
    (graph(5, (0, 1), (2, 1), (1, 3), (3, 4)), (4,), False, "a collider whose descendant's child is seen"),
    (graph(5, (0, 1), (2, 1), (1, 3), (3, 4)), (), True, "a collider with descendants"),
    (graph(5, (0, 1), (1, 4), (3, 4), (3, 2)), (4, 3), True, "an opened collider behind which a fork is seen"),
    (graph(5, (0, 1), (1, 4), (3, 4), (3, 2)), (4,), False, "an opened collider, a fork behind it"),
)


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE, given=space,
    kills=["colliders_are_closed", "colliders_are_open", "descendants_do_not_open", "observations_do_not_block"],
)  # fmt: skip
def the_four_elementary_paths(impl, c, expect):
    """A chain and a fork are open until their middle is seen, a collider is closed until it or a descendant is; paths
    of several such nodes are open where all of them are."""
    for parents, given, wanted, what in PATHS:
        expect.same(impl(c.replace(parents=parents, x=(0,), y=(2,), given=given)), np.array(wanted), what)


def moral_separation(parents, x, y, given):
    """No path from x to y around `given` in the moral graph of the ancestors of all three."""
    kept, todo = set(), [*x, *y, *given]
    while todo:
        i = todo.pop()
        if i not in kept:
            kept.add(i)
            todo += map(int, parents[i])
    edges = set()
    for i in kept:
        mine = [int(p) for p in parents[i]]
        edges |= {frozenset(e) for e in itertools.combinations([i, *mine], 2)}
    reached, todo = set(), list(x)
    while todo:
        i = todo.pop()
        if i not in reached and i not in given:
            reached.add(i)
            todo += [j for e in edges if i in e for j in e - {i}]
    return not reached & set(y)


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE,
    given=space.where(n=dims(2, 6)).reach("edges", "observed", "opened_below", "closed_collider", "two_ways_in"),
    kills=["colliders_are_closed", "colliders_are_open", "descendants_do_not_open", "whole_graph_made_moral",
           "nodes_not_directions"],
)  # fmt: skip
def the_moral_graph_of_the_ancestors_says_the_same(impl, c, expect):
    "Lauritzen's criterion: marry the parents in the graph of the ancestors of X, Y, Z, forget arrows, take Z out."
    expect.same(impl(c), np.array(moral_separation(c.parents, c.x, c.y, set(c.given))))


def whole_joint(parents, weights, unit):
    """The joint of a binary net in whole numbers, an axis a node; weights[i] of the state 1, of `unit`."""
    n = len(parents)
    out = np.full((2,) * n, 1, object)
    for i, each in enumerate(parents):
        axes = [i, *map(int, each)]
        table = np.array([unit - weights[i], weights[i]], object)
        table = np.transpose(table, np.argsort(axes))
        out = out * table.reshape([2 if j in axes else 1 for j in range(n)])
    return out


def independent(joint, x, y, given):
    """Whether P(x, y, z) P(z) = P(x, z) P(y, z) at every entry, in whole numbers."""

    def summed(kept):
        return joint.sum(axis=tuple(i for i in range(joint.ndim) if i not in kept), keepdims=True)

    x, y, z = set(x), set(y), set(given)
    return bool(np.all(summed(x | y | z) * summed(z) == summed(x | z) * summed(y | z)))


def weights(g, parents, unit):
    return [np.array(g.integers(0, unit + 1, (2,) * len(each)).tolist(), object) for each in parents]


@law(
    ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(n=FEW).reach("edges", "observed", "opened_below"),
    kills=["colliders_are_closed", "descendants_do_not_open"], passes_null=["zeros", "identity", "nan", "cached"],
)  # fmt: skip
def separated_is_independent_for_every_table(impl, c, expect):
    "Separated: P(x, y, z) P(z) = P(x, z) P(y, z) exactly, for tables of quarters, of sixteenths and of 2^-40."
    separated = bool(impl(c))
    for seed, unit in enumerate((4, 4, 16, 2**40)):
        table = weights(np.random.default_rng(seed + 10 * c.n), c.parents, unit)
        alone = independent(whole_joint(c.parents, table, unit), c.x, c.y, c.given)
        expect.holds(not separated or alone, f"separated nodes depend on each other under tables of 1/{unit}")


@law(
    ID, "L4", closed_form=True, dtypes=WHOLE, given=space.where(n=FEW).reach("edges", "observed"),
    kills=["colliders_are_open", "whole_graph_made_moral", "observations_do_not_block"],
    passes_null=["constant"],
)  # fmt: skip
def connected_is_dependent_for_random_tables(impl, c, expect):
    "Not separated: with tables drawn in parts of 2^-40 the equality fails somewhere."
    table = weights(np.random.default_rng(c.n), c.parents, 2**40)
    alone = independent(whole_joint(c.parents, table, 2**40), c.x, c.y, c.given)
    expect.holds(bool(impl(c)) or not alone, "connected nodes are independent under random tables")


@law(
    ID, "L5", closed_form=True, dtypes=WHOLE, given=space.reach("edges", "backward"),
    kills=["colliders_are_open", "whole_graph_made_moral"],
)  # fmt: skip
def parents_screen_off_what_is_not_below(impl, c, expect):
    "Given its parents a node is separated from all that is not below it; from a parent it never is, whatever is seen."
    for i in range(c.n):
        mine, below = set(map(int, c.parents[i])), {i}
        for _ in range(c.n):
            below |= {j for j, each in enumerate(c.parents) if below & set(map(int, each))}
        free = tuple(j for j in range(c.n) if j not in below | mine)
        if free:
            now = c.replace(x=(i,), y=free, given=tuple(mine))
            expect.same(impl(now), np.array(True), f"node {i} and what is not below it, given its parents")
        for p in mine:
            rest = tuple(j for j in c.given if j not in (i, p))
            expect.same(impl(c.replace(x=(i,), y=(p,), given=rest)), np.array(False), f"node {i} and its parent {p}")
    expect.holds(True, "every node was looked at")


@law(
    ID, "L6", dtypes=WHOLE, given=space.reach("edges", "observed"), kills=["arrows_matter_on_the_way_out"],
    passes_null=["zeros", "constant", "identity", "nan"],
)  # fmt: skip
def either_way_round(impl, c, expect):
    "X from Y as Y from X."
    expect.same(impl(c), impl(c.replace(x=c.y, y=c.x)))


# Mutants ---------------------------------------------------------------------------------------------


def default(*edges, given=()):
    """The default-size test: a chain of two nodes."""
    return lambda: ((graph(2, *(edges or ((0, 1),))), (0,), (1,)), {"given": given})


def simple_paths(parents, x, y):
    """Every path between x and y, as [(node, is a collider on it)]."""
    edges = {(int(p), i) for i, each in enumerate(parents) for p in each}
    near = [{b if a == i else a for a, b in edges if i in (a, b)} for i in range(len(parents))]

    def grow(path):
        if path[-1] in y:
            yield path
        else:
            for j in near[path[-1]] - set(path):
                yield from grow([*path, j])

    for i in x:
        for path in grow([i]):
            inner = itertools.pairwise(itertools.pairwise(path))
            yield [(b, (a, b) in edges and (d, b) in edges) for (a, b), (_, d) in inner]


def by_paths(parents, x, y, given, closed):
    """Whether closed(node, is a collider) blocks every path."""
    return np.array(all(any(closed(i, k) for i, k in path) for path in simple_paths(parents, x, y)))


@mutant(ID, default_case=default())
def colliders_are_closed(parents, x, y, *, given=()):
    "A collider blocks, seen or not."
    return by_paths(parents, x, y, given, lambda i, collider: collider or i in given)


@mutant(ID, default_case=default())
def colliders_are_open(parents, x, y, *, given=()):
    "Separation in the graph without its arrows."
    return by_paths(parents, x, y, given, lambda i, collider: i in given)


@mutant(ID, default_case=default())
def descendants_do_not_open(parents, x, y, *, given=()):
    "A collider is opened by itself alone."
    return by_paths(parents, x, y, given, lambda i, collider: (i not in given) if collider else i in given)


@mutant(ID, default_case=default())
def observations_do_not_block(parents, x, y, *, given=()):
    "Seen chains and forks stay open."
    return by_paths(parents, x, y, given, lambda i, k: k and not below(parents, i) & set(given))


@mutant(ID, default_case=default())
def nodes_not_directions(parents, x, y, *, given=()):
    "The search remembers nodes, not (node, where from): the second way into a node is never tried."
    children = [[i for i, each in enumerate(parents) if j in map(int, each)] for j in range(len(parents))]
    above = {j for j in range(len(parents)) if below(parents, j) & set(given)}
    todo, seen = [(i, "child") for i in x], set()
    while todo:
        i, came = todo.pop()
        if i in seen:
            continue
        seen.add(i)
        if i in y:
            return np.array(False)
        if i not in given:
            todo += [(c, "parent") for c in children[i]]
        if (came == "child" and i not in given) or (came == "parent" and i in above):
            todo += [(int(p), "child") for p in parents[i]]
    return np.array(True)


@mutant(ID, default_case=default())
def whole_graph_made_moral(parents, x, y, *, given=()):
    "Lauritzen's criterion in the moral graph of all nodes, not of the ancestors."
    every = {frozenset(e) for i, each in enumerate(parents) for e in itertools.combinations([i, *map(int, each)], 2)}
    reached, todo = set(), list(x)
    while todo:
        i = todo.pop()
        if i not in reached and i not in given:
            reached.add(i)
            todo += [j for e in every if i in e for j in e - {i}]
    return np.array(not reached & set(y))


@mutant(ID, default_case=default())
def arrows_matter_on_the_way_out(parents, x, y, *, given=()):
    "The search starts downwards alone: what is above x is not reached."
    out = [(i, int(p)) for i, each in enumerate(parents) for p in each if i in x]
    cut = tuple(np.array([int(p) for p in each if (i, int(p)) not in out], np.int64) for i, each in enumerate(parents))
    closed = lambda i, k: (not below(cut, i) & set(given)) if k else i in given  # noqa: E731
    return by_paths(cut, x, y, given, closed)
