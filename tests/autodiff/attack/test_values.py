"""Gradients where shapes, dtypes and indices are odd: against differences, on NumPy and strict."""

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autodiff import grad, hvp, jvp, namespace, tensor, value_and_grad, vjp
from autodiff.ops import logsumexp
from backends import get

X = np.array([1.0, 2.0, 3.0])
SIDES = st.integers(0, 3)
EINSUMS = (
    *("ij,jk->ik", "ij,jk", "ii->i", "ii->", "iji->ij", "iijj->ij", "ij->", "i,i,i->i", "ij,kl->"),
    *("ijj,jk->ki", "...ij,...jk->...ik", "...i,i->...", "i...,...i->...", "ij,ji", "Ab,bA->A"),
)


def values(shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(x + np.copysign(0.5, x))


def slope(f, arrays, u):
    """d/dt f(x + t u) at 0 by Richardson's central differences."""

    def central(h):
        a, b = (f(*(x + s * d for x, d in zip(arrays, u, strict=True))) for s in (h, -h))
        return (a - b) / (2 * h)

    return (4 * central(2.0**-11) - central(2.0**-10)) / 3


def check(f, *arrays):
    """Reverse mode, forward mode and the second derivative of f(xp, *arrays), against differences."""

    def call(*xs):
        return f(namespace(*xs), *xs)

    u = tuple(values(a.shape, 90 + i) for i, a in enumerate(arrays))
    wanted = np.asarray(slope(call, arrays, u))
    out, pullback = vjp(call, *arrays)
    v = values(wanted.shape, 80)
    cotangents = pullback(v)
    assert [c.shape for c in cotangents] == [a.shape for a in arrays]
    moved = sum(np.sum(c * d) for c, d in zip(cotangents, u, strict=True))
    assert moved == pytest.approx(np.sum(v * wanted), rel=1e-7, abs=1e-7)
    assert jvp(call, arrays, u)[1] == pytest.approx(wanted, rel=1e-7, abs=1e-7)

    def scalar(*xs):
        y = call(*xs)
        xp = namespace(y)
        return xp.sum(xp.sin(y) * v)

    nums = tuple(range(len(arrays)))
    found = hvp(scalar, arrays, u)
    for i in nums:
        differences = slope(lambda *xs, i=i: grad(scalar, nums)(*xs)[i], arrays, u)
        assert found[i] == pytest.approx(differences, rel=1e-5, abs=1e-5)
    carry = get("strict")
    others = vjp(call, *map(carry.from_numpy, arrays))[1](carry.from_numpy(v))
    for a, b in zip(cotangents, others, strict=True):
        assert carry.to_numpy(b) == pytest.approx(a, rel=1e-12, abs=1e-12)


BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "logaddexp", "pow")


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=12)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=3))
def test_binary_functions_of_any_two_broadcastable_shapes(name, shapes):
    x, y = (values(s, i) for i, s in enumerate(shapes.input_shapes))
    check(lambda xp, x, y: getattr(xp, name)(x, y), abs(x) if name == "pow" else x, y)


@settings(max_examples=25)
@given(hnp.mutually_broadcastable_shapes(signature="(m?,n),(n,p?)->(m?,p?)", min_side=0, max_side=3, max_dims=4))
def test_matmul_of_any_shapes(shapes):
    check(lambda xp, x, y: xp.matmul(x, y), *(values(s, i) for i, s in enumerate(shapes.input_shapes)))


@settings(max_examples=25)
@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3))
def test_basic_indices(data, shape):
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    index = index if isinstance(index, tuple) else (index,)
    x = values(shape, 1)
    wanted = np.zeros(shape)
    g = values(x[index].shape, 2)
    wanted[index] = g
    assert np.array_equal(vjp(lambda x: x[index], x)[1](g)[0], wanted)


@settings(max_examples=25)
@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3))
def test_integer_indices_add_up_where_they_repeat(data, shape):
    index = data.draw(hnp.integer_array_indices(shape))
    x = values(shape, 1)
    g = np.round(4 * values(x[index].shape, 2))
    wanted = np.zeros(shape)
    np.add.at(wanted, index, g)
    assert np.array_equal(vjp(lambda x: x[index], x)[1](g)[0], wanted)


@pytest.mark.parametrize(
    "index",
    [[0, 2], [True, False, True], [], ([0, 2], [1, 1]), np.array(1), np.array([[2, 0], [2, -1]]),
     (slice(None), np.array([1, 1, 0])), (np.array([0, 2]), None, np.array([1, 1])), True,
     np.zeros(3, bool), (slice(None), np.array([True, True, False, True]))],
    ids=repr,
)
def test_indices_that_numpy_takes(index):
    x = values((3, 4), 3)
    g = values(x[index].shape, 4)
    wanted = np.zeros_like(x)
    np.add.at(wanted, index, g)
    assert np.array_equal(vjp(lambda x: x[index], x)[1](g)[0], wanted)


@pytest.mark.parametrize("subscripts", EINSUMS)
def test_einsum_letters_that_repeat_vanish_or_broadcast(subscripts):
    sizes = {"i": 2, "j": 2, "k": 3, "l": 1, "A": 2, "b": 3}
    terms = subscripts.split("->")[0].split(",")
    shapes = []
    for n, term in enumerate(terms):
        dots = (2, 1) if n == 0 else (1, 3)[n - 1 :]
        before, _, after = term.partition("...")
        letters = [tuple(sizes[c] for c in part) for part in (before, after)]
        shapes.append(letters[0] + (dots if "..." in term else ()) + letters[1])
    arrays = [values(s, i) for i, s in enumerate(shapes)]
    check(lambda xp, *xs: xp.einsum(subscripts, *xs), *arrays)


