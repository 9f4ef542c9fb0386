"""Convolution and pooling against the sums that define them, in float64 integers to the bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import correlate2d

import backends
from autodiff import grad, hvp, rules_conv, saved_bytes, tensor, vjp
from autodiff.arrays import pad, topk
from autodiff.convolution import avg_pool, conv, conv_transpose, max_pool
from autodiff.ops import matmul, reshape, windows
from autodiff.ops import sum as total
from tests.autodiff.samples import examples


def by_definition(x, w, stride, dilation, groups):
    """y[n, o, p] = sum over c, k of x[n, c, s p + d k] w[o, c, k], a product at a time."""
    size, channels, filters = w.shape[2:], w.shape[1], w.shape[0] // groups
    extent = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    places = [(n - e) // s + 1 for n, e, s in zip(x.shape[2:], extent, stride, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *places))
    for n, o in itertools.product(range(x.shape[0]), range(w.shape[0])):
        for p in itertools.product(*map(range, places)):
            for c, *k in itertools.product(range(channels), *map(range, size)):
                at = [s * q + d * j for s, q, d, j in zip(stride, p, dilation, k, strict=True)]
                y[(n, o, *p)] += x[(n, o // filters * channels + c, *at)] * w[(o, c, *k)]
    return y


@st.composite
def convolutions(draw):
    axes = draw(st.integers(1, 2))
    one = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))  # noqa: E731
    size, stride, dilation, padding = one(1, 3), one(1, 3), one(1, 2), one(0, 2)
    room = one(0, 3)
    low = [max(d * (k - 1) + 1 - 2 * p, 1) for k, d, p in zip(size, dilation, padding, strict=True)]
    spatial = tuple(n + r for n, r in zip(low, room, strict=True))
    n, g, c, o = (draw(st.integers(*r)) for r in ((0, 2), (1, 2), (1, 2), (1, 2)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    x = rng.integers(-4, 5, (n, g * c, *spatial)).astype(float)
    w = rng.integers(-4, 5, (g * o, c, *size)).astype(float)
    return x, w, {"stride": stride, "dilation": dilation, "padding": padding, "groups": g}


@given(convolutions())
@examples(40)
def test_convolution_is_its_sum_and_the_transpose_its_adjoint(case):
    x, w, options = case
    p = options["padding"]
    wide = np.pad(x, ((0, 0), (0, 0), *((a, a) for a in p)))
    y = conv(x, w, **options)
    want = by_definition(wide, w, options["stride"], options["dilation"], options["groups"])
    assert np.array_equal(y, want)
    v = np.random.default_rng(0).integers(-3, 4, y.shape).astype(float)
    # Without it the transpose has stride (P - 1) + dilation (K - 1) + 1 - 2 padding places, which may be none.
    sizes = zip(x.shape[2:], y.shape[2:], w.shape[2:], options["stride"], options["dilation"], p, strict=True)
    extra = tuple(n - (s * (m - 1) + d * (k - 1) + 1 - 2 * a) for n, m, k, s, d, a in sizes)
    back = conv_transpose(v, w, output_padding=extra, **options)
    assert back.shape == x.shape and np.sum(back * x) == np.sum(y * v)
    assert np.array_equal(back, vjp(lambda x: conv(x, w, **options), x)[1](v)[0])


@pytest.mark.parametrize("backend", ["numpy", "strict"])
@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"padding": 2, "stride": 2, "dilation": 2, "groups": 2}, {"size": 1}]
)
def test_blocks_of_images_of_every_size_give_the_same(monkeypatch, options, backend):
    """Whole numbers: one image a block, two and a rest, all seven at once, to the bit."""
    k = options.get("size", 3)
    options = {name: value for name, value in options.items() if name != "size"}
    g, b = np.random.default_rng(0), backends.get(backend)
    x = b.from_numpy(g.integers(-4, 5, (7, 4, 5, 6)).astype(float))
    w = b.from_numpy(g.integers(-4, 5, (6, 4 // options.get("groups", 1), k, k)).astype(float))
    found = []
    numbers = 4 * k * k * int(np.prod(conv(x, w, **options).shape[2:]))
    for block in (1, 2 * numbers, 1 << 18):
        monkeypatch.setattr(rules_conv, "BLOCK", block)
        y, pull = vjp(lambda x, w: conv(x, w, **options), x, w)
        cotangent = b.from_numpy(np.random.default_rng(1).integers(-3, 4, y.shape).astype(float))
        found.append([b.to_numpy(a) for a in (y, *pull(cotangent))])
    for other in found[1:]:
        assert all(np.array_equal(a, c) for a, c in zip(found[0], other, strict=True))


@given(convolutions())
@examples(20)
def test_convolution_is_a_window_gather_and_a_product(case):
    x, w, options = case
    options = {**options, "padding": 0, "groups": 1}
    w = np.random.default_rng(1).integers(-3, 4, (w.shape[0], x.shape[1], *w.shape[2:])).astype(float)
    if any(n < d * (k - 1) + 1 for n, k, d in zip(x.shape[2:], w.shape[2:], options["dilation"], strict=True)):
        x = np.ones((*x.shape[:2], *(d * k for k, d in zip(w.shape[2:], options["dilation"], strict=True))))

    def gathered(x, w):
        u = windows(x, w.shape[2:], options["stride"], options["dilation"])
        places = u.shape[2 + len(w.shape[2:]) :]
        rows = int(np.prod(w.shape[1:]))
        y = matmul(reshape(w, (w.shape[0], rows)), reshape(u, (x.shape[0], rows, int(np.prod(places)))))
        return reshape(y, (x.shape[0], w.shape[0], *places))

    y, pull = vjp(lambda x, w: conv(x, w, **options), x, w)
    z, other = vjp(gathered, x, w)
    assert np.array_equal(y, z)
    for a, b in zip(pull(y), other(y), strict=True):
        assert np.array_equal(a, b)


def test_one_image_against_scipy():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 1, 7, 8)), rng.standard_normal((1, 1, 3, 2))
    assert np.allclose(conv(x, w)[0, 0], correlate2d(x[0, 0], w[0, 0], "valid"), rtol=1e-13)
    same = conv(x, w, padding="same")
    assert same.shape == x.shape
    assert np.allclose(same[0, 0], conv(x, w, padding=((1, 1), (0, 1)))[0, 0], rtol=1e-13)
    assert np.array_equal(conv(x, w, padding="valid"), conv(x, w))
    assert conv(x, w, padding="same", stride=(2, 3)).shape == (1, 1, 4, 3)


def test_a_kernel_of_one_is_a_product_of_channels():
    rng = np.random.default_rng(0)
    x, w = rng.integers(-3, 4, (2, 3, 4, 5)) * 1.0, rng.integers(-3, 4, (6, 3)) * 1.0
    want = np.einsum("oc,nchw->nohw", w, x)
    assert np.array_equal(conv(x, w[..., None, None]), want)


def test_a_convolution_keeps_its_two_arguments_alone():
    x, w = tensor(np.ones((2, 3, 8, 8)), True), tensor(np.ones((4, 3, 3, 3)), True)
    assert saved_bytes(conv(x, w)) == x.data.nbytes + w.data.nbytes
    g = grad(lambda x: total(conv(x, w.data) ** 2) * 0.5)(x.data)
    h = hvp(lambda x: total(conv(x, w.data) ** 2) * 0.5, (x.data,), (x.data,))[0]
    assert np.array_equal(g, h)  # a quadratic form at x, along x


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_every_backend_convolves_and_pools(name):
    xp = backends.get(name)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 6, 5)), rng.standard_normal((6, 2, 3, 2))
    options = {"stride": (2, 1), "padding": 1, "dilation": (1, 2), "groups": 2}
    calls = {
        "conv": lambda x, w: conv(x, w, **options),
        "conv_transpose": lambda x, w: conv_transpose(conv(x, w, **options), w, output_padding=(1, 0), **options),
        "max_pool": lambda x, w: max_pool(x, (2, 3), padding=1) * total(w),
        "avg_pool": lambda x, w: avg_pool(x, (2, 3), padding=1, count_padding=False) * total(w),
        "topk": lambda x, w: topk(x, 2)[0] * total(w),
        "pad": lambda x, w: pad(x, ((0, 1), (1, 0), (-1, 1), (2, -2)), value=3.0) * total(w),
    }
    for call in calls.values():
        there = [tensor(xp.from_numpy(a), True) for a in (x, w)]
        here = [tensor(a, True) for a in (x, w)]
        total(call(*there)).backward()
        total(call(*here)).backward()
        for a, b in zip(there, here, strict=True):
            assert np.allclose(xp.to_numpy(a.grad), b.grad, rtol=1e-12, atol=1e-12)


# --- pooling ----------------------------------------------------------------------------------


def test_pooling_of_a_line():
    x = np.array([1.0, 5.0, 2.0, 4.0, 3.0])
    assert np.array_equal(max_pool(x, (2,)), [5, 4])
    assert np.array_equal(max_pool(x, 3, stride=1), [5, 5, 4])
    assert np.array_equal(max_pool(x, (2,), padding=1), [1, 5, 4])
    assert np.array_equal(max_pool(x, (2,), dilation=2, stride=1), [2, 5, 3])
    assert np.array_equal(max_pool(-x, (3,), padding=1, stride=2), [-1, -2, -3])
    assert np.array_equal(avg_pool(x, (2,), padding=1), [0.5, 3.5, 3.5])
    assert np.array_equal(avg_pool(x, (2,), padding=1, count_padding=False), [1, 3.5, 3.5])
    assert avg_pool(np.ones((2, 0, 4, 4)), (2, 2)).shape == (2, 0, 2, 2)


def test_tied_maxima_of_a_window_share_evenly():
    x = np.array([[2.0, 2.0, 1.0], [2.0, 0.0, 7.0], [2.0, 0.0, 7.0]])
    g = grad(lambda x: total(max_pool(x, (2, 2), stride=1) * np.array([[6.0, 1.0], [4.0, 10.0]])))(x)
    third = 6.0 / 3
    assert np.array_equal(g, [[third, third, 0], [third + 2, 0, 6], [2, 0, 5]])


def test_a_mean_pools_evenly():
    g = grad(lambda x: total(avg_pool(x, (2, 2), stride=1)))(np.zeros((3, 3)))
    assert np.array_equal(g, np.outer([1, 2, 1], [1, 2, 1]) / 4)


# --- pad and topk -----------------------------------------------------------------------------


def test_padding_and_cutting():
    x = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(pad(x, ((1, 0), (0, 2)), value=9.0), np.pad(x, ((1, 0), (0, 2)), constant_values=9))
    assert np.array_equal(pad(x, ((0, -1), (-1, 1))), [[1, 2, 0]])
    assert np.array_equal(pad(x, ((-1, -1), (0, 0))), np.zeros((0, 3)))
    g = grad(lambda x: total(pad(x, ((0, -1), (-1, 1)), value=2.0) ** 2))(x)
    assert np.array_equal(g, [[0, 2, 4], [0, 0, 0]])
    assert pad(np.float64(2.0), ()) == 2.0


def test_topk_and_its_ties():
    x = np.array([[3.0, 9.0, 3.0, 9.0, 1.0]])
    values, places = topk(x, 3)
    assert np.array_equal(values, [[9, 9, 3]]) and np.array_equal(places, [[1, 3, 0]])
    low = topk(x, 2, largest=False)
    assert np.array_equal(low[0], [[1, 3]]) and np.array_equal(low[1], [[4, 0]])
    # The first of two equal values is taken, and takes the whole cotangent.
    g = grad(lambda x: total(topk(x, 3)[0] * np.array([1.0, 10.0, 100.0])))(x)
    assert np.array_equal(g, [[100, 1, 0, 10, 0]])
    assert topk(x, 0)[0].shape == (1, 0) and topk(x, 1, axis=0)[0].shape == (1, 5)


# --- bad input --------------------------------------------------------------------------------

X, W = np.zeros((1, 2, 5)), np.zeros((4, 2, 3))
WRONG = {
    "axes": (lambda: conv(X[0], W), "conv: x has shape (2, 5), w (4, 2, 3); needed a batch axis"),
    "kernel axes": (lambda: conv(X, W[0]), "conv: x has shape (1, 2, 5), w (2, 3); needed"),
    "channels": (lambda: conv(X, W[:, :1]), "conv: x has C=2 channels, w is O=4 by 1 with groups=1"),
    "groups": (lambda: conv(np.zeros((1, 6, 5)), W, groups=3), "w is O=4 by 2 with groups=3"),
    "stride": (lambda: conv(X, W, stride=0), "conv: stride is 0; needed an integer of at least 1, or 1 of them"),
    "dilation": (lambda: conv(X, W, dilation=(1, 1)), "conv: dilation is (1, 1); needed"),
    "padding": (lambda: conv(X, W, padding=-1), "conv: padding is (-1,); needed 1 numbers or pairs"),
    "padding word": (lambda: conv(X, W, padding="full"), "conv: padding is 'full'; needed 'same', 'valid'"),
    "fit": (lambda: conv(X, W, dilation=3), "conv: the window (3,) with dilation (3,) does not fit into (5,)"),
    "transpose": (lambda: conv_transpose(X, W), "conv_transpose: x has 2 channels, w O=4 filters"),
    "output_padding": (
        lambda: conv_transpose(X, W[:2], output_padding=1),
        "conv_transpose: output_padding is (1,), stride (1,); needed it below",
    ),
    "nothing left": (lambda: conv_transpose(X, W[:2], padding=4), "conv_transpose: padding (4,) leaves nothing"),
    "pool size": (lambda: max_pool(X, (0,)), "max_pool: size is (0,); needed"),
    "pool axes": (lambda: avg_pool(X[0, 0], (1, 1)), "avg_pool: x has 1 axes, size (1, 1) is of 2"),
    "pool padding": (lambda: max_pool(X, (2,), padding=2), "max_pool: padding ((2, 2),) and windows of extent (2,)"),
    "pool fit": (lambda: max_pool(X, (9,)), "max_pool: the window (9,) with dilation (1,) does not fit into (5,)"),
    "avg fit": (lambda: avg_pool(X, (9,)), "avg_pool: the window (9,)"),
    "empty mean": (
        lambda: avg_pool(X, (2,), padding=2, count_padding=False),
        "avg_pool: with padding ((2, 2),) left out some windows hold nothing",
    ),
    "widths": (lambda: pad(X, ((0, 0),)), "pad: x has 3 axes, widths 1; needed a pair an axis"),
    "too much": (lambda: pad(X, ((0, 0), (-2, -1), (0, 0))), "take more than x of shape (1, 2, 5) has"),
    "topk": (lambda: topk(X, 6), "topk: k is 6; axis 2 has 5 values"),
}


@pytest.mark.parametrize("call, said", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_said(call, said):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)
