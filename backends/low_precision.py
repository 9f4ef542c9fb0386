"""Rounding to bfloat16 and float16, on machines that compute in float32.

Source: IEEE 754-2019 sec. 4.3.1; Boldo & Melquiond 2008, "Emulation of FMA and correctly rounded sums".

A bf16 number is the upper half of a float32: 1 sign, 8 exponent, 7 stored fraction bits. Values
are stored as uint16 and computed in float32 (NumPy alone).

Rounding is to the nearest value, ties to the even one. For float32 bits u:

    bf16(u) = (u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000

The carry walks from the fraction into the exponent, so subnormals and overflow to inf come right.

Conventions
  C1  From float64 the result is rounded once. By way of float32 it would be rounded twice, and
      1 + 2^-8 + 2^-40, above a tie, would fall on the tie and then down to 1. So float64 goes to
      float32 by rounding to odd (Boldo & Melquiond 2008): truncate, and set the last bit if
      anything was lost. At 24 digits for 8 that bit tells the second rounding all it needs.
  C2  A NaN keeps its sign and upper payload bits and becomes quiet; it never turns into inf.
  C3  Too large goes to inf, too small to a subnormal or a signed zero, without a warning.

Laws
  L1 nearest_and_ties_to_even   L2 representable_numbers_stay
  L3 order_and_sign_are_kept    L4 half_a_gap_is_lost
  L5 a_nan_stays_that_nan       L6 fp16_is_nearest_and_ties_to_even
  L7 fp16_reaches_inf_and_subnormals
"""

import numpy as np

_BLOCK = 1 << 15  # elements: the five passes over a block stay in the L2 cache


def round_bf16(x):
    """Nearest bf16 values, ties to even.

    Parameters
    ----------
    x : float32 or float64[*B]

    Returns
    -------
    float32[*B]
        Fresh; the lower 16 bits of every element are 0.

    Raises
    ------
    TypeError
        x is of another dtype.

    Complexity: five passes over blocks that stay in cache.

    Examples
    --------
    >>> round_bf16(np.array([256.0 + 1, 258.0 + 1, 1e39]))
    array([256., 260.,  inf], dtype=float32)
    """
    return _bf16(x, "round_bf16").view(np.float32)


def to_bf16_bits(x):
    """Bits of the nearest bf16 values, ties to even.

    Parameters
    ----------
    x : float32 or float64[*B]

    Returns
    -------
    uint16[*B]

    Raises
    ------
    TypeError
        x is of another dtype.

    Examples
    --------
    >>> [hex(u) for u in to_bf16_bits(np.array([1.0, -2.0, np.inf])).tolist()]
    ['0x3f80', '0xc000', '0x7f80']
    """
    u = _bf16(x, "to_bf16_bits")
    u >>= 16
    return u.astype(np.uint16)


def from_bf16_bits(bits):
    """Values of bf16 bits, exact.

    Parameters
    ----------
    bits : uint16[*B]

    Returns
    -------
    float32[*B]

    Raises
    ------
    TypeError
        bits is of another dtype.

    Examples
    --------
    >>> from_bf16_bits(np.array([0x3F80, 0xC000], dtype=np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    u = _uint16(bits, "from_bf16_bits").astype(np.uint32)
    u <<= 16
    return u.view(np.float32)


def round_fp16(x):
    """Nearest float16 values, ties to even, from float64 in one rounding.

    Parameters
    ----------
    x : float32 or float64[*B]

    Returns
    -------
    float32[*B]

    Raises
    ------
    TypeError
        x is of another dtype.

    Complexity: two passes.

    Examples
    --------
    >>> round_fp16(np.array([2049.0, 2051.0, 65520.0]))
    array([2048., 2052.,   inf], dtype=float32)
    """
    return _fp16(x, "round_fp16").astype(np.float32)


def to_fp16_bits(x):
    """Bits of the nearest float16 values, ties to even; as `to_bf16_bits`.

    Examples
    --------
    >>> hex(int(to_fp16_bits(np.array(-2.0))))
    '0xc000'
    """
    return _fp16(x, "to_fp16_bits").view(np.uint16)


def from_fp16_bits(bits):
    """Values of float16 bits, exact; as `from_bf16_bits`.

    Examples
    --------
    >>> from_fp16_bits(np.array([0x3C00], dtype=np.uint16))
    array([1.], dtype=float32)
    """
    with np.errstate(invalid="ignore"):
        return _uint16(bits, "from_fp16_bits").view(np.float16).astype(np.float32)


def _bf16(x, function):
    """uint32[*B]: float32 bits of the rounded values."""
    x = _floating(x, function)
    out = np.empty(x.shape, np.uint32)
    flat_in, flat_out = x.reshape(-1), out.reshape(-1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for start in range(0, x.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            part = flat_in[block]
            _round_bits(part if x.dtype == np.float32 else _round_to_odd(part), flat_out[block])
    return out


def _round_bits(x, out):
    u = np.ascontiguousarray(x).view(np.uint32)
    np.right_shift(u, 16, out=out)
    out &= 1
    out += 0x7FFF
    out += u
    nan = np.isnan(x)
    if nan.any():
        out[nan] = u[nan] | 0x00400000
    out &= 0xFFFF0000


def _round_to_odd(x):
    y = x.astype(np.float32)
    u = y.view(np.uint32)
    wide = y.astype(np.float64)
    # One ulp toward zero is bits - 1, from inf too; u | 1 then marks the loss.
    u -= np.abs(wide) > np.abs(x)
    u |= wide != x
    return y


def _fp16(x, function):
    x = _floating(x, function)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        half = x.astype(np.float16)  # one rounding, from float64 too
    nan = np.isnan(x)
    if nan.any():  # whether the cast quiets depends on the processor
        half.view(np.uint16)[nan] |= 0x0200
    return half


def _floating(x, function):
    x = np.asarray(x)
    if x.dtype not in (np.float32, np.float64):
        raise TypeError(f"{function}: x has dtype {x.dtype}; float32 or float64 is needed")
    return x


def _uint16(bits, function):
    bits = np.asarray(bits)
    if bits.dtype != np.uint16:
        raise TypeError(f"{function}: bits has dtype {bits.dtype}; uint16 is needed")
    return bits
