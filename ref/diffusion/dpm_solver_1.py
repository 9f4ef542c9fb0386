"""DPM-Solver-1: the exponential integrator of first order, which is DDIM in continuous time.

Source: Lu et al. 2022 (2206.00927) Eq. 3.7; sec. 4.1 for its being DDIM.

    lambda = ln(a / b),  h = lambda' - lambda
    x' = (a' / a) x - b' (e^h - 1) eps(x, t)

    stage: A = a' / a, B = b' - A b

Notation
    a, b at t -> sde(t).scale, .std; primes at t'.

Conventions
    C1  Written without lambda the step needs no logarithm and reaches b' = 0, where it returns the predicted x_0.
    C2  Times fall to sample and rise to encode.
    C3  Any SDE with a linear drift serves, VE too (a = 1).

Laws
    L1 each_step_is_the_exponential_integrator   L2 first_order_on_a_gaussian
    L3 one_point_is_exact                    L4 there_and_back
    L5 every_prediction_gives_the_same_path  L6 it_is_ddim
"""

from __future__ import annotations

from ref.diffusion.convert import check_prediction, predicting
from ref.diffusion.euler_maruyama import check_monotone
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.dpm_solver_1", "x[*B] -> [*B]")
def dpm_solver_1(x, *, model, sde, times, prediction="eps"):
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
        Falling, or rising.
    prediction : "eps", "x0", "v" or "score"
        What the model predicts.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Times that are not monotone, an unknown prediction, or an output of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the model a step.

    >>> import numpy as np
    >>> ve = lambda t: (0.0, 1.0, 1.0, t)
    >>> dpm_solver_1(np.array([8.0]), model=lambda x, t: 0 * x + 2, sde=ve, times=[1.0, 0.5])
    array([7.])
    """
    bind("dpm_solver_1", "x[*B]", x=x)
    check_prediction("dpm_solver_1", prediction)
    model = predicting("dpm_solver_1", model, prediction, "eps", lambda t: kernel_at(sde, t))
    return run_stages(x, None, stages=dpm_solver_1_stages(sde, times), model=model, name="dpm_solver_1")


def dpm_solver_1_stages(sde, times):
    """The affine stages for a model that predicts eps."""
    times = check_monotone("dpm_solver_1", numbers(times), both=True)
    stages = []
    for t, to in zip(times[:-1], times[1:], strict=True):
        (a, b), (a_to, b_to) = kernel_at(sde, t), kernel_at(sde, to)
        stages.append(Stage(t, a_to / a, b_to - a_to / a * b))
    return stages


def kernel_at(sde, t):
    """(scale, std) at t as Python floats."""
    _, _, a, b = sde(t)
    return float(a), float(b)
