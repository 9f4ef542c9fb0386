"""Every name that users of NumPy, JAX and HIPS expect, against its known meaning."""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest

import autodiff
import autodiff.numpy as anp
from autodiff import (
    checkpoint,
    grad,
    grad_named,
    hessian,
    hessian_vector_product,
    is_tensor,
    jvp,
    make_ggnvp,
    make_jvp,
    make_vjp,
    multigrad_dict,
    raw,
    remat,
    stop_gradient,
    tensor,
    tree_leaves,
    tree_reduce,
    tree_structure,
    value_and_grad,
)

A = np.array([[0.5, 1.25, 2.0], [3.0, 0.75, 1.5]])
B = np.array([[1.0, 0.5, 2.5], [0.25, 2.0, 1.0]])
CUBE = np.arange(24.0).reshape(2, 3, 4) / 8 + 0.25
IDS = np.array([[0, 2, 1], [1, 1, 0]])
MASK = np.array([[True, False, True], [False, False, True]])
T = tensor(A.copy())
OPS = autodiff.namespace(T)

NUMPY = {
    **{name: (A,) for name in ("exp", "log", "sqrt", "square", "sin", "cos", "tanh", "absolute", "fabs", "negative",
                               "log1p", "expm1", "log2", "reciprocal", "conjugate", "conj", "real", "imag", "ravel",
                               "transpose", "squeeze", "fliplr", "flipud", "cumsum", "diagonal", "trace", "diag")},
    **{name: (A, B) for name in ("add", "subtract", "multiply", "divide", "true_divide", "power", "maximum",
                                 "minimum", "logaddexp", "inner", "vdot", "outer")},
    **{name: (A, 1) for name in ("sum", "mean", "prod", "max", "min", "amax", "amin", "var", "std", "ptp", "flip",
                                 "cumsum", "sort", "average", "expand_dims")},
    "where": (MASK, A, B), "clip": (A, 0.6, 2.0), "matmul": (A, B.T), "dot": (A, B.T),
    "tensordot": (CUBE, CUBE, ([0, 1], [0, 1])), "swapaxes": (CUBE, 0, 2), "moveaxis": (CUBE, 0, 2),
    "reshape": (A, (3, 2)), "roll": (A, 1), "repeat": (A, 2), "tile": (A, 2), "take": (A, [0, 5, 5]),
    "take_along_axis": (A, IDS, 1), "tril": (A, 1), "triu": (A, 1), "concatenate": ((A, B), 1),
    "stack": ((A, B), 1), "vstack": ((A, B),), "hstack": ((A, B),), "einsum": ("ij,ij->i", A, B),
    "broadcast_to": (A, (2, 2, 3)), "split": (A, [1, 2], 1), "angle": (A - 1.0,), "array": (A,), "asarray": (A,),
}  # fmt: skip
RAW = {
    **{name: (A,) for name in ("argsort", "isnan", "isfinite", "isinf", "shape", "ndim", "size", "zeros_like", "sign",
                               "ones_like", "floor", "ceil")},
    **{name: (A, 1) for name in ("argmax", "argmin", "all", "any")},
    **{name: (A, B) for name in ("equal", "less", "greater_equal")},
    "arcsin": (A / 4,), "arctan2": (A, B), "arctan": (A,), "sinh": (A,), "rint": (A,), "zeros": ((2, 3),),
    "arange": (3,), "eye": (2,), "linspace": (0, 1, 3), "result_type": (np.float32, np.float64),
    "average": (A, 1, B), "var": (A,),
}  # fmt: skip


def _tensors(x):
    if isinstance(x, np.ndarray) and x.dtype == float:
        return tensor(x.copy(), requires_grad=True)
    return type(x)(map(_tensors, x)) if isinstance(x, tuple) else x


