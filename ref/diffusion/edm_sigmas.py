"""EDM's noise levels.

Source: Karras et al. 2022 (2206.00364) Eq. 5, Table 1.

    sigma_i = (sigma_max^(1/rho) + i / (N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,   i = 0 .. N - 1
    sigma_N = 0

Notation
    N -> N: steps, hence N + 1 levels.

Conventions
    C1  rho = 7 is the paper's: short steps at the low end. rho = 1 is linear; rho -> oo geometric.
    C2  The step to sigma_N = 0 is one more than those between the N positive levels.

Laws
    L1 ends_and_equal_steps_of_the_root      L2 linear_and_nearly_geometric
"""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.linear_schedule import check_steps
from ref.spec import spec


@spec("diffusion.edm_sigmas", "N:int[] -> levels:tree", backends=("numpy",))
def edm_sigmas(N, *, sigma_min=0.002, sigma_max=80.0, rho=7.0):
    """The levels sigma_0 .. sigma_N.

    Parameters
    ----------
    N : int
        Steps, at least 1; one has sigma_0 = sigma_max.
    sigma_min, sigma_max : float
        0 < sigma_min < sigma_max.
    rho : float
        Positive.

    Returns
    -------
    float64[N + 1]

    Raises
    ------
    ValueError
        N < 1, not 0 < sigma_min < sigma_max, or rho not positive and finite.
    TypeError
        N is no integer.

    Complexity: N powers.

    >>> edm_sigmas(3, sigma_min=1.0, sigma_max=9.0, rho=2.0)
    array([9., 4., 1., 0.])
    """
    count = check_steps("edm_sigmas", N)
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"edm_sigmas: sigma_min={sigma_min}, sigma_max={sigma_max}; needed 0 < sigma_min < sigma_max")
    if not 0 < rho < math.inf:
        raise ValueError(f"edm_sigmas: rho={rho}; needed a positive finite number")
    root = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), count)
    return np.append(root**rho, 0.0)
