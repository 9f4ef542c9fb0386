"""What the laws of flash attention do not see: loads, derivatives of the gradient, forward mode, options' gradients."""

import math

import numpy as np
import pytest

import autodiff
from backends.threads import threads
from ref.attention.flash import flash
from ref.attention.rules import causal, window
from ref.attention.sdpa import sdpa

each_form = pytest.mark.parametrize("form", ["composite", "fused"])


def qkv(T=6, S=5, H=4, G=2, d=3, e=2, dtype=np.float64):
    g = np.random.default_rng(7)
    return tuple(g.standard_normal(shape).astype(dtype) for shape in ((2, H, T, d), (2, G, S, d), (2, G, S, e)))


class Counted(np.ndarray):
    """An array that notes how many of its numbers each slice reads."""

    def __array_finalize__(self, source):
        self.loads = None  # a slice does not count

    def __getitem__(self, at):
        found = np.asarray(super().__getitem__(at)) if self.loads is None else super().__getitem__(at).view(np.ndarray)
        if self.loads is not None:
            self.loads.append(found.size)
        return found


def counted(x):
    """`x` with an empty list of loads."""
    found = x.view(Counted)
    found.loads = []
    return found


@each_form
@pytest.mark.parametrize("mask, tiles", [(None, 3 * 6), (causal(), 2 + 4 + 6), (window(3, 0), 2 + 4 + 4)])
def test_queries_are_loaded_once_and_keys_once_a_block_of_rows(form, mask, tiles):
    """T = S = 12, B_r = 4, B_c = 2: Q once; K and V in all 3 x 6 tiles, or in those that the mask lets be seen."""
    q, k, v = (counted(x[0]) for x in qkv(T=12, S=12, H=1, G=1, d=3, e=2))
    with autodiff.forms(form), threads(1):
        flash(q, k, v, mask=mask, block_rows=4, block_cols=2)
    columns = 2 * tiles - (2 if form == "fused" and mask == window(3, 0) else 0)  # it begins at the first one seen
    assert (sum(q.loads), sum(k.loads), sum(v.loads)) == (12 * 3, columns * 3, columns * 2)


@each_form
def test_an_aligned_top_left_chunk_is_not_the_tail(form):
    q, k, v = qkv(T=5, S=5)
    with autodiff.forms(form):
        for align, same in (("bottom_right", True), ("top_left", False)):
            whole, _ = flash(q, k, v, mask=causal(align))
            last, _ = flash(q[..., -1:, :], k, v, mask=causal(align))
            assert np.allclose(last, whole[..., -1:, :]) is same


@each_form
def test_a_bias_of_minus_infinity_is_a_mask(form):
    q, k, v = qkv()
    keep = np.tril(np.ones((6, 5), bool), -1)  # row 0 sees nothing
    bias = np.where(keep, 0.0, -np.inf)
    with autodiff.forms(form):
        for options in ({"mask": keep}, {"bias": bias}):
            found, pull = autodiff.vjp(lambda q, k, v: flash(q, k, v, block_cols=2, **options), q, k, v)  # noqa: B023
            gradients = pull((np.ones_like(found[0]), np.ones_like(found[1])))
            if "mask" in options:
                wanted = *found, *gradients
            for x, y in zip((*found, *gradients), wanted, strict=True):
                assert np.allclose(x, y, rtol=1e-12, atol=1e-12)
        assert np.array_equal(found[1][..., 0], np.full((2, 4), -np.inf))


OPTIONS = [{}, {"mask": causal()}, {"mask": causal("top_left"), "softcap": 2.0}, {"mask": window(1, 0), "scale": 0.7}]


def of_sdpa(q, k, v, **options):
    """o of sdpa, and lse from it: an added key of logit b and value 1, others 0, has weight 1 / (1 + e^{lse - b})."""
    keep = options.pop("mask", None)
    T, S = q.shape[-2], k.shape[-2]
    keep = np.ones((T, S), bool) if keep is None else keep.tile(np, np.arange(T), np.arange(S), T, S)
    xp = autodiff.namespace(q, k, v)
    extra = np.zeros((*k.shape[:-2], 1, k.shape[-1]))
    mark = np.concatenate((np.zeros((*k.shape[:-1], 1)), np.ones((*k.shape[:-2], 1, 1))), -2)
    keep1 = np.concatenate((keep, np.ones((T, 1), bool)), -1)
    weight = sdpa(q, xp.concat((k, extra), axis=-2), mark, mask=keep1, **options)[..., 0]
    return sdpa(q, k, v, mask=keep, **options), xp.log((1.0 - weight) / weight)


@each_form
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_forward_mode_and_second_derivatives_are_those_of_sdpa(form, options):
    """Rows without keys aside: T <= S and every row sees its own key."""
    args = qkv(T=4, S=5)
    tangents = tuple(np.cos(np.arange(x.size)).reshape(x.shape) for x in args)

    def tiled(q, k, v):
        return flash(q, k, v, block_rows=3, block_cols=2, **options)

    def whole(q, k, v):
        return of_sdpa(q, k, v, **options)

    def loss(f):
        def scalar(q, k, v):
            o, lse = f(q, k, v)
            return (o * o * o).sum() + (lse * lse).sum()

        return scalar

    with autodiff.forms(form):
        for x, y in zip(autodiff.jvp(tiled, args, tangents)[1], autodiff.jvp(whole, args, tangents)[1], strict=True):
            assert np.allclose(x, y, rtol=1e-9, atol=1e-9)
        for x, y in zip(
            autodiff.hvp(loss(tiled), args, tangents), autodiff.hvp(loss(whole), args, tangents), strict=True
        ):
            assert np.allclose(x, y, rtol=1e-9, atol=1e-9)


@each_form
def test_a_bias_has_its_gradient(form):
    """d lse_i / d bias_ij = p_ij, and p sums to 1 over the keys that row i sees."""
    q, k, v = qkv()
    with autodiff.forms(form):
        found = autodiff.grad(lambda b: flash(q, k, v, bias=b, mask=window(1, 1))[1].sum())(np.zeros((2, 4, 6, 5)))
    seen = window(1, 1).tile(np, np.arange(6), np.arange(5), 6, 5)
    assert np.allclose(found.sum(-1), np.broadcast_to(seen.any(-1), (2, 4, 6)))
    assert np.array_equal(found == 0, np.broadcast_to(~seen, found.shape))


@each_form
def test_an_unused_output_needs_no_cotangent(form):
    q, k, v = qkv()
    with autodiff.forms(form):
        by_o = autodiff.grad(lambda q: flash(q, k, v)[0].sum())(q)
        by_lse = autodiff.grad(lambda q: flash(q, k, v)[1].sum())(q)
        both = autodiff.grad(lambda q: sum(x.sum() for x in flash(q, k, v)))(q)
    assert np.allclose(by_o + by_lse, both, atol=1e-12)
    assert np.abs(by_lse).max() > 0.01


def test_only_what_is_wanted_is_returned():
    q, k, v = qkv()
    t = autodiff.tensor(k, requires_grad=True)
    o, lse = flash(q, t, v)
    (o.sum() + lse.sum()).backward()
    assert t.grad.shape == k.shape
    assert math.isfinite(float(np.sum(t.grad)))
