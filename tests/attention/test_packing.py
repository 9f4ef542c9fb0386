"""Packed rows end to end: the loss and every gradient are those of the samples alone; bad input."""

import numpy as np
import pytest

import autodiff
from autodiff import forms, grad, namespace
from ref.attention.rules import causal, relative, segments
from ref.attention.sdpa import sdpa
from ref.attention.varlen import varlen
from ref.losses.packed_targets import packed_targets
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.losses.token_mean import token_mean
from ref.nn.pad import pad
from ref.nn.rope import rope
from ref.nn.segment_positions import segment_positions
from ref.nn.unpad import unpad
from ref.training.pack import pack

each_form = pytest.mark.parametrize("form", ["composite", "fused"])
V, D = 11, 8


def parameters():
    g = np.random.default_rng(0)
    return {name: g.standard_normal(shape) / 2 for name, shape in
            {"E": (V, D), "q": (D, D), "k": (D, D), "v": (D, D)}.items()}  # fmt: skip


def attend(p, x, positions, cu):
    """x[N D] after one layer of two heads."""
    xp = namespace(x, *p.values())
    q, k, v = (xp.moveaxis(xp.reshape(xp.matmul(x, p[n]), (-1, 2, D // 2)), 0, 1) for n in "qkv")
    o, _ = varlen(rope(q, positions), rope(k, positions), v, cu, cu, mask=causal())
    return x + xp.reshape(xp.moveaxis(o, 0, 1), (-1, D))


def total_loss(p, tokens, cu):
    """(sum of the kept losses, how many)."""
    cu = np.asarray(cu)
    xp = namespace(tokens, *p.values())
    x = attend(p, xp.take(p["E"], tokens, axis=0), segment_positions(cu), cu)
    targets, keep = packed_targets(tokens, cu, fill=0)
    losses = softmax_cross_entropy(xp.matmul(x, xp.matrix_transpose(p["E"])), targets)
    return token_mean(losses, keep, count=1), int(keep.sum())


@each_form
@pytest.mark.parametrize("lengths", [(5, 1, 4), (3, 3, 3), (2, 0, 7), (9,)])
def test_packed_loss_and_gradients_are_those_of_the_samples(form, lengths):
    """sum n_i L_i / sum n_i, and its gradient in every parameter; positions restart, targets stop at the boundary."""
    p, cu = parameters(), np.concatenate(([0], np.cumsum(lengths)))
    tokens = np.random.default_rng(1).integers(0, V, cu[-1])
    alone = [tokens[a:b] for a, b in zip(cu[:-1], cu[1:], strict=True) if b > a]
    with forms(form):
        packed, kept = total_loss(p, tokens, cu)
        parts = [total_loss(p, own, [0, len(own)]) for own in alone]
        assert kept == sum(n for _, n in parts)
        assert np.isclose(packed, sum(loss for loss, _ in parts), rtol=1e-12)
        found = grad(lambda p: total_loss(p, tokens, cu)[0] / kept)(p)
        wanted = [grad(lambda p, x: total_loss(p, x, [0, len(x)])[0] / kept)(p, own) for own in alone]
    for name in p:
        assert np.allclose(found[name], sum(w[name] for w in wanted), rtol=1e-9, atol=1e-12), name


@each_form
def test_padded_batches_and_packed_rows_agree(form):
    """Unpadded, attended, padded again: attention over the padded batch with a mask, left and right padding alike."""
    g = np.random.default_rng(2)
    x, counts = g.standard_normal((3, 5, 4)), np.array([5, 2, 0])
    for mask in (np.arange(5) < counts[:, None], np.arange(5) >= 5 - counts[:, None]):
        rows, indices, cu, longest = unpad(x, mask)
        with forms(form):
            o, _ = varlen(rows[None], rows[None], rows[None], cu, cu, mask=causal(), bias=relative([0.5, -1.0], 1))
        found = pad(o[0], indices, batch=3, length=5)
        bias = relative([0.5, -1.0], 1).tile(np, np.arange(5), np.arange(5), 5, 5)
        keep = mask[:, None, None, :] & np.tri(5, dtype=bool)
        wanted = sdpa(x[:, None], x[:, None], x[:, None], mask=keep, bias=bias)[:, 0]
        assert np.allclose(found, np.where(mask[..., None], wanted, 0), atol=1e-12) and longest == 5


@each_form
def test_varlen_is_attention_under_segments(form):
    g = np.random.default_rng(3)
    cu_q, cu_k = np.array([0, 2, 2, 6]), np.array([0, 3, 4, 9])
    q, k, v = (g.standard_normal((h, n, 3)) for h, n in ((4, 6), (2, 9), (2, 9)))
    with forms(form):
        o, _ = varlen(q, k, v, cu_q, cu_k, mask=causal(), softcap=3.0)
        wanted = sdpa(q, k, v, mask=segments(cu_q, cu_k, inside=causal()), softcap=3.0)
    assert np.allclose(o, wanted, atol=1e-12)


def test_the_gradient_of_unpadding_is_padding():
    mask = np.array([[True, True, False], [False, False, True]])
    w = np.arange(6.0).reshape(3, 2)
    found = autodiff.grad(lambda x: (unpad(x, mask).rows * w).sum())(np.ones((2, 3, 2)))
    assert np.array_equal(found, pad(w, np.array([0, 1, 5]), batch=2, length=3))


def test_unpad_takes_any_dtype_and_any_axes():
    mask = np.array([[True, False], [True, True]])
    assert list(unpad(np.array([[7, 0], [8, 9]]), mask).rows) == [7, 8, 9]
    assert unpad(np.zeros((2, 2, 3, 4)), mask).rows.shape == (3, 3, 4)


CU, Q, K, V2 = np.array([0, 1, 3]), np.zeros((2, 3, 2)), np.zeros((1, 3, 2)), np.zeros((1, 3, 4))
HOLE = np.array([[True, True, True], [True, False, True]])

BAD = [
    (segment_positions, ValueError, (np.array([1, 2]),), {}, r"segment_positions: cu begins with \(1,\); needed 0"),
    (segment_positions, ValueError, (np.zeros(0, int),), {}, "cu begins with nothing"),
    (segment_positions, ValueError, (np.array([0, 3, 2]),), {}, "cu falls from 3 to 2 at segment 1"),
    (segment_positions, TypeError, (np.array([0.0, 2.0]),), {}, "cu has dtype float64"),
    (unpad, ValueError, (np.zeros((2, 3)), HOLE), {}, "unpad: mask of sample 1 has a hole before slot 2"),
    (unpad, ValueError, (np.zeros((3, 2)), HOLE), {}, r"x has shape \(3, 2\), mask has \(2, 3\)"),
    (unpad, TypeError, (np.zeros((2, 3)), HOLE.astype(int)), {}, "mask has dtype int64; .* must be bool"),
    (pad, ValueError, (np.zeros((2, 1)), np.array([1, 1])), {"batch": 1, "length": 3}, "index 1 at place 1, after 1"),
    (pad, ValueError, (np.zeros((2, 1)), np.array([1, 3])), {"batch": 1, "length": 3}, "index 3 at .* slots below 3"),
    (pad, ValueError, (np.zeros((1, 1)), np.array([-1])), {"batch": 1, "length": 3}, "index -1 at place 0"),
    (pad, ValueError, (np.zeros((2, 1)), np.array([0])), {"batch": 1, "length": 3}, "indices has N=1, rows has N=2"),
    (pad, TypeError, (np.zeros((1, 1), int), np.array([0])), {"batch": 1, "length": 3}, "rows has dtype int64"),
    (pad, TypeError, (np.zeros((1, 1)), np.array([0.0])), {"batch": 1, "length": 3}, "indices has dtype float64"),
    (packed_targets, ValueError, (np.arange(3), np.array([0, 2])), {}, "cu ends with 2, tokens has N=3"),
    (packed_targets, ValueError, (np.arange(3), np.array([0, 4, 3])), {}, "cu falls from 4 to 3 at segment 1"),
    (packed_targets, ValueError, (np.arange(3), np.array([1, 3])), {}, "cu begins with"),
    (packed_targets, TypeError, (np.ones(3), np.array([0, 3])), {}, "tokens has dtype float64"),
    (pack, ValueError, (np.array([3, 6]),), {"capacity": 5}, "pack: sample 1 has length 6; needed 0 to capacity=5"),
    (pack, ValueError, (np.array([-1]),), {"capacity": 5, "oversize": "drop"}, "sample 0 has length -1"),
    (pack, ValueError, (np.array([1]),), {"capacity": 0}, "capacity=0; needed at least 1"),
    (pack, ValueError, (np.array([1]),), {"capacity": 5, "rule": "worst_fit"}, "rule='worst_fit'; needed one of"),
    (pack, ValueError, (np.array([1]),), {"capacity": 5, "oversize": "skip"}, "oversize='skip'; needed one of"),
    (pack, TypeError, (np.array([1.0]),), {"capacity": 5}, "lengths has dtype float64"),
    (varlen, ValueError, (Q, K, V2, CU, CU[:2]), {}, "cu_k has n1=2, cu_q has n1=3"),
    (varlen, ValueError, (Q, K, V2, CU, np.array([0, 1, 2])), {}, "varlen: cu_k ends with 2, there are M=3"),
    (varlen, ValueError, (Q, K, V2, np.array([0, 4, 3]), CU), {}, "cu_q falls from 4 to 3 at segment 1"),
    (varlen, ValueError, (Q, K, V2, CU + 1, CU), {}, "cu_q begins with"),
    (varlen, ValueError, (Q, np.zeros((2, 3, 3)), V2, CU, CU), {}, "k has d=3, q has d=2"),
    (varlen, ValueError, (np.zeros((3, 3, 2)), *np.zeros((2, 2, 3, 2)), CU, CU), {}, "G must divide H"),
    (varlen, TypeError, (Q, K, V2, CU, CU), {"mask": np.ones((3, 3), bool)}, "mask is ndarray; needed a rule"),
    (varlen, TypeError, (Q, K, V2, CU, CU), {"bias": causal()}, "bias is _Causal; needed a rule of a bias"),
    (varlen, TypeError, (Q, K, V2, CU.astype(float), CU), {}, "cu_q has dtype float64"),
    (varlen, TypeError, (Q.astype(int), K, V2, CU, CU), {}, "q has dtype int64"),
]


@pytest.mark.parametrize("function, error, args, options, said", BAD)
def test_it_says_what_arrived_and_what_was_needed(function, error, args, options, said):
    with pytest.raises(error, match=said):
        function(*args, **options)
