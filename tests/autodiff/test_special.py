"""Special functions, scans and softmax: many digits, far arguments, and the edges."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodiff import grad, hvp, jvp, namespace, special, tensor, vjp
from autodiff.ops import cumulative_prod
from autodiff.ops import sum as total
from autodiff.primitive import TABLE
from tests.autodiff.samples import examples

# name: (exact function, points)
UNARY = {
    "tan": (mpmath.tan, [-1.5, -0.3, 1e-9, 1.0]),
    "asin": (mpmath.asin, [-0.999, -0.3, 1e-9, 0.7]),
    "acos": (mpmath.acos, [-0.999, -0.3, 1e-9, 0.7]),
    "atan": (mpmath.atan, [-50.0, -0.3, 1e-9, 2.0]),
    "sinh": (mpmath.sinh, [-5.0, 1e-9, 3.0]),
    "cosh": (mpmath.cosh, [-5.0, 1e-9, 3.0]),
    "asinh": (mpmath.asinh, [-50.0, 1e-9, 3.0]),
    "acosh": (mpmath.acosh, [1.001, 2.0, 90.0]),
    "atanh": (mpmath.atanh, [-0.999, 1e-9, 0.5]),
    "rsqrt": (lambda x: 1 / mpmath.sqrt(x), [1e-3, 1.0, 77.0]),
    "erfc": (mpmath.erfc, [-3.0, 0.1, 5.0, 20.0]),
    "log1mexp": (lambda x: mpmath.log(1 - mpmath.exp(-x)), [1e-9, 0.3, 0.6931, 0.6932, 5.0, 40.0]),
    "gammaln": (lambda x: mpmath.log(abs(mpmath.gamma(x))), [0.2, 0.9, 3.3, 60.0, -1.3]),
    "digamma": (lambda x: mpmath.psi(0, x), [0.2, 0.9, 3.3, 60.0, -1.3]),
    "logsigmoid": (lambda x: -mpmath.log(1 + mpmath.exp(-x)), [-30.0, -1.0, 0.5, 30.0]),
}


def function(name):
    return TABLE[name] if name in TABLE else getattr(special, name)


@pytest.mark.parametrize("name", UNARY)
def test_values_and_two_derivatives_against_many_digits(name):
    exact, points = UNARY[name]
    f = function(name)
    with mpmath.workdps(40):
        for x in points:
            wanted = [float(mpmath.diff(exact, mpmath.mpf(x), k)) for k in range(3)]
            got = [f(np.array(x)), grad(f)(x), grad(grad(f))(x)]
            for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
                assert a == pytest.approx(b, rel=1e-13 * 10**k, abs=1e-15), (name, x, k)


def test_angles_and_sides():
    rng = np.random.default_rng(0)
    y, x = rng.standard_normal((2, 20))
    z, pull = vjp(TABLE["atan2"], y, x)
    assert np.array_equal(z, np.arctan2(y, x))
    gy, gx = pull(np.ones(20))
    r2 = x * x + y * y
    assert np.allclose(gy, x / r2, rtol=1e-14) and np.allclose(gx, -y / r2, rtol=1e-14)
    huge = vjp(TABLE["atan2"], np.array(3e200), np.array(4e200))[1](np.array(1.0))
    assert np.allclose(np.array(huge) * 1e200, [4 / 25, -3 / 25], rtol=1e-14)
    gy, gx = vjp(TABLE["hypot"], np.array(3e200), np.array(4e200))[1](np.array(1.0))
    assert gy == pytest.approx(0.6, rel=1e-15) and gx == pytest.approx(0.8, rel=1e-15)


def test_edges_of_elementwise_functions():
    """E10, E11, E12, E13, E14, E15, E16."""
    zero = np.array(0.0)
    with np.errstate(all="ignore"):
        for name in ("sign", "floor", "ceil", "round", "trunc"):
            x = np.array([-1.5, -0.5, 0.0, 1.0, 2.5])
            out, pull = vjp(TABLE[name], x)
            assert np.array_equal(out, getattr(np, name)(x))
            assert np.array_equal(pull(np.full(5, np.inf))[0], np.zeros(5))
            assert np.array_equal(jvp(TABLE[name], (x,), (x,))[1], np.zeros(5))
        assert [grad(TABLE["asin"])(s) for s in (-1.0, 1.0)] == [math.inf] * 2
        assert [grad(TABLE["acos"])(s) for s in (-1.0, 1.0)] == [-math.inf] * 2
        assert [grad(TABLE["atanh"])(s) for s in (-1.0, 1.0)] == [math.inf] * 2
        assert grad(TABLE["acosh"])(1.0) == math.inf
        assert np.all(np.isnan(vjp(TABLE["atan2"], zero, zero)[1](np.array(1.0))))
        assert vjp(TABLE["hypot"], zero, zero)[1](np.array(1.0)) == (0.0, 0.0)
        assert TABLE["rsqrt"](zero) == math.inf and grad(TABLE["rsqrt"])(0.0) == -math.inf
        assert TABLE["log1mexp"](zero) == -math.inf and grad(TABLE["log1mexp"])(0.0) == math.inf
        assert np.isnan(TABLE["log1mexp"](np.array(-1.0)))
        assert TABLE["gammaln"](zero) == math.inf
        assert not np.isfinite(grad(TABLE["gammaln"])(0.0)) and not np.isfinite(grad(TABLE["gammaln"])(-2.0))


def test_a_floor_on_the_left_of_a_tensor_is_one():
    t = tensor(np.array([1.5, 2.25]), requires_grad=True)
    xp = namespace(t)
    total(xp.floor(t) * t + xp.sign(t) * 0.0).backward()
    assert np.array_equal(t.grad, [1.0, 2.0])


def test_recurrences_of_gamma():
    x = np.linspace(0.2, 9, 30)
    assert np.allclose(special.gammaln(x + 1) - special.gammaln(x), np.log(x), rtol=1e-12, atol=1e-13)
    assert np.allclose(special.digamma(x + 1) - special.digamma(x), 1 / x, rtol=1e-11)
    g = grad(lambda x: total(special.gammaln(x + 1.0) - special.gammaln(x)))(x)
    assert np.allclose(g, 1 / x, rtol=1e-11)


# --- running products -------------------------------------------------------------------------


@given(st.lists(st.sampled_from([-2.0, 0.0, 0.0, 1.0, 3.0]), max_size=7), st.booleans(), st.integers(0, 99))
@examples(60)
def test_running_products_with_zeros_to_the_bit(values, initial, seed):
    """E17: d (x_0 .. x_j) / d x_i is the product of the others, exact on integers."""
    x = np.array(values)
    n = len(x)
    v, u = np.random.default_rng(seed).integers(-3, 4, (2, n + initial)).astype(float)
    u = u[:n]
    f = lambda x: total(cumulative_prod(x, include_initial=initial) * v)  # noqa: E731
    heads = range(n) if not initial else range(-1, n)
    first = [sum(c * np.prod(np.delete(x[: j + 1], i)) for j, c in zip(heads, v, strict=True) if j >= i)
             for i in range(n)]  # fmt: skip
    assert np.array_equal(grad(f)(x), first)
    hessian = np.zeros((n, n))
    for j, c in zip(heads, v, strict=True):
        for i in range(j + 1):
            for k in range(j + 1):
                hessian[i, k] += c * np.prod(np.delete(x[: j + 1], [i, k])) * (i != k)
    assert np.array_equal(hvp(f, (x,), (u,))[0], hessian @ u)


def test_running_products_over_an_axis():
    x = np.random.default_rng(0).uniform(1, 2, (2, 3, 2))
    for axis in range(-3, 3):
        out, pull = vjp(lambda x, a=axis: cumulative_prod(x, axis=a), x)
        assert np.array_equal(out, np.cumprod(x, axis=axis))
        want = np.flip(np.cumsum(np.flip(out, axis), axis), axis) / x
        assert np.allclose(pull(np.ones_like(x))[0], want, rtol=1e-14)
    with pytest.raises(ValueError, match="cumulative_prod: x has 3 axes; axis is needed"):
        cumulative_prod(x)


# --- softmax and its relatives ----------------------------------------------------------------


def test_softmax_far_out_and_without_mass():
    """E18."""
    x = np.array([[1e4, 0.0, -np.inf], [-np.inf, -np.inf, -np.inf], [0.0, 0.0, -np.inf]])
    assert np.array_equal(special.softmax(x), [[1, 0, 0], [0, 0, 0], [0.5, 0.5, 0]])
    log = special.log_softmax(x)
    assert np.array_equal(log[0], [0, -1e4, -np.inf]) and np.all(log[1] == -np.inf)
    assert np.array_equal(log[2, :2], -np.log([2.0, 2.0]))
    v = np.array([[1.0, 2.0, 4.0]] * 3)
    assert np.array_equal(vjp(special.softmax, x)[1](v)[0], [[0, 0, 0], [0, 0, 0], [-0.25, 0.25, 0]])
    wanted = [[1 - 7, 2, 4], [1, 2, 4], [1 - 3.5, 2 - 3.5, 4]]
    assert np.array_equal(vjp(special.log_softmax, x)[1](v)[0], wanted)


def test_softmax_in_closed_form():
    x = np.log(np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]]))
    p = np.array([[1, 2, 5], [3, 3, 2]]) / 8
    for axis, q in ((1, p), (0, np.exp(x) / np.exp(x).sum(0))):
        assert np.allclose(special.softmax(x, axis=axis), q, rtol=1e-15)
        assert np.allclose(special.log_softmax(x, axis=axis), np.log(q), rtol=1e-14)
        assert np.allclose(grad(lambda x, a=axis: -special.log_softmax(x, axis=a)[0, 1])(x)[0, 1], q[0, 1] - 1)
    assert special.softmax(np.zeros((2, 0))).shape == special.log_softmax(np.zeros((2, 0))).shape == (2, 0)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_running_logsumexp(n):
    x = np.random.default_rng(n).uniform(-3, 3, (2, n))
    f = lambda x: special.cumulative_logsumexp(x, axis=1)  # noqa: E731
    out, pull = vjp(f, x)
    assert np.allclose(out, np.log(np.cumsum(np.exp(x), 1)), rtol=1e-13, atol=1e-13)
    weights = np.exp(x)[:, :, None] / np.exp(out)[:, None, :] * np.triu(np.ones((n, n)))
    assert np.allclose(pull(np.ones_like(x))[0], weights.sum(-1), rtol=1e-13)
    assert np.allclose(f(x + 1e4), out + 1e4, rtol=1e-12)
    if n > 2:
        x[:, 0] = -np.inf
        out, pull = vjp(f, x)
        assert np.all(out[:, 0] == -np.inf) and np.all(np.isfinite(out[:, 1:]))
        assert np.all(np.isfinite(pull(np.ones_like(x))[0]))
