"""Exponential moving average of parameters, bias-corrected or not.

Source: Polyak & Juditsky 1992 for averaging; Kingma & Ba 2015 (1412.6980) sec. 3 for the correction; Karras et al.
2024 (2312.02696) sec. 3 for what an EMA of weights is worth.

    e_t = d e_{t-1} + (1 - d) x_t
    corrected:  a_t = e_t / (1 - d^t),  e_0 = 0        else  a_t = e_t

Notation
    x -> param[n], e -> state.average, a -> the first result, d -> decay; n is any shape.

Conventions
    C1  Corrected, the average starts from 0 (`start`) and the weights d^(t-i) / sum are those of the parameters seen.
        Uncorrected it usually starts from the initial parameters (`start_at`), which keep a weight of d^t: torch's
        swa_utils and diffusers.
    C2  The state is always the uncorrected e, so that a stored run can be read either way.
    C3  A half-life of h steps is d = 2^(-1/h).

Laws
    L1 a_constant_is_its_own_average         L2 an_impulse_fades_geometrically
    L3 average_is_a_geometric_sum            L4 the_start_keeps_half_after_a_half_life
    L5 stays_within_what_was_seen            L6 shards_are_the_whole
    L7 continues_from_a_saved_state
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autodiff import namespace
from ref.optim.sgd import check_count, check_finite, check_fractions, check_state
from ref.spec import bind, spec


class EmaState(NamedTuple):
    """The uncorrected average e[n] and the number t of parameters seen."""

    average: Any
    t: int


def start(param):
    """Nothing seen: zeros, to be corrected."""
    return EmaState(namespace(param).zeros_like(param), 0)


def start_at(param):
    """The initial parameters as the average, not to be corrected."""
    return EmaState(namespace(param).asarray(param, copy=True), 0)


@spec("optim.ema", "param[*n], state:tree -> average[*n], state:tree")
def ema(param, state, *, decay=0.999, corrected=True, name="param"):
    """Take in a parameter's next value.

    Parameters
    ----------
    param : float[*n]
        Its value after a step.
    state : EmaState
        `start(param)` (corrected) or `start_at(param)` (uncorrected) before the first.
    decay : float
        In [0, 1).
    corrected : bool
        Divide by 1 - decay^t.
    name : str
        Of the parameter, for messages.

    Returns
    -------
    (float[*n], EmaState)
        The average to use, and what to carry on.

    Raises
    ------
    ValueError
        Shapes differ, decay outside [0, 1), t < 0, or a parameter that has NaN or an infinity (the message names it).
    TypeError
        An array is not float, the state is not an EmaState, or the dtypes or backends differ.

    Complexity: 4 n operations.

    >>> import numpy as np
    >>> x = np.array([8.0])
    >>> ema(x, start(x), decay=0.75), ema(x, start(x), decay=0.75, corrected=False)[0]
    ((array([8.]), EmaState(average=array([2.]), t=1)), array([2.]))
    """
    check_state("ema", state, EmaState)
    bind("ema", "param[*n], average[*n]", param=param, average=state.average)
    check_fractions("ema", decay=decay)
    check_count("ema", state.t)
    check_finite("ema", name, param)
    t = state.t + 1
    e = decay * state.average + (1 - decay) * param
    return e * (1 / (1 - decay**t) if corrected else 1.0), EmaState(e, t)
