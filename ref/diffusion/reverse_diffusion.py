"""Reverse diffusion sampling: the reverse SDE, discretised as the forward one is.

Source: Song et al. 2021 (2011.13456) Eq. 45-46, App. E; Algorithms 2 and 3 for VE and VP.

    forward:  x_{i+1} = gain_i x_i + spread_i z
    reverse:  x_i = (2 - gain_i) x_{i+1} + spread_i^2 s(x_{i+1}, t_{i+1}) + spread_i z

    VE: gain 1, spread^2 = sigma_{i+1}^2 - sigma_i^2        VP: gain sqrt(1 - beta), spread sqrt(beta)

    stage: A = 2 - gain, B = spread^2, c = spread

Notation
    f_i(x) of the paper = (gain_i - 1) x; G_i = spread_i; times: where the score is asked, t_{i+1}, the noisiest first.

Conventions
    C1  Any forward discretisation with a linear drift has this reverse; `ve_forward` and `vp_forward` give the
        paper's two.
    C2  No noise at the last step by default, as in the paper's code; `last_noise` keeps it (Algorithms 2 and 3 as
        printed).
    C3  For VE its samples are too wide, those of `diffusion.ancestral_ve` too narrow, both by O(step).

Laws
    L1 each_step_by_its_terms                L2 ve_is_too_wide_by_a_known_amount
    L3 no_noise_at_the_last_step             L4 forward_steps_are_the_kernels
"""

from __future__ import annotations

import math

from ref.diffusion.annealed_langevin import check_falling
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.reverse_diffusion", "x[*B], noise:tree -> [*B]")
def reverse_diffusion(x, noise, *, score, times, gains, spreads, last_noise=False):
    """The state after all steps.

    Parameters
    ----------
    x : float[*B]
        The noisiest state.
    noise : sequence of float[*B], float[k *B], or generator
        A draw for every step but the last (or with it: last_noise).
    score : callable
        s(x, t) -> float[*B].
    times : float[K]
        What the score is asked with at each step, the noisiest first.
    gains, spreads : float[K]
        Of the forward steps, in the same order; spreads positive.
    last_noise : bool

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Lengths that differ or are 0, a spread that is not positive, too few draws, or a score of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the score a step.

    >>> import numpy as np
    >>> pull = lambda x, t: -x / 4
    >>> reverse_diffusion(np.array([8.0]), None, score=pull, times=[1.0], gains=[1.0], spreads=[1.0])
    array([6.])
    """
    bind("reverse_diffusion", "x[*B]", x=x)
    stages = reverse_diffusion_stages(times, gains, spreads, last_noise)
    return run_stages(x, noise, stages=stages, model=score, name="reverse_diffusion")


def reverse_diffusion_stages(times, gains, spreads, last_noise=False):
    """The affine stages for a model that gives the score."""
    times, gains, spreads = map(numbers, (times, gains, spreads))
    if not len(times) == len(gains) == len(spreads) > 0:
        lengths = f"{len(times)} times, {len(gains)} gains, {len(spreads)} spreads"
        raise ValueError(f"reverse_diffusion: {lengths}; needed the same number of each, at least one")
    stages = []
    for k, (t, gain, spread) in enumerate(zip(times, gains, spreads, strict=True)):
        if not 0 < spread < math.inf:
            raise ValueError(f"reverse_diffusion: spreads[{k}]={spread}; needed a positive finite number")
        quiet = k == len(times) - 1 and not last_noise
        stages.append(Stage(t, 2 - gain, spread**2, noise=0.0 if quiet else spread))
    return stages


def ve_forward(sigmas):
    """(times, gains, spreads) of VE on falling sigmas, the last of which may be 0; the score is asked with sigma.

    >>> ve_forward([5.0, 3.0, 0.0])
    ([5.0, 3.0], [1.0, 1.0], [4.0, 3.0])
    """
    sigmas = check_falling("ve_forward", numbers(sigmas), zero=True)
    spreads = [math.sqrt(a * a - b * b) for a, b in zip(sigmas[:-1], sigmas[1:], strict=True)]
    return sigmas[:-1], [1.0] * len(spreads), spreads


def vp_forward(beta):
    """(times, gains, spreads) of VP on beta_1 .. beta_T; the score is asked with t, from T down.

    >>> vp_forward([0.36, 0.64])
    ([2, 1], [0.6, 0.8], [0.8, 0.6])
    """
    beta = numbers(beta)[::-1]
    for k, b in enumerate(beta):
        if not 0 < b < 1:
            raise ValueError(f"vp_forward: beta[{len(beta) - 1 - k}]={b}; needed numbers in (0, 1)")
    return list(range(len(beta), 0, -1)), [math.sqrt(1 - b) for b in beta], [math.sqrt(b) for b in beta]
