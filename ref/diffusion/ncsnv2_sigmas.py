"""Noise levels for score matching over many scales, chosen from the data.

Source: Song & Ermon 2020 (2006.09011) Techniques 1 and 2, Propositions 1 and 2.

    sigma_1: the largest distance between two data points
    gamma = sigma_{i-1} / sigma_i:  Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma) = 1/2
    sigma_i = sigma_1 (sigma_L / sigma_1)^((i - 1) / (L - 1)),   L the fewest levels whose ratio is at most gamma

Notation
    D -> d; sigma_L -> smallest.

Conventions
    C1  gamma depends on D alone. The first Phi is 1 to 1e-9, so gamma = sqrt(2 D) / (sqrt(2 D) - 3): neighbours overlap
        by half within three deviations of the radius. With D <= 4 no gamma does, and all ratios overlap enough: L = 2.
    C2  The ratio is made equal at all levels, at most gamma, with both ends met.
    C3  Technique 3 is score(x, sigma) = s(x) / sigma; Technique 4 is `diffusion.ncsnv2_step_size`; Technique 5
        `optim.ema`.

Laws
    L1 from_the_largest_distance_down        L2 fewest_levels_with_a_small_enough_ratio
    L3 the_ratio_overlaps_by_half
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from ref.spec import bind, spec


@spec("diffusion.ncsnv2_sigmas", "data[n d] -> sigmas:tree", backends=("numpy",))
def ncsnv2_sigmas(data, *, smallest=0.01):
    """Falling noise levels.

    Parameters
    ----------
    data : float[n d]
        At least two different points.
    smallest : float
        sigma_L, positive and below the largest distance.

    Returns
    -------
    float64[L]

    Raises
    ------
    ValueError
        Fewer than two points or no channel, all points closer than smallest, or smallest not positive.
    TypeError
        data is not a float array.

    Complexity: n^2 d.

    >>> data = np.concatenate([np.zeros((1, 50)), np.ones((1, 50)) * 1.6])
    >>> ncsnv2_sigmas(data, smallest=5.0).round(3)
    array([11.314,  8.618,  6.564,  5.   ])
    """
    sizes = bind("ncsnv2_sigmas", "data[n d]", data=data)
    if sizes["n"] < 2 or sizes["d"] < 1:
        raise ValueError(f"ncsnv2_sigmas: data has n={sizes['n']}, d={sizes['d']}; needed two points and a channel")
    points = np.asarray(data, np.float64)
    largest = max(math.sqrt(np.max(np.sum((points - y) ** 2, axis=1))) for y in points)
    if not 0 < smallest < largest:
        raise ValueError(
            f"ncsnv2_sigmas: smallest={smallest}, largest distance {largest}; needed 0 < smallest < largest"
        )
    gamma = ratio(sizes["d"])
    levels = 2 if math.isinf(gamma) else 1 + max(1, math.ceil(math.log(largest / smallest) / math.log(gamma)))
    return geometric_sigmas(largest, smallest, levels)


def ratio(d):
    """gamma for d channels; infinite where every ratio overlaps enough (C1)."""
    root = math.sqrt(2 * d)
    if root <= 3:
        return math.inf

    def short(gamma):
        return ndtr(root * (gamma - 1) + 3 * gamma) - ndtr(root * (gamma - 1) - 3 * gamma) - 0.5

    top = 1 + 4 * 3 / (root - 3)
    return brentq(short, 1.0, top, xtol=1e-15, rtol=8.9e-16)


def geometric_sigmas(first, last, levels):
    """sigma_1 .. sigma_L in geometric progression, both ends met."""
    return first * (last / first) ** (np.arange(levels) / max(levels - 1, 1))
