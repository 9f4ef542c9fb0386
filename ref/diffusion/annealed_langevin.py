"""Annealed Langevin dynamics: a ladder of noise levels, from the widest down.

Source: Song & Ermon 2019 (1907.05600) Algorithm 1 ("half"); 2020 (2006.09011) Algorithm 1 ("full") and sec. 3.4;
Jolicoeur-Martineau et al. 2021 (2009.05475) sec. 3 for the last, denoising step.

    for sigma_1 > .. > sigma_L, K times each:   a_i = eps sigma_i^2 / sigma_L^2
        full:  x' = x + a_i s(x, sigma_i) + sqrt(2 a_i) z         half:  x' = x + a_i s / 2 + sqrt(a_i) z
    denoise:   x' = x + sigma_L^2 s(x, sigma_L)

Notation
    eps -> step; K -> steps; sigma -> sigmas.

Conventions
    C1  eps is the step at the last, narrowest level; a / sigma_i^2 is the same at all.
    C2  All K L steps have noise; the denoising step, one more evaluation, is Tweedie's formula and has none.
    C3  Two conventions of a, as in `diffusion.langevin`.
    C4  The score gets sigma itself, a Python float.

Laws
    L1 each_step_by_its_level                L2 variance_of_every_level_on_a_gaussian
    L3 denoising_gives_the_posterior_mean    L4 half_is_full_with_half_the_step
    L5 one_level_is_langevin
"""

from __future__ import annotations

import math
import operator

from ref.diffusion.langevin import step_of
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.annealed_langevin", "x[*B], noise:tree -> [*B]")
def annealed_langevin(x, noise, *, score, sigmas, step, steps, convention="full", denoise=True):
    """A sample.

    Parameters
    ----------
    x : float[*B]
        Where to start: noise as wide as sigma_1.
    noise : sequence of float[*B], float[k *B], or generator
        A draw a step, K L in all.
    score : callable
        s(x, sigma) -> float[*B].
    sigmas : float[L]
        Falling and positive.
    step : float
        eps, positive.
    steps : int
        K, at least 1.
    convention : "full" or "half"
    denoise : bool
        End with the denoising step.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Sigmas that do not fall or are not positive, an unknown convention, step or steps out of range, too few draws,
        or a score of another shape.
    TypeError
        x is not a float array.

    Complexity: K L calls of the score, and one to denoise.

    >>> import numpy as np
    >>> z = np.zeros((2, 1))
    >>> pull = lambda x, sigma: -x / sigma**2
    >>> annealed_langevin(np.array([8.0]), z, score=pull, sigmas=[2.0, 1.0], step=0.5, steps=1, denoise=False)
    array([2.])
    """
    bind("annealed_langevin", "x[*B]", x=x)
    stages = annealed_stages(sigmas, step, steps, convention, denoise)
    return run_stages(x, noise, stages=stages, model=score, name="annealed_langevin")


def annealed_stages(sigmas, step, steps, convention="full", denoise=True):
    """The affine stages; their t is sigma."""
    sigmas = check_falling("annealed_langevin", numbers(sigmas))
    if operator.index(steps) < 1:
        raise ValueError(f"annealed_langevin: steps={steps} a level; needed at least 1")
    stages = []
    for sigma in sigmas:
        drift, spread = step_of("annealed_langevin", step * (sigma / sigmas[-1]) ** 2, convention)
        stages += [Stage(sigma, 1.0, drift, noise=spread)] * steps
    return [*stages, Stage(sigmas[-1], 1.0, sigmas[-1] ** 2)] if denoise else stages


def check_falling(function, sigmas, zero=False):
    """`sigmas`; ValueError unless there is one, all are positive (with `zero` the last may be 0), and each is below the
    one before."""
    if not sigmas:
        raise ValueError(f"{function}: sigmas is empty; needed at least one")
    for at, (before, sigma) in enumerate(zip([math.inf, *sigmas[:-1]], sigmas, strict=True)):
        last = zero and at == len(sigmas) - 1
        if not sigma < before or not (sigma >= 0 if last else sigma > 0):
            raise ValueError(f"{function}: sigmas[{at}]={sigma} after {before}; needed positive numbers that fall")
    return sigmas
