"""The rules against plain loops; the columns they promise to see hold all that they see, and no more."""

import itertools

import numpy as np
import pytest

from ref.attention.rules import causal, is_rule, materialise, window

SIZES = list(itertools.product(range(5), range(5)))
SEES = {
    "causal()": (causal(), lambda i, j, s: j <= i + s),
    "top_left": (causal("top_left"), lambda i, j, s: j <= i),
    "window(1)": (window(1), lambda i, j, s: i + s - 1 <= j <= i + s),
    "window(0, 2)": (window(0, 2), lambda i, j, s: i + s <= j <= i + s + 2),
    "both": (causal() & window(2, 3), lambda i, j, s: i + s - 2 <= j <= i + s),
    "disjoint": (causal("top_left") & window(0), lambda i, j, s: j <= i and j == i + s),
}


@pytest.mark.parametrize("name", SEES)
@pytest.mark.parametrize("T, S", SIZES)
def test_a_rule_is_its_sentence(name, T, S):
    rule, sees = SEES[name]
    wanted = np.array([[sees(i, j, S - T) for j in range(S)] for i in range(T)], bool).reshape(T, S)
    assert np.array_equal(materialise(rule, np, T, S), wanted)
    for start, stop in itertools.combinations(range(T + 1), 2):
        low, high = rule.columns(start, stop, T, S)
        assert 0 <= low <= high <= S
        seen = np.flatnonzero(wanted[start:stop].any(0))
        assert set(seen) <= set(range(low, high))
        first, last = rule.full_columns(start, stop, T, S)
        everywhere = np.flatnonzero(wanted[start:stop].all(0))
        assert list(everywhere) == list(range(first, last))
        if seen.size and name != "both" and name != "disjoint":
            assert (low, high) in {(seen[0], seen[-1] + 1), (0, seen[-1] + 1)}


@pytest.mark.parametrize("name", SEES)
def test_a_tile_is_a_piece_of_the_whole(name):
    rule, T, S = SEES[name][0], 7, 9
    whole = rule.tile(np, np.arange(T), np.arange(S), T, S)
    assert np.array_equal(rule.tile(np, np.arange(2, 5), np.arange(3, 8), T, S), whole[2:5, 3:8])


def test_rules_print_as_they_are_written_and_compare_by_value():
    for rule in (causal(), causal("top_left"), window(2, 1)):
        assert eval(repr(rule), {"causal": causal, "window": window}) == rule
        assert is_rule(rule)
    assert not is_rule(np.ones((2, 2), bool))
