"""Low-precision arrays: one rounding a primitive, two bytes an element, the same engine."""

import numpy as np
import pytest
from hypothesis import given, settings

import backends
from autodiff import (
    Spill,
    autocast,
    checkpoint,
    checkpoint_selective,
    grad,
    namespace,
    raw,
    saved_bytes,
    tensor,
)
from autodiff.primitive import TABLE
from backends import low_precision as lp
from backends.rounded import Rounded, bfloat16
from tests.autodiff.samples import SAMPLES, draws

XP = backends.get("rounded")
FLOAT16, FLOAT32, FLOAT64 = (np.dtype(n) for n in ("float16", "float32", "float64"))
ROUND = {bfloat16: lp.round_bf16, FLOAT16: lp.round_fp16}
low = pytest.mark.parametrize("dtype", [bfloat16, FLOAT16], ids=["bf16", "fp16"])


def carried(a, dtype):
    if isinstance(a, np.ndarray | np.generic):
        a = XP.from_numpy(a)
        return XP.astype(a, dtype) if a.dtype.kind == "f" else a
    if isinstance(a, tuple | list):
        return type(a)(carried(v, dtype) for v in a)
    return {k: carried(v, dtype) for k, v in a.items()} if isinstance(a, dict) else a


def values(a):
    if isinstance(a, Rounded):
        x = XP.to_numpy(a)
        return x.astype(np.float32) if x.dtype == np.float16 else x
    if isinstance(a, tuple | list):
        return type(a)(values(v) for v in a)
    return {k: values(v) for k, v in a.items()} if isinstance(a, dict) else a


@low
@pytest.mark.parametrize("name", sorted(TABLE.keys() - {"astype"}))
def test_every_primitive_computes_in_float32_and_rounds_once(name, dtype):
    @settings(max_examples=6)
    @given(draws())
    def law(d):
        args, params = carried(SAMPLES[name](d), dtype)
        out = TABLE[name](*args, **params)
        wanted = np.asarray(TABLE[name](*values(args), **values(params)))
        if wanted.dtype.kind != "f":
            return
        assert out.dtype is dtype and out.shape == wanted.shape
        np.testing.assert_array_equal(values(out), ROUND[dtype](wanted))

    law()


@low
def test_two_bytes_an_element_and_views_of_the_same_memory(dtype):
    x = XP.astype(XP.from_numpy(np.arange(12.0)), dtype)
    assert x.nbytes == 24 and x._array.dtype.itemsize == 2
    y = XP.permute_dims(XP.reshape(x, (3, 4)), (1, 0))
    for view in (y, y[1:, ::2], XP.expand_dims(x, axis=0), XP.broadcast_to(x, (5, 12)), y.mT, XP.flip(x), y[None]):
        assert np.shares_memory(view._array, x._array) and view.dtype is dtype
    t = tensor(y, requires_grad=True)
    assert saved_bytes(t[1:] * t[:-1]) == 24
    assert saved_bytes(TABLE["exp"](t)) == 24


@low
def test_dtypes_of_results(dtype):
    x = XP.astype(XP.from_numpy(np.array([1.0, 2.0])), dtype)
    other = XP.astype(x, FLOAT16 if dtype is bfloat16 else bfloat16)
    f32, f64 = XP.astype(x, FLOAT32), XP.from_numpy(np.ones(2))
    assert (x + 1).dtype is (1.5 * x).dtype is (x**2).dtype is (x + x).dtype is dtype
    assert (x + other).dtype == (x * f32).dtype == (f32 + 1.0).dtype == FLOAT32
    assert (x + f64).dtype == FLOAT64
    assert (x > 1).dtype == bool and XP.argmax(x).dtype.kind == "i"
    assert XP.zeros(2).dtype == FLOAT32 and XP.ones(2, dtype=dtype).dtype is dtype
    assert XP.zeros_like(x).dtype is dtype and XP.full_like(x, 3.0, dtype=FLOAT64).dtype == FLOAT64
    assert XP.isdtype(dtype, "real floating") and not XP.isdtype(dtype, "integral")
    assert float(XP.finfo(dtype).eps) == {bfloat16: 2.0**-7, FLOAT16: 2.0**-10}[dtype]


def test_from_float64_and_from_numbers_there_is_one_rounding():
    x = 1 + 2.0**-8 + 2.0**-40  # float32 would make it a tie
    for made in (XP.astype(XP.from_numpy(np.array(x)), bfloat16), XP.asarray(x, dtype=bfloat16),
                 XP.full((), x, dtype=bfloat16)):  # fmt: skip
        assert float(made) == 1 + 2.0**-7
    x = XP.zeros(2, dtype=bfloat16)
    x[0] = 1 + 2.0**-8 + 2.0**-40
    assert values(x).tolist() == [1 + 2.0**-7, 0]


def test_known_sums():
    x = XP.astype(XP.from_numpy(np.array([256.0, 258.0])), bfloat16)
    assert values(x + 1.0).tolist() == [256, 260]
    many = XP.ones(512, dtype=bfloat16)
    assert float(XP.sum(many)) == 512  # accumulated in float32; one at a time it would stop at 256
    one = XP.zeros((), dtype=bfloat16)
    for _ in range(512):
        one = one + 1.0
    assert float(one) == 256


