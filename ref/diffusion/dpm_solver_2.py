"""DPM-Solver-2: the exponential midpoint rule.

Source: Lu et al. 2022 (2206.00927) Algorithm 1 (r_1 = 1/2).

    lambda = ln(a / b),  h = lambda' - lambda,  lambda(t_m) = lambda + h / 2
    u  = (a_m / a) x - b_m (e^(h / 2) - 1) eps(x, t)
    x' = (a' / a) x - b' (e^h - 1) eps(u, t_m)

    stages: keep x, ask at t;  ask at (a_m / a) x + (b_m - b a_m / a) l, t_m:  A = a' / a, B = b' - A b, C = 0

Notation
    a, b at t -> sde(t).scale, .std; primes at t'.

Conventions
    C1  t_m is found by root search on lambda, which any SDE has monotone; the model is asked at times that are not in
        the list.
    C2  b' = 0 has no midpoint in lambda: end at a small time, or with one step of `diffusion.dpm_solver_1`.
    C3  Order 2; there and back returns to order 3.

Laws
    L1 each_step_is_the_exponential_midpoint L2 second_order_on_a_gaussian
    L3 one_point_is_exact                    L4 there_and_back
    L5 every_prediction_gives_the_same_path
"""

from __future__ import annotations

import math

from scipy.optimize import brentq

from ref.diffusion.convert import check_prediction, predicting
from ref.diffusion.dpm_solver_1 import kernel_at
from ref.diffusion.euler_maruyama import check_monotone
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.dpm_solver_2", "x[*B] -> [*B]")
def dpm_solver_2(x, *, model, sde, times, prediction="eps"):
    """The state at the last time.

    Parameters
    ----------
    x : float[*B]
        The state at times[0].
    model : callable
        model(x, t) -> float[*B].
    sde : callable
        t -> (drift, diffusion, scale, std), as `diffusion.vp`; the last two are used.
    times : float[K + 1]
        Falling, or rising; std positive at all.
    prediction : "eps", "x0", "v" or "score"
        What the model predicts.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Times that are not monotone, a std of 0, an unknown prediction, or an output of another shape.
    TypeError
        x is not a float array.

    Complexity: two calls of the model a step.

    >>> import numpy as np
    >>> ve = lambda t: (0.0, 1.0, 1.0, t)
    >>> dpm_solver_2(np.array([8.0]), model=lambda x, t: 0 * x + 2, sde=ve, times=[1.0, 0.5])
    array([7.])
    """
    bind("dpm_solver_2", "x[*B]", x=x)
    check_prediction("dpm_solver_2", prediction)
    model = predicting("dpm_solver_2", model, prediction, "eps", lambda t: kernel_at(sde, t))
    return run_stages(x, None, stages=dpm_solver_2_stages(sde, times), model=model, name="dpm_solver_2")


def dpm_solver_2_stages(sde, times):
    """The affine stages for a model that predicts eps."""
    times = check_monotone("dpm_solver_2", numbers(times), both=True)
    stages = []
    for t, to in zip(times[:-1], times[1:], strict=True):
        (a, b), (a_to, b_to) = kernel_at(sde, t), kernel_at(sde, to)
        middle = midpoint("dpm_solver_2", sde, t, to)
        a_m, b_m = kernel_at(sde, middle)
        stages += [
            Stage(t),
            Stage(middle, a_to / a, b_to - a_to / a * b, at_x=a_m / a, at_last=b_m - a_m / a * b),
        ]
    return stages


def half_log_snr(function, sde, t):
    """lambda = ln(scale / std); ValueError where std is 0."""
    a, b = kernel_at(sde, t)
    if not b > 0:
        raise ValueError(f"{function}: std={b} at t={t}; needed a positive std at every time")
    return math.log(a / b)


def midpoint(function, sde, t, to):
    """The time between t and `to` at which lambda is the mean of theirs."""
    wanted = (half_log_snr(function, sde, t) + half_log_snr(function, sde, to)) / 2
    return brentq(lambda s: half_log_snr(function, sde, s) - wanted, t, to, xtol=1e-15, rtol=8.9e-16)
