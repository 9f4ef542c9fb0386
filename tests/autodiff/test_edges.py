"""Points without a derivative, zeros, size-0 axes, 0-d arrays, and every pair of shapes."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodiff import grad, hvp, jvp, namespace, tensor, vjp
from autodiff.ops import logsumexp, sigmoid, softplus, vector_norm
from autodiff.primitive import TABLE
from tests.autodiff.samples import examples

SHAPES = [(), (1,), (3,), (0,), (1, 3), (2, 1), (2, 3), (0, 3), (2, 0), (1, 1), (2, 1, 3), (1, 0, 3)]


def broadcastable(a, b):
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


PAIRS = [p for p in itertools.product(SHAPES, SHAPES) if broadcastable(*p)]


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "logaddexp"])
def test_every_pair_of_shapes_is_as_if_broadcast_by_hand(name):
    rng = np.random.default_rng(0)
    for a, b in PAIRS:
        shape = np.broadcast_shapes(a, b)
        x, y, v = rng.uniform(1, 2, a), rng.uniform(3, 4, b), rng.standard_normal(shape)
        _, pull = vjp(TABLE[name], x, y)
        wide = vjp(TABLE[name], np.broadcast_to(x, shape).copy(), np.broadcast_to(y, shape).copy())
        for got, whole, like in zip(pull(v), wide[1](v), (x, y), strict=True):
            lead = len(shape) - like.ndim
            ones = [i + lead for i, n in enumerate(like.shape) if n == 1 and shape[i + lead] != 1]
            summed = np.sum(whole, axis=tuple([*range(lead), *ones]), keepdims=True)
            assert got.shape == like.shape
            assert np.allclose(got, np.reshape(summed, like.shape), rtol=1e-14, atol=1e-14)


def test_shapes_that_do_not_broadcast_raise():
    with pytest.raises(ValueError):
        tensor(np.ones(3), True) + tensor(np.ones(2), True)


@pytest.mark.parametrize("name, sign", [("maximum", 1), ("minimum", -1)])
def test_ties_of_two_get_half_each(name, sign):
    """E2."""
    x, y = np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 0.0])
    gx, gy = vjp(TABLE[name], x, y)[1](np.full(3, 8.0))
    wins = np.array([0.5, 0.0, 1.0]) if sign > 0 else np.array([0.5, 1.0, 0.0])
    assert np.array_equal(gx, 8 * wins) and np.array_equal(gy, 8 - 8 * wins)


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_of_many_are_split_evenly(name):
    """E8."""
    x = np.array([[2.0, 2.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
    g = grad(lambda x: getattr(namespace(x), name)(x, axis=1).sum())(x)
    third = np.array([1, 1, 0, 1]) / 3
    wanted = third if name == "max" else np.array([0, 0, 1.0, 0])
    assert np.array_equal(g, [wanted, np.full(4, 0.25)])


@given(st.lists(st.integers(-2, 2), min_size=1, max_size=8), st.integers(0, 99))
@examples(40)
def test_the_shares_of_a_maximum_sum_to_the_cotangent(values, seed):
    x = np.array(values, float)
    g = grad(lambda x: namespace(x).max(x))(x)
    assert g.sum() == pytest.approx(1.0, abs=1e-15) and np.all(g[x < x.max()] == 0)


def test_powers_at_zero():
    """E4."""
    power = lambda x, y: namespace(x, y).pow(x, y)  # noqa: E731
    at = lambda x, y: vjp(power, np.array(x), np.array(y))[1](np.array(1.0))  # noqa: E731
    assert at(0.0, 0.0) == (0.0, 0.0)
    assert at(0.0, 1.0) == (1.0, 0.0)
    assert at(0.0, 2.0) == (0.0, 0.0)
    assert at(3.0, 0.0) == (0.0, np.log(3.0))
    gx, gy = at(-2.0, 3.0)
    assert gx == 12.0 and np.isnan(gy)
    for n in (0, 1, 2, 3):
        x = np.array([0.0, -1.5, 2.0])
        assert np.array_equal(grad(lambda x, n=n: (x**n).sum())(x), n * x ** max(n - 1, 0))
        second = hvp(lambda x, n=n: (x**n).sum(), (x,), (np.ones(3),))[0]
        assert np.array_equal(second, n * (n - 1) * x ** max(n - 2, 0))
    assert np.array_equal(grad(lambda y: (2.0**y).sum())(np.zeros(1)), [np.log(2.0)])
    assert np.array_equal(grad(lambda y: (0.0**y).sum())(np.ones(1)), [0.0])


@given(st.lists(st.sampled_from([-2.0, 0.0, 0.0, 1.0, 3.0]), min_size=1, max_size=6), st.data())
@examples(60)
def test_prod_counts_the_others_also_with_zeros(values, data):
    """E9."""
    x = np.array(values)
    n = len(x)
    others = np.array([np.prod(np.delete(x, i)) for i in range(n)])
    assert np.array_equal(grad(lambda x: namespace(x).prod(x))(x), others)
    hessian = np.array([[0 if i == j else np.prod(np.delete(x, [i, j])) for j in range(n)] for i in range(n)])
    u = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)), float)
    for got in (
        hvp(lambda x: namespace(x).prod(x), (x,), (u,))[0],
        grad(lambda x: (grad(lambda z: namespace(z).prod(z))(x) * u).sum())(x),
    ):
        assert np.array_equal(got, hessian @ u)


def test_square_root_and_norm_at_zero():
    """E1, E5."""
    with np.errstate(divide="ignore"):
        assert grad(lambda x: namespace(x).sqrt(x))(0.0) == np.inf
    assert np.array_equal(grad(vector_norm)(np.zeros(3)), np.zeros(3))
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    g = grad(lambda x: vector_norm(x, axis=1).sum())(x)
    assert np.allclose(g, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-15, atol=0)
    assert np.array_equal(grad(lambda x: namespace(x).abs(x).sum())(np.array([-2.0, 0.0, 3.0])), [-1, 0, 1])


def test_clip_passes_the_bounds_themselves():
    """E3."""
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert np.array_equal(grad(lambda x: x.clip(-1, 1).sum())(x), [0, 1, 1, 1, 0])
    assert np.array_equal(grad(lambda x: x.clip(max=1.0).sum())(x), [1, 1, 1, 1, 0])
    low = np.zeros(5)
    g = grad(lambda x, low: namespace(x).clip(x, low, None).sum(), (0, 1))(x, low)
    assert np.array_equal(g[0], [0, 0, 0.5, 1, 1]) and np.array_equal(g[1], [1, 1, 0.5, 0, 0])


def test_no_mass_no_gradient():
    """E6."""
    x = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    assert np.array_equal(logsumexp(x, axis=1), [-np.inf, 0.0])
    assert np.array_equal(grad(lambda x: logsumexp(x, axis=1)[1])(x), [[0, 0], [1, 0]])
    assert np.array_equal(vjp(lambda x: logsumexp(x, axis=1), x)[1](np.ones(2))[0], [[0, 0], [1, 0]])
    minus = np.array(-np.inf)
    both = vjp(TABLE["logaddexp"], minus, minus)[1](np.array(1.0))
    assert both == (0.0, 0.0)


def test_where_stops_what_was_not_taken():
    """E7."""
    x = np.array([0.0, 4.0])

    def root(x):
        xp = namespace(x)
        some = x > 0
        return xp.where(some, xp.sqrt(xp.where(some, x, 1.0)), 0.0).sum()

    assert np.array_equal(grad(root)(x), [0.0, 0.25])


def test_stable_forms_far_out():
    x = np.array([-800.0, -40.0, 0.0, 40.0, 800.0])
    assert np.array_equal(sigmoid(x)[[0, 2, 4]], [0.0, 0.5, 1.0])
    assert sigmoid(x)[1] == pytest.approx(np.exp(-40.0), rel=1e-15)
    assert np.array_equal(softplus(x)[[0, 4]], [0.0, 800.0])
    assert softplus(x)[1] == pytest.approx(np.exp(-40.0), rel=1e-15)
    assert grad(lambda x: softplus(x).sum())(x)[1] == pytest.approx(np.exp(-40.0), rel=1e-15)
    assert np.all(np.isfinite(grad(lambda x: sigmoid(x).sum())(x)))


def test_repeated_indices_add_up():
    """E28."""
    x = np.arange(4.0)
    index = np.array([1, 1, 3, 1])
    for pick in (
        lambda x: x[index],
        lambda x: namespace(x).take(x, index),
        lambda x: namespace(x).take_along_axis(x, index, axis=0),
    ):
        g = grad(lambda x, pick=pick: (pick(x) * np.array([1.0, 10.0, 100.0, 1000.0])).sum())(x)
        assert np.array_equal(g, [0, 1011, 0, 100])


def test_ties_of_a_sort_have_one_source_each():
    """E29."""
    x = np.array([2.0, 1.0, 2.0, 1.0])
    v = np.array([1.0, 10.0, 100.0, 1000.0])
    assert np.array_equal(vjp(lambda x: namespace(x).sort(x), x)[1](v)[0], [100, 1, 1000, 10])
    down = lambda x: namespace(x).sort(x, descending=True)  # noqa: E731
    assert np.array_equal(vjp(down, x)[1](v)[0], [1, 100, 10, 1000])


def test_reductions_over_no_elements():
    """E30."""
    x = np.zeros((2, 0))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(logsumexp(x, axis=1), [-np.inf, -np.inf])
        assert np.array_equal(logsumexp(x, axis=0, keepdims=True), np.zeros((1, 0)))
        assert np.all(np.isnan(namespace(x).mean(x, axis=1)))
        for f in (logsumexp, TABLE["mean"]):
            out, pull = vjp(lambda x, f=f: f(x, axis=1), x)
            assert pull(np.ones(2))[0].shape == (2, 0)
    for name in ("max", "min"):
        with pytest.raises(ValueError):
            TABLE[name](tensor(x), axis=1)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_size_zero_axes(axis):
    x = np.zeros((0, 3))
    for name in ("sum", "mean", "prod"):
        with np.errstate(all="ignore"):
            f = lambda x, name=name: getattr(namespace(x), name)(x, axis=axis)  # noqa: E731
            out, pull = vjp(f, x)
            assert pull(np.ones_like(out))[0].shape == (0, 3)


def test_zero_dimensional_arrays_and_floats():
    for x in (2.0, np.float64(2.0), np.array(2.0)):
        assert grad(lambda x: x * x * x)(x) == 12.0
        value, tangent = jvp(lambda x: namespace(x).sin(x), (x,), (1.0,))
        assert value == np.sin(2.0) and tangent == np.cos(2.0)
    t = tensor(2.0, requires_grad=True)
    (t * t).backward()
    assert t.grad == 4.0 and t.shape == () and t.item() == 2.0


UNARY = {
    "exp": lambda m, x: m.exp(x),
    "expm1": lambda m, x: m.expm1(x),
    "log1p": lambda m, x: m.log1p(x),
    "tanh": lambda m, x: m.tanh(x),
    "erf": lambda m, x: m.erf(x),
    "sigmoid": lambda m, x: 1 / (1 + m.exp(-x)),
    "softplus": lambda m, x: m.log(1 + m.exp(x)),
}


@pytest.mark.parametrize("name", sorted(UNARY))
def test_unary_derivatives_against_many_digits(name):
    import mpmath

    points = [-6.0, -1.5, -0.5, 1e-9, 0.3, 2.0, 6.0]
    points = [x for x in points if name != "log1p" or x > -0.9]
    with mpmath.workdps(40):
        f = lambda x: UNARY[name](mpmath, x)  # noqa: E731
        for x in points:
            first = float(mpmath.diff(f, mpmath.mpf(x)))
            second = float(mpmath.diff(f, mpmath.mpf(x), 2))
            # 1 - z^2 and z (1 - z) lose what z has lost: an ulp of 1 beside the slope itself.
            assert grad(TABLE[name])(x) == pytest.approx(first, rel=4e-15, abs=5e-16)
            assert grad(grad(TABLE[name]))(x) == pytest.approx(second, rel=2e-14, abs=2e-15)
