"""Derivatives of what solves linear systems: cholesky, inv, solve, determinants.

All take stacks of matrices [*B n n]. A float16 argument is computed in float32 and rounded.

  E19  cholesky reads the symmetric part (x + x^T) / 2 and its gradient is symmetric, so that it is
       the slope along every direction, symmetric or not. Not positive definite: ValueError.
  E20  inv, solve and solve_triangular of a singular matrix: ValueError.
  E21  det and cofactor at a singular matrix: the cofactors, finite and exact, and the second
       derivatives of det too: sums of products of singular values, no division. Third derivatives
       go through `svd`.
  E22  logabsdet at a singular matrix: the value is -inf; backward raises a ValueError, since no
       finite or infinite gradient is right in every direction. sign is piecewise constant.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from autodiff.primitive import TABLE, cast, fit, primitive
from autodiff.rules_array import broadcast_shapes
from autodiff.rules_reduce import others
from autodiff.tensor import backend_of, raw


def in_float32(f: Callable) -> Callable:
    """LAPACK has no float16: compute in float32, give float16 back."""

    @wraps(f)
    def forward(xp: Any, *xs: Any, **options: Any) -> Any:
        dtype = xp.result_type(*xs)
        if str(dtype) != "float16":
            return f(xp, *xs, **options)
        return cast(xp, f(xp, *(cast(xp, x, xp.float32) for x in xs), **options), dtype)

    return forward


def turned(x: Any) -> Any:
    """The last two axes swapped; arrays and tensors alike."""
    return TABLE["matrix_transpose"](x)


def symmetric(x: Any) -> Any:
    return (x + turned(x)) * 0.5


def _lapack(name: str, why: str, f: Callable, *xs: Any) -> Any:
    try:
        return f(*xs)
    except ValueError as error:  # NumPy's LinAlgError is one
        shapes = " and ".join(str(tuple(x.shape)) for x in xs)
        raise ValueError(f"{name}: matrices of shape {shapes}: {why} ({error})") from None


# --- cholesky ---------------------------------------------------------------------------------


@in_float32
def cholesky(xp: Any, x: Any) -> Any:
    return _lapack("cholesky", "needed positive definite ones", xp.linalg.cholesky, symmetric(x))


@primitive("cholesky", ((1,),), forward=cholesky, kind="derived")
def _cholesky(xp: Any, g: Any, node: Any) -> tuple:
    """L^-T Phi(L^T g) L^-1 made symmetric; Phi keeps the lower triangle, half the diagonal."""
    z = node.saved[1]
    up = turned(z)
    p = up @ g
    p = (xp.tril(p) + xp.tril(p, k=-1)) * 0.5
    p = TABLE["solve_triangular"](up, p, upper=True)
    return (symmetric(TABLE["solve_triangular"](up, turned(p), upper=True)),)


# --- systems ----------------------------------------------------------------------------------


@in_float32
def inv(xp: Any, x: Any) -> Any:
    return _lapack("inv", "needed invertible ones", xp.linalg.inv, x)


@primitive("inv", ((1,),), forward=inv, kind="derived")
def _inv(xp: Any, g: Any, node: Any) -> tuple:
    z = turned(node.saved[1])
    return (-(z @ g @ z),)


@in_float32
def solve(xp: Any, a: Any, b: Any) -> Any:
    return _lapack("solve", "needed an invertible a, and b of as many rows", xp.linalg.solve, a, b)


@primitive("solve", ((0, 2), (0,)), forward=solve, kind="derived", labels=("a", "b"))
def _solve(xp: Any, g: Any, node: Any) -> tuple:
    a, z = node.saved[0], node.saved[-1]
    if g.ndim >= a.ndim:
        return _systems(xp, TABLE["solve"](turned(a), g), z, node.edges)
    # b is one vector: its system as a matrix of one column.
    column = TABLE["solve"](turned(a), g[..., None])
    ga, _ = _systems(xp, column, None if z is None else z[..., None], (node.edges[0], None))
    eb = node.edges[1]
    return ga, None if eb is None else fit(xp, column[..., 0], eb)


def _systems(xp: Any, gb: Any, z: Any, edges: tuple, part: Callable | None = None) -> tuple:
    """Cotangents of a and b in a z = b from that of b before broadcasting."""
    ea, eb = edges
    ga = None
    if ea is not None:
        ga = -(gb @ turned(z))
        ga = fit(xp, ga if part is None else part(ga, k=0), ea)
    return ga, None if eb is None else fit(xp, gb, eb)


@in_float32
def solve_triangular(xp: Any, a: Any, b: Any, upper: bool = False) -> Any:
    if a.shape[:-2] != b.shape[:-2]:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = xp.broadcast_to(a, (*batch, *a.shape[-2:]))
        b = xp.broadcast_to(b, (*batch, *b.shape[-2:]))
    if bool(xp.any(xp.linalg.diagonal(a) == 0.0)):
        raise ValueError(
            f"solve_triangular: a of shape {tuple(a.shape)} has 0 on its diagonal; needed an "
            "invertible one"
        )
    return xp.solve_triangular(a, b, upper=upper)


@primitive(
    "solve_triangular", ((0, 2), (0,)), forward=solve_triangular, kind="derived", labels=("a", "b")
)
def _solve_triangular(xp: Any, g: Any, node: Any) -> tuple:
    a, z = node.saved[0], node.saved[-1]
    upper = node.params.get("upper", False)
    gb = TABLE["solve_triangular"](turned(a), g, upper=not upper)
    return _systems(xp, gb, z, node.edges, xp.triu if upper else xp.tril)


# --- determinants -----------------------------------------------------------------------------


@in_float32
def det(xp: Any, x: Any) -> Any:
    return xp.linalg.det(x)


@primitive("det", ((0,),), forward=det, kind="derived")
def _det(xp: Any, g: Any, node: Any) -> tuple:
    return (g[..., None, None] * TABLE["cofactor"](node.saved[0]),)


def _singular(xp: Any, x: Any) -> tuple:
    """U, the singular values, V^T, and det U det V of square matrices."""
    n = x.shape[-1]
    z = TABLE["svd"](x)
    u, s, v = z[..., :n, :], z[..., n, :], z[..., n + 1 :, :]
    b = backend_of(raw(z))
    turn = b.sign(b.linalg.det(_wide(b, raw(u))) * b.linalg.det(_wide(b, raw(v))))
    return u, s, v, cast(b, turn, raw(z).dtype)


def _wide(b: Any, x: Any) -> Any:
    return cast(b, x, b.float64)


def cofactor(xp: Any, x: Any) -> Any:
    n = x.shape[-1]
    u, s, v, turn = _singular(xp, x)
    return (u * (others(xp, s, n) * turn[..., None])[..., None, :]) @ turned(v)


@primitive("cofactor", ((0,),), forward=cofactor, kind="derived")
def _cofactor(xp: Any, g: Any, node: Any) -> tuple:
    """The Hessian of det, its own transpose: in the bases U, V products of n - 2 singular values.

    With M = U^T g V and p_ij the product of all s but s_i and s_j (0 for i = j):
    out = det U det V  U (diag(p diag M) - p * M^T) V^T.
    """
    x = node.saved[0]
    n = x.shape[-1]
    u, s, v, turn = _singular(xp, x)
    eye = xp.eye(n, dtype=xp.bool)
    one = xp.eye(n, dtype=g.dtype)
    rows = xp.where(eye, 1.0, xp.broadcast_to(s[..., None, :], (*s.shape, n)))
    p = xp.where(eye, 0.0, others(xp, rows, n))
    m = turned(u) @ g @ v
    diagonal = xp.sum(m * one, axis=-1)
    core = xp.sum(p * diagonal[..., None, :], axis=-1)[..., None] * one - p * turned(m)
    return ((u @ core @ turned(v)) * turn[..., None, None],)


@in_float32
def logabsdet(xp: Any, x: Any) -> Any:
    return xp.linalg.slogdet(x)[1]


@primitive("logabsdet", ((0, 1),), forward=logabsdet, kind="derived")
def _logabsdet(xp: Any, g: Any, node: Any) -> tuple:
    x, z = node.saved
    if bool(xp.any(xp.isinf(raw(z)))):
        raise ValueError(
            f"logabsdet: a matrix of x of shape {tuple(x.shape)} is singular, so log |det| is -inf "
            "and has no gradient; needed invertible matrices"
        )
    return (g[..., None, None] * turned(TABLE["inv"](x)),)
