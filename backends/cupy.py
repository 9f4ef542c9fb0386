"""CuPy, for CUDA devices. CuPy is imported by `load`, so that anyone may import this file."""

import functools
import math

from backends import scatter, sliding
from backends.core import Backend


def load() -> Backend:
    import cupy

    if not cupy.is_available():
        raise RuntimeError("get: backend 'cupy' needs a CUDA device; cupy is here and finds none")
    import array_api_compat.cupy as library

    return Backend(
        "cupy",
        library,
        cupy.ndarray,
        from_numpy=cupy.array,
        to_numpy=cupy.asnumpy,
        extensions={
            "scatter_add": scatter_add,
            "einsum": cupy.einsum,
            "erf": erf,
            "erfc": erfc,
            "gammaln": gammaln,
            "polygamma": polygamma,
            "solve_triangular": solve_triangular,
            "windows": functools.partial(sliding.windows, cupy),
            "overlap_add": functools.partial(sliding.overlap_add, cupy),
        },
    )


def scatter_add(shape, index, values):
    import cupy

    return scatter.scatter_add(cupy, _add_rows, shape, index, values)


def _add_rows(rows, places, values):
    import cupy

    out = cupy.zeros((rows, values.shape[1]), values.dtype)
    if values.size:
        order = cupy.argsort(places, kind="stable")
        first = cupy.searchsorted(places[order], cupy.arange(rows + 1))
        _segment_sum()(values.reshape(-1), order, first, out.shape[1], out)
    return out


@functools.cache
def _segment_sum():
    import cupy

    # One thread an output element, adding in the order of values: atomics would change the bits
    # from run to run.
    return cupy.ElementwiseKernel(
        "raw T values, raw int64 order, raw int64 first, int64 width",
        "T out",
        """
        long long row = i / width, column = i % width;
        T total = T(0);
        for (long long p = first[row]; p < first[row + 1]; ++p)
            total = total + values[order[p] * width + column];
        out = total;
        """,
        "closedform_segment_sum",
    )


def _special(name, f, x):
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: x has dtype {x.dtype}; a floating-point dtype is needed")
    return f(x).astype(x.dtype, copy=False)


def erf(x):
    from cupyx.scipy.special import erf

    return _special("erf", erf, x)


def erfc(x):
    from cupyx.scipy.special import erfc

    return _special("erfc", erfc, x)


def gammaln(x):
    from cupyx.scipy.special import gammaln

    return _special("gammaln", gammaln, x)


def polygamma(n, x):
    from cupyx.scipy.special import digamma, zeta

    if n == 0:
        return _special("polygamma", digamma, x)
    factor = (-1.0) ** (n + 1) * math.factorial(n)
    return _special("polygamma", lambda x: factor * zeta(n + 1.0, x), x)


def solve_triangular(a, b, *, upper=False):
    import cupy
    import numpy as np
    from cupyx.scipy.linalg import solve_triangular

    out = cupy.empty(b.shape, cupy.result_type(a, b))
    if out.size:
        for at in np.ndindex(b.shape[:-2]):
            out[at] = solve_triangular(a[at], b[at], lower=not upper)
    return out
