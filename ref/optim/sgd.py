"""Stochastic gradient descent with momentum.

Source: Polyak 1964 (heavy ball); Nesterov 1983; Sutskever et al. 2013 (ICML) Eq. 1-4; torch.optim.SGD.

    g <- g + wd th                                L2 regularisation
    torch:      b <- mu b + g,      th <- th - lr d,   d = b,  or  g + mu b  (Nesterov)
    sutskever:  b <- mu b + lr g,   th <- th - d,      d = b,  or  lr g + mu b  (Nesterov)

Notation
    th -> param, b -> state.velocity, mu -> momentum, wd -> weight_decay.

Conventions
    C1  The two forms agree while lr is constant. When it changes, torch rescales the whole velocity at once,
        Sutskever's form only what comes after.
    C2  b starts from 0, so the first b is g. torch's dampening (b <- mu b + (1 - dampening) g) is left out.
    C3  Nesterov is in the variable at which the gradient is taken, th + mu b of Sutskever's Eq. 3-4.
    C4  Decay enters the gradient, so momentum applies to it. Without momentum that is the same as decoupled
        decay, th (1 - lr wd) - lr g; with momentum it is not.

Laws
    L1 a_plain_step                          L2 one_over_k_is_the_running_mean
    L3 constant_gradient_is_a_geometric_sum  L4 quadratic_is_a_matrix_power
    L5 a_changed_rate_tells_the_forms_apart  L6 decay_is_a_quadratic_penalty
    L7 decay_gathers_momentum                L8 commutes_with_permutation_and_signs
    L9 shards_are_the_whole                  L10 continues_from_a_saved_state
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import namespace, raw
from ref.spec import bind, spec

FORMS = ("torch", "sutskever")


class SgdState(NamedTuple):
    """What SGD carries from step to step: the velocity, shaped like the parameter."""

    velocity: Any


def start(param):
    """The state before the first step: a velocity of 0."""
    return SgdState(namespace(param).zeros_like(param))


@spec("optim.sgd", "param[*n], grad[*n], state:tree -> param[*n], state:tree")
def sgd(
    param, grad, state, *, lr=1e-2, momentum=0.0, nesterov=False, weight_decay=0.0, form="torch", name="param"
):
    """One step of SGD.

    Parameters
    ----------
    param, grad : float[*n]
        A parameter and its gradient.
    state : SgdState
        The velocity; `start(param)` before the first step.
    lr : float
        Learning rate, at least 0.
    momentum : float
        In [0, 1).
    nesterov : bool
        Look ahead along the velocity.
    weight_decay : float
        Weight of the penalty wd |th|^2 / 2.
    form : "torch" or "sutskever"
        Where lr stands (C1).
    name : str
        What to call the parameter in a message.

    Returns
    -------
    (float[*n], SgdState)

    Raises
    ------
    ValueError
        Shapes differ, lr or weight_decay < 0, momentum outside [0, 1), an unknown form, or a gradient that is
        not finite (the message names the parameter).
    TypeError
        An array is not float, or the state is not a SgdState.

    Complexity: 3 multiply-adds an entry; one array of state.

    >>> import numpy as np
    >>> th = np.array([1.0])
    >>> th, state = sgd(th, np.array([2.0]), start(th), lr=0.25, momentum=0.5)
    >>> th, state = sgd(th, np.array([0.0]), state, lr=0.25, momentum=0.5)
    >>> th, state
    (array([0.25]), SgdState(velocity=array([1.])))
    """
    check_state("sgd", state, SgdState)
    (velocity,) = state
    bind("sgd", "param[*n], grad[*n], velocity[*n]", param=param, grad=grad, velocity=velocity)
    check_numbers("sgd", lr=lr, weight_decay=weight_decay)
    check_fractions("sgd", momentum=momentum)
    if form not in FORMS:
        raise ValueError(f"sgd: form={form!r}; needed one of {FORMS}")
    check_finite("sgd", f"the gradient of {name}", grad)

    g = grad + weight_decay * param
    push, rate = (g, lr) if form == "torch" else (lr * g, 1.0)
    b = momentum * velocity + push
    d = push + momentum * b if nesterov else b
    return param - rate * d, SgdState(b)


def check_state(function, state, kind):
    """TypeError unless `state` is of the class `kind`."""
    if not isinstance(state, kind):
        raise TypeError(f"{function}: state is a {type(state).__name__}; needed {kind.__name__}{kind._fields}")


def check_numbers(function, **numbers):
    """ValueError unless each is finite and at least 0."""
    for name, x in numbers.items():
        if not 0 <= x < math.inf:
            raise ValueError(f"{function}: {name}={x}; needed a finite number >= 0")


def check_fractions(function, **numbers):
    """ValueError unless each lies in [0, 1)."""
    for name, x in numbers.items():
        if not 0 <= x < 1:
            raise ValueError(f"{function}: {name}={x}; needed a number in [0, 1)")


def check_count(function, t):
    """ValueError unless the state's count of steps is at least 0."""
    if t < 0:
        raise ValueError(f"{function}: state has t={t}; needed a count >= 0")


def check_finite(function, what, array):
    """ValueError where an array holds NaN or an infinity: one such gradient spoils a state for ever."""
    array = raw(array)
    xp = namespace(array)
    bad = ~xp.isfinite(array)
    if bool(xp.any(bad)):
        kind = "NaN" if bool(xp.any(xp.isnan(array))) else "an infinity"
        count = int(xp.sum(xp.astype(bad, xp.int64)))
        raise ValueError(f"{function}: {what} has {kind} ({count} of {bad.size} entries are not finite)")