def test_einsum_refuses_what_numpy_refuses():
    with pytest.raises(ValueError, match="not in the output"):
        namespace(tensor(X)).einsum("...i->i", tensor(np.ones((2, 3))))


@pytest.mark.parametrize(
    "f",
    [
        lambda xp, x: xp.take(x, xp.asarray([[0, 1], [2, 2]]), axis=0),
        lambda xp, x: xp.take(x, xp.asarray([2, -1]), axis=-1),
        lambda xp, x: xp.roll(x, (1, -2), axis=(0, 1)),
        lambda xp, x: xp.cumulative_sum(x, axis=-2, include_initial=True),
        lambda xp, x: xp.permute_dims(x, (-1, 0)) * 2,
        lambda xp, x: xp.repeat(x, 0, axis=0),
        lambda xp, x: xp.tile(x, (0, 2)),
        lambda xp, x: xp.sum(x, axis=()),
        lambda xp, x: xp.prod(xp.where(xp.abs(x) > 1.0, x, 0.0 * x), axis=(-1, 0), keepdims=True),
    ],
)
def test_functions_at_the_edge(f):
    x = values((3, 3), 5)
    if f(namespace(x), x).shape == (2, 2, 3):
        g = np.ones((2, 2, 3))  # the standard has one-dimensional indices: NumPy alone
        assert np.array_equal(vjp(lambda x: f(namespace(x), x), x)[1](g)[0][:, 0], [1, 1, 2])
    else:
        check(f, x)


def test_lists_serve_as_indices_and_shifts():
    assert np.array_equal(grad(lambda x: namespace(x).take(x, [0, 2, 2], axis=0).sum())(X), [1, 0, 2])
    assert np.array_equal(grad(lambda x: (namespace(x).roll(x, [1], axis=[0]) * X).sum())(X), [2, 3, 1])


def test_an_index_of_another_backend_is_refused():
    with pytest.raises(TypeError, match="numpy and strict"):
        tensor(X)[strict.asarray([0])]


@pytest.mark.parametrize("join", ["concat", "stack"])
def test_joins_of_two_precisions_give_each_its_own(join):
    x = tensor(np.ones(2, np.float32), requires_grad=True)
    y = getattr(namespace(x), join)([x, np.ones(2), x])
    (y * y).sum().backward()
    assert y.dtype == np.float64 and x.grad.dtype == np.float32
    assert np.array_equal(x.grad, [4, 4])


def test_python_numbers_keep_float32_and_0d():
    for data in (np.float32(2.0), np.full(2, 2.0, np.float32)):
        x = tensor(data, requires_grad=True)
        xp = namespace(x)
        ys = [x * 2.5, 2 - x, 1 / x, x**2, 2.0**x, xp.maximum(x, 0.5), xp.clip(x, 0, 1), x / 3]
        ys.append(xp.where(x > 0, x, 0.0))
        assert {str(y.dtype) for y in ys} == {"float32"}
        total = 0
        for y in ys:
            total = total + xp.sum(y)
        total.backward()
        assert x.grad.dtype == np.float32


def test_mixed_second_derivative_of_a_power_where_the_exponent_is_0():
    # d2/dx dy x^y = x^(y - 1) (1 + y log x), so 1 / x at y = 0, whichever comes first.
    def power(x, y):
        return x**y

    assert grad(grad(power, 0), 1)(2.0, 0.0) == 0.5 == grad(grad(power, 1), 0)(2.0, 0.0)
    assert grad(power, (0, 1))(0.0, 0.0) == (0.0, 0.0)
    assert grad(power)(1e-310, 0.0) == 0.0 == grad(power)(np.nan, 0.0)


def test_beside_an_infinite_term_the_others_have_no_share():
    inf = np.array(np.inf)
    assert grad(lambda y: namespace(y).logaddexp(inf, y))(1.0) == 0.0
    assert np.array_equal(grad(logsumexp)(np.array([np.inf, 1.0, 2.0]))[1:], [0, 0])


@pytest.mark.parametrize("other", [1 + 2j, np.full(3, 1j), tensor(np.full(3, 1j))])
def test_a_complex_result_stays_on_the_tape(other):
    x = tensor(X, requires_grad=True)
    v = np.array([1j, 2.0, 1 + 1j])
    (x * other).backward(v)
    assert x.grad == pytest.approx(np.real(np.conj(v) * getattr(other, "data", other)))


def test_asarray_of_the_tensor_namespace_takes_lists():
    xp = namespace(tensor(X))
    assert np.array_equal(xp.asarray([2, 0]), [2, 0])
    assert namespace(tensor(strict.asarray([1.0]))).asarray(1.0).dtype == strict.float64


def test_trees_of_dicts_match_by_key():
    f = lambda p: p["a"] * p["b"]  # noqa: E731
    assert jvp(f, ({"a": 2.0, "b": 3.0},), ({"b": 1.0, "a": 0.0},)) == (6.0, 2.0)
    _, pull = vjp(lambda x: {"a": x, "b": 2 * x}, 1.0)
    assert pull({"b": 1.0, "a": 10.0}) == (12.0,)


def test_aux_is_raw_at_depth_0_and_differentiable_below():
    (value, aux), g = value_and_grad(lambda x: (x * x, {"t": 2 * x, "s": "text"}), has_aux=True)(3.0)
    assert (value, g, aux["s"]) == (9.0, 6.0, "text")
    assert not hasattr(aux["t"], "node") and aux["t"] == 6.0

    def through(z):
        return value_and_grad(lambda x: (x * x, x * z), has_aux=True)(z)[0][1]

    assert grad(through)(3.0) == 6.0
