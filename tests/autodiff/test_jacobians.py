"""Jacobians, Hessians and their products with vectors, against closed forms and one another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from autodiff import (
    elementwise_grad,
    ggnvp,
    grad,
    hessian,
    hvp,
    jacfwd,
    jacobian,
    jacrev,
    jvp,
    linear_transpose,
    linearize,
    namespace,
    vjp,
)
from autodiff.transforms.curvature import WAYS
from tests.autodiff.samples import examples
from tests.autodiff.test_programs import programs, run
from tests.autodiff.test_transforms import State

RNG = np.random.default_rng(11)
A, B = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((4, 4))
X, U = RNG.uniform(0.5, 2, (2, 4))
BOTH = pytest.mark.parametrize("jac", [jacfwd, jacrev], ids=["forward", "reverse"])


def near(got, want, tol=1e-12):
    assert np.shape(got) == np.shape(want)
    assert np.allclose(got, want, rtol=tol, atol=tol)


# --- Jacobians --------------------------------------------------------------------------------


@BOTH
def test_closed_forms(jac):
    near(jac(lambda x: namespace(x).matmul(A[0], x))(X), A[0], 0)
    near(jac(lambda x: namespace(x).sin(x))(X), np.diag(np.cos(X)), 0)
    near(jac(lambda x: x[::-1] * 1.0)(X), np.eye(4)[::-1], 0)
    near(jac(lambda x: x.sum())(X), np.ones(4), 0)
    softmax = lambda x: namespace(x).exp(x) / namespace(x).exp(x).sum()  # noqa: E731
    p = np.exp(X) / np.exp(X).sum()
    near(jac(softmax)(X), np.diag(p) - np.outer(p, p), 1e-15)
    outer = lambda x: x[:, None] * x[None, :]  # noqa: E731
    e = np.eye(4)
    near(jac(outer)(X), np.einsum("ik,j->ijk", e, X) + np.einsum("jk,i->ijk", e, X), 0)
    # d(M X)_ij / dX_kl = M_ik d_jl, of two axes in and two out
    near(jac(lambda x: namespace(x).matmul(A[0], x))(B), np.einsum("ik,jl->ijkl", A[0], e), 0)


@BOTH
def test_blocks_stand_where_the_trees_say(jac):
    def f(p, n, q):
        w, b = p["w"], p["s"].b[0]
        return {"y": State(w * b, [q * q]), "none": None, "c": (np.ones(2),)}, "aux"

    p = {"w": X, "s": State(None, [3.0])}
    found, aux = jac(f, (0, -1), has_aux=True)(p, 7, 2.0)
    assert aux == "aux" and isinstance(found["y"], State) and found["none"] is None
    of_p, of_q = found["y"].w
    near(of_p["w"], np.eye(4) * 3.0)
    near(of_p["s"].b[0], X)
    assert isinstance(of_p["s"], State) and of_p["s"].w is None
    near(of_q, np.zeros(4))
    near(found["y"].b[0][1], 4.0)
    near(found["c"][0][0]["w"], np.zeros((2, 4)))
    assert isinstance(jac(lambda x: x)(2.0), np.floating | np.ndarray)
    assert isinstance(jac(lambda x: x, (0,))(2.0), tuple)


@BOTH
@pytest.mark.parametrize("inside, out", [((0,), (0,)), ((0, 2), (2,)), ((2,), (0, 3)), ((), (0,))])
def test_empty_axes_give_empty_blocks(jac, inside, out):
    weight = np.ones((*out, *inside))
    axes = len(inside)

    def f(x):
        xp = namespace(x)
        return xp.sum(xp.broadcast_to(x, (*out, *inside)) * weight, axis=tuple(range(len(out), len(out) + axes)))

    near(jac(f)(np.ones(inside)), weight, 0)


@BOTH
def test_options_and_closed_arguments_go_through(jac):
    f = lambda x, y, *, k: x * y * k  # noqa: E731
    near(jac(f, 1)(X, U, k=3.0), np.diag(3 * X))


@given(programs())
@examples(15)
def test_jacobians_of_compositions_agree_and_are_the_chain_rule(program):
    steps, seed = program
    rng = np.random.default_rng(seed)
    x, y, w = rng.uniform(-1, 1, (3, 3, 3))
    inner = lambda x: run(steps, x, y) * x  # noqa: E731
    outer = lambda z: namespace(z).tanh(namespace(z).matmul(z, w))  # noqa: E731
    J = jacrev(lambda x: outer(inner(x)))(x)
    size = 1 + np.abs(J).max()
    assert np.abs(J - jacfwd(lambda x: outer(inner(x)))(x)).max() <= 1e-13 * size
    chain = np.einsum("ijkl,klmn->ijmn", jacrev(outer)(inner(x)), jacfwd(inner)(x))
    assert np.abs(J - chain).max() <= 1e-12 * size


def test_elementwise_grad_is_the_diagonal_and_else_the_sum_of_the_rows():
    f = lambda x, y: namespace(x, y).sin(x) * y  # noqa: E731
    gx, gy = elementwise_grad(f, (0, 1))(X, U)
    near(gx, np.cos(X) * U, 0)
    near(gy, np.sin(X), 0)
    mixes = lambda x: namespace(x).matmul(B, x) * x[0]  # noqa: E731
    near(elementwise_grad(mixes)(X), jacrev(mixes)(X).sum(0))
    g, aux = elementwise_grad(lambda x: (x * x, "aux"), has_aux=True)(X)
    near(g, 2 * X, 0)
    assert aux == "aux"
    f = lambda x: x**5  # noqa: E731
    for _ in range(5):
        f = elementwise_grad(f)
    near(f(X), np.full(4, 120.0), 0)


# --- linear maps ------------------------------------------------------------------------------


def test_linearize_runs_f_once_and_is_the_jacobian():
    calls = []

    def f(p):
        calls.append(1)
        return {"y": namespace(p["x"]).sin(p["x"]) * p["k"]}

    out, along = linearize(f, {"x": X, "k": 2.0})
    near(out["y"], 2 * np.sin(X), 0)
    for j, e in enumerate(np.eye(4)):
        near(along({"x": e, "k": 0.0})["y"], 2 * np.cos(X) * e)
        near(along({"k": float(j), "x": 0 * e})["y"], np.sin(X) * j)
    assert calls == [1]
    second = linearize(lambda x: linearize(lambda y: y * y * y, x)[1](U), X)[1](X)
    near(second, 6 * X * U * X)
    near(jvp(lambda x: linearize(lambda y: y * y * y, x)[1](U), (X,), (X,))[1], 6 * X * U * X)
    near(grad(lambda x: linearize(lambda y: y * y * y, x)[1](U).sum())(X), 6 * X * U)


def test_the_transpose_of_a_linear_function_is_its_adjoint():
    f = lambda x, y: (namespace(x).matmul(B, x) + 3.0 * y, x[::2])  # noqa: E731
    transpose = linear_transpose(f, np.zeros(4), np.zeros(4))
    u, v = transpose((U, X[:2]))
    wanted = B.T @ U
    wanted[::2] += X[:2]
    near(u, wanted)
    near(v, 3 * U)
    # primals say shapes alone, and the transpose of the transpose is the function
    assert np.array_equal(linear_transpose(f, X, U)((U, X[:2]))[0], u)
    again = linear_transpose(lambda g: transpose((g, np.zeros(2)))[0], U)
    near(again(X)[0], B @ X)


# --- second order -----------------------------------------------------------------------------


def cubic(x):
    xp = namespace(x)
    return xp.sum(xp.matmul(B, x) ** 3) / 6 + xp.einsum("i,ij,j->", x, B, x)


def cubic_hessian(x):
    return B.T @ np.diag(B @ x) @ B + B + B.T


def test_hessians_of_polynomials():
    near(hessian(cubic)(X), cubic_hessian(X))
    third = np.einsum("ai,aj,ak->ijk", B, B, B)
    for outer in (jacfwd, jacrev):
        near(outer(hessian(cubic))(X), third)
    assert np.array_equal(hessian(lambda x: x[0] ** 4 * x[1])(np.array([2.0, 3.0])), [[144.0, 32.0], [32.0, 0.0]])


def test_hessians_are_symmetric_trees_of_blocks():
    def f(p, y):
        return namespace(y).sum(p["a"] * y * y) * p["b"], "aux"

    at = {"a": X, "b": 2.0}
    found, aux = hessian(f, (0, 1), has_aux=True)(at, U)
    assert aux == "aux"
    (paa, pay), (pya, pyy) = (found[0]["a"], found[1])
    near(paa["a"], np.zeros((4, 4)))
    near(paa["b"], U * U)
    near(found[0]["b"][0]["a"], U * U)
    near(pay, np.diag(4 * U))
    near(pya["a"], np.diag(4 * U))
    near(pyy, np.diag(4 * X))
    assert np.shape(found[0]["b"][0]["b"]) == ()


@given(programs())
@examples(10)
def test_three_ways_of_hessian_times_vector(program):
    steps, seed = program
    rng = np.random.default_rng(seed)
    x, y, u, w = rng.uniform(-1, 1, (4, 2, 2))
    steps = [s if s[0] != "matmul" else ("multiply", *s[1:]) for s in steps]
    f = lambda x, y: run(steps, x, y)  # noqa: E731
    full = hessian(f, (0, 1))(x, y)
    wanted = [sum(np.tensordot(b, t, 2) for b, t in zip(row, (u, w), strict=True)) for row in full]
    size = 1 + max(np.abs(b).max() for row in full for b in row)
    for mode in WAYS:
        for got, want in zip(hvp(f, (x, y), (u, w), mode=mode), wanted, strict=True):
            assert np.abs(got - want).max() <= 1e-12 * size, mode


def test_taylor_remainder_is_third_order_with_the_hessian():
    g, (hu,) = grad(cubic)(X), hvp(cubic, (X,), (U,))
    assert np.allclose(hu, cubic_hessian(X) @ U)

    def rest(h):
        return abs(cubic(X + h * U) - cubic(X) - h * (g @ U) - h * h / 2 * (U @ hu))

    # The cubic's remainder is exactly h^3 (B u)^3 / 6: 8 times less at half the step.
    assert rest(0.5) / rest(0.25) == pytest.approx(8, rel=1e-6)
    linear = [abs(cubic(X + h * U) - cubic(X) - h * (g @ U)) for h in (2.0**-12, 2.0**-13)]
    assert linear[0] / linear[1] == pytest.approx(4, rel=1e-2)


@given(programs())
@examples(15)
def test_taylor_remainder_of_compositions(program):
    steps, seed = program
    rng = np.random.default_rng(seed)
    x, y, u, w = rng.uniform(-1, 1, (4, 3, 3))
    f = lambda t: run(steps, x + t * u, y + t * w)  # noqa: E731
    g = grad(lambda x, y: run(steps, x, y), (0, 1))(x, y)
    h = hvp(lambda x, y: run(steps, x, y), (x, y), (u, w))
    first = (g[0] * u).sum() + (g[1] * w).sum()
    second = (h[0] * u).sum() + (h[1] * w).sum()
    size = 1 + abs(f(0.0)) + abs(first) + abs(second)
    for order, model in ((2, 0.0), (3, second)):
        # Both signs: on one side two orders may cancel. Eight halvings, and slack for the next order.
        rests = [
            max(abs(f(s * t) - f(0.0) - s * t * first - t * t / 2 * model) for s in (1, -1))
            for t in (2.0**-3, 2.0**-7)
        ]
        assert rests[1] <= rests[0] * 2.0 ** (-4 * order + 3) + 1e-13 * size, order


HOMOGENEOUS = {
    1: lambda xp, x: xp.sqrt(xp.sum(x * x)),
    0: lambda xp, x: xp.sum(x[1:] / x[:-1]),
    3: lambda xp, x: xp.sum(xp.matmul(B, x) ** 3),
    -2: lambda xp, x: 1.0 / xp.sum(x * x),
}


@pytest.mark.parametrize("degree", HOMOGENEOUS)
def test_euler(degree):
    f = lambda x: HOMOGENEOUS[degree](namespace(x), x)  # noqa: E731
    g = grad(f)(X)
    assert g @ X == pytest.approx(degree * f(X), abs=1e-13)
    near(hvp(f, (X,), (X,))[0], (degree - 1) * g, 1e-11)


def test_gauss_newton_is_j_h_j():
    model = lambda p: namespace(p["w"]).tanh(namespace(p["w"]).matmul(p["w"], X) + p["b"])  # noqa: E731
    loss = lambda z: namespace(z).sum(z**4) + z[0] * z[1]  # noqa: E731
    p, v = ({"w": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(3)} for _ in range(2))
    for last in (None, loss):
        (got,) = ggnvp(model, (p,), (v,), last)
        J = jacrev(model)(p)
        moved = np.tensordot(J["w"], v["w"], 2) + J["b"] @ v["b"]
        z = model(p)
        H = np.eye(3) if last is None else np.diag(12 * z**2) + np.eye(3)[[1, 0, 2]] * [[1], [1], [0]]
        near(got["w"], np.tensordot(H @ moved, J["w"], 1))
        near(got["b"], (H @ moved) @ J["b"])
    affine = lambda x: namespace(x).matmul(A[0], x) + 1.0  # noqa: E731
    square = lambda z: namespace(z).sum(z**3)  # noqa: E731
    near(ggnvp(affine, (X,), (U,), square)[0], hvp(lambda x: square(affine(x)), (X,), (U,))[0])
    (gn,) = ggnvp(lambda x: namespace(x).sin(x), (X,), (U,))
    assert gn @ U >= 0


# --- what arrives and what is needed ----------------------------------------------------------

SQUARE = lambda x: x * x  # noqa: E731


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda: jacfwd(SQUARE, 1)(X), ValueError, "jacfwd: argnums names argument 1, 1 arrived"),
        (lambda: jacrev(SQUARE, (0, -2))(X), ValueError, "jacrev: argnums names argument -2, 1 arrived"),
        (lambda: grad(cubic, (0, -1))(X), ValueError, r"grad: argnums \(0, -1\) names an argument twice"),
        (lambda: grad(cubic, "x")(X), TypeError, "grad: argnums is 'x'; needs an int"),
        (lambda: grad(cubic, 1.0)(X), TypeError, "grad: argnums is 1.0; needs an int"),
        (lambda: hessian(cubic, 3)(X), ValueError, "argnums names argument 3, 1 arrived"),
        (lambda: elementwise_grad(SQUARE, 2)(X), ValueError, "elementwise_grad: argnums names argument 2"),
        (lambda: jacfwd(SQUARE)({"n": np.arange(3)}), TypeError, r"jacfwd: argument 0\['n'\] has dtype int64"),
        (lambda: jacrev(SQUARE)("text"), TypeError, "jacrev: argument 0 is a str"),
        (lambda: jacobian(SQUARE, mode="both")(X), ValueError, "jacobian: mode is 'both'; needs 'reverse' or"),
        (lambda: hvp(cubic, (X,), (U,), mode="fast"), ValueError, "hvp: mode is 'fast'; needs one of forward_over"),
        (lambda: hvp(cubic, X, (U,)), TypeError, "hvp: args is a ndarray; needs a tuple"),
        (lambda: hvp(cubic, (X,), U), TypeError, "hvp: tangents is a ndarray; needs a tuple"),
        (lambda: jvp(SQUARE, X, (U,)), TypeError, "jvp: primals is a ndarray; needs a tuple"),
        (lambda: jvp(SQUARE, (X,), U), TypeError, "jvp: tangents is a ndarray; needs a tuple"),
        (lambda: hvp(SQUARE, (X,), (U,)), ValueError, r"f returned shape \(4,\); needs a scalar"),
        (lambda: hvp(cubic, (X,), (U, U)), ValueError, "1 leaves, tangents 2"),
        (lambda: hvp(cubic, (X,), (U[:1],), mode="reverse_over_reverse"), ValueError, r"shape \(1,\), needed \(4,\)"),
        (lambda: hessian(SQUARE)(X), ValueError, r"f returned shape \(4,\); needs a scalar"),
        (lambda: grad(SQUARE, has_aux=True)(2.0), TypeError, r"has_aux=True needs the pair \(out, aux\)"),
        (lambda: jvp(lambda x: (x, x, x), (X,), (U,), has_aux=True), TypeError, "jvp: f returned 3 values; has_aux"),
        (lambda: linearize(SQUARE, X)[1](U, U), ValueError, "linearize: 2 tangents for 1 leaves"),
        (lambda: linearize(SQUARE, X)[1](U[:2]), ValueError, r"linearize: tangents\[0\] has shape \(2,\), needed"),
        (lambda: linear_transpose(lambda x: x + 1.0, X), ValueError, r"f\(0\) is not 0; needs a linear function"),
        (lambda: ggnvp(SQUARE, (X,), (U,), SQUARE), ValueError, r"f returned shape \(4,\); needs a scalar"),
        (lambda: vjp(lambda p: p, {"a": [X]})[1]({"a": [U[:1]]}), ValueError, r"g\['a'\]\[0\] has shape \(1,\)"),
        (lambda: jvp(lambda p: p, ({"a": X},), ({"a": U[:1]},)), ValueError, r"tangents\[0\]\['a'\] has shape \(1,"),
        (lambda: jvp(lambda p: p, ({"a": X},), ({"b": U},)), ValueError, r"keys \['b'\] at \[0\], needed the keys"),
        (lambda: vjp(lambda p: p, {"a": X})[1]({"a": (U,)}), ValueError, "needed the tree of the output"),
    ],
)  # fmt: skip
def test_refusals_name_what_arrived(call, error, said):
    with pytest.raises(error, match=said):
        call()
