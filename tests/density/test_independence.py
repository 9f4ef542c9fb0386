"""d-separation against every table on a grid, for every graph of three nodes."""

import itertools

import numpy as np

from ref.density.d_separated import d_separated

PAIRS = ((0, 1), (0, 2), (1, 2))


def graphs():
    """The 25 acyclic graphs of three nodes, as parents."""
    for arrows in itertools.product((None, 0, 1), repeat=3):
        edges = [pair if a == 0 else pair[::-1] for pair, a in zip(PAIRS, arrows, strict=True) if a is not None]
        if len(edges) == 3 and {a for a, _ in edges} == {0, 1, 2}:
            continue  # each node points at another: a cycle
        yield tuple(tuple(a for a, b in edges if b == i) for i in range(3))


def joints(parents):
    """[K 2 2 2]: the joints, in whole numbers, of every choice of columns (0, 2), (1, 1) and (2, 0) of halves."""
    sizes = [2 ** len(each) for each in parents]
    choices = np.array(list(itertools.product(range(3), repeat=sum(sizes))))
    out = np.ones((len(choices), 2, 2, 2), np.int64)
    start = 0
    for i, each in enumerate(parents):
        ones = choices[:, start : start + sizes[i]].reshape(-1, *(2,) * len(each))
        start += sizes[i]
        for states in itertools.product((0, 1), repeat=3):
            weight = ones[(slice(None), *(states[p] for p in each))]
            out[(slice(None), *states)] *= weight if states[i] else 2 - weight
    return out


def independent(joint, x, y, given):
    """[K]: whether P(x, y, z) P(z) = P(x, z) P(y, z) everywhere."""

    def summed(kept):
        return joint.sum(axis=tuple(1 + i for i in range(3) if i not in kept), keepdims=True)

    same = summed({x, y, *given}) * summed({*given}) == summed({x, *given}) * summed({y, *given})
    return same.reshape(len(joint), -1).all(-1)


def test_separated_is_independent_for_every_table_and_connected_dependent_for_some():
    seen = []
    for parents in graphs():
        joint = joints(parents)
        for x, y in PAIRS:
            third = 3 - x - y
            for given in ((), (third,)):
                separated = bool(d_separated(parents, (x,), (y,), given=given))
                found = independent(joint, x, y, given)
                seen.append(separated)
                assert found.all() if separated else not found.all(), (parents, x, y, given)
    assert len(seen) == 25 * 6
    assert 30 < sum(seen) < 120
