"""Stochastic rounding to bfloat16: up or down at random, right on average.

Source: Gupta et al. 2015 (1502.02551) sec. 2.1; Croci et al. 2022 (Royal Society Open Science 9:211631) sec. 3.

    bf16(u, r) = (u + r) & 0xFFFF0000        u the float32 bits, r uniform on 0 .. 2^16 - 1

    x between the neighbours a and b, |a| < |b|: b with probability (|x| - |a|) / (|b| - |a|), so E[bf16(x, r)] = x

The lower half of u counts how many of the 2^16 r carry into the upper half: the expectation is exact, not only in
the limit, as long as b is finite.

Conventions
  C1  The noise is an argument: the same noise gives the same bits, as a checkpoint or a resumed run needs.
  C2  A NaN keeps its sign and upper payload bits and becomes quiet; infinities stay.
  C3  Only float32: from float64 16 random bits would not be enough for an exact expectation.

Laws
  L1 expectation_is_exact                   L2 only_neighbours_and_the_number_itself
  L3 more_noise_is_never_nearer_to_zero     L4 infinities_and_nans_stay
"""

import numpy as np


def stochastic_bf16(x, noise):
    """bf16 neighbours of x, chosen by noise.

    Parameters
    ----------
    x : float32[*B]
    noise : uint16[*B]
        Uniform random bits, independent for each element.

    Returns
    -------
    float32[*B]
        Fresh; the lower 16 bits of every element are 0.

    Raises
    ------
    TypeError
        x is not float32, or noise not uint16.
    ValueError
        The shapes differ.

    Complexity: four passes.

    Examples
    --------
    >>> x = np.full(4, 257.0, np.float32)  # halfway between 256 and 258
    >>> stochastic_bf16(x, np.array([0, 0x7FFF, 0x8000, 0xFFFF], np.uint16))
    array([256., 256., 258., 258.], dtype=float32)
    """
    x, noise = np.asarray(x), np.asarray(noise)
    if x.dtype != np.float32 or noise.dtype != np.uint16:
        raise TypeError(
            f"stochastic_bf16: x has dtype {x.dtype}, noise {noise.dtype}; float32 and uint16 are needed"
        )
    if x.shape != noise.shape:
        raise ValueError(f"stochastic_bf16: x has shape {x.shape}, noise {noise.shape}; they must agree")
    u = x.view(np.uint32) if x.flags.c_contiguous else np.ascontiguousarray(x).view(np.uint32)
    out = np.add(u.reshape(x.shape), noise, dtype=np.uint32)
    nan = np.isnan(x)
    out = np.where(nan, u.reshape(x.shape) | 0x00400000, out) & np.uint32(0xFFFF0000)
    return np.asarray(out).view(np.float32)
