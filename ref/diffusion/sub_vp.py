"""Sub-VP SDE: coefficients and perturbation kernel.

Source: Song et al. 2021 (2011.13456) Eq. 12, 29; App. B.

    dx = -beta x / 2 dt + sqrt(beta (1 - e^(-2 B))) dw,   B = int_0^t beta
    x(t) | x(0) = N(e^(-B / 2) x(0), (1 - e^(-B))^2 I)

Notation
    as in `diffusion.vp`.

Conventions
    C1  std is 1 - e^(-B), without a root: the variance is the square of VP's, hence never above it.
    C2  As in `diffusion.vp`: a function t -> (drift, diffusion, scale, std); floats in, floats out.

Laws
    L1 coefficients_and_kernel               L2 the_kernel_solves_the_moment_equations
    L3 variance_at_most_that_of_vp
"""

from __future__ import annotations

from ref.diffusion.vp import Coefficients, functions, linear_beta
from ref.spec import spec


@spec("diffusion.sub_vp", "t[*B] -> drift[*B], diffusion[*B], scale[*B], std[*B]")
def sub_vp(t, *, beta_min=0.1, beta_max=20.0):
    """Coefficients at time t.

    Parameters
    ----------
    t : float or float[*B]
        In [0, 1].
    beta_min, beta_max : float
        Ends of the linear beta, positive.

    Returns
    -------
    Coefficients of float or float[*B]

    Raises
    ------
    ValueError
        A time outside [0, 1], or beta_min or beta_max not positive and finite.
    TypeError
        t is neither a float nor a float array.

    Complexity: 3 exponentials a time.

    >>> sub_vp(0.0).std
    0.0
    """
    beta, area = linear_beta("sub_vp", t, beta_min, beta_max)
    xp = functions("sub_vp", t)
    spread = xp.sqrt(beta * -xp.expm1(area * -2.0))
    return Coefficients(beta * -0.5, spread, xp.exp(area * -0.5), -xp.expm1(-area) + 0.0)
