"""Noise schedule: variances on a straight line.

Source: Ho, Jain & Abbeel 2020 (2006.11239) sec. 4; Song et al. 2021 (2011.13456) App. B for the limit of many steps.

    beta_t = first + (last - first) (t - 1) / (T - 1),   t = 1 .. T

Notation
    beta_t -> the result at index t - 1; T -> T.

Conventions
    C1  Index 0 is t = 1; both ends are taken. beta_0 does not exist: alpha_bar_0 = 1.
    C2  The paper's 1e-4 .. 0.02 is for T = 1000. For another T that keeps alpha_bar_T scale both by 1000 / T, as
        Nichol & Dhariwal 2021 do.
    C3  first = b_0 / T, last = b_1 / T is the discretisation of the VP SDE with beta from b_0 to b_1: T (ln
        alpha_bar_T + int beta) -> -1/2 int beta^2. Taking the left or the right ends of T equal parts instead adds
        +-(b_1 - b_0) / 2 to that limit, minus for right ends.
    C4  Latent diffusion's "scaled linear" is linear in sqrt(beta), another schedule.

Laws
    L1 ends_and_equal_steps                  L2 sum_of_an_arithmetic_progression
    L3 limit_of_many_steps
"""

from __future__ import annotations

import operator

import numpy as np

from ref.spec import spec


@spec("diffusion.linear_schedule", "T:int[] -> [T]", backends=("numpy",))
def linear_schedule(T, *, first=1e-4, last=0.02):
    """The variances beta_1 .. beta_T.

    Parameters
    ----------
    T : int
        Number of steps, at least 1; one step has beta = first.
    first, last : float
        In (0, 1).

    Returns
    -------
    float64[T]

    Raises
    ------
    ValueError
        T < 1, or an end outside (0, 1).
    TypeError
        T is no integer.

    Complexity: T operations.

    >>> linear_schedule(3, first=0.1, last=0.3)
    array([0.1, 0.2, 0.3])
    """
    count = check_steps("linear_schedule", T)
    for name, value in (("first", first), ("last", last)):
        if not 0 < value < 1:
            raise ValueError(f"linear_schedule: {name}={value}; needed a number in (0, 1)")
    return np.linspace(first, last, count)


def check_steps(function, T):
    """T as an int; ValueError unless it is at least 1."""
    count = operator.index(T)
    if count < 1:
        raise ValueError(f"{function}: T={count} steps; needed at least 1")
    return count