def layer(w):
    def run(x):
        xp = namespace(x, w)
        h = xp.matmul(x, w)
        return xp.tanh(h) * xp.exp(h * 0.25)

    return run


@low
def test_gradients_are_rounded_at_every_step(dtype):
    """The backward by hand, each product and sum in float32 and then rounded."""
    r = ROUND[dtype]
    rng = np.random.default_rng(0)
    x, w, g = (r(rng.standard_normal((3, 3))) for _ in range(3))
    tx, tw = (tensor(XP.astype(XP.from_numpy(a), dtype), requires_grad=True) for a in (x, w))
    layer(tw)(tx).backward(XP.astype(XP.from_numpy(g), dtype))
    h = r(x @ w)
    t, e = r(np.tanh(h)), r(np.exp(r(h * np.float32(0.25))))
    dt, de = r(g * e), r(g * t)
    slope = r(1 - r(t * t))
    dh = r(r(r(de * e) * np.float32(0.25)) + r(dt * slope))
    np.testing.assert_array_equal(values(tx.grad), r(dh @ w.T))
    np.testing.assert_array_equal(values(tw.grad), r(x.T @ dh))
    assert tx.grad.dtype is dtype


@low
def test_checkpoints_policies_and_the_file(dtype):
    x, w = (XP.astype(XP.from_numpy(np.random.default_rng(s).standard_normal((4, 4))), dtype) for s in (0, 1))

    def gradient(run):
        return values(grad(lambda w: TABLE["sum"](run(layer(w), tensor(x, requires_grad=True))))(w))

    spill = Spill()
    plain = gradient(lambda f, x: f(f(x)))
    assert np.array_equal(gradient(lambda f, x: f(checkpoint(f, x))), plain)
    policy = {"matmul": "offload", "tanh": "save"}
    found = gradient(lambda f, x: f(checkpoint_selective(f, x, policy=policy, spill=spill)))
    assert np.array_equal(found, plain) and spill.written == 2 * 16


def test_second_derivatives_run():
    x = XP.astype(XP.from_numpy(np.array([0.5, 1.0])), bfloat16)
    first = grad(lambda x: TABLE["sum"](x * x * x))
    second = grad(lambda x: TABLE["sum"](first(x)))
    assert (values(first(x)).tolist(), values(second(x)).tolist()) == ([0.75, 3.0], [3.0, 6.0])


def test_autocast_runs_products_low_and_sums_high():
    """x w in bfloat16 of the rounded weight; exp and sum in float32; float32 gradients; the tape keeps 2 bytes."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((4, 4)).astype(np.float32) for _ in range(2))
    tx, tw = (tensor(XP.from_numpy(a), requires_grad=True) for a in (x, w))
    with autocast(bfloat16):
        product = tx @ tw
        out = TABLE["sum"](TABLE["exp"](product))
    assert product.dtype is bfloat16 and out.dtype == FLOAT32
    assert saved_bytes(product) == 2 * 16 * 2  # both casts
    out.backward()
    r = lp.round_bf16
    h = r(r(x) @ r(w))
    np.testing.assert_allclose(float(raw(out)), np.sum(np.exp(h)), rtol=1e-6)
    g = r(np.exp(h))
    np.testing.assert_array_equal(values(tw.grad), r(r(x).T @ g))
    assert tw.grad.dtype == tx.grad.dtype == FLOAT32


def test_autocast_is_in_force_when_a_checkpoint_runs_again():
    w = XP.from_numpy(np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32))

    def gradient(run):
        t = tensor(w, requires_grad=True)
        with autocast(bfloat16, {"tanh": "high"}):
            out = TABLE["sum"](run(lambda x: layer(t)(x), tensor(w, requires_grad=True)))
        out.backward()
        return values(t.grad)

    plain = gradient(lambda f, x: f(f(x)))
    assert np.array_equal(gradient(lambda f, x: f(checkpoint(f, x))), plain)
    assert np.array_equal(gradient(lambda f, x: f(checkpoint_selective(f, x, policy={"matmul": "save"}))), plain)


@pytest.mark.parametrize(
    "error, dtype, policy, said",
    [
        (ValueError, bfloat16, {"matmull": "low"}, "autocast: policy names matmull"),
        (ValueError, bfloat16, {"astype": "low"}, "autocast: policy names astype"),
        (ValueError, bfloat16, {"exp": "lower"}, "policy has 'lower' for exp; needed 'low', 'high' or 'as given'"),
        (TypeError, FLOAT32, {}, "autocast: dtype is float32; needed a floating dtype of 2 bytes"),
        (TypeError, np.dtype("int16"), {}, "dtype is int16"),
    ],
)
def test_bad_autocasts(error, dtype, policy, said):
    with pytest.raises(error, match=said), autocast(dtype, policy):
        pass


def test_arrays_of_numpy_do_not_mix_in():
    x = XP.ones(2, dtype=bfloat16)
    with pytest.raises(TypeError, match="arrays of rounded and numpy arrived together"):
        namespace(x, np.ones(2))
    with pytest.raises(TypeError, match="to_numpy alone"):
        np.asarray(x)
    with pytest.raises(TypeError):
        x + np.ones(2)
