"""Ancestral sampling for noise that only grows (VE, NCSN's levels).

Source: Song et al. 2021 (2011.13456) Eq. 47, App. F.

    x_s = x_t + (sigma_t^2 - sigma_s^2) s(x_t, sigma_t) + sqrt(sigma_s^2 (sigma_t^2 - sigma_s^2) / sigma_t^2) z

    stage: A = 1, B = sigma_t^2 - sigma_s^2, c = sigma_s sqrt(1 - sigma_s^2 / sigma_t^2)

Notation
    sigma_t > sigma_s: neighbours of sigmas.

Conventions
    C1  It is the posterior q(x_s | x_t, x_0) at Tweedie's x_0: DDPM's step with the small variance, for VE. Exact for
        data that are one point; too narrow for data with variance of their own.
    C2  The last sigma may be 0: that step is Tweedie's mean, and its noise is 0 of itself.
    C3  The score gets sigma, a Python float.

Laws
    L1 each_step_is_the_posterior_at_tweedies_x0  L2 too_narrow_by_a_known_amount
    L3 one_point_keeps_every_marginal
"""

from __future__ import annotations

import math

from ref.diffusion.annealed_langevin import check_falling
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.ancestral_ve", "x[*B], noise:tree -> [*B]")
def ancestral_ve(x, noise, *, score, sigmas):
    """The state at the last sigma.

    Parameters
    ----------
    x : float[*B]
        The state at sigmas[0].
    noise : sequence of float[*B], float[k *B], generator, or None
        A draw for every step whose end is not 0.
    score : callable
        s(x, sigma) -> float[*B].
    sigmas : float[K + 1]
        Falling, positive but for the last, which may be 0.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Fewer than two sigmas, or some that do not fall or are negative, too few draws, or a score of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the score a step.

    >>> import numpy as np
    >>> ancestral_ve(np.array([8.0]), None, score=lambda x, sigma: -x / 4, sigmas=[1.0, 0.0])
    array([6.])
    """
    bind("ancestral_ve", "x[*B]", x=x)
    return run_stages(x, noise, stages=ancestral_ve_stages(sigmas), model=score, name="ancestral_ve")


def ancestral_ve_stages(sigmas):
    """The affine stages for a model that gives the score; their t is sigma."""
    sigmas = numbers(sigmas)
    if len(sigmas) < 2:
        raise ValueError(f"ancestral_ve: sigmas has {len(sigmas)} entries; needed at least two")
    check_falling("ancestral_ve", sigmas, zero=True)
    return [
        Stage(a, 1.0, a * a - b * b, noise=b * math.sqrt((a * a - b * b) / (a * a)))
        for a, b in zip(sigmas[:-1], sigmas[1:], strict=True)
    ]
