"""The memory-bound kernels against float64: drawn shapes, aligned and not, every storage, every thread order."""

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.fused import steps
from backends.fused.cupy import adamw, rms_norm, rope, softmax_cross_entropy
from backends.kernels.device import using
from backends.kernels.emulation import ORDERS
from tests.fused.examples import examples
from tests.kernels.cases import BF16, F16, F32
from tests.kernels.stand_in import StandIn

DTYPES = st.sampled_from([F32, F16, BF16])
UNIT = {F32: 2.0**-24, F16: 2.0**-11, BF16: 2.0**-8}


def draw(rng, shape, dtype, shift):
    """Random numbers; `shift` elements off a multiple of 16 bytes."""
    whole = rng.standard_normal(int(np.prod(shape)) + shift).astype(dtype)
    return whole[shift:].reshape(shape)


def close(x, wanted, dtype, magnitude, ulps, n=1):
    """|x - wanted| <= ulps u |magnitude| + rounding of an n-term float32 sum."""
    bound = (ulps * UNIT[dtype] + (n + 8) * UNIT[F32]) * magnitude + 2.0**-24
    assert (abs(x.astype(np.float64) - wanted) <= bound).all(), abs(x.astype(np.float64) - wanted).max()


@examples(40)
@given(DTYPES, st.integers(0, 7), st.integers(1, 300), st.booleans(), st.sampled_from(ORDERS))
def test_rms_norm(dtype, n, d, aligned, order):
    rng = np.random.default_rng(n * 1000 + d)
    d = d // 8 * 8 + 8 if aligned else d
    x, g = (draw(rng, (n, d), dtype, not aligned) for _ in range(2))
    weight = draw(rng, (d,), dtype, not aligned)
    with using(StandIn(order=order)) as device:
        y, saved = rms_norm.forward(x, weight, eps=1e-3)
        dx, dw = rms_norm.vjp(g, y, saved, (True, True), x, weight, eps=1e-3)
        only = rms_norm.vjp(g, y, saved, (False, True), x, weight, eps=1e-3)
    if n:
        assert bool(device.launches[0].args[0]["whole"][0]) == (aligned or d * dtype.itemsize % 16 == 0 and
                                                                x.ctypes.data % 16 == 0)  # fmt: skip
    X, W, G = (a.astype(np.float64) for a in (x, weight, g))
    r = 1 / np.sqrt((X * X).mean(1, keepdims=True) + 1e-3)
    c = (G * W * X * r).mean(1, keepdims=True)
    close(y, X * r * W, dtype, abs(X * r * W), 2, d)
    close(dx, r * (G * W - X * r * c), dtype, r * (abs(G * W) + abs(X * r) * abs(G * W * X * r).mean(1, keepdims=True)),
          2, d)  # fmt: skip
    close(dw, (G * X * r).sum(0), dtype, abs(G * X * r).sum(0), 1, n + d)
    assert only[0] is None
    assert only[1].tobytes() == dw.tobytes()


def test_rms_norm_with_more_rows_than_blocks(monkeypatch):
    monkeypatch.setattr(rms_norm, "_BLOCKS", 3)
    rng = np.random.default_rng(0)
    x, g, weight = (rng.standard_normal(s).astype(F32) for s in ((2, 5, 20), (2, 5, 20), (20,)))
    with using(StandIn()):
        y, saved = rms_norm.forward(x, weight)
        dx, dw = rms_norm.vjp(g, y, saved, (True, True), x, weight)
    X, G = x.astype(float), g.astype(float)
    r = 1 / np.sqrt((X * X).mean(-1, keepdims=True) + 1e-5)
    close(dw, (G * X * r).sum((0, 1)), F32, abs(G * X * r).sum((0, 1)), 1, 30)
    assert dx.shape == y.shape == x.shape


def test_half_precision_squares_do_not_overflow():
    x = np.full((1, 64), 300, F16)
    with using(StandIn()):
        y, _ = rms_norm.forward(x, np.ones(64, F16))
    assert (y == 1).all()


@examples(40)
@given(DTYPES, st.sampled_from(["interleaved", "half"]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5),
       st.integers(1, 20), st.booleans(), st.sampled_from(ORDERS))  # fmt: skip
