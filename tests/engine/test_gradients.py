"""The engine against differences, its own transpose, and closed forms, a table of functions at a time."""

import gc
import weakref

import numpy as np
import pytest

import autodiff as ad
from autodiff import grad, hvp, jvp, namespace, tensor, vjp

RNG = np.random.default_rng(7)


def away_from_zero(*shape):
    x = RNG.standard_normal(shape)
    return x + np.copysign(0.25, x)


def positive(*shape):
    return RNG.random(shape) + 0.5


X, Y, ROW = away_from_zero(3, 4), away_from_zero(3, 4), away_from_zero(4)
COLUMN, CUBE = away_from_zero(3, 1), away_from_zero(2, 3, 4)
P, IDS = positive(3, 4), np.array([[0, 2], [2, 2], [1, 0]])
SQUARE, EMPTY = away_from_zero(3, 3), np.zeros((0, 4))

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
LINEAR = {"add", "subtract", "negative", "broadcast_to", "flip", "sum"}


def get(name):
    f, arrays = TABLE[name]
    return (lambda *xs: f(namespace(*xs), *xs)), arrays


def directions(arrays, seed):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(a.shape) for a in arrays)


def inner(a, b):
    return float(sum(np.sum(x * y) for x, y in zip(a, b, strict=True)))


def slope(f, arrays, u):
    """d/dt f(x + t u) at 0: Richardson's central differences, error O(h^4)."""
    def central(h):
        ends = [f(*(a + s * h * d for a, d in zip(arrays, u, strict=True))) for s in (1, -1)]
        return (ends[0] - ends[1]) / (2 * h)

    h = 2.0**-10
    return (4 * central(h / 2) - central(h)) / 3


@each
def test_the_pullback_is_the_transpose_of_the_slope(name):
    f, arrays = get(name)
    u = directions(arrays, 1)
    out, pull = vjp(f, *arrays)
    (v,) = directions((out,), 2)
    assert isinstance(out, np.ndarray | np.floating)
    assert inner(pull(v), u) == pytest.approx(inner((v,), (slope(f, arrays, u),)), rel=2e-8, abs=1e-8)


@each
def test_forward_mode_is_reverse_mode(name):
    f, arrays = get(name)
    u = directions(arrays, 3)
    out, tangent = jvp(f, arrays, u)
    (v,) = directions((out,), 4)
    _, pull = vjp(f, *arrays)
    assert inner((v,), (tangent,)) == pytest.approx(inner(pull(v), u), rel=1e-12, abs=1e-12)


@each
def test_the_pullback_differentiates_again(name):
    f, arrays = get(name)
    out = f(*arrays)
    v, u, w = directions((out,), 5)[0], directions(arrays, 6), directions(arrays, 7)

    def scalar(*xs):
        y = f(*xs)
        xp = namespace(y)
        return xp.sum(y * v) + xp.sum(xp.sin(y))

    nums = tuple(range(len(arrays)))
    product = hvp(scalar, arrays, u)
    wanted = slope(lambda *xs: np.array(inner(grad(scalar, nums)(*xs), w)), arrays, u)
    assert inner(product, w) == pytest.approx(float(wanted), rel=1e-6, abs=1e-6)


@each
def test_float32_stays_float32(name):
    f, arrays = get(name)
    narrow = tuple(a.astype(np.float32) for a in arrays)
    if name in ("where", "flip", "broadcast_to", "maximum minimum"):
        return_type = np.result_type(np.float32, np.float64)  # these close over float64 constants
        assert f(*narrow).dtype == return_type or f(*narrow).dtype == np.float32
    else:
        assert f(*narrow).dtype == np.float32
    out, pull = vjp(f, *narrow)
    assert all(c.dtype == np.float32 for c in pull(np.ones_like(out)))


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_linear_primitives_are_exact_on_integers(name):
    f, arrays = get(name)
    if name == "sum":
        f = lambda x: namespace(x).sum(x, axis=1)  # noqa: E731
    whole = tuple(np.round(4 * a) for a in arrays)
    out, pull = vjp(f, *whole)
    v, u = np.round(4 * directions((out,), 8)[0]), [np.round(4 * d) for d in directions(whole, 9)]
    factor = CUBE if name == "broadcast_to" else X if name == "flip" else None
    if factor is None:
        assert inner(pull(v), u) == inner((v,), (f(*u),))
    else:
        assert inner(pull(v), u) == pytest.approx(inner((v,), (f(*u),)), rel=1e-13)


