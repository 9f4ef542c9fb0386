"""Every order of grad, vjp and jvp, checkpoints inside them, and closures over live values."""

import itertools
import math

import numpy as np
import pytest

from autodiff import checkpoint, custom, grad, hvp, is_tensor, jvp, namespace, no_grad, tensor, vjp

A = np.random.default_rng(0).standard_normal((4, 4))
B = np.random.default_rng(1).standard_normal((4, 4))


def f(x):
    xp = namespace(x)
    return xp.sin(x) * x * x + xp.exp(x * 0.5)


def derivative_of_f(n, x):
    """n-th derivative of x^2 sin x + exp(x / 2), by Leibniz."""
    rows = ((1, x * x), (n, 2 * x), (n * (n - 1), 1.0))
    sines = sum(c * p * math.sin(x + (n - k) * math.pi / 2) for k, (c, p) in enumerate(rows))
    return sines + 0.5**n * math.exp(x / 2)


def by_backward(f):
    def g(x):
        if is_tensor(x):
            return grad(f)(x)
        t = tensor(np.asarray(x), requires_grad=True)
        f(t).backward(create_graph=True)
        return t.grad.data

    return g


def by_linear_pullback(f):
    """The derivative of the pullback in its cotangent."""

    def g(x):
        _, pull = vjp(f, x)
        return jvp(lambda c: pull(c)[0], (1.0,), (1.0,))[1]

    return g


WAYS = {
    "grad": grad,
    "jvp": lambda f: lambda x: jvp(f, (x,), (1.0,))[1],
    "vjp": lambda f: lambda x: vjp(f, x)[1](1.0)[0],
    "jvp along x / x": lambda f: lambda x: jvp(f, (x,), (x / x,))[1],
    "vjp of x / x": lambda f: lambda x: vjp(f, x)[1](x / x)[0],
    "grad of f(y) x": lambda f: lambda x: grad(lambda y: f(y) * x)(x) / x,
    "jvp of f(y) x": lambda f: lambda x: jvp(lambda y: f(y) * x, (x,), (1.0,))[1] / x,
    "grad of a checkpoint": lambda f: lambda x: grad(lambda y: checkpoint(f, y))(x),
    "jvp of a checkpoint": lambda f: lambda x: jvp(lambda y: checkpoint(f, y), (x,), (1.0,))[1],
    "backward": by_backward,
    "pullback": by_linear_pullback,
}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_derivatives_in_every_order(depth):
    wanted = derivative_of_f(depth, 1.3)
    wrong = []
    for ways in itertools.product(WAYS, repeat=depth):
        g = f
        for way in ways:
            g = WAYS[way](g)
        got = g(1.3)
        if is_tensor(got) or not math.isclose(got, wanted, rel_tol=1e-12):
            wrong.append((ways, got))
    assert not wrong


def both(f, x, u, v):
    """Derivatives of f that mix the modes."""
    along = lambda x: jvp(f, (x,), (u,))[1]  # noqa: E731
    return {
        "grad": grad(f)(x),
        "hvp": hvp(f, (x,), (u,))[0],
        "grad of jvp": grad(along)(x),
        "jvp of grad of jvp": jvp(grad(along), (x,), (v,))[1],
        "grad of hvp": grad(lambda x: (hvp(f, (x,), (u,))[0] * v).sum())(x),
        "vjp of hvp": vjp(lambda x: jvp(grad(f), (x,), (u,))[1], x)[1](v)[0],
        "grad of grad": grad(lambda x: (grad(f)(x) * v).sum())(x),
        "grad in the direction": grad(lambda u: (jvp(grad(f), (x,), (u,))[1] * v).sum())(u),
    }


def test_a_checkpoint_changes_no_derivative_of_any_mode():
    def step(z):
        return (z @ z).tanh()

    plain = both(lambda x: (step(x) ** 2).sum(), A, A + B, B)
    dropped = both(lambda x: (checkpoint(step, x) ** 2).sum(), A, A + B, B)
    nested = both(lambda x: (checkpoint(lambda z: checkpoint(step, z * 1.0), x) ** 2).sum(), A, A + B, B)
    for key, wanted in plain.items():
        assert dropped[key] == pytest.approx(wanted, rel=1e-11, abs=1e-11), key
        assert nested[key] == pytest.approx(wanted, rel=1e-11, abs=1e-11), key


