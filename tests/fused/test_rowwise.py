"""Cross entropy, norms, SwiGLU, GELU against float64 definitions, with bounds by first order.

Each oracle gives, for every output, its value and the error bound in units u of the precision: the
number of roundings on the way times the magnitudes they act on, cancellation included.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_ndtr

from backends import threads
from backends.fused import find
from tests.fused.examples import examples

DTYPES = st.sampled_from([np.float32, np.float64])
SHAPES = st.sampled_from([(), (0,), (1,), (7,), (2, 3), (3, 0, 2), (1500,)])


def judge(actual, wanted, bound, dtype, factor=1.0, lost=64):
    """Every entry within factor * u * bound, and `lost` smallest normals that underflow may take."""
    assert actual.dtype == dtype and actual.shape == wanted.shape
    info = np.finfo(dtype)
    error = abs(actual.astype(np.float64) - wanted)
    assert (error <= factor * info.eps / 2 * bound + lost * info.smallest_normal).all()


def strided(x, kind):
    """x with another memory order: its values stay, its strides do not."""
    if kind == "F":
        return np.asfortranarray(x)
    return np.repeat(x, 2, -1)[..., ::2] if kind == "S" and x.ndim else x


@st.composite
def rows(draw, sizes=(1e-3, 1.0, 30.0)):
    """(rng, array maker, shape of the rows, width, dtype)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype, lead, d = draw(DTYPES), draw(SHAPES), draw(st.integers(1, 9))
    size, order = draw(st.sampled_from(sizes)), draw(st.sampled_from("CFS"))

    def array(*shape, size=size):
        return strided((rng.standard_normal(shape) * size).astype(dtype), order)

    return rng, array, lead, d, dtype


def run(id, tensors, g, **options):
    """Outputs and cotangents of the fused form, twice: inputs untouched, bits free of threads."""
    form = find(id, "numpy")
    assert form.supports(*tensors, **options)
    arrays = [*tensors, g]
    before = [x.copy() for x in arrays]
    results = []
    for n in (1, 3):
        with threads.threads(n):
            out, saved = form.forward(*tensors, **options)
            needs = (True,) * len(tensors)
            results.append([out, *form.vjp(g, out, saved, needs, *tensors, **options)])
    for x, old in zip(arrays, before, strict=True):
        assert np.array_equal(x, old)
    for a, b in zip(*results, strict=True):
        assert a.tobytes() == b.tobytes()
        assert not any(np.shares_memory(a, x) for x in arrays)
    return results[0]


# ---- softmax cross entropy


def cross_entropy(x, t, g, z, ignore):
    """loss, dx and their bounds, in long double: float64 is judged too, by something that errs less."""
    x, g = x.astype(np.longdouble), g.astype(np.longdouble)
    V = x.shape[-1]
    kept = np.ones(t.shape, bool) if ignore is None else t != ignore
    t = np.where(kept, t, 0)
    top = x.max(-1, keepdims=True)
    lse = top[..., 0] + np.log(np.exp(x - top).sum(-1))
    hot = np.arange(V) == t[..., None]
    picked = (x * hot).sum(-1)
    loss = np.where(kept, lse - picked + z * lse**2, 0)
    p = np.exp(x - lse[..., None])
    weight = (g * (1 + 2 * z * lse))[..., None]
    dx = np.where(kept[..., None], p * weight - hot * g[..., None], 0)
    # exp(x - top) is off by |x - top| + 3 units, weighted by p; then V terms, log, the sum with top.
    err_lse = (p * (abs(x - top) + 3)).sum(-1) + V + 4 + 2 * abs(lse) + abs(top[..., 0])
    err_loss = err_lse * (1 + 2 * z * abs(lse)) + abs(picked) + 4 * abs(loss) + 8 * z * lse**2
    spread = err_lse[..., None] + abs(x - lse[..., None]) + 8
    err_dx = abs(p * weight) * spread + 2 * abs(g[..., None]) * z * p * err_lse[..., None]
    err_dx = err_dx + 4 * (abs(p * weight) + hot * abs(g[..., None]))
    return (loss, err_loss), (dx, err_dx)


