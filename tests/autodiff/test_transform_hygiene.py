"""What every transform keeps: dtypes, closures, checkpoints, an unchanged state; no confusion."""

from __future__ import annotations

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from autodiff import (
    checkpoint,
    elementwise_grad,
    ggnvp,
    grad,
    gradients,
    hessian,
    hvp,
    is_tensor,
    jacfwd,
    jacrev,
    jvp,
    linear_transpose,
    linearize,
    namespace,
    tensor,
    tree_flatten,
    value_and_grad,
    vjp,
)
from autodiff.forward import _LEVELS, LIVE
from autodiff.tape import SPECIAL, STATE
from tests.autodiff.collector import leaves_nothing_to_collect

X, U = np.random.default_rng(5).uniform(0.5, 1.5, (2, 3))
ALONG = {"fr": "forward_over_reverse", "rr": "reverse_over_reverse", "rf": "reverse_over_forward"}


def energy(x):
    xp = namespace(x)
    return xp.sum(xp.tanh(x) * x * x)


# Every transform, as x -> a tree of arrays; f is a scalar function of one array.
TRANSFORMS = {
    "grad": lambda f: lambda x, u: grad(f)(x),
    "value_and_grad": lambda f: lambda x, u: value_and_grad(f)(x),
    "vjp": lambda f: lambda x, u: vjp(f, x)[1](vjp(f, x)[0])[0],
    "jvp": lambda f: lambda x, u: jvp(f, (x,), (u,)),
    "jacfwd": lambda f: lambda x, u: jacfwd(f)(x),
    "jacrev": lambda f: lambda x, u: jacrev(f)(x),
    "hessian": lambda f: lambda x, u: hessian(f)(x),
    **{k: lambda f, m=m: lambda x, u: hvp(f, (x,), (u,), mode=m)[0] for k, m in ALONG.items()},
    "ggnvp": lambda f: lambda x, u: ggnvp(lambda z: f(z) * z, (x,), (u,))[0],
    "elementwise_grad": lambda f: lambda x, u: elementwise_grad(lambda z: f(z) * z)(x),
    "linearize": lambda f: lambda x, u: linearize(f, x)[1](u),
    "linear_transpose": lambda f: lambda x, u: linear_transpose(lambda z: z * f(x), u)(u)[0],
}
each = pytest.mark.parametrize("name", TRANSFORMS)


def state():
    return set(LIVE), set(SPECIAL), STATE.grad, STATE.saver, _LEVELS.made, list(_LEVELS.again)


@each
def test_at_depth_zero_everything_is_raw_and_the_state_is_as_before(name):
    before = state()
    leaves = tree_flatten(TRANSFORMS[name](energy)(X, U))[0]
    assert leaves and not any(is_tensor(x) for x in leaves) and state() == before
    # A tensor that asks for no gradient is an array like any other.
    leaves = tree_flatten(TRANSFORMS[name](energy)(tensor(X), U))[0]
    assert not any(is_tensor(x) for x in leaves)


@each
def test_the_state_is_as_before_also_after_an_error(name):
    before = state()
    calls = itertools.count()
    for fatal in range(3):

        def f(x, fatal=fatal):
            if next(calls) % 3 >= fatal:
                checkpoint(lambda z: z * (1 / 0), x)
            return energy(x)

        with pytest.raises(ZeroDivisionError):
            for _ in range(3):
                TRANSFORMS[name](f)(X, U)
        assert state() == before
    assert (tensor([1.0], True) * 2).requires_grad


@each
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_are_kept(name, dtype):
    x, u = X.astype(dtype), U.astype(dtype)
    narrow = tree_flatten(TRANSFORMS[name](energy)(x, u))[0]
    wide = tree_flatten(TRANSFORMS[name](energy)(X, U))[0]
    for got, want in zip(narrow, wide, strict=True):
        assert got.dtype == dtype and got.shape == want.shape
        # Some twenty operations of relative error u, on numbers up to 10 that cancel.
        eps = np.finfo(dtype).eps
        assert np.allclose(got.astype(float), want, rtol=40 * eps, atol=100 * eps)


