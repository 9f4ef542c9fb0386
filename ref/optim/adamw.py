"""AdamW: Adam with decoupled weight decay.

Source: Loshchilov & Hutter 2019 (1711.05101) Alg. 2; Adam: Kingma & Ba 2015 (1412.6980) Alg. 1.

    m_t = b1 m_{t-1} + (1 - b1) g            v_t = b2 v_{t-1} + (1 - b2) g^2
    m^ = m_t / (1 - b1^t)                    v^ = v_t / (1 - b2^t)
    th_t = (1 - lr wd) th_{t-1} - lr m^ / (sqrt(v^) + eps)

Notation
    th -> param[n], g -> grad[n], (m, v, t) -> AdamState; n is any shape, flattened by the caller or not.

Conventions
    C1  eps stands outside the root, beside the corrected sqrt(v^). Before the correction (the "eps hat" of the
        paper's remark, TensorFlow's Adam) it is another function wherever |g| is near eps.
    C2  The decay is multiplied by lr, as torch does and unlike the paper, whose schedule multiplier stands there.
    C3  The decay acts on the parameter before the step.
        Under decay after the step the two differ by lr^2 wd m^ / (sqrt(v^) + eps).
    C4  t counts from 1: the state given to the first step has t = 0.

Laws
    L1 first_step_is_the_sign               L2 a_constant_gradient_repeats_its_step
    L3 no_gradient_only_decays              L4 a_power_of_two_scale_is_invisible
    L5 shards_are_the_whole                 L6 a_step_is_bounded
    L7 moments_are_weighted_sums            L8 aligned_gradients_attain_the_bound
    L9 commutes_with_permutation_and_signs  L10 continues_from_a_saved_state
    L11 decay_stands_apart                  L12 steps_are_those_of_weighted_means
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import namespace
from ref.optim.sgd import check_count, check_finite, check_fractions, check_numbers, check_state
from ref.spec import bind, spec

SHAPES = "param[*n], grad[*n], m[*n], v[*n]"


class AdamState(NamedTuple):
    """First moment m[n], second moment v[n], steps taken t."""

    m: Any
    v: Any
    t: int


def start(param):
    """The state before the first step: zeros, t = 0."""
    xp = namespace(param)
    return AdamState(xp.zeros_like(param), xp.zeros_like(param), 0)


@spec(
    "optim.adamw",
    "param[*n], grad[*n], state:tree -> param[*n], state:tree",
    backends=("numpy", "strict", "cupy"),
)
def adamw(param, grad, state, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, name="param"):
    """One step.

    Parameters
    ----------
    param, grad : float[*n]
    state : AdamState
        m and v of param's shape and dtype; `start(param)` before the first step.
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

    Complexity: 12 n operations, 3 n numbers of memory.

    >>> import numpy as np
    >>> th = np.array([1.0, 1.0])
    >>> adamw(th, np.array([0.5, -3.0]), start(th), lr=0.25, eps=0.0, weight_decay=0.0)[0]
    array([0.75, 1.25])
    """
    check("adamw", param, grad, state, lr, beta1, beta2, eps, weight_decay, name)
    xp = namespace(param, grad, state.m, state.v)
    m, v, step = adam_direction(xp, grad, state, beta1, beta2, eps)
    return param * (1 - lr * weight_decay) - lr * step, AdamState(m, v, state.t + 1)


def adam_direction(xp, grad, state, beta1, beta2, eps, eps_mode="outside"):
    """(m_t, v_t, m^ / (sqrt(v^) + eps)); `adam` says what the other modes are."""
    t = state.t + 1
    m = beta1 * state.m + (1 - beta1) * grad
    v = beta2 * state.v + (1 - beta2) * (grad * grad)
    c2 = 1 - beta2**t
    if eps_mode == "inside":
        root = xp.sqrt(v / c2 + eps)
    else:
        root = xp.sqrt(v) * (1 / math.sqrt(c2)) + (eps / math.sqrt(c2) if eps_mode == "hat" else eps)
    root = xp.where(root == 0, 1.0, root)  # eps = 0 and no gradient yet: no step
    return m, v, m * (1 / (1 - beta1**t)) / root


def check(function, param, grad, state, lr, beta1, beta2, eps, weight_decay, name):
    """Validate the arguments of an Adam step."""
    check_state(function, state, AdamState)
    bind(function, SHAPES, param=param, grad=grad, m=state.m, v=state.v)
    check_numbers(function, lr=lr, eps=eps, weight_decay=weight_decay)
    check_fractions(function, beta1=beta1, beta2=beta2)
    check_count(function, state.t)
    check_finite(function, f"the gradient of {name}", grad)
