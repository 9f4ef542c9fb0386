"""Linear algebra under the names of the array API's `linalg`, for arrays and tensors of any backend.

    from autodiff import linalg          or, where all are tensors or all arrays, xp.linalg

The edges (singular matrices, repeated eigenvalues) stand in `rules_solve` and
`rules_decompositions`. `eigh` and `cholesky` read the symmetric part of x; the signs of the vectors
of `eigh` and `svd` are fixed, where a backend's own `linalg` keeps LAPACK's.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import ops
from autodiff.primitive import TABLE
from autodiff.tensor import backend_of, raw

cholesky, inv, det, solve = (TABLE[n] for n in ("cholesky", "inv", "det", "solve"))
matmul, matrix_transpose = TABLE["matmul"], TABLE["matrix_transpose"]
solve_triangular, outer, vecdot = ops.solve_triangular, ops.outer, ops.vecdot


class EighResult(NamedTuple):
    eigenvalues: Any
    eigenvectors: Any


class QRResult(NamedTuple):
    Q: Any
    R: Any


class SVDResult(NamedTuple):
    U: Any
    S: Any
    Vh: Any


class SlogdetResult(NamedTuple):
    sign: Any
    logabsdet: Any


def eigh(x):
    """Eigenvalues, ascending, and eigenvectors as columns, the largest entry of each positive."""
    z = TABLE["eigh"](x)
    return EighResult(z[..., 0, :], z[..., 1:, :])


def eigvalsh(x):
    return TABLE["eigh"](x)[..., 0, :]


def svd(x, *, full_matrices=False):
    """The reduced decomposition: U [m k], S [k], Vh [k n] with k = min(m, n)."""
    if full_matrices:
        raise ValueError(
            "svd: full_matrices=True asks for a basis of the null space, which has no derivative; "
            "needed full_matrices=False"
        )
    m = x.shape[-2]
    z = TABLE["svd"](x)
    return SVDResult(z[..., :m, :], z[..., m, :], matrix_transpose(z[..., m + 1 :, :]))


def svdvals(x):
    return TABLE["svd"](x)[..., x.shape[-2], :]


def qr(x, *, mode="reduced"):
    """Q [m k] and R [k n]; the signs are those of the backend's LAPACK."""
    if mode != "reduced":
        raise ValueError(f"qr: mode is {mode!r}; needed 'reduced', the one that has a derivative")
    m = x.shape[-2]
    z = TABLE["qr"](x)
    return QRResult(z[..., :m, :], matrix_transpose(z[..., m:, :]))


def slogdet(x):
    """The sign, a raw array without gradient, and log |det x|."""
    r = raw(x)
    wide = backend_of(r)
    half = str(r.dtype) == "float16"
    sign = wide.linalg.slogdet(wide.astype(r, wide.float32) if half else r)[0]
    return SlogdetResult(wide.astype(wide.asarray(sign), r.dtype), TABLE["logabsdet"](x))


def diagonal(x, *, offset=0):
    """Entries x[.., i, i + offset]."""
    m, n = x.shape[-2:]
    first = offset if offset >= 0 else -offset * n
    count = max(min(m, n - offset) if offset >= 0 else min(m + offset, n), 0)
    flat = ops.reshape(x, (*x.shape[:-2], m * n))
    places = backend_of(raw(x)).arange(count) * (n + 1) + first
    return ops.take(flat, places, axis=-1)


def trace(x, *, offset=0):
    return ops.sum(diagonal(x, offset=offset), axis=-1)


def vector_norm(x, *, axis=None, keepdims=False, ord=2):  # noqa: A002
    """(sum |x|^ord)^(1/ord), ord >= 1 or inf; scaled, so that no power overflows.

    At 0 the gradient is 0; ord = 1 and inf take the subgradients of `abs` and `max` (E1, E8).
    """
    if not (isinstance(ord, (int, float)) and ord >= 1):
        raise ValueError(f"vector_norm: ord is {ord!r}; needed a number >= 1, or inf")
    if ord == 1:
        return ops.sum(ops.abs(x), axis=axis, keepdims=keepdims)
    xp = backend_of(raw(x))
    axis = tuple(range(x.ndim)) if axis is None else axis
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if not math.prod(x.shape[a] for a in axes):
        return ops.sum(x, axis=axes, keepdims=keepdims)
    if ord == math.inf:
        return ops.max(ops.abs(x), axis=axes, keepdims=keepdims)
    top = xp.max(xp.abs(raw(x)), axis=axes, keepdims=True)
    scale = xp.where((top == 0.0) | ~xp.isfinite(top), 1.0, top)
    x = x / scale
    powers = ops.square(x) if ord == 2 else ops.pow(ops.abs(x), float(ord))
    s = ops.sum(powers, axis=axes, keepdims=True)
    zero = raw(s) == 0.0
    safe = ops.where(zero, 1.0, s)
    root = ops.sqrt(safe) if ord == 2 else ops.pow(safe, 1.0 / ord)
    out = ops.where(zero, 0.0, root) * scale
    if keepdims:
        return out
    gone = {a % x.ndim for a in axes}
    return ops.reshape(out, tuple(n for i, n in enumerate(x.shape) if i not in gone))


def matrix_norm(x, *, keepdims=False, ord="fro"):  # noqa: A002
    """Norm of the last two axes: "fro", "nuc", 1, 2, inf, -1, -2, -inf."""
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord in ("nuc", 2, -2):
        s = svdvals(x)
        reduce = {"nuc": ops.sum, 2: ops.max, -2: ops.min}[ord]
        out = reduce(s, axis=-1)
    elif ord in (1, -1, math.inf, -math.inf):
        sums = ops.sum(ops.abs(x), axis=-2 if ord in (1, -1) else -1)
        out = (ops.max if ord > 0 else ops.min)(sums, axis=-1)
    else:
        raise ValueError(f"matrix_norm: ord is {ord!r}; needed fro, nuc, 1, 2, inf or a negative")
    return ops.reshape(out, (*out.shape, 1, 1)) if keepdims else out
