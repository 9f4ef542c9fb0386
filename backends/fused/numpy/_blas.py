"""The operations that tiles and blocks spend their time in, as fast as NumPy and its BLAS let them be.

    gemm(A, B, out)    out = A @ B
    power(S, unit)     S = exp(S / unit) in place; UNIT[dtype] is the unit that costs least
    axpby(a, x, b, y)  y = a x + b y in place
"""

import ctypes
import math
from typing import NamedTuple

import numpy as np

from backends import openblas

# OpenBLAS has kernels that do not copy their operands, for AVX-512 and at most this many
# multiply-adds; a stack of bands of rows keeps each product within it.
_LIMIT = 10**6 if openblas.core in ("SkylakeX", "Cooperlake", "SapphireRapids") else 0
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
    np.matmul(A[:, :whole].reshape(*stack, k), B[:, None], out=out[:, :whole].reshape(*stack, m))
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


def _axpby(letter, number):
    """OpenBLAS's axpby, one pass over memory where NumPy takes three: (call, whether it is NumPy's bits), or None.

    An element must have the same bits wherever it lies, or a cut would show: those of NumPy, or those of
    fma(a, x, b y), which OpenBLAS's kernels for AVX-512 give. A probe over vector bodies and tails decides.
    """
    scalar = {"s": ctypes.c_float, "d": ctypes.c_double}[letter]
    call = openblas.function(
        f"cblas_{letter}axpby", None, ["int", scalar, ctypes.c_void_p, "int", scalar, ctypes.c_void_p, "int"]
    )
    if call is None:
        return None
    x, y = np.random.default_rng(0).standard_normal((2, 4099)).astype(number)

    def found(start, stop):
        z = y[start:stop].copy()
        call(z.size, 0.1, x[start:stop].ctypes.data, 1, 0.9, z.ctypes.data, 1)
        return z

    whole = found(0, x.size)
    cuts = [(i, x.size) for i in (4098, 4090, 4001, 1)] + [(0, j) for j in (1, 2, 7, 31, 97)]
    if any(not np.array_equal(found(i, j), whole[i:j]) for i, j in cuts):
        return None
    return call, np.array_equal(whole, number(0.1) * x + number(0.9) * y)


_AXPBY = {np.dtype(n): found for letter, n in (("s", np.float32), ("d", np.float64)) if (found := _axpby(letter, n))}
_SHORT = 8192  # up to here three calls of NumPy cost less than one through ctypes


class Part(NamedTuple):
    """A flat, contiguous array and, where OpenBLAS will be called on it, its address."""

    x: np.ndarray
    address: int


def part(x):
    """The whole of a flat, contiguous array as a Part."""
    if _call(x) is None:
        return Part(x, 0)
    # NumPy's own x.ctypes.data costs four times as much, but takes arrays that may not be written.
    return Part(x, ctypes.addressof(ctypes.c_char.from_buffer(x)) if x.flags.writeable else x.ctypes.data)


def _call(x):
    """OpenBLAS's axpby for an array like x, or None: NumPy is cheaper for a short one, where its bits are the same."""
    call, numpys = _AXPBY.get(x.dtype, (None, True))
    return None if x.size <= (_SHORT if numpys else 0) else call


def axpby(a, x, b, y, junk):
    """y = a x + b y in place; Parts of one length and dtype; `junk` is written, and may be x."""
    call = _call(y.x)
    # BLAS takes a zero factor for "do not read": 0 * NaN would be lost.
    if call is None or a == 0 or b == 0:
        number = y.x.dtype.type
        np.multiply(x.x, number(a), out=junk.x)
        np.multiply(y.x, number(b), out=y.x)
        np.add(junk.x, y.x, out=y.x)
    else:
        call(y.x.size, a, x.address, 1, b, y.address, 1)
