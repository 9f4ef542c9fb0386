"""A discrete schedule as an SDE: log alpha_bar on straight lines between its steps.

Source: Lu et al. 2022 (2206.00927) App. D.1 ("discrete-time DPMs": log alpha interpolated linearly); Song et al. 2021
(2011.13456) Eq. 11 for the SDE.

    ln alpha_bar(t) on straight lines through (0, 0), (1, ln alpha_bar_1), .. (N, ln alpha_bar_N)
    beta(t) = -d ln alpha_bar / dt,   drift = -beta / 2,  diffusion = sqrt(beta)
    scale = sqrt(alpha_bar(t)),  std = sqrt(1 - alpha_bar(t))

Notation
    t -> t, in steps: 0 <= t <= N.

Conventions
    C1  A network trained on steps 1 .. N serves continuous solvers so; it is asked at fractional t. At integers scale
        and std are those of `diffusion.noised`, exactly.
    C2  beta is constant between steps and takes the value of the step that begins at an integer t's left: (k - 1, k].
    C3  As in `diffusion.vp`: a function t -> (drift, diffusion, scale, std), here with alpha_bar fixed.

Laws
    L1 at_integers_it_is_the_schedule        L2 straight_lines_between
    L3 the_kernel_solves_the_moment_equations
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.diffusion.alpha_bar import check_open_unit
from ref.diffusion.vp import Coefficients, check_times, functions
from ref.spec import bind, spec


@spec("diffusion.discrete_sde", "t[*B], alpha_bar[N] -> drift[*B], diffusion[*B], scale[*B], std[*B]")
def discrete_sde(t, alpha_bar):
    """Coefficients at time t, in steps.

    Parameters
    ----------
    t : float or float[*B]
        In [0, N].
    alpha_bar : float[N]
        Falling within (0, 1), at least one; of any float dtype, on t's backend.

    Returns
    -------
    Coefficients of float or float[*B]

    Raises
    ------
    ValueError
        A time outside [0, N], no alpha_bar, or one outside (0, 1).
    TypeError
        t is neither a float nor a float array, or alpha_bar is no float array.

    Complexity: a logarithm and an exponential a time.

    >>> import numpy as np
    >>> discrete_sde(1.0, np.array([0.64, 0.25]))[2:]
    (0.8, 0.6)
    """
    count = bind("discrete_sde", "alpha_bar[N]", alpha_bar=alpha_bar)["N"]
    if not count:
        raise ValueError("discrete_sde: alpha_bar has N=0 steps; needed at least one")
    check_open_unit("discrete_sde", "alpha_bar", alpha_bar)
    check_times("discrete_sde", t, count)
    if functions("discrete_sde", t) is math:
        k = max(math.ceil(t), 1)
        left = math.log(float(alpha_bar[k - 2])) if k > 1 else 0.0
        slope = math.log(float(alpha_bar[k - 1])) - left
        return _kernel(math, left + slope * (t - (k - 1)), -slope)
    xp = namespace(alpha_bar)
    logs = xp.concat([xp.zeros(1, dtype=alpha_bar.dtype), xp.log(alpha_bar)])
    wide = xp.astype(xp.reshape(t, (-1,)), alpha_bar.dtype)
    k = xp.clip(xp.astype(xp.ceil(wide), xp.int64), 1, count)
    left = xp.take(logs, k - 1)
    slope = xp.take(logs, k) - left
    found = _kernel(xp, left + slope * (wide - xp.astype(k - 1, wide.dtype)), -slope)
    return Coefficients(*(xp.reshape(xp.astype(v, t.dtype), tuple(t.shape)) for v in found))


def _kernel(xp, log_bar, beta):
    return Coefficients(beta * -0.5, xp.sqrt(beta), xp.exp(log_bar * 0.5), xp.sqrt(-xp.expm1(log_bar)))
