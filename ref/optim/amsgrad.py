"""AMSGrad: Adam whose second moment never falls.

Source: Reddi, Kale & Kumar 2018 (ICLR, "On the convergence of Adam and beyond", 1904.09237) Algorithm 2;
torch.optim.Adam(amsgrad=True); optax.amsgrad.

    m_t = b1 m_{t-1} + (1 - b1) g            v_t = b2 v_{t-1} + (1 - b2) g^2
    paper:  u_t = max(u_{t-1}, v_t)                     th_t = th_{t-1} - lr m_t / (sqrt(u_t) + eps)
    torch:  u_t = max(u_{t-1}, v_t)                     th_t = th_{t-1} - lr m^_t / (sqrt(u_t / (1 - b2^t)) + eps)
    optax:  u_t = max(u_{t-1}, v_t / (1 - b2^t))        th_t = th_{t-1} - lr m^_t / (sqrt(u_t) + eps)
    with m^_t = m_t / (1 - b1^t)

Notation
    th -> param[n], g -> grad[n], (m, v, u, t) -> AmsgradState(m, v, v_max, t); n is any shape.

Conventions
    C1  The paper corrects no bias, so its first step is (1 - b1) / sqrt(1 - b2) of Adam's. torch takes the maximum
        and then corrects: its u_t / (1 - b2^t) may fall, which the paper's proof excludes. optax corrects and then
        takes the maximum. From rest the three agree only in the limit t -> infinity.
    C2  The paper has eps = 0 and a projection onto the feasible set; here eps stands outside the root and the set is
        everything. 0 / 0 is taken as 0.
    C3  v itself is not replaced by its maximum: only the denominator remembers.

Laws
    L1 first_step                            L2 a_constant_gradient_in_closed_form
    L3 a_spike_is_remembered                 L4 the_maximum_is_of_weighted_sums
    L5 the_denominator_never_falls           L6 a_power_of_two_scale_is_invisible
    L7 no_gradient_no_move                   L8 commutes_with_permutation_and_signs
    L9 shards_are_the_whole                  L10 continues_from_a_saved_state
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import namespace
from ref.optim.sgd import check_count, check_finite, check_fractions, check_numbers, check_state
from ref.spec import bind, spec

FORMS = ("paper", "torch", "optax")
SHAPES = "param[*n], grad[*n], m[*n], v[*n], v_max[*n]"


class AmsgradState(NamedTuple):
    """First moment m[n], second moment v[n], its maximum v_max[n] (in optax's form of the corrected), steps taken t."""

    m: Any
    v: Any
    v_max: Any
    t: int


def start(param):
    """The state before the first step: zeros, t = 0."""
    zeros = namespace(param).zeros_like
    return AmsgradState(zeros(param), zeros(param), zeros(param), 0)


@spec("optim.amsgrad", "param[*n], grad[*n], state:tree -> param[*n], state:tree")
def amsgrad(param, grad, state, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, form="paper", name="param"):
    """One step.

    Parameters
    ----------
    param, grad : float[*n]
    state : AmsgradState
        `start(param)` before the first step; of one form for good.
    lr, beta1, beta2, eps : float
    form : "paper", "torch" or "optax"
        What is corrected, and when (C1).
    name : str
        Of the parameter, for messages.

    Returns
    -------
    (float[*n], AmsgradState)
        New arrays; nothing is written in place.

    Raises
    ------
    ValueError
        Shapes differ, lr or eps negative or not finite, a beta outside [0, 1), t < 0, an unknown form, or a gradient
        that has NaN or an infinity (the message names the parameter).
    TypeError
        An array is not float, the state is not an AmsgradState, or the dtypes or backends differ.

    Complexity: 12 n operations, 4 n numbers of memory.

    >>> import numpy as np
    >>> th = np.array([1.0])
    >>> th, state = amsgrad(th, np.array([2.0]), start(th), lr=0.5, beta1=0.0, beta2=0.75, eps=0.0)
    >>> th, state.v_max
    (array([0.]), array([1.]))
    """
    check_state("amsgrad", state, AmsgradState)
    bind("amsgrad", SHAPES, param=param, grad=grad, m=state.m, v=state.v, v_max=state.v_max)
    check_numbers("amsgrad", lr=lr, eps=eps)
    check_fractions("amsgrad", beta1=beta1, beta2=beta2)
    check_count("amsgrad", state.t)
    if form not in FORMS:
        raise ValueError(f"amsgrad: form={form!r}; needed one of {FORMS}")
    check_finite("amsgrad", f"the gradient of {name}", grad)
    xp = namespace(param, grad, state.m)

    t = state.t + 1
    c1, c2 = 1 - beta1**t, 1 - beta2**t
    m = beta1 * state.m + (1 - beta1) * grad
    v = beta2 * state.v + (1 - beta2) * (grad * grad)
    u = xp.maximum(state.v_max, v / c2 if form == "optax" else v)
    mean = m if form == "paper" else m * (1 / c1)
    root = xp.sqrt(u) * (1 / math.sqrt(c2) if form == "torch" else 1.0) + eps
    step = mean / xp.where(root == 0, 1.0, root)
    return param - lr * step, AmsgradState(m, v, u, t)
