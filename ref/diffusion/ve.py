"""Variance-exploding SDE: coefficients and perturbation kernel.

Source: Song et al. 2021 (2011.13456) Eq. 9, 29, 30-32; App. C.

    dx = sqrt(d sigma^2 / dt) dw,   sigma(t) = sigma_min (sigma_max / sigma_min)^t,   0 <= t <= 1
    diffusion = sigma(t) sqrt(2 ln(sigma_max / sigma_min))
    x(t) | x(0) = N(x(0), (sigma(t)^2 - sigma(0)^2) I)

Notation
    drift = 0, scale = 1, b -> std.

Conventions
    C1  The kernel of the SDE has sigma(t)^2 - sigma(0)^2. In practice sigma(0)^2 is dropped, as if the data had been
        noised by sigma_min before: `exact=False`, the default, as in the paper's code.
    C2  As in `diffusion.vp`: a function t -> (drift, diffusion, scale, std); floats in, floats out.

Laws
    L1 coefficients_and_kernel               L2 the_kernel_solves_the_moment_equations
    L3 levels_in_geometric_progression
"""

from __future__ import annotations

import math

from ref.diffusion.vp import Coefficients, check_times, functions
from ref.spec import spec


@spec("diffusion.ve", "t[*B] -> drift[*B], diffusion[*B], scale[*B], std[*B]")
def ve(t, *, sigma_min=0.01, sigma_max=50.0, exact=False):
    """Coefficients at time t.

    Parameters
    ----------
    t : float or float[*B]
        In [0, 1].
    sigma_min, sigma_max : float
        0 < sigma_min < sigma_max.
    exact : bool
        Subtract sigma(0)^2 from the kernel's variance.

    Returns
    -------
    Coefficients of float or float[*B]

    Raises
    ------
    ValueError
        A time outside [0, 1], or not 0 < sigma_min < sigma_max.
    TypeError
        t is neither a float nor a float array.

    Complexity: an exponential a time.

    >>> ve(1.0, sigma_min=1.0, sigma_max=2.0).std
    2.0
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"ve: sigma_min={sigma_min}, sigma_max={sigma_max}; needed 0 < sigma_min < sigma_max")
    check_times("ve", t)
    xp = functions("ve", t)
    span = math.log(sigma_max / sigma_min)
    sigma = xp.exp(t * span) * sigma_min
    std = xp.sqrt(xp.expm1(t * (2 * span))) * sigma_min if exact else sigma
    return Coefficients(t * 0.0, sigma * math.sqrt(2 * span), t * 0.0 + 1.0, std)
