"""Euler-Maruyama on the reverse SDE, for any lambda.

Source: Song et al. 2021 (2011.13456) Eq. 6, sec. 4.1; Kloeden & Platen 1992 sec. 9.1.

    x' = x + h (f x - (1 + lambda^2) / 2 g^2 s(x, t)) + lambda g sqrt(|h|) z,   h = t' - t < 0

    stage: A = 1 + h f, B = -h (1 + lambda^2) / 2 g^2, c = lambda g sqrt(|h|)

Notation
    f, g at t -> sde(t).drift, .diffusion; t_0 > t_1 > .. -> times.

Conventions
    C1  All coefficients are those of the step's beginning, its noisy end.
    C2  No noise at the last step by default, as in the paper's code ("denoise"): its mean is the sample. `last_noise`
        keeps it.
    C3  lambda = 0 is Euler on the probability flow; then times may rise too, to encode.
    C4  The error of means and variances is of order 1 in h.

Laws
    L1 each_step_by_its_terms                L2 first_order_in_mean_and_variance
    L3 no_noise_at_the_last_step             L4 there_and_back
"""

from __future__ import annotations

import math

from ref.diffusion.reverse_sde import reverse_weights
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.euler_maruyama", "x[*B], noise:tree -> [*B]")
def euler_maruyama(x, noise=None, *, score, sde, times, lam=1.0, last_noise=False):
    """The state at the last time.

    Parameters
    ----------
    x : float[*B]
        The state at times[0].
    noise : sequence of float[*B], float[k *B], generator, or None
        With lam > 0 a draw for every step but the last (or with it: last_noise).
    score : callable
        s(x, t) -> float[*B].
    sde : callable
        t -> (drift, diffusion, scale, std), as `diffusion.vp`.
    times : float[K + 1]
        Falling; with lam = 0 rising too.
    lam : float
        lambda, at least 0.
    last_noise : bool

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Times that do not fall (or rise, lam = 0), lam negative, too few draws, or a score of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the score a step.

    >>> import numpy as np
    >>> ve = lambda t: (0.0, 2.0, 1.0, t)
    >>> euler_maruyama(np.array([8.0]), score=lambda x, t: -x, sde=ve, times=[0.5, 0.25], lam=0.0)
    array([4.])
    """
    bind("euler_maruyama", "x[*B]", x=x)
    stages = euler_maruyama_stages(sde, times, lam, last_noise)
    return run_stages(x, noise, stages=stages, model=score, name="euler_maruyama")


def euler_maruyama_stages(sde, times, lam=1.0, last_noise=False):
    """The affine stages for a model that gives the score."""
    times = check_monotone("euler_maruyama", numbers(times), both=lam == 0)
    stages = []
    for t, to in zip(times[:-1], times[1:], strict=True):
        f, g = map(float, sde(t)[:2])
        of_x, of_score, noise = reverse_weights("euler_maruyama", f, g, lam)
        h = to - t
        quiet = to == times[-1] and not last_noise
        stages.append(Stage(t, 1 + h * of_x, h * of_score, noise=0.0 if quiet else noise * math.sqrt(abs(h))))
    return stages


def check_monotone(function, times, both=False, name="times"):
    """`times`; ValueError unless there are two or more that fall strictly (or, with `both`, that rise)."""
    if len(times) < 2:
        raise ValueError(f"{function}: {name} has {len(times)} entries; needed at least two")
    falls = times[1] < times[0] or not both
    for at, (before, t) in enumerate(zip(times[:-1], times[1:], strict=True), 1):
        if not (t < before if falls else t > before):
            way = "fall" if falls else "rise"
            raise ValueError(f"{function}: {name}[{at}]={t} after {before}; needed numbers that {way}")
    return times
