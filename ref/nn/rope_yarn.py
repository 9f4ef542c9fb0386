"""Rotary frequencies and attention factor of YaRN.

Source: Peng et al. 2023 (2309.00071) sec. 3.2 Def. 2 and 3 (NTK-by-parts), sec. 3.4 Eq. 22 (the attention factor); the
ramp over pairs: the authors' code (`find_correction_range`), which Hugging Face and DeepSeek share.

    theta_i <- (1 - gamma_i) theta_i / s + gamma_i theta_i
    rotations:  gamma_i = clip((r_i - beta_slow) / (beta_fast - beta_slow), 0, 1),   r_i = L theta_i / (2 pi)
    pairs:      gamma_i = 1 - clip((i - low) / (high - low), 0, 1)
                low = floor i(beta_fast), high = ceil i(beta_slow)
                i(beta) = d ln(L / (2 pi beta)) / (2 ln base), the pair that makes beta rotations in L tokens
    a = 0.1 ln s + 1

A pair that turns more than beta_fast times in the trained length keeps its frequency, one that turns less than
beta_slow times is interpolated as in `rope_linear`. Scores are multiplied by a^2.

Notation
    theta[n], n = d / 2 pairs; s -> factor; L -> trained_length; the paper's alpha, beta -> beta_slow, beta_fast.

Conventions
    C1  Two ramps, both named: `pairs`, which every checkpoint was trained with, is linear in i between whole pairs;
        `rotations` is the paper's, linear in r.
    C2  low is at least 0 and high at most d - 1 (d, not n, as in the authors' code); where they meet, high gets 0.001.
    C3  DeepSeek: a = m(mscale) / m(mscale_all_dim), m(c) = 0.1 c ln s + 1, on cosines and sines, and the softmax's
        scale takes m(mscale_all_dim)^2. Hugging Face takes the quotient where both are set, else m(1).
        (Read in DeepSeek's modeling code; the paper of DeepSeek-V2 does not write it out.)

Laws
    L1 fast_pairs_stay_slow_ones_are_divided    L2 the_ramp_is_the_named_one
    L3 factor_one_changes_nothing               L4 attention_factor_is_a_logarithm
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.nn.rope_linear import check_factor
from ref.spec import bind, spec

RAMPS = ("pairs", "rotations")


@spec("nn.rope_yarn", "theta[n] -> scaled[n], attention_factor:tree")
def rope_yarn(
    theta, *, factor, trained_length, base=10000.0, beta_fast=32.0, beta_slow=1.0, ramp="pairs",
    mscale=None, mscale_all_dim=None,
):  # fmt: skip
    """Frequencies for a context `factor` times as long, and what `rope` is to multiply by.

    Parameters
    ----------
    theta : float[n]
        Frequencies base^(-i / n), of d = 2 n channels.
    factor : float
        At least 1.
    trained_length : int
        Tokens in training.
    base : float
        The base of theta; the ramp over pairs needs it.
    beta_fast, beta_slow : float
        Rotations from which a pair keeps its frequency, and up to which it is interpolated.
    ramp : {"pairs", "rotations"}
        What the ramp between them is linear in (C1).
    mscale, mscale_all_dim : float, optional
        DeepSeek's (C3).

    Returns
    -------
    scaled : float[n]
    attention_factor : float

    Raises
    ------
    ValueError
        theta has not one axis, factor < 1, trained_length < 1, another ramp, or not beta_fast > beta_slow > 0.
    TypeError
        theta is not float.

    Complexity: 8 n operations.

    >>> import numpy as np
    >>> theta, a = rope_yarn(np.array([1.0, 1e-4]), factor=4.0, trained_length=4096, ramp="rotations")
    >>> theta, round(a, 3)
    (array([1.0e+00, 2.5e-05]), 1.139)
    """
    n = bind("rope_yarn", "theta[n]", theta=theta)["n"]
    _check(factor, trained_length, beta_fast, beta_slow, ramp)
    xp = namespace(theta)
    if ramp == "rotations":
        keep = rotations_ramp(xp, theta, trained_length, beta_slow, beta_fast)
    else:
        keep = 1.0 - _pairs_ramp(xp, n, theta.dtype, trained_length, base, beta_slow, beta_fast)
    a = magnitude(factor, 1.0)
    if mscale and mscale_all_dim:
        a = magnitude(factor, mscale) / magnitude(factor, mscale_all_dim)
    return by_parts(theta, factor, keep), a


def magnitude(factor, scale):
    """0.1 scale ln(factor) + 1; 1 up to a factor of 1."""
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def by_parts(theta, factor, keep):
    """Frequencies between interpolated (keep 0) and as they were (keep 1)."""
    return (1.0 - keep) * (theta / factor) + keep * theta


def rotations_ramp(xp, theta, length, slow, fast):
    """0 at `slow` rotations in `length` tokens, 1 at `fast`, linear between."""
    return xp.clip((length / (2 * math.pi) * theta - slow) / (fast - slow), 0.0, 1.0)


def _pairs_ramp(xp, n, dtype, length, base, slow, fast):
    low, high = (n * math.log(length / (2 * math.pi * beta)) / math.log(base) for beta in (fast, slow))
    low, high = max(math.floor(low), 0), min(math.ceil(high), 2 * n - 1)
    high = high + 0.001 if high == low else high
    return xp.clip((xp.arange(n, dtype=dtype) - low) / (high - low), 0.0, 1.0)


def _check(factor, trained_length, beta_fast, beta_slow, ramp):
    check_factor("rope_yarn", factor)
    if not trained_length >= 1:
        raise ValueError(f"rope_yarn: trained_length={trained_length}; needed at least 1")
    if not beta_fast > beta_slow > 0:
        raise ValueError(f"rope_yarn: beta_fast={beta_fast}, beta_slow={beta_slow}; needed beta_fast > beta_slow > 0")
    if ramp not in RAMPS:
        raise ValueError(f"rope_yarn: ramp={ramp!r}; needed one of {RAMPS}")
