"""Primitives of the user's: once differentiable, and JAX's custom_vjp."""

from __future__ import annotations

import numpy as np
import pytest

from autodiff import (
    checkpoint,
    custom,
    custom_vjp,
    debug,
    grad,
    gradients,
    hessian,
    hvp,
    jacrev,
    jvp,
    namespace,
    once_differentiable,
    tensor,
    vjp,
)
from tests.autodiff.collector import leaves_nothing_to_collect

X, U = np.random.default_rng(2).uniform(0.5, 1.5, (2, 3))


def leaf(data=X):
    return tensor(np.array(data), requires_grad=True)


# --- once differentiable ----------------------------------------------------------------------


@once_differentiable
def pull(g, out, saved, needs, x, y):
    return g * y * 2.0 * x if needs[0] else None, g * x * x if needs[1] else None


ONCE = custom("scaled_square", lambda x, y: (x * x * y, ()), pull, labels=("x", "scale"))


def test_the_first_derivative_is_there_also_under_create_graph():
    x, y = leaf(), leaf(U)
    loss = (ONCE(x, y) + x * x * x).sum()
    loss.backward(create_graph=True)
    assert np.allclose(x.grad.data, 2 * X * U + 3 * X * X) and np.allclose(y.grad.data, X * X)
    # A second derivative that does not go through it is right.
    z = leaf()
    (gz,) = gradients((z * z * z).sum() + ONCE(y, y).sum(), z, create_graph=True)
    assert np.allclose(gradients(gz.sum(), z)[0], 6 * X)


@pytest.mark.parametrize("wrt, said", [(0, r"argument 0 \(x\)"), (1, r"argument 1 \(scale\)")])
def test_the_second_raises_and_names_primitive_and_argument(wrt, said):
    said = f"scaled_square: its vjp is once differentiable; the gradient of {said} cannot"
    at = [X, U]

    def f(z):
        return ONCE(*[z if k == wrt else a for k, a in enumerate(at)]).sum()

    assert np.allclose(grad(f)(at[wrt]), 2 * X * U if wrt == 0 else X * X)
    for call in (
        lambda: grad(lambda z: (grad(f)(z) * U).sum())(at[wrt]),
        lambda: jacrev(grad(f))(at[wrt]),
        lambda: hvp(f, (at[wrt],), (U,), mode="reverse_over_reverse"),
        # linear in the scale, but the tape cannot know
        lambda: vjp(lambda g: vjp(lambda z: ONCE(z, U), X)[1](g)[0], U)[1](U),
    ):
        with pytest.raises(RuntimeError, match=said if wrt == 0 or call.__code__.co_freevars else "scaled_square"):
            call()
    z = leaf(at[wrt])
    f(z).backward(create_graph=True)
    with pytest.raises(RuntimeError, match=said):
        z.grad.sum().backward()


def test_forward_mode_is_never_silently_zero():
    said = "scaled_square: forward mode needs a composite"
    for call in (
        lambda: jvp(lambda x: ONCE(x, U), (X,), (U,)),
        lambda: hessian(lambda x: ONCE(x, U).sum())(X),
        lambda: jvp(lambda g: vjp(lambda x: ONCE(x, U), X)[1](g)[0], (U,), (U,)),
    ):
        with pytest.raises(RuntimeError, match=said):
            call()


def test_with_a_composite_the_mark_changes_nothing():
    f = custom("square", lambda x: (x * x, ()), once_differentiable(lambda g, o, s, n, x: (g * 2.0 * x,)),
               composite=lambda x: x * x)
    assert np.allclose(hessian(lambda x: f(x).sum())(X), 2 * np.eye(3))


# --- custom_vjp -------------------------------------------------------------------------------


@custom_vjp
def sine(x):
    "Doc."
    return namespace(x).sin(x)


sine.defvjp(lambda x: (namespace(x).sin(x), {"x": x}), lambda kept, g: (g * namespace(kept["x"]).cos(kept["x"]),))


def test_it_is_the_function_and_its_derivatives_of_any_order():
    assert np.array_equal(sine(X), np.sin(X)) and sine.__doc__ == "Doc."
    f = lambda x: sine(x * x).sum()  # noqa: E731
    plain = lambda x: namespace(x).sin(x * x).sum()  # noqa: E731
    assert np.allclose(grad(f)(X), grad(plain)(X), rtol=1e-14)
    assert np.allclose(jacrev(grad(f))(X), hessian(plain)(X), rtol=1e-13)
    third = jacrev(jacrev(grad(f)))(X)
    assert np.allclose(third, jacrev(hessian(plain))(X), rtol=1e-12)
    assert np.array_equal(grad(lambda x: checkpoint(f, x))(X), grad(f)(X))
    with debug():
        assert np.array_equal(grad(f)(X), grad(plain)(X))


def test_nothing_waits_for_the_collector():
    def work():
        x = leaf()
        (sine(x * x) + ONCE(x, x)).sum().backward(create_graph=True)

    assert leaves_nothing_to_collect(work)


def test_a_second_derivative_is_that_of_bwd():
    @custom_vjp
    def straight(x):
        return np.round(x)

    calls = []

    def bwd(kept, g):
        calls.append(1)
        return (g * kept,)

    straight.defvjp(lambda x: (x * 0.0 + np.round(getattr(x, "data", x)), x), bwd)
    assert np.allclose(grad(lambda x: straight(x).sum())(X), X)
    # d/dx of the gradient x is 1, though round has none
    assert np.allclose(jacrev(grad(lambda x: straight(x).sum()))(X), np.eye(3))
    assert calls


def test_trees_unused_outputs_and_arguments_without_a_gradient():
    @custom_vjp
    def layer(p, x, n):
        return {"y": x * p["w"] * n, "z": p["b"]}

    layer.defvjp(
        lambda p, x, n: (layer.f(p, x, n), (p["w"], x, n)),
        lambda kept, g: ({"w": g["y"] * kept[1] * kept[2], "b": g["z"]}, g["y"] * kept[0] * kept[2], None),
    )
    p = {"w": X, "b": U}
    loss = lambda f, used: lambda p, x: (f(p, x, 3)[used] * U).sum()  # noqa: E731
    for used in ("y", "z"):
        found = grad(loss(layer, used), (0, 1))(p, U)
        plain = grad(loss(layer.f, used), (0, 1))(p, U)
        assert np.allclose(found[0]["w"], plain[0]["w"]) and np.allclose(found[0]["b"], plain[0]["b"])
        assert np.allclose(found[1], plain[1])


def _bad(result):
    f = custom_vjp(lambda x, y: x * y)
    f.defvjp(lambda x, y: (x * y, None), lambda kept, g: result(g))
    return lambda: grad(lambda x: f(x, U).sum())(X)


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda: custom_vjp(lambda x: x)(leaf()), RuntimeError, r"<lambda>: no derivative yet; call .*defvjp"),
        (lambda: jvp(sine, (X,), (U,)), RuntimeError, "sine: custom_vjp defines reverse mode; forward"),
        (_bad(lambda g: g), ValueError, "bwd returned .*, needed a tuple of 2"),
        (_bad(lambda g: (g,)), ValueError, "bwd returned 1 cotangents, needed a tuple of 2"),
        (_bad(lambda g: ((g, g), None)), ValueError, "cotangent of argument 0 has another tree"),
        (_bad(lambda g: (g[:1], None)), ValueError, r"its vjp returned float64\(1,\) for argument 0"),
    ],
)  # fmt: skip
def test_refusals(call, error, said):
    with pytest.raises(error, match=said):
        call()