@examples(120)
@given(rows(), st.sampled_from([0.0, 1e-2]), st.sampled_from([None, -100, 1]))
def test_softmax_cross_entropy(case, z, ignore):
    rng, array, lead, V, dtype = case
    x, g = array(*lead, V), np.asarray(array(*lead, 1, size=1.0)[..., 0])
    t = np.asarray(rng.integers(0, V, lead))
    if ignore is not None:
        t = np.where(rng.random(lead) < 0.3, ignore, t)
    form = find("losses.softmax_cross_entropy", "numpy")
    loss, saved = form.forward(x, t, z_loss=z, ignore_index=ignore)
    (dx,) = form.vjp(g, loss, saved, (True,), x, t, z_loss=z, ignore_index=ignore)
    (wanted, bound), (wanted_dx, bound_dx) = cross_entropy(x, t, g, z, ignore)
    judge(loss, wanted, bound, dtype, 1.25)
    judge(dx, wanted_dx, bound_dx, dtype, 1.25)
    with threads.threads(3):
        again, saved = form.forward(x, t, z_loss=z, ignore_index=ignore)
    assert np.asarray(again).tobytes() == np.asarray(loss).tobytes()


def test_cross_entropy_edges():
    form = find("losses.softmax_cross_entropy", "numpy")
    x = np.array([[1e4, -1e4, 0.0], [np.nan, np.inf, 0.0], [0.0, 0.0, -np.inf]], np.float32)
    t = np.array([0, -1, 1])
    loss, saved = form.forward(x, t, ignore_index=-1)
    np.testing.assert_allclose(loss, [0, 0, math.log(2)], 1e-6)
    (dx,) = form.vjp(np.ones(3, np.float32), loss, saved, (True,), x, t, ignore_index=-1)
    np.testing.assert_allclose(dx, [[0, 0, 0], [0, 0, 0], [0.5, -0.5, 0]], 1e-6)
    for bad in ([3, 0, 0], [0, -1, 0]):
        with pytest.raises(ValueError, match="V=3"):
            form.forward(x, np.array(bad))
    loss, saved = form.forward(np.zeros((2, 0)), np.array([9, 9]), ignore_index=9)
    assert loss.tolist() == [0, 0]
    assert not form.supports(x, t.astype(float)) and not form.supports(x, t, label_smoothing=0.1)


# ---- norms


def rms(x, w, g, eps):
    x, w, g = (a.astype(float) for a in (x, w, g))
    d = x.shape[-1]
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + eps)
    n = x.reshape(-1, d).shape[0]
    gw = g * w
    c = (gw * x * r).mean(-1, keepdims=True)
    terms = (abs(gw * x) * r).mean(-1, keepdims=True)
    k = d + 12
    return (
        (x * r * w, k * abs(x * r * w)),
        (r * (gw - x * r * c), k * r * (abs(gw) + abs(x) * r * (abs(c) + 2 * terms))),
        ((g * x * r).reshape(n, d).sum(0), (n + k) * abs(g * x * r).reshape(n, d).sum(0)),
    )


def layer(x, w, b, g, eps):
    x, w, b, g = (a.astype(float) for a in (x, w, b, g))
    d = x.shape[-1]
    mean = x.mean(-1, keepdims=True)
    r = 1 / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
    unit = (x - mean) * r
    # x - mean cancels: its error is that of the mean, (d + 2) u mean|x|, and the variance has twice
    # that relative to its root, once more through r.
    lost = (d + 2) * abs(x).mean(-1, keepdims=True) * r + abs(unit)
    err = lost + abs(unit) * ((abs(unit) * lost).mean(-1, keepdims=True) + d + 12)
    n = x.reshape(-1, d).shape[0]
    gw = g * w
    s, c = gw.mean(-1, keepdims=True), (gw * unit).mean(-1, keepdims=True)
    err_c = (abs(gw) * (err + (d + 8) * abs(unit))).mean(-1, keepdims=True)
    err_s = (d + 8) * abs(gw).mean(-1, keepdims=True)
    dx = r * (gw - s - unit * c)
    err_r = (abs(unit) * lost).mean(-1, keepdims=True) + d + 12
    err_dx = r * (6 * abs(gw) + err_s + err * abs(c) + abs(unit) * (err_c + 6 * abs(c)))
    err_dx += abs(dx) * err_r + 4 * r * abs(s)
    flat = (n, d)
    return (
        (unit * w + b, err * abs(w) + 6 * (abs(unit * w) + abs(b))),
        (dx, err_dx),
        (
            (g * unit).reshape(flat).sum(0),
            (abs(g) * (err + (n + 8) * abs(unit))).reshape(flat).sum(0),
        ),
        (g.reshape(flat).sum(0), (n + 8) * abs(g).reshape(flat).sum(0)),
    )


