"""Step size of annealed Langevin dynamics that keeps each level's variance.

Source: Song & Ermon 2020 (2006.09011) Technique 4, Proposition 3, Eq. 4.

    Data that are one point, a sample of variance sigma_{i-1}^2 carried to level i, K steps of
    a_i = eps sigma_i^2 / sigma_L^2:

    variance / sigma_i^2 = (1 - e)^{2 K} (gamma^2 - w) + w,   e = eps / sigma_L^2,   w = 1 / (1 - e / 2)

    eps: where this is nearest to 1

Notation
    gamma -> sigmas[0] / sigmas[1]; K -> steps; eps -> the result.

Conventions
    C1  The ratio is a mean of gamma^2 > 1 and w > 1, so it stays above 1: nearest is least, 0 < e < 1.
    C2  eps is that of "full" (`diffusion.annealed_langevin`); for "half" it is twice as large.
    C3  gamma is the ratio of the first two levels; levels in geometric progression have but one.
    C4  Data with variance of their own need no other eps as long as sigma_L is far below it at the end.

Laws
    L1 one_step_in_closed_form               L2 no_other_step_is_better
    L3 stationary_point_of_the_ratio         L4 half_is_twice_as_large
"""

from __future__ import annotations

import operator

import numpy as np
from scipy.optimize import minimize_scalar

from ref.diffusion.annealed_langevin import check_falling
from ref.diffusion.langevin import CONVENTIONS
from ref.diffusion.run_stages import numbers
from ref.spec import bind, spec


@spec("diffusion.ncsnv2_step_size", "sigmas[L] -> []", backends=("numpy",))
def ncsnv2_step_size(sigmas, *, steps, convention="full"):
    """eps.

    Parameters
    ----------
    sigmas : float[L]
        Falling and positive, at least two, in geometric progression.
    steps : int
        K a level, at least 1.
    convention : "full" or "half"

    Returns
    -------
    float64[]

    Raises
    ------
    ValueError
        Fewer than two sigmas, or some that do not fall, steps < 1, or an unknown convention.
    TypeError
        sigmas is not a float array, or steps is no integer.

    Complexity: 400 evaluations of the ratio.

    >>> ncsnv2_step_size(np.array([2.0, 1.0]), steps=1)
    array(0.75)
    """
    bind("ncsnv2_step_size", "sigmas[L]", sigmas=sigmas)
    levels = check_falling("ncsnv2_step_size", numbers(sigmas))
    if len(levels) < 2:
        raise ValueError(f"ncsnv2_step_size: sigmas has L={len(levels)}; needed at least 2")
    if operator.index(steps) < 1:
        raise ValueError(f"ncsnv2_step_size: steps={steps}; needed at least 1")
    if convention not in CONVENTIONS:
        raise ValueError(f"ncsnv2_step_size: convention={convention!r}; needed one of {CONVENTIONS}")
    gamma = levels[0] / levels[1]

    def log_slope(log_e):
        return variance_ratio(np.exp(log_e), gamma, steps)

    # A coarse look for the valley, then its bottom.
    grid = np.linspace(np.log(1e-9), 0.0, 321)
    at = int(np.argmin(log_slope(grid)))
    around = grid[max(at - 1, 0)], grid[min(at + 1, 320)]
    found = minimize_scalar(log_slope, bounds=around, method="bounded", options={"xatol": 1e-12})
    e = _polished(float(np.exp(found.x)), gamma, steps)
    return np.asarray(e * levels[-1] ** 2 * (1 if convention == "full" else 2))


def variance_ratio(e, gamma, steps):
    """Variance over sigma_i^2 after the steps of a level, from the level before."""
    kept, settled = (1 - e) ** (2 * steps), 1 / (1 - e / 2)
    return kept * (gamma**2 - settled) + settled


def _slope(e, gamma, steps):
    """Derivative of the ratio."""
    kept, settled = (1 - e) ** (2 * steps), 1 / (1 - e / 2)
    return -2 * steps * (1 - e) ** (2 * steps - 1) * (gamma**2 - settled) + (1 - kept) * settled**2 / 2


def _polished(e, gamma, steps):
    """The zero of the slope near e, by bisection: a minimum found by values alone has half the digits."""
    low, high = e * (1 - 1e-4), min(e * (1 + 1e-4), 1.0)
    if not _slope(low, gamma, steps) < 0 < _slope(high, gamma, steps):
        return e
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(middle, gamma, steps) < 0 else (low, middle)
    return (low + high) / 2
