"""Adam with L2 regularisation.

Source: Kingma & Ba 2015 (1412.6980) Algorithm 1, on f(th) + wd |th|^2 / 2; Loshchilov & Hutter 2019
(1711.05101) Algorithm 2, the terms in pink, for what it does.

    g_t <- g_t + wd th_{t-1}, then `adam`

Notation
    th -> param[n], g -> grad[n], (m, v, t) -> AdamState, wd -> weight_decay; n is any shape.

Conventions
    C1  This is torch.optim.Adam(weight_decay=...). The decay is divided by sqrt(v^) with the rest, so weights
        with large gradients shrink less, and with small ones up to lr a step whatever wd is. `adamw` is the
        other; for SGD without momentum the two are one.
    C2  eps stands outside the root, on the corrected v^ (`adam`, C1).

Laws
    L1 first_step_is_a_soft_sign_of_the_sum  L2 decay_is_a_quadratic_penalty
    L3 outweighed_decay_changes_nothing      L4 decay_alone_moves_by_the_rate
    L5 moments_are_weighted_means            L6 a_power_of_two_scale_is_invisible
    L7 commutes_with_permutation_and_signs   L8 shards_are_the_whole
    L9 continues_from_a_saved_state
"""

from __future__ import annotations

from autodiff import namespace
from ref.optim.adamw import AdamState, adam_direction, check
from ref.spec import spec


@spec("optim.adam_l2", "param[*n], grad[*n], state:tree -> param[*n], state:tree")
def adam_l2(param, grad, state, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, name="param"):
    """One step of Adam on the loss plus weight_decay |param|^2 / 2.

    Parameters
    ----------
    param, grad : float[*n]
        grad is of the loss alone.
    state : AdamState
        m and v of param's shape and dtype; `ref.optim.adamw.start(param)` before the first step.
    lr, beta1, beta2, eps, weight_decay : float
    name : str
        Of the parameter, for messages.

    Returns
    -------
    (float[*n], AdamState)
        New arrays; nothing is written in place.

    Raises
    ------
    ValueError
        Shapes differ, lr, eps or weight_decay negative or not finite, a beta outside [0, 1), t < 0, or a gradient
        that has NaN or an infinity (the message names the parameter).
    TypeError
        An array is not float, the state is not an AdamState, or the dtypes or backends differ.

    Complexity: 13 n operations, 3 n numbers of memory.

    >>> import numpy as np
    >>> from ref.optim.adamw import start
    >>> th = np.array([1.0, -1.0])
    >>> adam_l2(th, np.zeros(2), start(th), lr=0.25, eps=0.5, weight_decay=0.5)[0]
    array([ 0.875, -0.875])
    """
    check("adam_l2", param, grad, state, lr, beta1, beta2, eps, weight_decay, name)
    xp = namespace(param, grad, state.m, state.v)
    m, v, step = adam_direction(xp, grad + weight_decay * param, state, beta1, beta2, eps)
    return param - lr * step, AdamState(m, v, state.t + 1)
