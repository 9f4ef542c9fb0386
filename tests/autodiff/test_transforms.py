"""Transforms over trees, nested in every order."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import array_api_strict
import numpy as np
import pytest

from autodiff import (
    checkpoint,
    custom,
    forms,
    fusable,
    grad,
    hvp,
    is_tensor,
    jacobian,
    jvp,
    namespace,
    tensor,
    tree_flatten,
    tree_map,
    tree_paths,
    tree_unflatten,
    value_and_grad,
    vjp,
)
from backends import fused

RNG = np.random.default_rng(3)
X, U, W = RNG.uniform(-1, 1, (3, 4))


class State(NamedTuple):
    w: object
    b: object


def smooth(x):
    xp = namespace(x)
    return xp.sum(xp.sin(x) * xp.exp(xp.flip(x, axis=0) * 0.5)) + xp.sum(x * x * x)


# --- results ----------------------------------------------------------------------------------


def test_at_depth_zero_everything_is_raw():
    value, g = value_and_grad(smooth)(X)
    out, pull = vjp(lambda x: {"y": x * 2.0, "z": (x, None)}, X)
    _, tangent = jvp(smooth, (X,), (U,))
    (h,) = hvp(smooth, (X,), (U,))
    back = pull({"y": X, "z": (X, None)})[0]
    for x in (value, g, out["y"], out["z"][0], tangent, h, back, jacobian(lambda x: x * x)(X)):
        assert not is_tensor(x)
    assert np.array_equal(back, 3 * X)


def test_trees_keep_their_classes_and_keys():
    params = {"s": State(np.ones(2), [np.zeros(2)]), "t": (2.0, None), "a": {"z": X, "y": U}}
    loss = lambda p: sum((v * v).sum() for v in tree_flatten(p)[0])  # noqa: E731
    g = grad(loss)(params)
    assert isinstance(g["s"], State) and isinstance(g["s"].b, list) and g["t"][1] is None
    assert list(g) == ["s", "t", "a"] and np.array_equal(g["a"]["y"], 2 * U) and g["t"][0] == 4.0


def test_several_arguments_options_and_aux():
    f = lambda x, n, y, *, scale: ((x * y).sum() * scale * n, "aux")  # noqa: E731
    (value, aux), (gx, gy) = value_and_grad(f, (0, -1), has_aux=True)(X, 2, U, scale=3.0)
    assert aux == "aux" and value == pytest.approx(6 * (X * U).sum())
    assert np.allclose(gx, 6 * U) and np.allclose(gy, 6 * X)
    g, aux = grad(f, 2, has_aux=True)(X, 2, U, scale=3.0)
    assert np.allclose(g, 6 * X)


def test_an_argument_that_does_not_matter_has_zero_gradient():
    assert np.array_equal(grad(lambda x, y: y.sum(), 0)(X, U), np.zeros(4))
    assert grad(lambda x: 3.0 * np.ones(()))(X).shape == (4,)
    assert np.array_equal(jvp(lambda x: np.ones(2), (X,), (U,))[1], np.zeros(2))


def test_inputs_of_a_transform_stay_as_they_were():
    x = X.copy()
    grad(smooth)(x), hvp(smooth, (x,), (U,))
    assert np.array_equal(x, X)
    t = tensor(x, requires_grad=True)
    grad(smooth)(t)
    assert t.grad is None


def test_a_closed_over_tensor_stays_differentiable():
    w = tensor(U.copy(), requires_grad=True)
    g = grad(lambda x: (w * x * x).sum())(X)
    assert is_tensor(g)
    (g * g).sum().backward()
    assert np.allclose(w.grad, 8 * U * X * X)


def test_pullbacks_repeat():
    _, pull = vjp(smooth, X)
    one = np.ones(())
    assert np.array_equal(pull(one)[0], pull(one)[0]) and np.array_equal(pull(2 * one)[0], 2 * pull(one)[0])


def test_jacobian_rows_are_gradients():
    f = lambda x: namespace(x).sin(x) * x[0]  # noqa: E731
    J = jacobian(f)(X)
    columns = [jvp(f, (X,), (e,))[1] for e in np.eye(4)]
    assert np.allclose(J, np.stack(columns, axis=1), rtol=1e-14)
    H = jacobian(grad(smooth))(X)
    assert np.allclose(H, H.T, rtol=1e-13) and np.allclose(H @ U, hvp(smooth, (X,), (U,))[0], rtol=1e-13)


# --- nesting ----------------------------------------------------------------------------------

REVERSE = lambda f: grad(f)  # noqa: E731
FORWARD = lambda f: lambda x: jvp(f, (x,), (1.0,))[1]  # noqa: E731
PULL = lambda f: lambda x: vjp(f, x)[1](1.0)[0]  # noqa: E731


@pytest.mark.parametrize("ways", list(itertools.product("RFP", repeat=3)), ids="".join)
def test_third_derivatives_in_every_order(ways):
    table = {"R": REVERSE, "F": FORWARD, "P": PULL}
    f = lambda x: namespace(x).exp(x * x) if hasattr(x, "dtype") else np.exp(x * x)  # noqa: E731
    for way in ways:
        f = table[way](f)
    x = 0.3
    wanted = (12 * x + 8 * x**3) * np.exp(x * x)
    got = f(x)
    assert not is_tensor(got) and got == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize("outer, inner", list(itertools.product([REVERSE, FORWARD, PULL], repeat=2)))
def test_perturbations_are_not_confused(outer, inner):
    # Siskind & Pearlmutter: d/dx [x d/dy (x + y)] = 1; the confused answer is 2.
    assert outer(lambda x: x * inner(lambda y: x + y)(1.0))(1.0) == 1.0
    # d/dx [x d/dy (x y^2) at y = x] = d/dx 2 x^3
    assert outer(lambda x: x * inner(lambda y: x * y * y)(x))(3.0) == pytest.approx(54.0)
    # the same y inside and out: d/dx d/dy (x y) at y = x is 1
    assert outer(lambda x: inner(lambda y: x * y)(x))(5.0) == 1.0
    # a closure made inside, called outside its transform (Manzyuk et al.): d/dx of y -> x y
    assert outer(lambda x: inner(lambda y: (lambda z: y * z)(x))(2.0))(7.0) == 1.0


@pytest.mark.parametrize("first, second", list(itertools.product([REVERSE, FORWARD, PULL], repeat=2)))
def test_curried_functions_do_not_leak(first, second):
    def f(x):
        return second(lambda y: y * y * x)(x) + x

    assert first(f)(2.0) == pytest.approx(9.0)


def test_fifth_derivative():
    f = lambda x: x**5  # noqa: E731
    for _ in range(5):
        f = grad(f)
    assert f(1.5) == 120.0
    g = lambda x: namespace(x).sin(x)  # noqa: E731
    for way in (REVERSE, FORWARD, REVERSE, FORWARD, REVERSE):
        g = way(g)
    assert g(0.4) == pytest.approx(np.cos(0.4), rel=1e-14)


def test_hessian_vector_products_three_ways():
    forward = hvp(smooth, (X,), (U,))[0]
    reverse = grad(lambda x: (grad(smooth)(x) * U).sum())(X)
    backward_over_forward = grad(lambda x: jvp(smooth, (x,), (U,))[1])(X)
    assert np.allclose(forward, reverse, rtol=1e-14) and np.allclose(forward, backward_over_forward, rtol=1e-14)


def test_backward_inside_a_transform_and_a_transform_inside_a_tape():
    t = tensor(X.copy(), requires_grad=True)
    (grad(smooth)(t) * U).sum().backward()
    assert np.allclose(t.grad, hvp(smooth, (X,), (U,))[0], rtol=1e-14)
    _, tangent = jvp(smooth, (tensor(X, requires_grad=True),), (U,))
    assert is_tensor(tangent)


def test_forward_mode_through_a_checkpoint():
    f = lambda x: checkpoint(smooth, x)  # noqa: E731
    assert np.array_equal(jvp(f, (X,), (U,))[1], jvp(smooth, (X,), (U,))[1])
    assert np.allclose(hvp(f, (X,), (U,))[0], hvp(smooth, (X,), (U,))[0], rtol=1e-14)
    assert np.allclose(grad(lambda x: (grad(f)(x) * U).sum())(X), hvp(smooth, (X,), (U,))[0], rtol=1e-14)


# --- custom and fused -------------------------------------------------------------------------

CALLS = []


def _cube(differentiable=False, composite=True):
    def vjp_rule(g, out, saved, needs, x, *, scale=1.0):
        CALLS.append(type(g).__name__)
        return (g * (x * x * (3.0 * scale)),)

    return custom(
        "cube",
        lambda x, *, scale=1.0: (x * x * x * scale, ()),
        vjp_rule,
        composite=(lambda x, *, scale=1.0: x * x * x * scale) if composite else None,
        differentiable=differentiable,
    )


def test_a_custom_primitive_runs_its_vjp_and_differentiates_its_composite():
    cube = _cube()
    CALLS.clear()
    assert np.array_equal(cube(X, scale=2.0), 2 * X * X * X)
    assert np.allclose(grad(lambda x: cube(x, scale=2.0).sum())(X), 6 * X * X) and CALLS == ["ndarray"]
    assert np.allclose(hvp(lambda x: cube(x, scale=2.0).sum(), (X,), (U,))[0], 12 * X * U)
    assert np.allclose(grad(lambda x: (grad(lambda y: cube(y).sum())(x) * U).sum())(X), 6 * X * U)
    assert CALLS == ["ndarray"]


def test_a_differentiable_vjp_records_itself():
    cube = _cube(differentiable=True, composite=False)
    CALLS.clear()
    assert np.allclose(grad(lambda x: (grad(lambda y: cube(y).sum())(x) * U).sum())(X), 6 * X * U)
    assert "Tensor" in CALLS


def test_without_either_it_raises_and_never_returns_a_dead_gradient():
    cube = _cube(composite=False)
    assert np.allclose(grad(lambda x: cube(x).sum())(X), 3 * X * X)
    with pytest.raises(RuntimeError, match=r"cube: create_graph .* to give argument 0 \(x\) a gradient"):
        grad(lambda x: (grad(lambda y: cube(y).sum())(x) * U).sum())(X)
    with pytest.raises(RuntimeError, match="cube: forward mode needs a composite"):
        jvp(cube, (X,), (U,))


def test_a_custom_vjp_of_the_wrong_shape_is_named():
    bad = custom("bad", lambda x, y: (x * y, ()), lambda g, *_: (g, g[:1]), labels=("left", "right"))
    with pytest.raises(ValueError, match=r"bad: its vjp returned float64\(1,\) for argument 1 \(right\)"):
        grad(lambda x, y: bad(x, y).sum(), (0, 1))(X, U)


def _polar():
    def forward(x, y):
        r = np.hypot(x, y)
        return (r, np.arctan2(y, x)), ()

    def pull(g, out, saved, needs, x, y):
        r = out[0]
        gr, ga = (np.zeros_like(x) if part is None else part for part in g)
        return gr * x / r - ga * y / r**2, gr * y / r + ga * x / r**2

    return custom("polar", forward, pull)


@pytest.mark.parametrize("used", ["r", "a", "both", "twice"])
def test_several_outputs_get_none_for_the_unused(used):
    polar = _polar()
    x, y = np.abs(X) + 1, np.abs(U) + 1

    def f(x, y):
        r, a = polar(x, y)
        parts = {"r": r, "a": a, "both": r * a, "twice": r * r + a}
        return parts[used].sum()

    gx, gy = grad(f, (0, 1))(x, y)
    h = 1e-6
    numeric = (f(x + h * U, y + h * W) - f(x - h * U, y - h * W)) / (2 * h)
    assert (gx * U + gy * W).sum() == pytest.approx(float(numeric), rel=1e-8)


def _install(monkeypatch, supports=None):
    class Module:
        calls = []

        @staticmethod
        def forward(x, w, *, power=1, flag="a"):
            Module.calls.append(("forward", flag))
            return x * w**power, (w**power,)

        @staticmethod
        def vjp(g, out, saved, needs, x, w, *, power=1, flag="a"):
            Module.calls.append(("vjp", needs))
            return g * saved[0] if needs[0] else None, g * x * power * w ** (power - 1) if needs[1] else None

    if supports is not None:
        Module.supports = staticmethod(supports)
    monkeypatch.setattr(fused, "find", lambda id, backend: Module if backend == "numpy" else None)

    @fusable("test.scaled", tensors=("x", "w"))
    def scaled(x, w, *, power=1, flag="a"):
        Module.calls.append(("composite", flag))
        return x * w**power

    return scaled, Module


def test_the_fused_form_is_one_node_and_the_composite_is_its_second_derivative(monkeypatch):
    scaled, module = _install(monkeypatch)
    assert np.array_equal(scaled(X, U, power=2), X * U**2)
    g = grad(lambda x, w: scaled(w=w, x=x, power=2, flag="b").sum(), (0, 1))(X, U)
    assert np.allclose(g[0], U**2) and np.allclose(g[1], 2 * X * U)
    assert module.calls == [("forward", "a"), ("forward", "b"), ("vjp", (True, True))]
    module.calls.clear()
    grad(lambda x: scaled(x, U).sum())(X)
    assert module.calls[-1] == ("vjp", (True, False))
    module.calls.clear()
    f = lambda w: scaled(X, w, power=3).sum()  # noqa: E731
    second = grad(lambda w: (grad(f)(w) * W).sum())(U)
    assert np.allclose(second, 6 * X * U * W) and ("composite", "a") in module.calls
    module.calls.clear()
    assert np.allclose(jvp(f, (U,), (W,))[1], (3 * X * U**2 * W).sum())
    assert module.calls == [("composite", "a")]


def test_forms_selects_and_supports_declines(monkeypatch):
    scaled, module = _install(monkeypatch, supports=lambda x, w, *, power=1, flag="a": power < 3)
    with forms("composite"):
        scaled(X, U)
        with forms("fused"):
            scaled(X, U)
    scaled(X, U, power=3)
    assert [c[0] for c in module.calls] == ["composite", "forward", "composite"]
    with pytest.raises(ValueError, match="'quick'"):
        forms("quick")
    module.calls.clear()
    scaled(array_api_strict.asarray([1.0]), array_api_strict.asarray([2.0]))
    assert module.calls == [("composite", "a")]


def test_fusable_checks_its_names_and_keeps_the_signature():
    with pytest.raises(ValueError, match="test.odd has no argument z"):
        fusable("test.odd", tensors=("z",))(lambda x: x)

    @fusable("test.none", tensors=("x",))
    def f(x, *, k=2):
        "Doc."
        return x * k

    assert f.__doc__ == "Doc." and f.id == "test.none" and f(X, k=3)[0] == 3 * X[0]
    with pytest.raises(TypeError, match="missing"):
        f()
    with pytest.raises(TypeError):
        f(X, 1, 2)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda: grad(lambda x: x * 2.0)(X), ValueError, r"f returned shape \(4,\); needs a scalar"),
        (lambda: grad(lambda x: (x.sum(), x.sum()))(X), ValueError, "f returned 2 arrays"),
        (lambda: grad(smooth, 1)(X), ValueError, "argnums names argument 1, 1 arrived"),
        (lambda: grad(smooth)({"ids": np.arange(3)}), TypeError, r"argument 0\['ids'\] has dtype int64"),
        (lambda: grad(smooth)("text"), TypeError, "is a str; needs arrays"),
        (lambda: jvp(smooth, (X,), (U, U)), ValueError, "1 leaves, tangents 2"),
        (lambda: jvp(smooth, (X,), (U[:2],)), ValueError, r"tangents\[0\] has shape \(2,\), needed"),
        (lambda: jvp(smooth, (X,), (U.astype(np.float32),)), TypeError, "float32, needed float64"),
        (lambda: jvp(smooth, (np.arange(3),), (np.ones(3),)), TypeError, "int64"),
        (lambda: vjp(smooth, X)[1]((1.0, 2.0)), ValueError, "needed the tree of the output"),
        (lambda: vjp(lambda x: x, X)[1](U[:1]), ValueError, r"g has shape \(1,\), needed \(4,\)"),
        (lambda: tree_map(lambda a, b: a, {"x": 1}, {"y": 1}), ValueError, r"keys \['y'\]"),
        (lambda: tree_map(lambda a, b: a, {"x": [1, 2]}, {"x": 1}), ValueError, r"a leaf at \['x'\]"),
        (lambda: tree_map(lambda a, b: a, 1, [1]), ValueError, "meets a subtree"),
        (lambda: tree_unflatten(tree_flatten([1, 2])[1], [1]), ValueError, "fewer leaves"),
        (lambda: tree_unflatten(tree_flatten([1, 2])[1], [1, 2, 3]), ValueError, "more leaves"),
    ],
)  # fmt: skip
def test_refusals_name_what_arrived(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_trees_round_trip():
    for tree in (3, [], {}, None, [1, (2, {"a": State(3, None)})], {"b": 1, "a": [2, ()]}):
        leaves, shape = tree_flatten(tree)
        assert tree_unflatten(shape, leaves) == tree and len(tree_paths(tree)) == len(leaves)
    assert tree_paths({"w": [1, 2]}) == ["['w'][0]", "['w'][1]"]
    assert tree_map(lambda a, b: a - b, {"x": 3, "y": 4}, {"y": 1, "x": 1}) == {"x": 2, "y": 3}
