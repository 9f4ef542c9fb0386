"""DDIM: steps that keep the marginals, with as much noise as eta says.

Source: Song, Meng & Ermon 2021 (2010.02502) Eq. 12, 16 and App. D.3 for eta.

    x_s = sqrt(alpha_bar_s) x_0hat + sqrt(1 - alpha_bar_s - sigma^2) eps + sigma z
    sigma = eta sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) sqrt(1 - alpha_bar_t / alpha_bar_s)

    stage, k = sqrt(1 - alpha_bar_s - sigma^2):
        predicting eps: A = sqrt(alpha_bar_s / alpha_bar_t), B = k - A sqrt(1 - alpha_bar_t), c = sigma
        predicting x_0: A = k / sqrt(1 - alpha_bar_t),       B = sqrt(alpha_bar_s) - A sqrt(alpha_bar_t)

Notation
    x_T -> x; s < t neighbours of steps; the paper's alpha is alpha_bar here, alpha_bar[t - 1] at step t.

Conventions
    C1  s is read from steps, never computed as t - N / S: a grid whose gaps differ is as good as another. The last s
        is 0 with alpha_bar = 1, so the last step returns x_0hat; some libraries keep alpha_bar_1 there
        (set_alpha_to_one=False), which leaves noise in the sample.
    C2  eta = 1 is ancestral sampling with the small variance, on subsequences too; eta = 0 has no noise and is Euler's
        method on x / sqrt(alpha_bar) in sqrt((1 - alpha_bar) / alpha_bar).
    C3  clip bounds the predicted x_0, and eps is then formed again from it. Off by default.

Laws
    L1 each_step_by_predicted_x0_and_noise   L2 one_point_keeps_every_marginal
    L3 eta_zero_is_euler_in_the_noise_ratio  L4 eta_one_is_ancestral_with_the_small_variance
    L5 a_subsequence_is_a_schedule           L6 every_prediction_gives_the_same_path
    L7 clipping_bounds_the_predicted_x0      L8 first_order_for_gaussian_data
"""

from __future__ import annotations

import math

from ref.diffusion.convert import check_prediction, predicting
from ref.diffusion.ddpm import clipped, kernel_of, visited
from ref.diffusion.reverse_kernel import native_of
from ref.diffusion.run_stages import Stage, run_stages
from ref.spec import bind, spec


@spec("diffusion.ddim", "x[*B], noise:tree -> [*B]")
def ddim(x, noise=None, *, model, alpha_bar, steps=None, eta=0.0, prediction="eps", clip=None):
    """A sample, from noise.

    Parameters
    ----------
    x : float[*B]
        x_T, standard normal.
    noise : sequence of float[*B], float[k *B], generator, or None
        With eta > 0 a draw for every step but the last.
    model : callable
        model(x, t) -> float[*B].
    alpha_bar : float[N]
    steps : sequence of int, optional
        Rising steps of 1 .. N to visit (`diffusion.timesteps`); all if not given.
    eta : float
        In [0, 1].
    prediction : "eps", "x0", "v" or "score"
        What the model predicts.
    clip : float, optional
        Bound of the predicted x_0.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Unknown prediction, alpha_bar that does not fall within (0, 1), steps that do not rise within 1 .. N, eta
        outside [0, 1], clip <= 0, too few draws, or an output of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the model a step.

    >>> import numpy as np
    >>> point = lambda x, t: 0 * x + 3.0
    >>> ddim(np.array([1.0]), model=point, alpha_bar=[0.75, 0.5], prediction="x0")
    array([3.])
    """
    bind("ddim", "x[*B]", x=x)
    check_prediction("ddim", prediction)
    native = "x0" if clip is not None else native_of(prediction)
    stages = ddim_stages(alpha_bar, steps=steps, eta=eta, native=native)
    kernel = kernel_of(visited("ddim", alpha_bar, steps))
    model = clipped("ddim", predicting("ddim", model, prediction, native, kernel), clip)
    return run_stages(x, noise, stages=stages, model=model, name="ddim")


def ddim_stages(alpha_bar, *, steps=None, eta=0.0, native="eps"):
    """The affine stages, from the noisiest step down, for a model that predicts `native` ("eps" or "x0")."""
    if not 0 <= eta <= 1:
        raise ValueError(f"ddim: eta={eta}; needed a number in [0, 1]")
    return [Stage(t, *_weights(now, before, eta, native)) for t, now, before in visited("ddim", alpha_bar, steps)]


def _weights(now, before, eta, native):
    """(A, B, 0, c) of the step from alpha_bar `now` to `before`."""
    sigma = eta * math.sqrt((1 - before) / (1 - now) * (before - now) / before)
    k = math.sqrt(max(1 - before - sigma**2, 0.0))
    a, b = math.sqrt(now), math.sqrt(1 - now)
    if native == "x0":
        return k / b, math.sqrt(before) - k / b * a, 0.0, sigma
    return math.sqrt(before) / a, k - math.sqrt(before) / a * b, 0.0, sigma
