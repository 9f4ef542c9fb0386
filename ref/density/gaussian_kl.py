"""Divergence of a diagonal Gaussian from the standard normal, in closed form.

Source: Kingma & Welling 2014 (1312.6114) Eq. 10 and appendix B.

    KL(N(mu, sigma^2) || N(0, I)) = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2)
    d / d mu = mu,   d / d log sigma^2 = (sigma^2 - 1) / 2

Notation
    mu -> mean[*B z], log sigma^2 -> log_variance[*B z].

Conventions
    C1  Log variance, as the paper; where a network gives log sigma, double it.
    C2  The sum over coordinates, in nats; never the mean.
    C3  sigma^2 - 1 is taken by expm1: with d = log sigma^2 small, the error is of the size u d, not u.

Laws
    L1 an_expected_log_ratio                L2 zero_for_the_standard_normal_alone
    L3 near_the_standard_normal_a_square    L4 coordinates_add_up
    L5 gradient_is_the_closed_form
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "mean[*B z], log_variance[*B z] -> [*B]"


@spec("density.gaussian_kl", SIGNATURE, grads=("mean", "log_variance"))
def gaussian_kl(mean, log_variance):
    """KL(N(mean, exp(log_variance)) || N(0, I)).

    Parameters
    ----------
    mean, log_variance : float[*B z]

    Returns
    -------
    float[*B]
        Nats, never negative.

    Raises
    ------
    ValueError
        The shapes differ.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 6 B z operations.

    >>> import numpy as np
    >>> gaussian_kl(np.array([1.0, 2.0]), np.zeros(2))
    np.float64(2.5)
    """
    bind("gaussian_kl", SIGNATURE, mean=mean, log_variance=log_variance)
    xp = namespace(mean, log_variance)
    return 0.5 * xp.sum(mean * mean + (xp.expm1(log_variance) - log_variance), axis=-1)
