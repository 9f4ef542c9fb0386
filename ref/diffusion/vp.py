"""Variance-preserving SDE: coefficients and perturbation kernel.

Source: Song et al. 2021 (2011.13456) Eq. 11, 29, 33; App. C for the linear beta.

    dx = -beta(t) x / 2 dt + sqrt(beta(t)) dw,   beta(t) = b_0 + t (b_1 - b_0),   0 <= t <= 1
    x(t) | x(0) = N(a x(0), b^2 I),   a = e^(-B / 2),  b^2 = 1 - e^(-B),  B = int_0^t beta = b_0 t + (b_1 - b_0) t^2 / 2

Notation
    -beta / 2 -> drift (times x), sqrt(beta) -> diffusion, a -> scale, b -> std.

Conventions
    C1  Every SDE here is a function t -> (drift, diffusion, scale, std), four numbers or arrays, with a drift linear
        in x: what a sampler takes as `sde`. Fix options by functools.partial.
    C2  A Python float in, Python floats out; an array in, arrays out.
    C3  It is the limit of DDPM with `diffusion.linear_schedule` from b_0 / N to b_1 / N; a^2 is alpha_bar.

Laws
    L1 coefficients_and_kernel               L2 the_kernel_solves_the_moment_equations
    L3 variance_is_preserved                 L4 limit_of_ddpm
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import namespace
from ref.spec import bind, spec


class Coefficients(NamedTuple):
    """dx = drift x dt + diffusion dw, and the kernel N(scale x_0, std^2 I)."""

    drift: Any
    diffusion: Any
    scale: Any
    std: Any


@spec("diffusion.vp", "t[*B] -> drift[*B], diffusion[*B], scale[*B], std[*B]")
def vp(t, *, beta_min=0.1, beta_max=20.0):
    """Coefficients at time t.

    Parameters
    ----------
    t : float or float[*B]
        In [0, 1].
    beta_min, beta_max : float
        b_0 and b_1, positive.

    Returns
    -------
    Coefficients of float or float[*B]

    Raises
    ------
    ValueError
        A time outside [0, 1], or b_0 or b_1 not positive and finite.
    TypeError
        t is neither a float nor a float array.

    Complexity: 2 exponentials a time.

    >>> vp(0.0, beta_min=4.0)
    Coefficients(drift=-2.0, diffusion=2.0, scale=1.0, std=0.0)
    """
    beta, area = linear_beta("vp", t, beta_min, beta_max)
    xp = functions("vp", t)
    return Coefficients(beta * -0.5, xp.sqrt(beta), xp.exp(area * -0.5), xp.sqrt(-xp.expm1(-area)))


def linear_beta(function, t, low, high):
    """(beta, its integral from 0) at t."""
    for name, b in (("beta_min", low), ("beta_max", high)):
        if not 0 < b < math.inf:
            raise ValueError(f"{function}: {name}={b}; needed a positive finite number")
    check_times(function, t)
    return t * (high - low) + low, t * low + t * t * ((high - low) / 2)


def functions(function, t):
    """Where sqrt, exp, log and expm1 of t come from: math for a Python number, else its namespace."""
    if isinstance(t, float | int) and not isinstance(t, bool) and not hasattr(t, "shape"):
        return math
    bind(function, "t[*B]", t=t)
    return namespace(t)


def check_times(function, t, last=1.0):
    """ValueError unless all times lie in [0, last]."""
    xp = functions(function, t)
    inside = 0 <= t <= last if xp is math else bool(xp.all((t >= 0) & (t <= last)))
    if not inside:
        found = t if xp is math else float(xp.min(t)) if bool(xp.any(t < 0)) else float(xp.max(t))
        raise ValueError(f"{function}: t has {found}; needed times in [0, {last:g}]")
