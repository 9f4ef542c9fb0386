"""DDPM: ancestral sampling.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Algorithm 2, Eq. 7, 11; Nichol & Dhariwal 2021 (2102.09672) Eq. 15 and
sec. 4 for the learned variance and for fewer steps.

    x_{t-1} = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps(x_t, t)) / sqrt(alpha_t) + sigma_t z,   no z at the last step

    stage: A = 1 / sqrt(alpha_t), B = -beta_t / sqrt(alpha_t (1 - alpha_bar_t)), c = sigma_t
    (predicting x_0: A = c_t, B = c_0 of `diffusion.posterior`)

    sigma_t^2 = btilde_t (small), beta_t (large), exp(v log beta_t + (1 - v) log btilde_t) (learned)

Notation
    x_T -> x; alpha_bar_t -> alpha_bar[t - 1].

Conventions
    C1  On a subsequence tau (steps) alpha_bar[tau - 1] is the schedule: beta = 1 - alpha_bar_t / alpha_bar_s between
        neighbours s < t, and the last s is 0 with alpha_bar = 1. The model gets t itself, a Python int.
    C2  small is exact for data that are one point, large for data N(0, I); the exact reverse covariance of N(m, S) is
        btilde_t I + c_0^2 Cov(x_0 | x_t), which lies between.
    C3  No noise at the last step, whatever the variance.
    C4  clip bounds the predicted x_0 to [-clip, clip]. It is off by default: a step is then no longer affine.
    C5  With "learned" the model returns (output, v), v shaped as x.

Laws
    L1 each_step_is_the_posterior_at_the_predicted_x0   L2 every_mean_is_exact_for_gaussian_data
    L3 one_step_of_covariance                L4 a_learned_mix_makes_every_covariance_exact
    L5 no_noise_at_the_last_step             L6 every_prediction_gives_the_same_path
    L7 clipping_bounds_the_predicted_x0      L8 a_subsequence_is_a_schedule
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.diffusion.convert import check_prediction, predicting
from ref.diffusion.reverse_kernel import check_variance, native_of, step_weights
from ref.diffusion.run_stages import Stage, check_shape, draws, numbers, run_stages
from ref.diffusion.timesteps import check_rising
from ref.spec import bind, spec


@spec("diffusion.ddpm", "x[*B], noise:tree -> [*B]")
def ddpm(x, noise, *, model, alpha_bar, steps=None, prediction="eps", variance="small", clip=None):
    """A sample, from noise.

    Parameters
    ----------
    x : float[*B]
        x_T, standard normal.
    noise : sequence of float[*B], float[k *B], or generator
        A draw for every step but the last.
    model : callable
        model(x, t) -> float[*B]; with "learned" a pair of them.
    alpha_bar : float[N]
    steps : sequence of int, optional
        Rising steps of 1 .. N to visit; all if not given.
    prediction : "eps", "x0", "v" or "score"
        What the model predicts.
    variance : "small", "large" or "learned"
    clip : float, optional
        Bound of the predicted x_0.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Unknown names, alpha_bar that does not fall within (0, 1), steps that do not rise within 1 .. N, clip <= 0, too
        few draws, or an output of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the model a step.

    >>> import numpy as np
    >>> point = lambda x, t: 0 * x + 3.0
    >>> ddpm(np.array([1.0]), np.zeros((1, 1)), model=point, alpha_bar=[0.75, 0.5], prediction="x0")
    array([3.])
    """
    bind("ddpm", "x[*B]", x=x)
    check_prediction("ddpm", prediction)
    check_variance("ddpm", variance)
    native = "x0" if clip is not None else native_of(prediction)
    levels = visited("ddpm", alpha_bar, steps)
    learned = variance == "learned"
    if learned:
        return _learned(x, noise, model, levels, prediction, native, clip)
    stages = ddpm_stages(alpha_bar, steps=steps, variance=variance, native=native)
    model = clipped("ddpm", predicting("ddpm", model, prediction, native, kernel_of(levels)), clip)
    return run_stages(x, noise, stages=stages, model=model, name="ddpm")


def ddpm_stages(alpha_bar, *, steps=None, variance="small", native="eps"):
    """The affine stages, from the noisiest step down, for a model that predicts `native` ("eps" or "x0")."""
    stages = []
    for t, now, before in visited("ddpm", alpha_bar, steps):
        to_x, to_output, btilde = step_weights(math.sqrt, now, before, native)
        spread = btilde if variance == "small" else (before - now) / before
        stages.append(Stage(t, to_x, to_output, noise=0.0 if before == 1 else math.sqrt(spread)))
    return stages


def visited(function, alpha_bar, steps):
    """[(t, alpha_bar there, alpha_bar at the step before)] from the last step to the first, whose step before is 0."""
    bars = numbers(alpha_bar)
    for at, (before, now) in enumerate(zip([1.0, *bars[:-1]], bars, strict=True)):
        if not 0 < now < before:
            raise ValueError(
                f"{function}: alpha_bar[{at}]={now} after {before}; needed numbers that fall within (0, 1)"
            )
    steps = check_rising(function, range(1, len(bars) + 1) if steps is None else numbers(steps), len(bars))
    found = [bars[t - 1] for t in steps]
    return list(zip(steps, found, [1.0, *found[:-1]], strict=True))[::-1]


def kernel_of(levels):
    """t -> (scale, std) of the visited steps."""
    table = {t: (math.sqrt(now), math.sqrt(1 - now)) for t, now, _ in levels}
    return lambda t: table[t]


def clipped(function, model, clip):
    """A model of x_0 whose output is kept in [-clip, clip]."""
    if clip is None:
        return model
    if not clip > 0:
        raise ValueError(f"{function}: clip={clip}; needed a number > 0")

    def call(x, t):
        out = model(x, t)
        return namespace(out).clip(out, -clip, clip)

    return call


def _learned(x, noise, model, levels, prediction, native, clip):
    """The loop with a variance that the model gives."""
    draw = draws("ddpm", noise, x, len(levels) - 1)
    kernel = kernel_of(levels)
    for t, now, before in levels:
        output, mix = model(x, t)
        check_shape("ddpm", "the model's output", output, x)
        check_shape("ddpm", "the model's mix", mix, x)
        predict = clipped("ddpm", predicting("ddpm", lambda x, t, out=output: out, prediction, native, kernel), clip)
        to_x, to_output, btilde = step_weights(math.sqrt, now, before, native)
        mean = x * to_x + predict(x, t) * to_output
        if before == 1:
            return mean
        log_variance = mix * math.log((before - now) / before) + (1 - mix) * math.log(btilde)
        x = mean + namespace(mix).exp(log_variance / 2) * draw()
