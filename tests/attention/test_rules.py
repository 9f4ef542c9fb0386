"""The rules against plain loops; the columns they promise to see hold all that they see, and no more."""

import itertools

import numpy as np
import pytest

from autodiff import forms
from ref.attention.alibi import alibi, alibi_bias
from ref.attention.flash import flash
from ref.attention.rules import causal, is_rule, materialise, relative, segments, window
from ref.attention.sdpa import sdpa
from ref.attention.sink import sink

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


def offsets_of(total, parts):
    """Every way to cut `total` places into so many segments, empty ones too."""
    for inner in itertools.combinations_with_replacement(range(total + 1), parts - 1):
        yield (0, *inner, total)


INSIDE = {None: lambda i, j, s: True, **{rule: sees for rule, sees in SEES.values()}}


@pytest.mark.parametrize("inside", INSIDE, ids=str)
@pytest.mark.parametrize("T, S", [(0, 0), (0, 3), (4, 0), (4, 3), (3, 5), (5, 5)])
def test_segments_are_blocks_with_a_rule_inside(T, S, inside):
    """Row and column of one segment, and there the rule's sentence in the segment's own places; all cuts in three."""
    for rows, cols in itertools.product(offsets_of(T, 3), offsets_of(S, 3)):
        wanted = np.zeros((T, S), bool)
        for a, b, c, d in zip(rows[:-1], rows[1:], cols[:-1], cols[1:], strict=True):
            for i, j in itertools.product(range(a, b), range(c, d)):
                wanted[i, j] = INSIDE[inside](i - a, j - c, (d - c) - (b - a))
        rule = segments(rows, cols, inside=inside)
        assert np.array_equal(materialise(rule, np, T, S), wanted)
        for start, stop in itertools.combinations(range(T + 1), 2):
            low, high = rule.columns(start, stop, T, S)
            assert 0 <= low <= high <= S
            assert set(np.flatnonzero(wanted[start:stop].any(0))) <= set(range(low, high))
            first, last = rule.full_columns(start, stop, T, S)
            assert set(range(first, last)) <= set(np.flatnonzero(wanted[start:stop].all(0)))
            if (0, T) in itertools.pairwise(rows):  # one segment has all the rows
                assert list(np.flatnonzero(wanted[start:stop].all(0))) == list(range(first, last))


def test_segments_of_cut_rows_let_tiles_be_skipped():
    rule = segments([0, 4, 8], inside=causal())
    assert rule.columns(4, 6, 8, 8) == (4, 6) and rule.columns(2, 6, 8, 8) == (0, 6)
    assert rule.full_columns(5, 7, 8, 8) == (4, 6)


@pytest.mark.parametrize("T, S", SIZES)
def test_a_relative_bias_is_its_sentence(T, S):
    rule, values = relative([5.0, 1.0, 2.0, 7.0], 2), [5.0, 1.0, 2.0, 7.0]
    wanted = [[values[min(max(j - i - (S - T) + 2, 0), 3)] for j in range(S)] for i in range(T)]
    assert np.array_equal(materialise(rule, np, T, S), np.reshape(wanted, (T, S)))
    assert np.array_equal(materialise(rule + relative([1.0]), np, T, S), np.reshape(wanted, (T, S)) + 1)
    assert rule.columns(0, T, T, S) == (0, S)


@pytest.mark.parametrize("form", ["composite", "fused"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rules_say_the_same_to_sdpa_and_to_flash_as_arrays(form, dtype):
    g = np.random.default_rng(3)
    q, k, v = (g.standard_normal((2, h, n, 4)).astype(dtype) for h, n in ((4, 9), (2, 11), (2, 11)))
    mask = segments([0, 3, 3, 9], [0, 4, 5, 11], inside=causal() & window(3))
    bias = relative([0.5, -1.0, 2.0], 1) + relative([0.25, 0.75])
    arrays = {"mask": materialise(mask, np, 9, 11), "bias": materialise(bias, np, 9, 11).astype(dtype)}
    wanted = sdpa(q, k, v, **arrays)
    with forms(form):
        options = {"mask": mask, "bias": bias}
        found = sdpa(q, k, v, **options), flash(q, k, v, **options, block_rows=2, block_cols=3)[0]
    for x in found:
        assert x.dtype == dtype and np.allclose(x, wanted, rtol=1e-5, atol=1e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("form", ["composite", "fused"])
def test_alibi_is_a_rule_of_both(form):
    """Aligned bottom right, and in a segment's own places; flash by tiles with grouped heads."""
    g = np.random.default_rng(4)
    q, k, v = (g.standard_normal((h, n, 4)) for h, n in ((6, 5), (3, 7), (3, 7)))
    slopes = np.array([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])
    array = -slopes[:, None, None] * np.abs(np.arange(5)[:, None] + 2 - np.arange(7))
    with forms(form):
        wanted = sdpa(q, k, v, mask=causal(), bias=array)
        assert np.allclose(sdpa(q, k, v, mask=causal(), bias=alibi(6)), wanted, atol=1e-12)
        o, _ = flash(q, k, v, mask=causal(), bias=alibi(6) + relative([0.0]), block_rows=2, block_cols=3)
    assert np.allclose(o, wanted, atol=1e-12)
    assert alibi(6) == alibi(6) != alibi(6, "geometric")


@pytest.mark.parametrize(
    "error, call, said",
    [
        (ValueError, lambda: alibi(0), "alibi: heads=0; needed at least 1"),
        (ValueError, lambda: alibi(3, "next"), "alibi: rule='next'; needed one of"),
        (ValueError, lambda: alibi_bias(np.arange(2), np.arange(2), heads=0), "heads=0"),
        (TypeError, lambda: alibi_bias(np.ones(2), np.arange(2), heads=1), "rows has dtype float64"),
        (ValueError, lambda: sink(np.ones((2, 3, 4)), np.ones((2, 3)), np.ones(3)), "sink: sink has H=3, o has H=2"),
        (TypeError, lambda: sink(np.ones((2, 3, 4)), np.ones((2, 3)), np.ones(2, "f4")), "sink has dtype float32"),
    ],
)
def test_alibi_and_sink_refuse_bad_input(error, call, said):
    with pytest.raises(error, match=said):
        call()


def test_rules_print_as_they_are_written_and_compare_by_value():
    names = {"causal": causal, "window": window, "segments": segments, "relative": relative}
    composed = causal() & window(2), relative([1.0]) + relative([2.0, 3.0], 1)
    cut = segments([0, 2, 3], [0, 1, 4], inside=causal()), segments([0, 1])
    for rule in (causal(), causal("top_left"), window(2, 1), *composed, *cut):
        assert eval(repr(rule), names) == rule
        assert is_rule(rule)
    assert not is_rule(np.ones((2, 2), bool))
