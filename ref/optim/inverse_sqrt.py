"""Learning rate: linear warm-up, then the inverse square root.

Source: Raffel et al. 2020 (1910.10683, T5) sec. 3.1.2, 1 / sqrt(max(t, W)); fairseq's inverse_sqrt for the warm-up.

    r(t) = P t / W              0 <= t < W
    r(t) = P sqrt(W / t)        t >= W

Notation
    t -> step, P -> peak, W -> warmup.

Conventions
    C1  t counts steps from 1; step W has P.
    C2  T5 holds 1 / sqrt(W) for the first W steps in place of a warm-up; its peak is P = 1 / sqrt(W).
    C3  `noam` is this with P = factor / sqrt(channels W).
    C4  There is no end: the rate needs no budget.

Laws
    L1 landmarks                             L2 warm_up_is_linear
    L3 four_times_the_steps_half_the_rate    L4 the_square_of_the_inverse_is_linear
    L5 any_array_gets_the_rates_of_its_entries
"""

from __future__ import annotations

import operator

from ref.optim.sgd import check_numbers
from ref.optim.warmup_cosine import counted
from ref.spec import spec


@spec("optim.inverse_sqrt", "step:int[*B] -> [*B]")
def inverse_sqrt(step, *, peak, warmup):
    """The learning rate of a step.

    Parameters
    ----------
    step : int or int[*B]
        Number of the step, from 1.
    peak : float
        Rate at step `warmup`, the greatest.
    warmup : int
        At least 1.

    Returns
    -------
    float or float64[*B]
        A Python float for a Python int.

    Raises
    ------
    ValueError
        A step < 0, peak < 0 or warmup < 1.
    TypeError
        step is not int, or warmup is no integer.

    Complexity: one square root a step.

    >>> [inverse_sqrt(t, peak=1.0, warmup=4) for t in (1, 4, 16, 64)]
    [0.25, 1.0, 0.5, 0.25]
    """
    return inverse_sqrt_of("inverse_sqrt", step, peak, warmup)


def inverse_sqrt_of(function, step, peak, warmup):
    """peak min(t / W, sqrt(W / t)), its errors in the name of `function`."""
    W = operator.index(warmup)
    check_numbers(function, peak=peak)
    if W < 1:
        raise ValueError(f"{function}: warmup={W}; needed at least 1")
    xp, t, given = counted(function, step)
    return given(xp.where(t < W, peak * t / W, peak * xp.sqrt(W / xp.where(t < W, float(W), t))))