def _compare(got, wanted):
    if isinstance(wanted, list):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            _compare(a, b)
        return
    assert np.shape(raw(got)) == np.shape(wanted)
    if isinstance(wanted, np.ndarray | np.generic):
        assert np.allclose(raw(got), wanted, rtol=1e-14, atol=1e-15)
    else:
        assert got == wanted


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_functions(name):
    args, wanted = NUMPY[name], getattr(np, name)(*NUMPY[name])
    _compare(getattr(anp, name)(*args), wanted)
    got = getattr(anp, name)(*_tensors(args))
    _compare(got, wanted)
    for part in got if isinstance(got, list) else [got]:
        assert is_tensor(part) and part.requires_grad


@pytest.mark.parametrize("name", RAW)
def test_numpy_functions_of_arrays(name):
    _compare(getattr(anp, name)(*RAW[name]), getattr(np, name)(*RAW[name]))


def test_every_row_of_numpys_tables_is_judged():
    rows = {*anp.RENAMED, *anp.REDUCTIONS, *anp.ADAPTED}
    left = rows - {*NUMPY, *RAW}
    # the same function under the standard's name, where autodiff has no rule of its own
    assert left <= {"arccos", "arcsinh", "arccosh", "arctanh", "invert"}
    for name in left - {"invert"}:
        at = A + 1.0 if name == "arccosh" else A / 4
        _compare(getattr(anp, name)(at), getattr(np, name)(at))
    assert anp.invert(MASK).tolist() == (~MASK).tolist()


def test_numpys_own_and_options():
    assert anp.pi == np.pi and anp.float32 is np.float32 and anp.newaxis is None and anp.random is np.random
    assert {"concatenate", "power", "sum", "random"} <= set(dir(anp))
    x = tensor(A.copy(), requires_grad=True)
    _compare(anp.sum(x, axis=0, keepdims=True), A.sum(0, keepdims=True))
    _compare(anp.var(x, ddof=1), A.var(ddof=1))
    _compare(anp.concatenate([x, [[1.0, 2.0, 3.0]]], axis=0), np.concatenate([A, [[1.0, 2.0, 3.0]]]))
    _compare(anp.array([x[0, 0], x[1, 1] * 2.0]), np.array([A[0, 0], A[1, 1] * 2]))
    _compare(anp.array([1, 2], dtype=float), np.array([1.0, 2.0]))
    _compare(anp.diag(x[0], 1), np.diag(A[0], 1))
    _compare(anp.dot(2.0, x), 2 * A)
    _compare(anp.dot(tensor(CUBE), np.ones((4, 2))), np.dot(CUBE, np.ones((4, 2))))
    _compare(anp.dot(tensor(CUBE), np.ones((5, 4, 2))), np.dot(CUBE, np.ones((5, 4, 2))))
    _compare(anp.tensordot(tensor(CUBE), tensor(CUBE), 3), np.tensordot(CUBE, CUBE, 3))
    _compare(anp.sin(0.5), np.sin(0.5))
    _compare(anp.maximum(x, 1), np.maximum(A, 1))
    _compare(anp.split(x, 3, axis=1), np.split(A, 3, axis=1))
    with pytest.raises(ValueError, match="split: 2 equal parts of an axis of size 3"):
        anp.split(x, 2, axis=1)
    with pytest.raises(TypeError):
        anp.median(x)
    with pytest.raises(AttributeError):
        _ = anp.no_such_function
    y = anp.sum(strict.asarray(A), axis=1)
    assert type(y) is type(strict.asarray(A))


def test_a_hips_style_program_runs_by_its_import():
    def loss(w, x, y):
        z = anp.dot(x, w)
        return -anp.sum(y * z - anp.logaddexp(0.0, z))

    w, x, y = np.array([0.5, -1.0]), A[:, :2], np.array([1.0, 0.0])
    z = x @ w
    assert grad(loss)(w, x, y) == pytest.approx(-x.T @ (y - 1 / (1 + np.exp(-z))))


# --- JAX and HIPS -----------------------------------------------------------------------------