@each
def test_a_closed_over_tensor_is_still_differentiated(name):
    w0 = np.array([0.7, 1.1, 0.9])
    w = tensor(w0.copy(), requires_grad=True)
    scaled = lambda w: lambda x: energy(x * w)  # noqa: E731

    def total(w):
        leaves = tree_flatten(TRANSFORMS[name](scaled(w))(X, U))[0]
        parts = [x if np.shape(getattr(x, "data", x)) == () else namespace(x).sum(x) for x in leaves]
        return sum(parts[1:], parts[0])

    out = total(w)
    assert is_tensor(out) and out.node is not None
    out.backward()
    h, d = 1e-5, np.array([0.3, -0.5, 0.8])
    slope = (total(w0 + h * d) - total(w0 - h * d)) / (2 * h)
    assert w.grad @ d == pytest.approx(float(slope), rel=1e-7)
    assert grad(total)(w0) == pytest.approx(w.grad, rel=1e-12)
    assert jvp(total, (w0,), (d,))[1] == pytest.approx(w.grad @ d, rel=1e-12)


@each
def test_a_checkpoint_inside_changes_nothing(name):
    plain = TRANSFORMS[name](energy)(X, U)
    kept = TRANSFORMS[name](lambda x: checkpoint(energy, x))(X, U)
    nested = TRANSFORMS[name](lambda x: checkpoint(lambda y: checkpoint(energy, y * 1.0), x))(X, U)
    for a, b, c in zip(*(tree_flatten(t)[0] for t in (plain, kept, nested)), strict=True):
        assert np.allclose(a, b, rtol=1e-14, atol=1e-15) and np.allclose(a, c, rtol=1e-13, atol=1e-14)
    assert np.array_equal(grad(energy)(X), grad(lambda x: checkpoint(energy, x))(X))


def test_a_cycle_waits_for_the_collector():
    def work():
        cycle = []
        cycle.append(cycle)

    assert not leaves_nothing_to_collect(work)


@each
def test_nothing_waits_for_the_collector(name):
    def work():
        TRANSFORMS[name](energy)(X, U)
        w = tensor(X.copy(), requires_grad=True)
        leaves = tree_flatten(TRANSFORMS[name](lambda x: energy(x * w))(X, U))[0]
        namespace(leaves[0]).sum(leaves[0]).backward()

    assert leaves_nothing_to_collect(work)


@each
def test_transforms_run_in_threads_at_once(name):
    wanted = tree_flatten(TRANSFORMS[name](energy)(X, U))[0]
    found = []

    def work():
        found.append(tree_flatten(TRANSFORMS[name](energy)(X, U))[0])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3
    assert all(np.array_equal(a, b) for leaves in found for a, b in zip(leaves, wanted, strict=True))


# --- derivatives of derivatives ---------------------------------------------------------------

DERIVATIVES = {
    "grad": grad,
    "jacfwd": jacfwd,
    "jacrev": jacrev,
    "elementwise_grad": elementwise_grad,
    "jvp": lambda f: lambda x: jvp(f, (x,), (1.0,))[1],
    "vjp": lambda f: lambda x: vjp(f, x)[1](1.0)[0],
    "linearize": lambda f: lambda x: linearize(f, x)[1](1.0),
}
TWICE = {
    "hessian": hessian,
    **{k: lambda f, m=m: lambda x: hvp(f, (x,), (1.0,), mode=m)[0] for k, m in ALONG.items()},
}


def wave(x):
    xp = namespace(x) if hasattr(x, "dtype") else np
    return xp.exp(x * 0.5) * xp.sin(x)


def derivative_of_wave(n, x):
    """Re(-i (1/2 + i)^n exp((1/2 + i) x)): the n-th derivative of exp(x / 2) sin x."""
    a = 0.5 + 1j
    return (a**n * np.exp(a * x)).imag


@pytest.mark.parametrize("seed", range(8))
def test_fifth_derivatives_in_any_order(seed):
    ways = np.random.default_rng(seed).choice(sorted(DERIVATIVES), 5)
    f = wave
    for way in ways:
        f = DERIVATIVES[way](f)
    got = f(0.4)
    assert not is_tensor(got), ways
    assert got == pytest.approx(derivative_of_wave(5, 0.4), rel=1e-12), ways


@pytest.mark.parametrize("twice", TWICE)
def test_second_derivatives_within_others(twice):
    for once in DERIVATIVES:
        for f in (DERIVATIVES[once](TWICE[twice](wave)), TWICE[twice](DERIVATIVES[once](wave))):
            assert f(0.4) == pytest.approx(derivative_of_wave(3, 0.4), rel=1e-13), once
    assert TWICE[twice](TWICE[twice](wave))(0.4) == pytest.approx(derivative_of_wave(4, 0.4), rel=1e-12)


