"""DPM-Solver++(2M): two-step exponential integrator of the predicted data.

Source: Lu et al. 2022 (2211.01095) Algorithm 2, Eq. 18.

    lambda = ln(a / b),  h_i = lambda_i - lambda_{i-1},  r = h_{i-1} / h_i
    D  = (1 + 1 / (2 r)) x_0(x_{i-1}) - 1 / (2 r) x_0(x_{i-2})         (the first step: x_0(x_{i-1}))
    x_i = (b_i / b_{i-1}) x_{i-1} - a_i (e^(-h_i) - 1) D

    stage, k = a_i - a_{i-1} b_i / b_{i-1}:  A = b_i / b_{i-1}, B = k (1 + 1 / (2 r)), C = -k / (2 r)

Notation
    a, b at t -> sde(t).scale, .std; x_0(.) the model's prediction of the data.

Conventions
    C1  One evaluation a step: the second order comes from the last output. The first step is of first order.
    C2  A step to b_i = 0 (lambda = oo) has no r and is of first order: it returns x_0.
    C3  Order 2; there and back to order 2 as well, reached slowly.

Laws
    L1 each_step_is_the_two_step_rule        L2 second_order_on_a_gaussian
    L3 one_point_is_exact                    L4 there_and_back
    L5 every_prediction_gives_the_same_path
"""

from __future__ import annotations

from ref.diffusion.convert import check_prediction, predicting
from ref.diffusion.dpm_solver_1 import kernel_at
from ref.diffusion.dpm_solver_2 import half_log_snr
from ref.diffusion.euler_maruyama import check_monotone
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.dpm_solver_pp_2m", "x[*B] -> [*B]")
def dpm_solver_pp_2m(x, *, model, sde, times, prediction="eps"):
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
        Falling, or rising; std positive at all but the last.
    prediction : "eps", "x0", "v" or "score"
        What the model predicts.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Times that are not monotone, a std of 0 before the last, an unknown prediction, or an output of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the model a step.

    >>> import numpy as np
    >>> ve = lambda t: (0.0, 1.0, 1.0, t)
    >>> dpm_solver_pp_2m(np.array([8.0]), model=lambda x, t: 0 * x + 2, sde=ve, times=[1.0, 0.5])
    array([7.])
    """
    bind("dpm_solver_pp_2m", "x[*B]", x=x)
    check_prediction("dpm_solver_pp_2m", prediction)
    model = predicting("dpm_solver_pp_2m", model, prediction, "x0", lambda t: kernel_at(sde, t))
    return run_stages(x, None, stages=dpm_solver_pp_2m_stages(sde, times), model=model, name="dpm_solver_pp_2m")


def dpm_solver_pp_2m_stages(sde, times):
    """The affine stages for a model that predicts x_0."""
    times = check_monotone("dpm_solver_pp_2m", numbers(times), both=True)
    stages, before = [], None
    for t, to in zip(times[:-1], times[1:], strict=True):
        (a, b), (a_to, b_to) = kernel_at(sde, t), kernel_at(sde, to)
        now = half_log_snr("dpm_solver_pp_2m", sde, t)
        k = a_to - a * b_to / b
        lean = 0.0
        if before is not None and b_to > 0:
            lean = (half_log_snr("dpm_solver_pp_2m", sde, to) - now) / (2 * (now - before))
        stages.append(Stage(t, b_to / b, k * (1 + lean), -k * lean))
        before = now
    return stages