JAX = "grad value_and_grad vjp jvp jacfwd jacrev hessian linearize linear_transpose custom_vjp remat checkpoint"
JAX += " stop_gradient tree_map tree_flatten tree_unflatten tree_leaves tree_structure tree_reduce"
HIPS = "grad elementwise_grad jacobian hessian hessian_vector_product make_vjp make_jvp make_ggnvp value_and_grad"
HIPS += " checkpoint grad_named multigrad_dict"


@pytest.mark.parametrize("name", sorted({*JAX.split(), *HIPS.split()}))
def test_transforms_are_there(name):
    assert callable(getattr(autodiff, name)) and name in autodiff.__all__
    assert getattr(autodiff, name).__doc__


def cubic(x, y=2.0):
    return (x * x * x * y).sum()


X = A[0]


def test_hips_transforms():
    assert hessian_vector_product(cubic)(X, B[0]) == pytest.approx(12 * X * B[0])
    assert hessian_vector_product(cubic, 1)(X, 3.0, 1.0) == 0.0
    pull, value = make_vjp(lambda x, y: x * y, 1)(X, B[0])
    assert np.array_equal(value, X * B[0]) and np.array_equal(pull(X), X * X)
    value, moved = make_jvp(lambda x, y: x * y, 1)(X, B[0])(X)
    assert np.array_equal(value, X * B[0]) and np.array_equal(moved, X * X)
    assert make_ggnvp(lambda x: x * x)(X)(B[0]) == pytest.approx(4 * X * X * B[0])
    assert make_ggnvp(lambda k, x: k * x, lambda z: (z**3).sum(), 1)(2.0, X)(B[0]) == pytest.approx(48 * X * B[0])
    assert grad_named(cubic, "y")(X, 2.0) == pytest.approx((X**3).sum())
    found = multigrad_dict(cubic)(X)
    assert list(found) == ["x", "y"] and found["x"] == pytest.approx(6 * X * X)
    assert multigrad_dict(cubic)(y=1.0, x=X)["x"] == pytest.approx(3 * X * X)
    with pytest.raises(ValueError, match="grad_named: f has no argument 'z'; it has x, y"):
        grad_named(cubic, "z")


def test_jax_names():
    assert grad(lambda x: cubic(stop_gradient({"x": x})["x"] * x))(X) == pytest.approx(6 * X**5)
    assert jvp(lambda x: x * stop_gradient(x), (X,), (B[0],))[1] == pytest.approx(X * B[0])
    assert stop_gradient((X, "text"))[0] is X
    kept = remat(cubic)
    assert kept.__name__ == "cubic"
    assert np.array_equal(grad(kept)(X, y=3.0), grad(cubic)(X, y=3.0))
    assert hessian(kept)(X) == pytest.approx(np.diag(12 * X))
    assert value_and_grad(lambda x: checkpoint(cubic, x))(X)[0] == cubic(X)
    tree = {"a": [1, 2], "b": (3, None)}
    assert tree_leaves(tree) == [1, 2, 3] and tree_reduce(max, tree) == 3
    assert tree_structure(tree) == tree_structure({"a": [0, 0], "b": (0, None)})
    assert tree_structure(tree) != tree_structure({"a": [0], "b": (0, None)})


# --- wrong meanings ----------------------------------------------------------------------------


@pytest.mark.parametrize("name, wrong", [
    ("var", lambda a, axis=None: np.var(a, axis=axis, ddof=1)), ("dot", lambda a, b: a * b[:, 0]),
    ("transpose", lambda a: a * 1.0), ("cumsum", lambda a, axis=0: OPS.cumulative_sum(a, axis=0)),
    ("concatenate", lambda xs, axis=0: OPS.concat(xs, axis=0)), ("power", lambda a, b: a * b),
])  # fmt: skip
def test_a_wrong_function_is_caught(name, wrong, monkeypatch):
    test_numpy_functions(name)
    monkeypatch.setitem(anp._made, name, wrong)
    with pytest.raises((AssertionError, TypeError, ValueError)):
        test_numpy_functions(name)
