"""Functions as an algorithm writes them, a table at a time: differences, transpose, second order.

Rows join what `laws` judges one primitive at a time: operators with numbers, a value used twice,
constants of another shape or backend class, indices in every spelling.
"""

from __future__ import annotations

import numpy as np
import pytest

from autodiff import grad, hvp, jvp, namespace, tensor, vjp
from tests.autodiff.laws import inner, richardson

RNG = np.random.default_rng(7)


def away_from_zero(*shape):
    x = RNG.standard_normal(shape)
    return x + np.copysign(0.25, x)


X, Y, ROW = away_from_zero(3, 4), away_from_zero(3, 4), away_from_zero(4)
COLUMN, CUBE = away_from_zero(3, 1), away_from_zero(2, 3, 4)
P, IDS = RNG.random((3, 4)) + 0.5, np.array([[0, 2], [2, 2], [1, 0]])
EMPTY = np.zeros((0, 4))

# name: (function of xp and the arrays, arrays)
TABLE = {
    "add": (lambda xp, x, y: x + y, (X, ROW)),
    "subtract": (lambda xp, x, y: x - y, (X, COLUMN)),
    "multiply": (lambda xp, x, y: x * y, (CUBE, X)),
    "divide": (lambda xp, x, y: x / y, (X, Y)),
    "scalars": (lambda xp, x: 2 - 3 * x / 2 + 1 / x, (X,)),
    "negative": (lambda xp, x: -x, (X,)),
    "pow": (lambda xp, x, y: x**y, (P, Y)),
    "pow integer": (lambda xp, x: x**3, (X,)),
    "exp": (lambda xp, x: xp.exp(x), (X,)),
    "log": (lambda xp, x: xp.log(x), (P,)),
    "log1p expm1": (lambda xp, x: xp.log1p(x) * xp.expm1(x), (P,)),
    "sqrt": (lambda xp, x: xp.sqrt(x), (P,)),
    "square abs": (lambda xp, x: xp.square(x) * xp.abs(x), (X,)),
    "sin cos": (lambda xp, x: xp.sin(x) * xp.cos(x), (X,)),
    "tanh": (lambda xp, x: xp.tanh(x), (X,)),
    "erf": (lambda xp, x: xp.erf(x), (X,)),
    "maximum minimum": (lambda xp, x, y: xp.maximum(x, y) * xp.minimum(x, ROW), (X, Y)),
    "logaddexp": (lambda xp, x, y: xp.logaddexp(x, y), (X, Y)),
    "where": (lambda xp, x, y: xp.where(X > 0, x, y) + xp.where(Y > 0, x, 0.0), (X, ROW)),
    "clip": (lambda xp, x: xp.clip(x, -0.9, 0.9), (X,)),
    "sum": (lambda xp, x: xp.sum(x * x, axis=1) + xp.sum(x), (X,)),
    "mean": (lambda xp, x: xp.mean(x * x, axis=(0, 2), keepdims=True), (CUBE,)),
    "max min": (lambda xp, x: xp.max(x, axis=-1) * xp.min(x, axis=-1), (X,)),
    "prod": (lambda xp, x: xp.prod(x, axis=1), (X,)),
    "prod with a zero": (lambda xp, x: xp.prod(x), (np.array([0.0, 2.0, 3.0]),)),
    "reshape": (lambda xp, x: xp.reshape(x, (4, 3)) * xp.reshape(x, (4, 3)), (X,)),
    "permute": (lambda xp, x: xp.permute_dims(x, (2, 0, 1)) ** 2, (CUBE,)),
    "broadcast_to": (lambda xp, x: xp.broadcast_to(x, (2, 3, 4)) * CUBE, (ROW,)),
    "concat": (lambda xp, x, y: xp.concat((x, y, x), axis=0) ** 2, (X, Y)),
    "stack": (lambda xp, x, y: xp.stack((x, y), axis=1) ** 2, (X, Y)),
    "flip": (lambda xp, x: xp.flip(x, axis=0) * X, (X,)),
    "slices": (lambda xp, x: x[1:, ::2] ** 2, (X,)),
    "newaxis": (lambda xp, x: x[:, None, :] * x[None, :, :], (X,)),
    "take repeats": (lambda xp, x: xp.take(x, np.array([2, 0, 2]), axis=0) ** 2, (X,)),
    "take_along_axis": (lambda xp, x: xp.take_along_axis(x, IDS, axis=1) ** 2, (X,)),
    "cumulative_sum": (lambda xp, x: xp.cumulative_sum(x * x, axis=1), (X,)),
    "matmul": (lambda xp, x, y: xp.matmul(x, y), (CUBE, away_from_zero(4, 5))),
    "matmul batched": (lambda xp, x, y: xp.matmul(x, y), (away_from_zero(2, 1, 3, 4), away_from_zero(5, 4, 2))),
    "matmul vector": (lambda xp, x, y: xp.matmul(x, y), (X, ROW)),
    "einsum": (lambda xp, x, y: xp.einsum("bij,jk->bki", x, y), (CUBE, away_from_zero(4, 2))),
    "vecdot": (lambda xp, x, y: xp.vecdot(x, y), (X, Y)),
    "size zero": (lambda xp, x: xp.sum(x * x, axis=0), (EMPTY,)),
    "softmax": (lambda xp, x: xp.exp(x) / xp.sum(xp.exp(x), axis=-1, keepdims=True), (X,)),
}
each = pytest.mark.parametrize("name", TABLE)
LINEAR = {
    "add": TABLE["add"][0],
    "subtract": TABLE["subtract"][0],
    "negative": TABLE["negative"][0],
    "flip": lambda xp, x: xp.flip(x, axis=0),
    "sum": lambda xp, x: xp.sum(x, axis=1),
}
# These close over float64 constants.
WIDE = {"where", "flip", "broadcast_to", "maximum minimum"}


