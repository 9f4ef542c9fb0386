"""Learning rate: the schedule of the Transformer.

Source: Vaswani et al. 2017 (1706.03762) Eq. 3.

    r(t) = s d^(-1/2) min(t^(-1/2), t W^(-3/2))

Notation
    t -> step, d -> channels, W -> warmup, s -> factor.

Conventions
    C1  t counts steps from 1; r(0) is 0. Its peak s / sqrt(d W) is at t = W.
    C2  s is not in the paper (s = 1); tensor2tensor's default is 2.

Laws
    L1 the_peak_is_at_the_end_of_the_warm_up L2 both_branches_in_fractions
    L3 wider_models_learn_slower             L4 four_times_the_steps_half_the_rate
    L5 any_array_gets_the_rates_of_its_entries
"""

from __future__ import annotations

import math
import operator

from ref.optim.inverse_sqrt import inverse_sqrt_of
from ref.optim.sgd import check_numbers
from ref.spec import spec


@spec("optim.noam", "step:int[*B] -> [*B]")
def noam(step, *, channels, warmup, factor=1.0):
    """The learning rate of a step.

    Parameters
    ----------
    step : int or int[*B]
        Number of the step, from 1.
    channels, warmup : int
        Width of the model; steps of the warm-up; each at least 1.
    factor : float
        Of the whole.

    Returns
    -------
    float or float64[*B]
        A Python float for a Python int.

    Raises
    ------
    ValueError
        A step < 0, channels or warmup < 1, or factor < 0.
    TypeError
        step is not int, or channels or warmup is no integer.

    Complexity: one square root a step.

    >>> [noam(t, channels=16, warmup=4) for t in (1, 4, 16)]
    [0.03125, 0.125, 0.0625]
    """
    d, W = operator.index(channels), operator.index(warmup)
    check_numbers("noam", factor=factor)
    if d < 1:
        raise ValueError(f"noam: channels={d}; needed at least 1")
    return inverse_sqrt_of("noam", step, factor / math.sqrt(d * max(W, 1)), W)
