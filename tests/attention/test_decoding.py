"""Layers with caches, split and paged decoding: fused forms, counted caches, bad input."""

import numpy as np
import pytest

import autodiff
from autodiff import forms
from ref.attention.gqa import Cache, gqa
from ref.attention.mean_pool_heads import mean_pool_heads
from ref.attention.paged import paged
from ref.attention.rules import causal, window
from ref.attention.sdpa import sdpa
from ref.attention.split_kv import split_kv
from ref.nn.rope_layout import rope_layout

each_form = pytest.mark.parametrize("form", ["composite", "fused"])


def layer(heads, groups, channels=6, d=4):
    g = np.random.default_rng(heads)
    shapes = (heads * d, channels), (groups * d, channels), (groups * d, channels), (channels, heads * d)
    return [g.standard_normal(s) / 2 for s in shapes]


@each_form
def test_prefill_then_tokens_is_the_whole_in_every_form(form):
    x, weights = np.random.default_rng(0).standard_normal((2, 9, 6)), layer(4, 2)
    options = {"heads": 4, "groups": 2, "rope_base": 100.0, "rope_layout": "interleaved"}
    with forms(form):
        whole, cache = gqa(x, *weights, **options)
        y, held = gqa(x[:, :5], *weights, **options)
        parts = [y]
        for t in range(5, 9):
            y, held = gqa(x[:, t : t + 1], *weights, cache=held, **options)
            parts.append(y)
    assert np.allclose(np.concatenate(parts, 1), whole, atol=1e-12)
    assert all(np.allclose(a, b, atol=1e-12) for a, b in zip(held, cache, strict=True))


@each_form
def test_gradients_of_a_layer_are_its_slopes(form):
    """Against central differences along a direction in all five arguments, a mask of its own, the cache used."""
    g = np.random.default_rng(1)
    args = [g.standard_normal((5, 6)), *layer(4, 2)]
    step = [g.standard_normal(a.shape) for a in args]

    def loss(*args):
        y, cache = gqa(*args, heads=4, groups=2, mask=window(2), rope_base=50.0)
        return (y * y).sum() + (cache.k * cache.v).sum()

    with forms(form):
        found = autodiff.grad(loss, tuple(range(5)))(*args)
        slope = sum(float((a * b).sum()) for a, b in zip(found, step, strict=True))
        h = 1e-5
        there, back = (float(loss(*(a + s * b for a, b in zip(args, step, strict=True)))) for s in (h, -h))
    assert np.isclose(slope, (there - back) / (2 * h), rtol=1e-7)


@each_form
def test_a_shift_of_all_positions_and_a_change_of_layout_leave_the_layer(form):
    x, (wq, wk, wv, wo) = np.random.default_rng(5).standard_normal((2, 7, 6)), layer(4, 2)
    options = {"heads": 4, "groups": 2, "rope_base": 100.0}
    with forms(form):
        wanted, _ = gqa(x, wq, wk, wv, wo, rope_layout="interleaved", **options)
        far, _ = gqa(x, wq, wk, wv, wo, rope_layout="interleaved", positions=np.arange(7) + 1000, **options)
        carried = rope_layout(wq, heads=4), rope_layout(wk, heads=2)
        half, _ = gqa(x, *carried, wv, wo, **options)
        gap, _ = gqa(x, wq, wk, wv, wo, rope_layout="interleaved", positions=np.arange(7) * 2, **options)
    assert np.allclose(far, wanted, atol=1e-10) and np.allclose(half, wanted, atol=1e-12)
    assert not np.allclose(gap, wanted, atol=1e-3)


PUBLISHED = [(32, 32, 32, 262_144), (64, 8, 80, 163_840), (71, 1, 1, 256)]


@pytest.mark.parametrize("heads, groups, layers, wanted", PUBLISHED)
def test_caches_hold_what_the_published_models_need(heads, groups, layers, wanted):
    """LLaMA-2-7B and 70B, and multi-query: 2 n_g d_h numbers a token and layer."""
    weights = [np.zeros((n * 128, 1)) for n in (heads, groups, groups)]
    _, cache = gqa(np.zeros((1, 1)), *weights, np.zeros((1, heads * 128)), heads=heads, groups=groups)
    assert layers * sum(a.size for a in cache) == wanted == layers * 2 * groups * 128


def test_uptraining_starts_from_the_mean_and_loses_nothing_where_heads_agree():
    x = np.random.default_rng(2).standard_normal((5, 6))
    wq, wk, wv, wo = layer(4, 4)
    wk, wv = (np.repeat(w.reshape(2, 2, 4, 6)[:, :1], 2, axis=1).reshape(16, 6) for w in (wk, wv))
    pooled = [mean_pool_heads(w, heads=4, groups=2) for w in (wk, wv)]
    many, _ = gqa(x, wq, wk, wv, wo, heads=4, groups=4)
    few, _ = gqa(x, wq, *pooled, wo, heads=4, groups=2)
    assert np.allclose(many, few, atol=1e-12)


