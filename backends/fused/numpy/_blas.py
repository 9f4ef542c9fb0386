"""The two operations that tiles spend their time in, as fast as NumPy lets them be.

    gemm(A, B, out)    out = A @ B
    power(S, unit)     S = exp(S / unit) in place; UNIT[dtype] is the unit that costs least
"""

import math

import numpy as np

from backends.threads import blas_core

# OpenBLAS has kernels that do not copy their operands, for AVX-512 and at most this many
# multiply-adds; a stack of bands of rows keeps each product within it.
_LIMIT = 10**6 if blas_core() in ("SkylakeX", "Cooperlake", "SapphireRapids") else 0
_WIDEST = 48  # rows of a band; beyond, nothing is gained
_UNROLLED = 6  # rows that those kernels hold in registers


def gemm(A, B, out):
    """out[h n m] = A[h n k] @ B[h k m]; A may be a transposed view, out is contiguous."""
    (h, n, k), m = A.shape, B.shape[2]
    band = min(_LIMIT // max(k * m, 1), _WIDEST) // _UNROLLED * _UNROLLED
    if not 0 < band < n:
        return np.matmul(A, B, out=out)
    whole = n // band * band
    stack = (h, n // band, band)
    np.matmul(
        A[:, :whole].reshape(*stack, k), B[:, None], out=out[:, :whole].reshape(*stack, m)
    )
    if whole < n:
        np.matmul(A[:, whole:], B, out=out[:, whole:])
    return out


def _exp2_is_fast():
    """NumPy has a vector exp2 for float32 on AVX-512 alone; elsewhere exp is the faster."""
    found = np.lib.introspect.opt_func_info(func_name="^exp2$", signature="float32")
    targets = {kind["current"] for kinds in found.values() for kind in kinds.values()}
    return bool(targets & {"AVX512_SKX", "X86_V4"})


_BASE_2 = _exp2_is_fast()
_LN2 = math.log(2)
# Below it exp2's results are subnormal, and it takes a path a hundred times slower.
_LOWEST = -125.0

UNIT = {
    np.dtype(np.float32): 1 / _LN2 if _BASE_2 else 1.0,
    np.dtype(np.float64): 1.0,
}


def power(S, unit):
    """S = exp(S / unit) in place; unit is 1 or UNIT of the dtype."""
    if unit != 1:
        # `not >` sends NaN the safe way.
        if S.size == 0 or S.min() > _LOWEST:
            np.exp2(S, out=S)
            return
        S *= _LN2
    np.exp(S, out=S)
