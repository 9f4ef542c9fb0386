"""SiLU and SwiGLU in float32 as loops, with an exponential that vectorizes.

    e^z = 2^n e^r, n = round(z / log 2), |r| <= log(2) / 2, e^r a polynomial of degree 7 (Moshier's Cephes, expf):
    within an ulp; 2^n is written into the exponent's bits, half at a time, so that it overflows where e^z does

Below e^-87 the exponential stays there: 1 + e^z is 1 all the same. All loops that use it stand in this file: what is
kept on disk of a loop is made anew when its own file changes, and no other.
"""

import numba
import numpy as np

from backends.fused.compiled._loop import loop

__all__ = ["silu", "silu_slope", "swiglu", "swiglu_slopes"]

_ONE, _HALF, _LOWEST, _HIGHEST = (np.float32(x) for x in (1, 0.5, -87, 89))
_PER_LOG2, _LOG2_HIGH, _LOG2_LOW = (np.float32(x) for x in (1.4426950408889634, 0.693359375, -2.12194440e-4))
_C7, _C6, _C5, _C4, _C3, _C2 = (
    np.float32(x)
    for x in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)


@numba.njit(inline="always")
def _exp(z):
    z = z if z > _LOWEST else _LOWEST  # NaN too
    z = z if z < _HIGHEST else _HIGHEST
    n = np.floor(z * _PER_LOG2 + _HALF)
    r = z - n * _LOG2_HIGH - n * _LOG2_LOW
    p = ((((_C7 * r + _C6) * r + _C5) * r + _C4) * r + _C3) * r + _C2
    p = p * (r * r) + r + _ONE
    whole = np.int32(n)
    half = np.int32(whole >> 1)
    rest = np.int32(whole - half)
    a = np.int32(np.int32(half + _BIAS) << _MANTISSA).view(np.float32)
    b = np.int32(np.int32(rest + _BIAS) << _MANTISSA).view(np.float32)
    return p * a * b


@loop("x[n] -> y[n]", fma=True)
def silu(x, y):
    for i in range(x.size):
        y[i] = x[i] / (_ONE + _exp(-x[i]))


@loop("x[n], g[n] -> dx[n]", fma=True)
def silu_slope(x, g, dx):
    for i in range(x.size):
        s = _ONE / (_ONE + _exp(-x[i]))
        dx[i] = s * (_ONE + x[i] * (_ONE - s)) * g[i]


@loop("a[n], b[n] -> y[n]", fma=True)
def swiglu(a, b, y):
    for i in range(a.size):
        y[i] = a[i] / (_ONE + _exp(-a[i])) * b[i]


@loop("g[n], a[n], b[n] -> da[n], db[n]", fma=True)
def swiglu_slopes(g, a, b, da, db):
    for i in range(a.size):
        s = _ONE / (_ONE + _exp(-a[i]))
        gs = g[i] * s
        db[i] = gs * a[i]
        da[i] = (_ONE + a[i] * (_ONE - s)) * gs * b[i]
