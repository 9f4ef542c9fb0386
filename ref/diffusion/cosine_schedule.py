"""Noise schedule: alpha_bar follows the square of a cosine.

Source: Nichol & Dhariwal 2021 (2102.09672) Eq. 17 and sec. 3.2.

    f(t) = cos^2((t / T + s) / (1 + s) pi / 2),   alpha_bar_t = f(t) / f(0)
    beta_t = min(1 - alpha_bar_t / alpha_bar_{t-1}, largest),   t = 1 .. T

Notation
    beta_t -> the result at index t - 1; T -> T; s -> offset.

Conventions
    C1  Index 0 is t = 1. The division by f(0) cancels in beta; without it alpha_bar_0 would not be 1.
    C2  f(T) = 0, so beta_T = 1 before the bound: `largest` keeps alpha_bar_T above 0.
    C3  The bound is on beta, step by step; alpha_bar is the product of what is left.

Laws
    L1 products_are_the_squared_cosine       L2 squared_cosines_obey_their_recurrence
    L3 bounded_by_the_largest                L4 offset_zero_in_closed_form
"""

from __future__ import annotations

import numpy as np

from ref.diffusion.linear_schedule import check_steps
from ref.spec import spec


@spec("diffusion.cosine_schedule", "T:int[] -> [T]", backends=("numpy",))
def cosine_schedule(T, *, offset=0.008, largest=0.999):
    """The variances beta_1 .. beta_T.

    Parameters
    ----------
    T : int
        Number of steps, at least 1.
    offset : float
        s, at least 0: keeps beta_1 from being tiny.
    largest : float
        Bound on every beta, in (0, 1).

    Returns
    -------
    float64[T]

    Raises
    ------
    ValueError
        T < 1, offset negative or not finite, or largest outside (0, 1).
    TypeError
        T is no integer.

    Complexity: T cosines.

    >>> cosine_schedule(2, offset=0.0)
    array([0.5  , 0.999])
    """
    count = check_steps("cosine_schedule", T)
    if not 0 <= offset < np.inf:
        raise ValueError(f"cosine_schedule: offset={offset}; needed a finite number >= 0")
    if not 0 < largest < 1:
        raise ValueError(f"cosine_schedule: largest={largest}; needed a number in (0, 1)")
    f = np.cos((np.arange(count + 1) / count + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], largest)
