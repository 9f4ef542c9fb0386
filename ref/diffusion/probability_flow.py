"""Probability flow ODE, by Euler or Heun.

Source: Song et al. 2021 (2011.13456) Eq. 13; Heun 1900 for the second order.

    dx / dt = F(x, t) = f x - g^2 s(x, t) / 2

    euler:  x' = x + h F(x, t)
    heun:   y = x + h F(x, t),  x' = x + h (F(x, t) + F(y, t')) / 2

    stages of heun, w = -g^2 / 2:
        keep x, ask at t:            l = s
        ask at y = (1 + h f) x + h w l, t':
        A = 1 + h f / 2 + h f' (1 + h f) / 2,  B = h w' / 2,  C = h w (1 + h f') / 2

Notation
    f, g at t, f', g' at t' -> sde; h = t' - t.

Conventions
    C1  Times fall to sample and rise to encode; the same function does both.
    C2  Orders: Euler 1, Heun 2. There and back returns to order 1 and 3: Heun's leading errors cancel.
    C3  Heun asks twice a step; an Euler step with lambda = 0 of `diffusion.euler_maruyama` is the other method.

Laws
    L1 each_stage_by_its_terms               L2 order_on_a_gaussian
    L3 there_and_back
"""

from __future__ import annotations

from ref.diffusion.euler_maruyama import check_monotone
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec

METHODS = ("euler", "heun")


@spec("diffusion.probability_flow", "x[*B] -> [*B]")
def probability_flow(x, *, score, sde, times, method="heun"):
    """The state at the last time.

    Parameters
    ----------
    x : float[*B]
        The state at times[0].
    score : callable
        s(x, t) -> float[*B].
    sde : callable
        t -> (drift, diffusion, scale, std), as `diffusion.vp`.
    times : float[K + 1]
        Falling, or rising.
    method : "euler" or "heun"

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Times that are not monotone, an unknown method, or a score of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the score a step, two with Heun.

    >>> import numpy as np
    >>> ve = lambda t: (0.0, 2.0, 1.0, t)
    >>> probability_flow(np.array([8.0]), score=lambda x, t: -x, sde=ve, times=[0.5, 0.25])
    array([5.])
    """
    bind("probability_flow", "x[*B]", x=x)
    stages = probability_flow_stages(sde, times, method)
    return run_stages(x, None, stages=stages, model=score, name="probability_flow")


def probability_flow_stages(sde, times, method="heun"):
    """The affine stages for a model that gives the score."""
    if method not in METHODS:
        raise ValueError(f"probability_flow: method={method!r}; needed one of {METHODS}")
    times = check_monotone("probability_flow", numbers(times), both=True)
    stages = []
    for t, to in zip(times[:-1], times[1:], strict=True):
        (f, w), h = _field(sde, t), to - t
        if method == "euler":
            stages.append(Stage(t, 1 + h * f, h * w))
            continue
        ahead, w_ahead = _field(sde, to)
        A = 1 + h * f / 2 + h * ahead * (1 + h * f) / 2
        stages += [
            Stage(t),
            Stage(to, A, h * w_ahead / 2, h * w * (1 + h * ahead) / 2, at_x=1 + h * f, at_last=h * w),
        ]
    return stages


def _field(sde, t):
    """(weight of x, weight of the score) in dx / dt."""
    f, g = map(float, sde(t)[:2])
    return f, -g * g / 2