def test_a_checkpointed_function_may_differentiate_inside_itself():
    x = tensor(A.copy(), requires_grad=True)
    y = checkpoint(lambda z: grad(lambda w: (w * w * w).sum())(z).exp().sum(), x)
    y.backward()
    assert x.grad == pytest.approx(6 * A * np.exp(3 * A * A), rel=1e-12)


def test_results_hang_on_live_closures_and_on_nothing_else():
    w = tensor(np.array(2.0), requires_grad=True)
    g = grad(lambda x: x * x * w)(3.0)
    g.backward()
    assert g.item() == 12.0 and w.grad == 6.0
    moved = jvp(lambda x: x * x * w, (3.0,), (1.0,))[1]
    moved.backward()
    assert w.grad == 12.0
    assert not is_tensor(grad(lambda x: x * x)(3.0))


def test_a_tangent_that_outlives_its_transform_is_inert():
    box = []
    jvp(lambda x: box.append(x) or x * x, (2.0,), (1.0,))
    assert jvp(lambda y: y * box[0], (3.0,), (1.0,)) == (6.0, 2.0)


# --- writes in place inside forward mode ------------------------------------------------------


def test_augmented_assignment_keeps_tangents():
    def f(x):
        y = x * 2
        y += x
        total = tensor(np.zeros(3))
        total += y
        total *= x
        return total

    x = np.array([1.0, 2.0, 3.0])
    out, moved = jvp(f, (x,), (np.ones(3),))
    assert np.array_equal(out, 3 * x * x) and np.array_equal(moved, 6 * x)


def test_augmented_assignment_leaves_the_callers_array_alone():
    x = np.array([1.0, 2.0, 3.0])

    def f(x):
        x += 1
        return x * x

    assert np.array_equal(jvp(f, (x,), (np.ones(3),))[1], [4, 6, 8])
    assert np.array_equal(x, [1, 2, 3])


def test_a_write_that_would_lose_a_tangent_raises():
    def f(x):
        y = tensor(np.zeros(3))
        y[0] = x[1]
        return y

    with pytest.raises(RuntimeError, match="value requires grad"):
        jvp(f, (np.ones(3),), (np.ones(3),))


def test_running_statistics_may_be_written_under_no_grad():
    running = tensor(np.zeros(3))

    def f(x):
        with no_grad():
            running.assign(running * 0.5 + x)
        return x * x

    assert np.array_equal(jvp(f, (np.ones(3),), (np.ones(3),))[1], [2, 2, 2])
    assert np.array_equal(running.data, [1, 1, 1]) and not running.requires_grad


def test_augmented_assignment_does_not_truncate():
    t = tensor(np.array([1, 2]))
    with pytest.raises(TypeError, match="__iadd__: the result is float64, this tensor int64"):
        t += 0.5
    t += 2
    assert np.array_equal(t.data, [3, 4])


# --- primitives of the user's -----------------------------------------------------------------

SQUARE = (lambda x: (x * x, ())), (lambda g, out, saved, needs, x: (g * x * 2,))


@pytest.mark.parametrize("options", [{"composite": lambda x: x * x}, {"differentiable": True}])
def test_custom_primitives_differentiate_again(options):
    square = custom("square", *SQUARE, **options)
    x = np.array([1.0, 2.0])
    third = grad(lambda x: grad(lambda y: grad(lambda z: (square(z) * z * z).sum())(y).sum())(x).sum())
    assert np.array_equal(third(x), 24 * x)


def test_custom_primitives_without_a_second_derivative_say_so():
    square = custom("square", *SQUARE)
    x = np.array([1.0, 2.0])
    with pytest.raises(RuntimeError, match="create_graph needs a composite"):
        grad(lambda x: grad(lambda y: square(y).sum())(x).sum())(x)
    with pytest.raises(RuntimeError, match="forward mode needs a composite"):
        jvp(square, (x,), (x,))


@pytest.mark.parametrize("cotangents", [lambda g, y: (g * y,), lambda g, y: g * y, lambda g, y: None])
def test_a_vjp_that_forgets_an_argument_raises(cotangents):
    times = custom("times", lambda x, y: (x * y, ()), lambda g, o, s, n, x, y: cotangents(g, y))
    x, y = tensor(np.ones(2), True), tensor(np.ones(2), True)
    with pytest.raises(ValueError, match="times: its vjp returned .* a tuple of 2"):
        times(x, y).sum().backward()
