"""Adam.

Source: Kingma & Ba 2015 (1412.6980) Algorithm 1; sec. 2, last paragraph, for eps_mode="hat".

    m_t = b1 m_{t-1} + (1 - b1) g_t          m^_t = m_t / (1 - b1^t)
    v_t = b2 v_{t-1} + (1 - b2) g_t^2        v^_t = v_t / (1 - b2^t)
    th_t = th_{t-1} - lr m^_t / (sqrt(v^_t) + eps)

Notation
    th -> param[n], g -> grad[n], (m, v, t) -> AdamState; n is any shape; t is 0 before the first step.

Conventions
    C1  eps stands outside the root, on the corrected v^ (torch since 1.3, optax, Algorithm 1).
        eps_mode="hat": on the uncorrected v, lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps) (TensorFlow and
        Keras, torch before 1.3, nanochat before its fix); "inside": m^ / sqrt(v^ + eps) (optax's eps_root).
        They part where |g| is near eps.
    C2  A gradient that was always 0 moves nothing, at eps = 0 too: 0 / 0 is taken as 0.
    C3  Weight decay has functions of its own: `adamw` (decoupled), `adam_l2` (in the gradient).

Laws
    L1 first_step_is_a_soft_sign            L2 a_constant_gradient_in_closed_form
    L3 moments_are_weighted_means           L4 a_power_of_two_scale_is_invisible
    L5 aligned_gradients_attain_the_bound   L6 no_gradient_no_move
    L7 commutes_with_permutation_and_signs  L8 shards_are_the_whole
    L9 continues_from_a_saved_state
"""

from __future__ import annotations

from autodiff import namespace
from ref.optim.adamw import AdamState, adam_direction, check
from ref.spec import spec

EPS_MODES = ("outside", "hat", "inside")


@spec("optim.adam", "param[*n], grad[*n], state:tree -> param[*n], state:tree")
def adam(param, grad, state, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode="outside", name="param"):
    """One step.

    Parameters
    ----------
    param, grad : float[*n]
    state : AdamState
        m and v of param's shape and dtype; `ref.optim.adamw.start(param)` before the first step.
    lr, beta1, beta2, eps : float
    eps_mode : "outside", "hat" or "inside"
        Where eps stands (C1).
    name : str
        Of the parameter, for messages.

    Returns
    -------
    (float[*n], AdamState)
        New arrays; nothing is written in place.

    Raises
    ------
    ValueError
        Shapes differ, lr or eps negative or not finite, a beta outside [0, 1), t < 0, an unknown eps_mode, or a
        gradient that has NaN or an infinity (the message names the parameter).
    TypeError
        An array is not float, the state is not an AdamState, or the dtypes or backends differ.

    Complexity: 11 n operations, 3 n numbers of memory.

    >>> import numpy as np
    >>> from ref.optim.adamw import start
    >>> th = np.array([1.0, 1.0])
    >>> adam(th, np.array([0.5, -1.5]), start(th), lr=0.25, eps=0.5)[0]
    array([0.875 , 1.1875])
    """
    check("adam", param, grad, state, lr, beta1, beta2, eps, 0.0, name)
    if eps_mode not in EPS_MODES:
        raise ValueError(f"adam: eps_mode={eps_mode!r}; needed one of {EPS_MODES}")
    xp = namespace(param, grad, state.m, state.v)
    m, v, step = adam_direction(xp, grad, state, beta1, beta2, eps, eps_mode)
    return param - lr * step, AdamState(m, v, state.t + 1)