@pytest.mark.parametrize("outer, inner", list(itertools.product(DERIVATIVES, repeat=2)), ids="-".join)
def test_perturbations_are_not_confused(outer, inner):
    d, e = DERIVATIVES[outer], DERIVATIVES[inner]
    # Siskind & Pearlmutter: d/dx [x d/dy (x + y)] = 1; the confused answer is 2.
    assert d(lambda x: x * e(lambda y: x + y)(1.0))(1.0) == 1.0
    assert d(lambda x: x * e(lambda y: x * y * y)(x))(3.0) == pytest.approx(54.0)
    assert d(lambda x: e(lambda y: x * y)(x))(5.0) == 1.0


# --- trees ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Layer:
    w: object
    b: object = None


# The others multiply f by its argument, which is then no tree.
@pytest.mark.parametrize("name", sorted(set(TRANSFORMS) - {"ggnvp", "elementwise_grad", "linear_transpose"}))
def test_trees_of_every_kind(name):
    at = {"a": Layer(X[0:2]), "c": [X[2], (None,)]}
    along = {"a": Layer(U[0:2]), "c": [U[2], (None,)]}

    def on_tree(p):
        xp = namespace(p["a"].w)
        return energy(xp.concat([p["a"].w, xp.reshape(p["c"][0], (1,))]))

    found = tree_flatten(TRANSFORMS[name](on_tree)(at, along))[0]
    wanted = tree_flatten(TRANSFORMS[name](energy)(X, U))[0]
    flat = [np.concatenate([np.ravel(x) for x in leaves]) for leaves in (found, wanted)]
    if name == "hessian":
        blocks = hessian(on_tree)(at)
        assert isinstance(blocks["a"].w["a"], Layer) and blocks["a"].b is None
        assert blocks["a"].w["c"][0].shape == (2,) and blocks["c"][1] == (None,)
        flat = [np.sort(x) for x in flat]
    assert np.allclose(*flat, rtol=1e-13)


# --- gradients between tensors ----------------------------------------------------------------


def test_gradients_between_tensors():
    x, y = tensor(X.copy(), True), tensor(U.copy(), True)
    h = x * y
    z = (h * h * x).sum()
    gh, gx, gy = gradients(z, [h, x, y], retain_graph=True)
    assert np.allclose(gh, 2 * X * U * X) and np.allclose(gx, 3 * X**2 * U**2) and np.allclose(gy, 2 * X**3 * U)
    assert x.grad is None and y.grad is None
    assert np.array_equal(gradients([h, h], x, [X, X], retain_graph=True)[0], 2 * X * U)
    (first,) = gradients(z, x, create_graph=True)
    (second,) = gradients(first, [y], [U])
    assert np.allclose(second, 6 * X**2 * U * U)
    one, none = gradients((x * 2).sum(), [x, y], allow_unused=True)
    assert np.array_equal(one, np.full(3, 2.0)) and none is None
    kept = gradients(h, h, X)[0]
    assert np.array_equal(kept, X) and not np.shares_memory(kept, X)
    with pytest.raises(RuntimeError, match="freed"):
        gradients(z, x)
        gradients(z, x)


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda x, h: gradients(h, x), ValueError, r"output 0 is float64\(3,\) and needs a cotangent"),
        (lambda x, h: gradients(h, x, X[:1]), ValueError, r"grad_outputs 0 has shape \(1,\), needed \(3,\)"),
        (lambda x, h: gradients([h, h], x, [X]), ValueError, "2 outputs, 1 grad_outputs"),
        (lambda x, h: gradients(X, x, X), TypeError, "output 0 is a ndarray; needs a Tensor"),
        (lambda x, h: gradients(h, X, X), TypeError, "input 0 is a ndarray"),
        (lambda x, h: gradients(tensor(X), x, X), RuntimeError, "output 0 has no graph"),
        (lambda x, h: gradients(h, [x, tensor(X)], X), RuntimeError, "input 1 has no graph"),
        (lambda x, h: gradients(h, [x, tensor(X, True)], X), RuntimeError, "no output depends on input 1"),
    ],
)  # fmt: skip
def test_gradients_refuse(call, error, said):
    x = tensor(X.copy(), True)
    with pytest.raises(error, match=said):
        call(x, x * x)