@examples(100)
@given(rows(), st.sampled_from([1e-6, 1e-5, 0.5]))
def test_rms_norm(case, eps):
    _, array, lead, d, dtype = case
    x, w, g = array(*lead, d), array(d, size=1.0), array(*lead, d, size=1.0)
    actual = run("nn.rms_norm", (x, w), g, eps=eps)
    for a, (wanted, bound) in zip(actual, rms(x, w, g, eps), strict=True):
        judge(a, wanted, bound, dtype, 1.25)


@examples(100)
@given(rows(), st.sampled_from([1e-5, 0.5]), st.sampled_from([0.0, 10.0]))
def test_layer_norm(case, eps, offset):
    _, array, lead, d, dtype = case
    x = (array(*lead, d) + dtype(offset)).astype(dtype)
    w, b, g = array(d, size=1.0), array(d, size=1.0), array(*lead, d, size=1.0)
    actual = run("nn.layer_norm", (x, w, b), g, eps=eps)
    for a, (wanted, bound) in zip(actual, layer(x, w, b, g, eps), strict=True):
        judge(a, wanted, bound, dtype, 2.0)


def test_norms_pass_on_what_they_do_not_cover():
    x, w = np.ones((2, 3)), np.ones(3)
    for id, tensors in (("nn.rms_norm", (x, None)), ("nn.layer_norm", (x, w, None))):
        assert not find(id, "numpy").supports(*tensors)
    form = find("nn.rms_norm", "numpy")
    assert not form.supports(x, w.astype(np.float32)) and not form.supports(x, np.ones(2))
    assert not form.supports(x.astype(np.float16), w.astype(np.float16))
    assert form.vjp(x, x, (np.ones(2),), (False, False), x, w) == (None, None)


# ---- gates


def silu_parts(a):
    s = np.where(a > 0, 1 / (1 + np.exp(-abs(a))), np.exp(-abs(a)) / (1 + np.exp(-abs(a))))
    return s, 1 - s if a.size == 0 else np.where(a > 0, np.exp(-abs(a)) * s, 1 - s)


@examples(60)
@given(rows(sizes=(1e-3, 1.0, 30.0, 1e4)))
def test_swiglu(case):
    _, array, lead, d, dtype = case
    a, b, g = array(*lead, d), array(*lead, d, size=1.0), array(*lead, d, size=1.0)
    y, da, db = run("nn.swiglu", (a, b), g)
    A, B, Gr = (x.astype(float) for x in (a, b, g))
    s, rest = silu_parts(A)
    # A sigmoid below the smallest normal may come out as 0; what it multiplies does not matter then.
    judge(y, A * s * B, 12 * abs(A * s * B), dtype, lost=64 + abs(A * B))
    judge(db, Gr * A * s, 12 * abs(Gr * A * s), dtype, lost=64 + abs(Gr * A))
    # 1 + a (1 - s): 1 - s is off by u, so the sum by |a| u, which counts where it cancels.
    slope = 1 + A * rest
    bound = abs(Gr * B * s) * (12 * abs(slope) + 12 * (1 + abs(A)))
    judge(da, Gr * B * s * slope, bound, dtype, lost=64 + abs(Gr * B) * (1 + abs(A)))