def test_rope(dtype, layout, B, H, T, pairs, own_positions, order):
    rng = np.random.default_rng(B + 10 * T + 100 * pairs)
    x = rng.standard_normal((B, H, T, 2 * pairs)).astype(dtype)
    positions = rng.integers(-5, 10**6, (B, T) if own_positions else (T,))
    with using(StandIn(order=order)):
        y, _ = rope.forward(x, positions, layout=layout, base=500.0)
        (back,) = rope.vjp(y, y, (), (True,), x, positions, layout=layout, base=500.0)
    theta = np.longdouble(500.0) ** (-np.arange(pairs) / np.longdouble(pairs))
    angle = (positions[..., None].astype(np.longdouble) * theta).astype(float)
    angle = angle[:, None] if own_positions else angle
    X = x.astype(np.float64)
    parts = {"half": (slice(0, pairs), slice(pairs, None)), "interleaved": (slice(0, None, 2), slice(1, None, 2))}
    first, second = parts[layout]
    a, b, size = X[..., first], X[..., second], abs(X[..., first]) + abs(X[..., second])
    slack = 2.0**-30  # of the angle: positions to 10^6 at 2^-53, relative
    close(y[..., first], a * np.cos(angle) - b * np.sin(angle), dtype, size + slack, 1, 2)
    close(y[..., second], a * np.sin(angle) + b * np.cos(angle), dtype, size + slack, 1, 2)
    close(back[..., first], a, dtype, 2 * size, 2, 4)


@examples(40)
@given(DTYPES, st.integers(0, 6), st.integers(1, 400), st.booleans(), st.sampled_from([0.0, 0.25]),
       st.sampled_from([1.0, 50.0]), st.sampled_from(ORDERS))  # fmt: skip
def test_cross_entropy(dtype, n, V, aligned, z_loss, size, order):
    rng = np.random.default_rng(n * 1000 + V)
    V = V // 8 * 8 + 8 if aligned else V
    x = (draw(rng, (n, V), F32, not aligned) * np.float32(size)).astype(dtype)
    targets = rng.integers(0, V, n)
    targets[n // 2 :: 3] = -7
    x[targets == -7] = np.nan
    if V > 3 and n:
        x[0, (targets[0] + 1) % V] = -np.inf
    g = rng.standard_normal(n).astype(dtype)
    options = {"z_loss": z_loss, "ignore_index": -7}
    with using(StandIn(order=order)):
        loss, saved = softmax_cross_entropy.forward(x, targets, **options)
        (dx,) = softmax_cross_entropy.vjp(g, loss, saved, (True,), x, targets, **options)
        over = x.copy()
        again = softmax_cross_entropy.loss_and_gradient_(over, targets, scale=0.5, **options)
    kept = targets != -7
    X, at = np.where(kept[:, None], x.astype(np.float64), 0), np.where(kept, targets, 0)
    lse = np.log(np.exp(X - X.max(1, keepdims=True)).sum(1)) + X.max(1)
    p = np.exp(X - lse[:, None])
    hot = np.arange(V) == at[:, None]
    wanted = np.where(kept, lse - np.take_along_axis(X, at[:, None], 1)[:, 0] + z_loss * lse**2, 0)
    big = np.where(np.isfinite(X), abs(X), 0).max(1) + abs(lse) + 1
    close(loss, wanted, dtype, big * (1 + 2 * z_loss * big), 1, V)
    unit = np.where(kept, 1.0, 0.0)[:, None] * (p * (1 + 2 * z_loss * lse[:, None]) - hot)
    slack = (p * (1 + 2 * z_loss * big[:, None]) * (big[:, None] + 4) + hot)
    narrow = 0.0 if dtype == F32 else UNIT[dtype]
    for actual, scale in ((dx, g.astype(np.float64)[:, None]), (over, 0.5)):
        error = abs(actual.astype(np.float64) - scale * unit)
        bound = abs(scale) * (slack * (V + 16) * UNIT[F32] + abs(unit) * narrow) + 2.0**-24
        assert (error <= bound).all()
        assert not actual[~kept].any()
    assert again.tobytes() == loss.tobytes()


def test_targets_out_of_range_are_refused():
    x = np.zeros((2, 3), F32)
    with using(StandIn()), pytest.raises(ValueError, match=r"a target is 3, logits have V=3 classes; needs 0\.\.2 or"):
        softmax_cross_entropy.forward(x, np.array([3, -1]), ignore_index=-1)
    with using(StandIn()), pytest.raises(ValueError, match="needed contiguous"):
        softmax_cross_entropy.loss_and_gradient_(np.zeros((3, 2), F32).T, np.zeros(2, int))


@examples(25)
@given(st.lists(st.integers(0, 70), max_size=4), st.integers(1, 5), st.booleans(), st.sampled_from(ORDERS))
def test_adamw_on_many_tensors(sizes, t, aligned, order):
    rng = np.random.default_rng(sum(sizes) + t)
    lists = [[draw(rng, (n,), F32, 0 if aligned else 1) for n in sizes] for _ in range(4)]
    for v in lists[3]:
        v[:] = abs(v)
    before = [[x.astype(np.float64) for x in group] for group in lists]
    how = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.2}
    with pytest.MonkeyPatch.context() as patch, using(StandIn(order=order)) as device:
        patch.setattr(adamw, "_CHUNK", 16)
        adamw.adamw_(*lists, t, **how)
    assert len(device.launches) == bool(sum(sizes))
    for i in range(len(sizes)):
        p, g, m, v = (group[i] for group in before)
        m1, v1 = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        step = m1 / (1 - 0.9**t) / (np.sqrt(v1 / (1 - 0.99**t)) + 1e-6)
        moved = abs(p) + 0.1 * (abs(0.9 * m) + abs(0.1 * g)) / (1 - 0.9**t) / (np.sqrt(v1 / (1 - 0.99**t)) + 1e-6)
        close(lists[2][i], m1, F32, abs(0.9 * m) + abs(0.1 * g), 4)
        close(lists[3][i], v1, F32, v1, 4)
        close(lists[0][i], p * (1 - 0.02) - 0.1 * step, F32, moved, 16)
        assert (lists[1][i].astype(np.float64) == g).all()


