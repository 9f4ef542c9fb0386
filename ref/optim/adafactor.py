"""Adafactor: a second moment kept as its row and column sums.

Source: Shazeer & Stern 2018 (1804.04235) Algorithms 4 (matrices) and 5 (vectors), hyperparameters of Algorithm 6.

    rho_t = min(1e-2, t^(-1/2))              alpha_t = max(eps2, RMS(X_{t-1})) rho_t
    b_t = 1 - t^(-0.8)                       S_t = G_t^2 + eps1
    R_t = b_t R_{t-1} + (1 - b_t) S_t 1      C_t = b_t C_{t-1} + (1 - b_t) 1^T S_t
    V^_t = R_t C_t / (1^T R_t)               (a vector keeps V^_t = b_t V^_{t-1} + (1 - b_t) S_t itself)
    U_t = G_t / sqrt(V^_t)                   X_t = X_{t-1} - alpha_t U_t / max(1, RMS(U_t) / d)

Notation
    X -> param[r c] or [n], G -> grad, (R, C, t) -> AdafactorState(rows, columns, t), d -> clip,
    RMS(X) = |X|_F / sqrt(r c).

Conventions
    C1  R and C are sums, as in the paper; fairseq and transformers keep means. V^ is the same.
    C2  lr = None is the paper's relative step rho_t; a number stands in its place. With scale_parameter off, alpha_t is
        rho_t alone.
    C3  b_1 = 0, so the first step needs no bias correction; beta1, an optional momentum of the paper, is left out.
    C4  Where S vanishes (eps1 = 0 and no gradient yet) 0 / 0 is taken as 0.
    C5  A tensor of more axes is flattened by the caller; fairseq factors its last two axes.

Laws
    L1 rank_one_squares_are_exact            L2 relative_step_in_closed_form
    L3 first_step_of_any_matrix              L4 sums_are_weighted_by_age
    L5 a_vector_is_not_factored              L6 a_clipped_step_has_its_size
    L7 a_power_of_two_scale_is_invisible     L8 commutes_with_transposition_and_signs
    L9 no_gradient_no_move                   L10 continues_from_a_saved_state
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import namespace
from ref.optim.sgd import check_count, check_finite, check_numbers, check_state
from ref.spec import bind, spec

SHAPES = {1: "param[n], grad[n], rows[n]", 2: "param[r c], grad[r c], rows[r], columns[c]"}


class AdafactorState(NamedTuple):
    """Row sums R[r] and column sums C[c] of the second moment (of a vector: V^[n] and None), steps taken t."""

    rows: Any
    columns: Any
    t: int


def start(param):
    """The state before the first step: zeros, t = 0."""
    xp = namespace(param)
    if len(param.shape) == 1:
        return AdafactorState(xp.zeros_like(param), None, 0)
    zero = xp.zeros_like(param)
    return AdafactorState(xp.sum(zero, axis=1), xp.sum(zero, axis=0), 0)


@spec("optim.adafactor", "param[*n], grad[*n], state:tree -> param[*n], state:tree")
def adafactor(
    param, grad, state, *, lr=None, decay_exponent=0.8, clip=1.0, eps1=1e-30, eps2=1e-3, scale_parameter=True,
    name="param",
):  # fmt: skip
    """One step.

    Parameters
    ----------
    param, grad : float[r c] or float[n]
    state : AdafactorState
        `start(param)` before the first step.
    lr : float, optional
        In place of rho_t (C2).
    decay_exponent : float
        Of t in 1 - b_t.
    clip : float
        d, greater than 0; infinity clips nothing.
    eps1, eps2 : float
        Added to G^2; least RMS of the parameter that alpha_t sees.
    scale_parameter : bool
        Multiply by max(eps2, RMS(X)).
    name : str
        Of the parameter, for messages.

    Returns
    -------
    (float[r c] or float[n], AdafactorState)
        New arrays; nothing is written in place.

    Raises
    ------
    ValueError
        Not one or two axes, shapes differ, lr, decay_exponent, eps1 or eps2 negative or not finite, clip not greater
        than 0, t < 0, or a gradient that has NaN or an infinity (the message names the parameter).
    TypeError
        An array is not float, the state is not an AdafactorState, or the dtypes or backends differ.

    Complexity: 12 r c operations, r + c numbers of state.

    >>> import numpy as np
    >>> X = np.ones((2, 2))
    >>> adafactor(X, np.array([[1.0, 2.0], [-2.0, -4.0]]), start(X))[0]
    array([[0.99, 0.99],
           [1.01, 1.01]])
    """
    _check(param, grad, state, lr, decay_exponent, clip, eps1, eps2, name)
    xp = namespace(param, grad, state.rows)
    t = state.t + 1
    b = 1 - t**-decay_exponent
    square = grad * grad + eps1
    if state.columns is None:
        rows, columns = b * state.rows + (1 - b) * square, None
        root = xp.sqrt(rows)
    else:
        rows = b * state.rows + (1 - b) * xp.sum(square, axis=1)
        columns = b * state.columns + (1 - b) * xp.sum(square, axis=0)
        total = xp.sum(rows)
        # The quotient first: a product of sums of squares could overflow or vanish.
        share = rows / xp.where(total == 0, 1.0, total)
        root = xp.sqrt(share)[:, None] * xp.sqrt(columns)[None, :]
    U = grad / xp.where(root == 0, 1.0, root)
    over = _rms(xp, U) / clip
    rho = min(1e-2, 1 / math.sqrt(t)) if lr is None else lr
    size = _rms(xp, param)
    alpha = rho * xp.where(size < eps2, eps2, size) if scale_parameter else rho
    return param - (alpha / xp.where(over < 1, 1.0, over)) * U, AdafactorState(rows, columns, t)


def _rms(xp, x):
    return xp.sqrt(xp.sum(x * x) * (1 / max(math.prod(x.shape), 1)))


def _check(param, grad, state, lr, decay_exponent, clip, eps1, eps2, name):
    check_state("adafactor", state, AdafactorState)
    axes = len(getattr(param, "shape", (0,)))
    if axes not in SHAPES:
        raise ValueError(f"adafactor: {name} has shape {tuple(param.shape)}; needed [r c] or [n]")
    if (state.columns is None) != (axes == 1):
        kept = "no columns" if state.columns is None else "columns"
        raise ValueError(f"adafactor: the state of {name} has {kept}, and {name} has {axes} axes")
    bind("adafactor", SHAPES[axes], param=param, grad=grad, rows=state.rows, columns=state.columns)
    check_numbers("adafactor", lr=lr or 0.0, decay_exponent=decay_exponent, eps1=eps1, eps2=eps2)
    if not clip > 0:
        raise ValueError(f"adafactor: clip={clip}; needed a number > 0")
    check_count("adafactor", state.t)
    check_finite("adafactor", f"the gradient of {name}", grad)
