"""Sampling along a velocity field, by Euler or Heun.

Source: Lipman et al. 2023 (2210.02747) Eq. 1; Liu et al. 2023 (2209.03003) sec. 2.

    dx / dt = v(x, t)
    euler:  x' = x + h v(x, t)                                        stage: A = 1, B = h
    heun:   y = x + h v(x, t),  x' = x + h (v(x, t) + v(y, t')) / 2    stages: keep x;  at x + h l: A = 1, B = C = h / 2

Notation
    h = t' - t, t and t' neighbours of times.

Conventions
    C1  Times rise from noise (0) to data (1) and fall to encode.
    C2  On the straight path of one point both are exact in one step.
    C3  Orders: Euler 1, Heun 2; there and back 1 and 3.

Laws
    L1 each_stage_by_its_terms               L2 order_on_a_gaussian
    L3 one_point_in_one_step                 L4 there_and_back
"""

from __future__ import annotations

from ref.diffusion.euler_maruyama import check_monotone
from ref.diffusion.probability_flow import METHODS
from ref.diffusion.run_stages import Stage, numbers, run_stages
from ref.spec import bind, spec


@spec("diffusion.flow_sampler", "x[*B] -> [*B]")
def flow_sampler(x, *, velocity, times, method="heun"):
    """The state at the last time.

    Parameters
    ----------
    x : float[*B]
        The state at times[0].
    velocity : callable
        v(x, t) -> float[*B].
    times : float[K + 1]
        Rising, or falling.
    method : "euler" or "heun"

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Times that are not monotone, an unknown method, or a velocity of another shape.
    TypeError
        x is not a float array.

    Complexity: one call of the velocity a step, two with Heun.

    >>> import numpy as np
    >>> flow_sampler(np.array([1.0]), velocity=lambda x, t: x, times=[0.0, 1.0])
    array([2.5])
    """
    bind("flow_sampler", "x[*B]", x=x)
    return run_stages(x, None, stages=flow_stages(times, method), model=velocity, name="flow_sampler")


def flow_stages(times, method="heun"):
    """The affine stages for a model that gives the velocity."""
    if method not in METHODS:
        raise ValueError(f"flow_sampler: method={method!r}; needed one of {METHODS}")
    times = check_monotone("flow_sampler", numbers(times), both=True)
    stages = []
    for t, to in zip(times[:-1], times[1:], strict=True):
        h = to - t
        if method == "euler":
            stages.append(Stage(t, 1.0, h))
        else:
            stages += [Stage(t), Stage(to, 1.0, h / 2, h / 2, at_x=1.0, at_last=h)]
    return stages