def test_adamw_takes_no_step_where_nothing_ever_moved():
    zeros = [np.zeros(5, F32) for _ in range(4)]
    with using(StandIn()):
        adamw.adamw_(*([x] for x in zeros), 1, lr=0.1, beta1=0.9, beta2=0.99, eps=0.0, weight_decay=0.1)
    assert not any(x.any() for x in zeros)


def test_the_step_goes_where_the_arrays_are(monkeypatch):
    lists = [[np.full(n, x, F32) for n in (3, 9)] for x in (1, 2, 3, 4)]
    twin = [[x.copy() for x in group] for group in lists]
    how = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.1}
    steps.adamw_(*twin, 2, **how)
    for name in ("numpy", "compiled"):
        monkeypatch.setitem(steps._ADAMW, name, steps._ADAMW["cupy"])  # NumPy's arrays stand for CuPy's
    with using(StandIn()) as device:
        steps.adamw_(*lists, 2, **how)
    assert device.kernels() == ["adamw"]
    for a, b in zip(sum(lists, []), sum(twin, []), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    with pytest.raises(TypeError, match="arrays of strict; needed one of numpy, cupy"):
        steps.adamw_(*([array_api_strict.ones(3)] for _ in range(4)), 1, **how)


def test_adamw_refuses_what_does_not_fit():
    how = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.2}
    x = np.zeros(4, F32)
    for lists, t, kind, words in (
        (([x], [x], [x], []), 1, ValueError, "1 params, 1 grads, 1 ms, 0 vs"),
        (([x], [x], [x], [x]), 0, ValueError, "t=0"),
        (([x], [x[:2]], [x], [x]), 1, ValueError, "grad 0 has shape"),
        (([x], [np.zeros((4, 2), F32)[:, 0]], [x], [x]), 1, ValueError, "grad 0 has shape"),
        (([x], [x], [x.astype(float)], [x]), 1, TypeError, "m 0 is float64"),
    ):
        with using(StandIn()), pytest.raises(kind, match=words):
            adamw.adamw_(*lists, t, **how)


def test_what_the_forms_support():
    x, w = np.zeros((2, 6), F16), np.zeros(6, F16)
    with using(StandIn()):
        assert rms_norm.supports(x, w)
        assert not rms_norm.supports(x, w.astype(F32))
        assert not rms_norm.supports(x.astype(float), w.astype(float))
        assert rope.supports(x, np.arange(2))
        assert not rope.supports(x, np.arange(3))
        assert not rope.supports(x, np.arange(2), layout="both")
        assert softmax_cross_entropy.supports(x, np.zeros(2, int))
        assert not softmax_cross_entropy.supports(x, np.zeros(3, int))
        with pytest.raises(ValueError, match="rope: x has shape"):
            rope.forward(x, np.arange(3))
    with using(StandIn(capability=(7, 5))):
        assert not rms_norm.supports(x, w)
        assert not rope.supports(x, np.arange(2))
        assert not softmax_cross_entropy.supports(x, np.zeros(2, int))
