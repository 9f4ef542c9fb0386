"""A rule's band is its tile: row i sees exactly columns i + low .. i + high."""

import numpy as np
import pytest

from ref.attention.rules import causal, window

RULES = [causal(), causal("top_left"), window(2, 1), window(0), causal() & window(3, 0), window(2, 2) & window(5, 1),
         causal("top_left") & window(1, 4)]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("T, S", [(5, 5), (3, 7), (7, 3), (1, 4), (0, 2)])
def test_band_is_the_tile(rule, T, S):
    low, high = rule.band(T, S)
    i, j = np.arange(T)[:, None], np.arange(S)[None]
    seen = (j >= i + (-99 if low is None else low)) & (j <= i + (99 if high is None else high))
    assert np.array_equal(seen, rule.tile(np, np.arange(T), np.arange(S), T, S))


def test_a_conjunction_with_a_rule_of_another_kind_is_no_band():
    class Odd:
        def tile(self, xp, rows, cols, T, S):
            return (cols[None, :] % 2 == 1) & (rows[:, None] >= 0)

    assert (causal() & Odd()).band(4, 4) is None