@each_form
def test_split_and_paged_decoding_agree_with_sdpa(form):
    g = np.random.default_rng(3)
    q, k, v = g.standard_normal((1, 4, 2, 8)), g.standard_normal((1, 2, 37, 8)), g.standard_normal((1, 2, 37, 5))
    wanted = sdpa(q, k, v, mask=causal())
    where = g.permutation(8)  # 37 keys in pages of 5: the last holds two
    pages = [np.full((9, 2, 5, x.shape[-1]), np.nan) for x in (k, v)]
    for j in range(37):
        for page, x in zip(pages, (k, v), strict=True):
            page[where[j // 5], :, j % 5] = x[0, :, j]
    with forms(form):
        split, _ = split_kv(q, k, v, splits=5, mask=causal())
        found, _ = paged(q, *pages, where[None], np.array([37]))
    assert np.allclose(split, wanted, atol=1e-12) and np.allclose(found, wanted, atol=1e-12)


X, W = np.zeros((3, 6)), layer(4, 2)
Q, K, V = np.zeros((2, 1, 3)), np.zeros((1, 5, 3)), np.zeros((1, 5, 2))
P = np.zeros((2, 1, 2, 3)), np.zeros((2, 1, 2, 4))
ONE, FIVE = np.zeros((1, 2, 1, 3)), np.array([3])

BAD = [
    (gqa, ValueError, (X, *W), {"heads": 4, "groups": 3}, "gqa: heads=4, groups=3; groups must divide heads"),
    (gqa, ValueError, (X, *W), {"heads": 0, "groups": 0}, "heads=0, groups=0"),
    (gqa, ValueError, (X, *W), {"heads": 3, "groups": 1}, "wq has Hd=16 rows; 3 heads must divide them"),
    (gqa, ValueError, (X, *W), {"heads": 4, "groups": 1}, "a query head has d=4, a key head 8; they must agree"),
    (gqa, ValueError, (X, *W[:3], W[3][:, 1:]), {"heads": 4, "groups": 2}, "wo has He=15 columns; .* need 16"),
    (gqa, ValueError, (X[:, 1:], *W), {"heads": 4, "groups": 2}, "wq has D=6, x has D=5"),
    (gqa, ValueError, (X, *W), {"heads": 4, "groups": 2, "cache": Cache(K, V)}, "the cache's k has shape .* needed"),
    (gqa, TypeError, (X.astype(int), *W), {"heads": 4, "groups": 2}, "x has dtype int64"),
    (mean_pool_heads, ValueError, (W[0],), {"heads": 4, "groups": 3}, "heads=4, groups=3; groups must"),
    (mean_pool_heads, ValueError, (W[0],), {"heads": 3, "groups": 1}, "weight has Hd=16 rows; heads=3 must"),
    (mean_pool_heads, TypeError, (W[0].astype(int),), {"heads": 4, "groups": 2}, "weight has dtype int64"),
    (split_kv, ValueError, (Q, K, V), {"splits": 0}, "split_kv: splits=0; needed at least 1"),
    (split_kv, ValueError, (Q, K, V[:, 1:]), {"splits": 1}, "split_kv: v has S=4, k has S=5"),
    (split_kv, TypeError, (Q, K, V), {"splits": 1, "mask": np.ones((1, 5))}, "split_kv: mask has dtype float64"),
    (paged, ValueError, (ONE, *P, np.array([[0, 2]]), FIVE), {}, "of sequence 0 has page 2 at place 1; .* P=2"),
    (paged, ValueError, (ONE, *P, np.array([[-1, 0]]), FIVE), {}, "table of sequence 0 has page -1 at place 0"),
    (paged, ValueError, (ONE, *P, np.array([[0, 1]]), FIVE + 2), {}, "sequence 0 has length 5; 2 pages .* 0 to 4"),
    (paged, ValueError, (ONE, *P, np.array([[0, 1]]), FIVE - 4), {}, "sequence 0 has length -1"),
    (paged, ValueError, (ONE, P[0], P[1][1:], np.array([[0, 1]]), FIVE), {}, "v_pages has P=1, k_pages has P=2"),
    (paged, TypeError, (ONE, *P, np.array([[0.0]]), FIVE), {}, "table has dtype float64"),
    (paged, TypeError, (ONE.astype(int), *P, np.array([[0]]), FIVE), {}, "q has dtype int64"),
]


@pytest.mark.parametrize("function, error, args, options, said", BAD)
def test_it_says_what_arrived_and_what_was_needed(function, error, args, options, said):
    with pytest.raises(error, match=said):
        function(*args, **options)
