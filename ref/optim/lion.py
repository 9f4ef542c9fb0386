"""Lion: the sign of an interpolated momentum.

Source: Chen et al. 2023 (2302.06675) Algorithm 2.

    c_t = b1 m_{t-1} + (1 - b1) g_t
    th_t = th_{t-1} - lr (sign(c_t) + wd th_{t-1})
    m_t = b2 m_{t-1} + (1 - b2) g_t

Notation
    th -> param[n], g -> grad[n], m -> state.m; n is any shape.

Conventions
    C1  The step looks at b1, the state at b2: with b1 = b2 it is the sign of a running mean, another optimizer.
    C2  sign(0) = 0: where m and g are 0 only the decay moves the parameter.
    C3  The decay is decoupled and multiplied by lr, as AdamW's. A step has RMS 1 and not Adam's 0.2, so lr is smaller
        and wd larger by the same factor, 3 to 10.
    C4  No bias correction: the sign does not see it.

Laws
    L1 every_step_has_one_size               L2 the_sign_is_of_the_interpolation
    L3 momentum_is_a_weighted_sum            L4 no_gradient_only_decays
    L5 a_constant_gradient_walks_evenly      L6 a_power_of_two_scale_is_invisible
    L7 commutes_with_permutation_and_signs   L8 shards_are_the_whole
    L9 continues_from_a_saved_state
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autodiff import namespace
from ref.optim.sgd import check_finite, check_fractions, check_numbers, check_state
from ref.spec import bind, spec


class LionState(NamedTuple):
    """The momentum m[n]."""

    m: Any


def start(param):
    """The state before the first step: a momentum of 0."""
    return LionState(namespace(param).zeros_like(param))


@spec("optim.lion", "param[*n], grad[*n], state:tree -> param[*n], state:tree")
def lion(param, grad, state, *, lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0, name="param"):
    """One step.

    Parameters
    ----------
    param, grad : float[*n]
    state : LionState
        `start(param)` before the first step.
    lr, beta1, beta2, weight_decay : float
    name : str
        Of the parameter, for messages.

    Returns
    -------
    (float[*n], LionState)
        New arrays; nothing is written in place.

    Raises
    ------
    ValueError
        Shapes differ, lr or weight_decay negative or not finite, a beta outside [0, 1), or a gradient that has NaN or
        an infinity (the message names the parameter).
    TypeError
        An array is not float, the state is not a LionState, or the dtypes or backends differ.

    Complexity: 9 n operations, 2 n numbers of memory.

    >>> import numpy as np
    >>> th = np.array([1.0, 1.0, 1.0])
    >>> lion(th, np.array([0.5, -3.0, 0.0]), start(th), lr=0.25)[0]
    array([0.75, 1.25, 1.  ])
    """
    check_state("lion", state, LionState)
    bind("lion", "param[*n], grad[*n], m[*n]", param=param, grad=grad, m=state.m)
    check_numbers("lion", lr=lr, weight_decay=weight_decay)
    check_fractions("lion", beta1=beta1, beta2=beta2)
    check_finite("lion", f"the gradient of {name}", grad)
    xp = namespace(param, grad, state.m)
    toward = xp.sign(beta1 * state.m + (1 - beta1) * grad)
    return param * (1 - lr * weight_decay) - lr * toward, LionState(beta2 * state.m + (1 - beta2) * grad)
