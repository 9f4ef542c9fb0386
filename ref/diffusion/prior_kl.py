"""The last term of the variational bound: how far x_T is from pure noise.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Eq. 5 (L_T).

    L_T = KL(q(x_T | x_0), N(0, 1)) = (alpha_bar x_0^2 + (1 - alpha_bar) - 1 - ln(1 - alpha_bar)) / 2

Notation
    alpha_bar -> alpha_bar[-1], at step T.

Conventions
    C1  One number an entry, in nats: the sum over a sample's entries is its L_T.
    C2  It has no parameters: it says what the schedule costs.

Laws
    L1 at_zero_it_is_the_schedules_cost      L2 second_difference_is_alpha_bar
    L3 divergence_by_quadrature              L4 gradient_in_closed_form
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.alpha_bar import check_open_unit
from ref.spec import bind, spec

SIGNATURE = "x0[*S], alpha_bar[N] -> [*S]"


@spec("diffusion.prior_kl", SIGNATURE, grads=("x0",))
def prior_kl(x0, alpha_bar):
    """Nats of each entry.

    Parameters
    ----------
    x0 : float[*S]
    alpha_bar : float[N]
        Of any float dtype, in (0, 1), at least one; the last is used.

    Returns
    -------
    float[*S]

    Raises
    ------
    ValueError
        No alpha_bar, or one outside (0, 1).
    TypeError
        An array is not float.

    Complexity: 2 multiply-adds an entry.

    >>> import numpy as np
    >>> prior_kl(np.array([0.0, 2.0]), np.array([0.5]))
    array([0.09657359, 1.09657359])
    """
    bind("prior_kl", SIGNATURE, x0=x0)
    if not bind("prior_kl", "alpha_bar[N]", alpha_bar=alpha_bar)["N"]:
        raise ValueError("prior_kl: alpha_bar has N=0 steps; needed at least one")
    check_open_unit("prior_kl", "alpha_bar", alpha_bar)
    xp, last = namespace(alpha_bar), alpha_bar[-1]
    half, cost = xp.astype(last / 2, x0.dtype), xp.astype(-(last + xp.log1p(-last)) / 2, x0.dtype)
    return x0 * x0 * half + cost