def get(name):
    f, arrays = TABLE[name]
    return (lambda *xs: f(namespace(*xs), *xs)), arrays


def directions(arrays, seed):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(np.shape(a)) for a in arrays)


@each
def test_pullback_and_tangent_are_the_slope(name):
    f, arrays = get(name)
    u = directions(arrays, 1)
    out, pull = vjp(f, *arrays)
    (v,) = directions((out,), 2)
    assert isinstance(out, np.ndarray | np.floating)
    pulled = inner(pull(v), u)
    assert pulled == pytest.approx(inner((v,), (richardson(f, arrays, u),)), rel=2e-8, abs=1e-8)
    assert inner((v,), (jvp(f, arrays, u)[1],)) == pytest.approx(pulled, rel=1e-12, abs=1e-12)


@each
def test_the_pullback_differentiates_again(name):
    f, arrays = get(name)
    v, u, w = directions((f(*arrays),), 5)[0], directions(arrays, 6), directions(arrays, 7)

    def scalar(*xs):
        y = f(*xs)
        xp = namespace(y)
        return xp.sum(y * v) + xp.sum(xp.sin(y))

    nums = tuple(range(len(arrays)))
    product = hvp(scalar, arrays, u)
    wanted = richardson(lambda *xs: np.array(inner(grad(scalar, nums)(*xs), w)), arrays, u)
    assert inner(product, w) == pytest.approx(float(wanted), rel=1e-6, abs=1e-6)


@each
def test_float32_stays_float32(name):
    f, arrays = get(name)
    narrow = tuple(a.astype(np.float32) for a in arrays)
    out, pull = vjp(f, *narrow)
    assert out.dtype == np.float32 or name in WIDE
    assert all(c.dtype == np.float32 for c in pull(np.ones_like(out)))


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_linear_functions_are_exact_on_integers(name):
    f = lambda *xs: LINEAR[name](namespace(*xs), *xs)  # noqa: E731
    whole = tuple(np.round(4 * a) for a in TABLE[name][1])
    out, pull = vjp(f, *whole)
    v, u = np.round(4 * directions((out,), 8)[0]), tuple(np.round(4 * d) for d in directions(whole, 9))
    assert inner(pull(v), u) == inner((v,), (f(*u),))


def test_a_tensor_serves_as_a_constant():
    a = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 4.0]])
    x, u = np.array([1.0, -2.0, 3.0]), np.ones(3)

    def quadratic(x):
        xp = namespace(x)
        return xp.sum(x * xp.matmul(tensor(a), x)) / 2

    assert np.allclose(grad(quadratic)(x), (a + a.T) @ x / 2, rtol=0, atol=1e-14)
    assert np.allclose(hvp(quadratic, (x,), (u,))[0], (a + a.T) @ u / 2, rtol=0, atol=1e-14)


def test_an_item_written_between_forward_and_backward_raises_and_names_what():
    x = tensor(np.ones(3), requires_grad=True)
    y = tensor(np.full(3, 2.0))
    z = (x * y).sum()
    y[1] = 5.0
    with pytest.raises(RuntimeError, match=r"multiply.*changed in place.*version 1"):
        z.backward()