def test_closed_forms():
    x = np.array([1.0, -2.0, 3.0])
    A = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 4.0]])

    def quadratic(x):
        xp = namespace(x)
        return xp.sum(x * xp.matmul(tensor(A), x)) / 2

    assert np.allclose(grad(quadratic)(x), (A + A.T) @ x / 2, rtol=0, atol=1e-14)
    assert np.allclose(hvp(quadratic, (x,), (np.ones(3),))[0], (A + A.T) @ np.ones(3) / 2, rtol=0, atol=1e-14)
    cubic = lambda t: t**3  # noqa: E731
    assert grad(grad(grad(cubic)))(2.0) == 6.0


def test_nested_differentiation_does_not_confuse_its_variables():
    # d/dx (x d/dy (x + y)) = 1, and not 2 (Siskind & Pearlmutter 2005)
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(1.0) == 1.0
    forward = lambda f, x: jvp(f, (x,), (1.0,))[1]  # noqa: E731
    assert forward(lambda x: x * forward(lambda y: x + y, 1.0), 1.0) == 1.0


def test_two_backwards_give_twice_and_a_third_without_graph_raises():
    x = tensor([1.0, 2.0, 4.0], requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    once = x.grad.copy()
    y.backward()
    assert np.array_equal(x.grad, 2 * once)
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_a_graph_dies_with_its_output_without_the_collector():
    gc.disable()
    try:
        x = tensor(np.ones(4), requires_grad=True)
        hidden = (x * 3.0).exp()
        nodes = [weakref.ref(hidden.node), weakref.ref(hidden.data)]
        y = (hidden * hidden).sum()
        del hidden
        assert all(r() is not None for r in nodes)
        del y
        assert all(r() is None for r in nodes)
    finally:
        gc.enable()


def test_a_write_between_forward_and_backward_raises_and_names_what():
    x = tensor(np.ones(3), requires_grad=True)
    y = tensor(np.full(3, 2.0))
    z = (x * y).sum()
    y[1] = 5.0
    with pytest.raises(RuntimeError, match=r"multiply.*changed in place.*version 1"):
        z.backward()


def test_no_grad_records_nothing():
    x = tensor([1.0], requires_grad=True)
    with ad.no_grad():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_a_weight_used_in_several_checkpoints_has_the_bits_of_the_plain_run():
    w0, x0 = RNG.standard_normal((4, 4)), RNG.standard_normal((2, 4))

    def layer(w, rng):
        def run(x):
            xp = namespace(x)
            keep = rng.random(4) < 0.5
            return xp.tanh(xp.matmul(x, w)) * keep

        return run

    found = []
    for segments in (1, 3, [2, 2, 1, 1]):
        rng = np.random.default_rng(3)
        w, x = tensor(w0.copy(), requires_grad=True), tensor(x0.copy(), requires_grad=True)
        out = ad.checkpoint_sequential([layer(w, rng)] * 6, x, segments, rng=rng)
        (out * out).sum().backward()
        found.append((w.grad, x.grad, rng.random()))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda: tensor([1.0, 2.0], requires_grad=True).backward(), ValueError, "needs a gradient"),
        (lambda: tensor([1, 2], requires_grad=True), TypeError, "int64"),
        (lambda: (tensor([1.0, 2.0], True) * 2).backward(np.ones(3)), ValueError, r"\(3,\), needed \(2,\)"),
        (lambda: (tensor([1.0], True) * 2).backward(np.ones(1, np.float32)), TypeError, "float32, needed float64"),
        (lambda: tensor([1.0]).backward(), RuntimeError, "no graph"),
        (lambda: np.asarray(tensor([1.0])), TypeError, "does not turn into a NumPy array"),
        (lambda: grad(lambda x: x * 2)(np.ones(2)), (ValueError, TypeError), "scalar|shape"),
    ],
)
def test_bad_input_says_what_arrived_and_what_was_needed(call, error, said):
    with pytest.raises(error, match=said):
        call()