@examples(60)
@given(rows(sizes=(1e-3, 1.0, 30.0, 1e4)))
def test_silu(case):
    _, array, lead, d, dtype = case
    x, g = array(*lead, d), array(*lead, d, size=1.0)
    y, dx = run("nn.silu", (x,), g)
    X, Gr = x.astype(float), g.astype(float)
    s, rest = silu_parts(X)
    # As for SwiGLU: a sigmoid below the smallest normal may come out as 0.
    judge(y, X * s, 10 * abs(X * s), dtype, lost=64 + abs(X))
    slope = 1 + X * rest
    judge(dx, Gr * s * slope, abs(Gr * s) * (12 * abs(slope) + 12 * (1 + abs(X))), dtype, lost=64 + abs(Gr * X))


@examples(60)
@given(rows(sizes=(1e-3, 1.0, 5.0)), st.sampled_from([None, "tanh"]))
def test_gelu(case, approximate):
    _, array, lead, d, dtype = case
    x, g = array(*lead, d), array(*lead, d, size=1.0)
    y, dx = run("nn.gelu", (x,), g, approximate=approximate)
    X, Gr = x.astype(float), g.astype(float)
    if approximate is None:
        weight = np.exp(log_ndtr(X))
        slope = X * np.exp(-X * X / 2) / math.sqrt(2 * math.pi)
        # Phi's argument is rounded: its relative error grows as x^2 in the tail.
        k = 16 + 4 * X * X
    else:
        u = math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)
        weight, rest = silu_parts(2 * u)
        steep = X * 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * X * X)
        slope = steep * weight * rest
        k = 16 + 12 * abs(u)
    judge(y, X * weight, k * abs(X * weight), dtype)
    grown = abs(slope) if approximate is None else abs(slope) + weight * (1 + X * X) * abs(X)
    # As for SwiGLU: a gate below the smallest normal may come out as 0; the slope of its argument multiplies it.
    lost = 64 if approximate is None else 64 + abs(Gr * steep)
    judge(dx, Gr * (weight + slope), k * abs(Gr) * (weight + grown), dtype, lost=lost)


def test_gates_at_the_extremes():
    for dtype in (np.float32, np.float64):
        x = np.array([-1e30, -500.0, 0.0, 500.0, 1e30], dtype)
        one = np.ones_like(x)
        y, da, db = run("nn.swiglu", (x, one), one)
        assert np.array_equal(y[[0, 2, 3, 4]], x[[0, 2, 3, 4]] * [0, 1, 1, 1])
        assert da.tolist() == [0.0, da[1], 0.5, 1.0, 1.0] and abs(da[1]) <= 1e-200
        for approximate in (None, "tanh"):
            y, dx = run("nn.gelu", (x,), one, approximate=approximate)
            assert np.array_equal(y, x * [0, 0, 0, 1, 1])
            assert dx.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
        y, dx = run("nn.silu", (x,), one)
        assert np.array_equal(y[[0, 2, 3, 4]], x[[0, 2, 3, 4]] * [0, 1, 1, 1]) and abs(y[1]) <= 1e-200
        assert dx.tolist() == [0.0, dx[1], 0.5, 1.0, 1.0] and abs(dx[1]) <= 1e-200


# ---- the bounds can fail


@pytest.mark.parametrize(
    "id,spoil",
    [
        ("nn.rms_norm", lambda x: x + 1e-6),
        ("nn.silu", lambda x: x + 1e-6),
        ("nn.swiglu", lambda x: x + 1e-6),
        ("nn.gelu", lambda x: x * (1 + 1e-5)),
        ("nn.layer_norm", lambda x: x * (1 + 1e-4)),
    ],
)
def test_a_small_error_is_caught(id, spoil, monkeypatch):
    form = find(id, "numpy")
    plain = form.forward
    monkeypatch.setattr(
        form, "forward", lambda *a, **o: (lambda r: (spoil(r[0]).astype(r[0].dtype), r[1]))(plain(*a, **o))
    )
    test = {
        "nn.rms_norm": test_rms_norm,
        "nn.silu": test_silu,
        "nn.swiglu": test_swiglu,
        "nn.gelu": test_gelu,
        "nn.layer_norm": test_layer_norm,
    }[id]
    with pytest.raises(AssertionError):
        test()
