"""Langevin dynamics, unadjusted (ULA).

Source: Roberts & Tweedie 1996 (Bernoulli 2:341) sec. 1.4; Song & Ermon 2019 (1907.05600) Eq. 4 and 2020 (2006.09011)
Algorithm 1 for the two ways to write a step.

    full:   x' = x + a s(x) + sqrt(2 a) z
    half:   x' = x + (a / 2) s(x) + sqrt(a) z

    stage: A = 1, B = a (a / 2), c = sqrt(2 a) (sqrt(a))

Notation
    s = grad ln p -> score; a -> step.

Conventions
    C1  NCSN writes "half", NCSNv2 "full": the same dynamics with a doubled. `convention` names which.
    C2  It samples p for a -> 0 only. On N(m, v), 0 < a < 2 v ("full"), it settles at variance v / (1 - a / (2 v));
        "half" at v / (1 - a / (4 v)). `diffusion.mala` removes the error.
    C3  All steps have noise, the last too: the result is a sample, not a mean.

Laws
    L1 each_step_by_its_convention           L2 variance_recursion_on_a_gaussian
    L3 stationary_variance                   L4 half_is_full_with_half_the_step
"""

from __future__ import annotations

import math
import operator

from ref.diffusion.run_stages import Stage, run_stages
from ref.spec import bind, spec

CONVENTIONS = ("full", "half")


@spec("diffusion.langevin", "x[*B], noise:tree -> [*B]")
def langevin(x, noise, *, score, step, steps, convention="full"):
    """The state after some steps.

    Parameters
    ----------
    x : float[*B]
    noise : sequence of float[*B], float[k *B], or generator
        A draw a step.
    score : callable
        s(x) -> float[*B].
    step : float
        a, positive.
    steps : int
        At least 0.
    convention : "full" or "half"
        Which a it is.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        An unknown convention, a step that is not positive and finite, steps < 0, too few draws, or a score of another
        shape.
    TypeError
        x is not a float array.

    Complexity: one call of the score a step.

    >>> import numpy as np
    >>> langevin(np.array([8.0]), np.zeros((2, 1)), score=lambda x: -x, step=0.5, steps=2)
    array([2.])
    """
    bind("langevin", "x[*B]", x=x)
    stages = langevin_stages(step, steps, convention)
    return run_stages(x, noise, stages=stages, model=lambda x, t: score(x), name="langevin")


def langevin_stages(step, steps, convention="full"):
    """The affine stages; their t is the number of the step, from 1."""
    if operator.index(steps) < 0:
        raise ValueError(f"langevin: steps={steps}; needed at least 0")
    drift, spread = step_of("langevin", step, convention)
    return [Stage(k + 1, 1.0, drift, noise=spread) for k in range(steps)]


def step_of(function, step, convention):
    """(weight of the score, weight of the noise) of one step."""
    if convention not in CONVENTIONS:
        raise ValueError(f"{function}: convention={convention!r}; needed one of {CONVENTIONS}")
    if not 0 < step < math.inf:
        raise ValueError(f"{function}: step={step}; needed a positive finite number")
    return (step, math.sqrt(2 * step)) if convention == "full" else (step / 2, math.sqrt(step))
