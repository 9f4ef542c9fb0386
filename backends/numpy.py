"""NumPy, the backend that everything is tested on first."""

import math
from functools import partial

import array_api_compat.numpy as library
import numpy as np
from scipy import linalg, special
from scipy.sparse import csc_array

from backends import scatter, sliding
from backends.core import Backend

# array-api-compat wraps these for NumPy 1; NumPy 2.1 has them as the standard says, unwrapped.
_NATIVE = (
    *("arange", "asarray", "astype", "ceil", "cumulative_prod", "cumulative_sum", "empty"),
    *("empty_like", "eye", "floor", "full", "full_like", "matmul", "matrix_transpose", "ones"),
    *("ones_like", "permute_dims", "sign", "std", "tensordot", "trunc", "var", "zeros"),
    "zeros_like",
)
_FEW = 256  # elements: below, np.add.at beats the 13 us that making a sparse matrix costs
_SMALL = 1000  # elements: below, einsum's C loop beats the 20 us that planning for BLAS costs


def load() -> Backend:
    return Backend(
        "numpy",
        library,
        np.ndarray,
        scalars=(np.generic,),
        refused=(np.matrix, np.ma.MaskedArray),
        native={name: getattr(np, name) for name in _NATIVE} | {"count_nonzero": count_nonzero},
        from_numpy=from_numpy,
        to_numpy=np.array,
        extensions={
            "scatter_add": scatter_add,
            "einsum": einsum,
            "erf": erf,
            "erfc": erfc,
            "gammaln": gammaln,
            "polygamma": polygamma,
            "solve_triangular": solve_triangular,
            "windows": partial(sliding.windows, np),
            "overlap_add": partial(sliding.overlap_add, np),
        },
    )


def from_numpy(a):
    """A fresh array with the values of a, in native byte order."""
    a = np.asarray(a)
    return np.array(a, dtype=a.dtype.newbyteorder("="))


def count_nonzero(x, *, axis=None, keepdims=False):
    """np.count_nonzero; along the last axis of a large mask by counting bits, four times as fast."""
    if x.dtype == np.bool_ and x.ndim and axis in (-1, x.ndim - 1) and x.size > _SMALL:
        return np.bitwise_count(np.packbits(x, axis=-1)).sum(-1, dtype=np.int64, keepdims=keepdims)
    return np.asarray(np.count_nonzero(x, axis=axis, keepdims=keepdims))


def scatter_add(shape, index, values):
    return scatter.scatter_add(np, _add_rows, shape, index, values)


def _add_rows(rows, places, values):
    if values.dtype.kind == "c":
        # As pairs of reals: a complex 1 * inf would be inf + nan i.
        pairs = np.ascontiguousarray(values).view(values.real.dtype)
        return _add_rows(rows, places, pairs).view(values.dtype)
    # scipy has no float16 and would sum it in float32.
    if values.size < _FEW or values.dtype == np.float16:
        out = np.zeros((rows, values.shape[1]), values.dtype)
        np.add.at(out, places, values)
        return out
    # A 0/1 matrix stored by columns adds row after row: the bits of np.add.at, 3 to 40 x faster.
    ones, ends = np.ones(places.size, values.dtype), np.arange(places.size + 1)
    return csc_array((ones, places, ends), shape=(rows, places.size)) @ values


def einsum(subscripts, *operands):
    big = len(operands) > 1 and sum(x.size for x in operands) > _SMALL
    return np.einsum(subscripts, *operands, optimize=big)


def _special(name, f, x):
    if x.dtype.kind not in "fc":
        raise TypeError(f"{name}: x has dtype {x.dtype}; a floating-point dtype is needed")
    y = f(x)
    return y if y.dtype == x.dtype else y.astype(x.dtype)


def erf(x):
    """Error function of a floating-point array, in its dtype.

    Raises
    ------
    TypeError
        x is not floating-point.
    """
    return _special("erf", special.erf, x)


def erfc(x):
    """1 - erf(x), of full relative accuracy where erf is near 1; raises as `erf`."""
    return _special("erfc", special.erfc, x)


def gammaln(x):
    """log |Gamma(x)|; inf at 0 and the negative integers; raises as `erf`."""
    return _special("gammaln", special.gammaln, x)


def polygamma(n, x):
    """n-th derivative of digamma, digamma itself for n = 0; raises as `erf`."""
    if n == 0:
        return _special("polygamma", special.digamma, x)
    # The Hurwitz zeta function, in float64.
    factor = (-1.0) ** (n + 1) * math.factorial(n)
    return _special("polygamma", lambda x: factor * special.zeta(n + 1.0, x), x)


def solve_triangular(a, b, *, upper=False):
    """a^-1 b for a triangular `a`; the other triangle of `a` is not read.

    Parameters
    ----------
    a : float32 or float64[*B n n]
    b : float32 or float64[*B n k]
    upper : bool
        Which triangle of `a` counts.

    Returns
    -------
    float[*B n k]
    """
    out = np.empty(b.shape, np.result_type(a, b))
    if out.size:
        for at in np.ndindex(b.shape[:-2]):
            out[at] = linalg.solve_triangular(a[at], b[at], lower=not upper, check_finite=False)
    return out
