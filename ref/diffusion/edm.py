"""EDM's sampler: Heun on dx / dsigma, with churn.

Source: Karras et al. 2022 (2206.00364) Algorithms 1 and 2.

    gamma = min(S_churn / N, sqrt(2) - 1) if S_min <= sigma <= S_max else 0
    churn:   sigma^ = sigma (1 + gamma),   x += sqrt(sigma^^2 - sigma^2) S_noise z
    euler:   d = (x - D(x, sigma^)) / sigma^,   y = x + (sigma' - sigma^) d
    heun:    if sigma' > 0:  d' = (y - D(y, sigma')) / sigma',   y = x + (sigma' - sigma^) (d + d') / 2

    stages, r = sigma' / sigma^:
        x' = x + c z                                  (where gamma > 0)
        A = r, B = 1 - r                              (Euler, and the step to 0)
        keep x, ask at sigma^;  ask at r x + (1 - r) l:  A = r, B = (1 - r) / (2 r), C = (1 - r) (2 r - 1) / (2 r)

Notation
    D -> denoiser; sigma_0 > .. > sigma_N -> sigmas; N = len(sigmas) - 1.

Conventions
    C1  D predicts x_0 of x = x_0 + sigma z: scale 1. `diffusion.edm_precondition.denoiser` makes one of a raw network.
    C2  order 1 leaves Heun's second half out. The step to 0 is Euler's in either case: D itself.
    C3  Without churn sigmas may rise, to encode. Then all must be positive.
    C4  A step that churns takes one draw; N counts steps, the one to 0 included.

Laws
    L1 each_stage_by_the_algorithm           L2 order_on_a_gaussian
    L3 the_last_step_is_the_denoiser         L4 churn_keeps_the_marginal
    L5 there_and_back
"""

from __future__ import annotations

import math

from ref.diffusion.annealed_langevin import check_falling
from ref.diffusion.euler_maruyama import check_monotone
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.edm", "x[*B], noise:tree -> [*B]")
def edm(
    x, noise=None, *, denoiser, sigmas, order=2, churn=0.0, churn_min=0.0, churn_max=math.inf, churn_noise=1.0
):  # fmt: skip
    """The state at the last sigma.

    Parameters
    ----------
    x : float[*B]
        The state at sigmas[0]: noise of that deviation.
    noise : sequence of float[*B], float[k *B], generator, or None
        A draw for every step that churns.
    denoiser : callable
        D(x, sigma) -> float[*B].
    sigmas : float[N + 1]
        Falling, positive but for the last, which may be 0; without churn rising too.
    order : 1 or 2
        Euler or Heun.
    churn, churn_min, churn_max, churn_noise : float
        S_churn, S_min, S_max and S_noise.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Sigmas out of order, an unknown order, churn or churn_noise negative, too few draws, or an output of another
        shape.
    TypeError
        x is not a float array.

    Complexity: two calls of the denoiser a step, one at the step to 0.

    >>> import numpy as np
    >>> edm(np.array([8.0]), denoiser=lambda x, sigma: 0.0 * x, sigmas=[2.0, 1.0])
    array([4.])
    """
    bind("edm", "x[*B]", x=x)
    stages = edm_stages(sigmas, order, churn, churn_min, churn_max, churn_noise)
    return run_stages(x, noise, stages=stages, model=denoiser, name="edm")


def edm_stages(sigmas, order=2, churn=0.0, churn_min=0.0, churn_max=math.inf, churn_noise=1.0):
    """The affine stages for a model that denoises; their t is sigma."""
    if order not in (1, 2):
        raise ValueError(f"edm: order={order}; needed 1 or 2")
    if not churn >= 0 or not churn_noise >= 0:
        raise ValueError(f"edm: churn={churn}, churn_noise={churn_noise}; needed numbers >= 0")
    sigmas = numbers(sigmas)
    rising = len(sigmas) > 1 and sigmas[1] > sigmas[0]
    check_monotone("edm", sigmas, both=churn == 0, name="sigmas")
    check_falling("edm", sigmas[::-1] if rising else sigmas, zero=not rising)
    most = min(churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    stages = []
    for sigma, to in zip(sigmas[:-1], sigmas[1:], strict=True):
        gamma = most if churn_min <= sigma <= churn_max else 0.0
        hat = sigma * (1 + gamma)
        if gamma:
            stages.append(Stage(None, noise=churn_noise * sigma * math.sqrt(gamma * (2 + gamma))))
        r = to / hat
        if order == 1 or to == 0:
            stages.append(Stage(hat, r, 1 - r))
            continue
        B, C = (1 - r) / (2 * r), (1 - r) * (2 * r - 1) / (2 * r)
        stages += [Stage(hat), Stage(to, r, B, C, at_x=r, at_last=1 - r)]
    return stages
