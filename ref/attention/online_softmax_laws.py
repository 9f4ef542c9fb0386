"""Laws and mutants of the two-pass softmax."""

from __future__ import annotations

import numpy as np

from ref.attention import common_laws as softmax
from ref.spec import law, mutant
from ref.spec.cases import dims

ID = "attention.online_softmax"
rows = softmax.softmax_space(ID)
some = rows.where(n=dims(1, 6, large=300))


@law(ID, "L1", closed_form=True, given=some.reach("rows"), kills=["sum_not_rescaled", "factor_upside_down"])
def weights_are_fractions_of_their_sum(impl, c, expect):
    "x_j = log w_j: y_j = w_j / sum w."
    softmax.fractions(impl, c, expect)


@law(ID, "L2", closed_form=True, given=rows.where(n=2), kills=["sum_not_rescaled", "weights_of_the_running_maximum"])
def two_numbers_are_a_logistic(impl, c, expect):
    "n = 2: y = (1 - p, p), p = sigma(x_1 - x_0)."
    softmax.logistic(impl, c, expect)


@law(ID, "L3", closed_form=True, given=some, kills=["last_odd_number_forgotten", "sum_not_rescaled"])
def a_row_sums_to_one(impl, c, expect):
    "y_j >= 0 and sum_j y_j = 1."
    softmax.total_is_one(impl, c, expect)


@law(
    ID, "L4", given=some.reach("rows"), kills=["maximum_starts_at_zero"], passes_null=["zeros", "constant"],
)  # fmt: skip
def a_shift_is_invisible(impl, c, expect):
    "softmax(x + c) = softmax(x), each row with a c of its own, up to 8192."
    softmax.shift_invariance(impl, c, expect)


@law(
    ID, "L5", closed_form=True, given=rows.where(n=dims(2, 6, large=300)),
    kills=["latest_instead_of_largest"],
)  # fmt: skip
def large_numbers_pick_the_largest(impl, c, expect):
    "Numbers 1e4 apart: weight 1 for the largest, 0 for the others."
    softmax.largest_wins(impl, c, expect)


@law(
    ID, "L6", given=rows.where(n=dims(1, 6, large=300)), kills=["nan_before_the_first_number"],
    passes_null=["zeros"],
)  # fmt: skip
def minus_infinity_is_absence(impl, c, expect):
    "An entry of -inf has weight exactly zero, and the others have what they have without it."
    softmax.absence(impl, c, expect)


@law(ID, "L7", closed_form=True, given=rows.reach("empty"), kills=["nan_before_the_first_number"])
def a_row_of_nothing_is_zero(impl, c, expect):
    "A row of -inf alone gives exactly zeros, and leaves other rows alone."
    softmax.nothing_is_zero(impl, c, expect)


@law(ID, "L8", closed_form=True, needs=("vjp",), given=rows, kills=["gradient_of_the_last_maximum_lost"])
def gradient_is_the_closed_form(impl, c, expect):
    "dx = y (g - <g, y>), zero at -inf."
    softmax.softmax_gradient(impl, c, expect)


@law(
    ID, "L9", given=some, kills=["factor_upside_down", "sum_not_rescaled", "weights_of_the_running_maximum"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def the_order_of_a_row_is_immaterial(impl, c, expect):
    "The numbers of a row in reverse give its weights in reverse: no pass may depend on the order."
    back = c.replace(x=c.x[..., ::-1].copy())
    expect(impl(back)[..., ::-1], impl(c), 2 * softmax.softmax_error(c), scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def default(n=4, rising=False):
    """The default-size test: two rows in descending order (their maximum never changes), or ascending."""
    x = np.linspace(1.5, -1.0, n)
    return lambda: ((np.stack((x, x / 2))[..., :: -1 if rising else 1].copy(),), {})


def edited(x, *, first=-np.inf, larger=np.maximum, factor=lambda m, new: np.exp(m - new), n=None, guard=True):
    """The recurrence with one of its parts replaced."""
    m, d = np.full(x.shape[:-1], first, x.dtype), np.zeros(x.shape[:-1], x.dtype)
    for i in range(x.shape[-1] if n is None else n):
        new = larger(m, x[..., i])
        top = np.where(np.isneginf(new), 0, new) if guard else new
        m, d = new, d * factor(m, top) + np.exp(x[..., i] - top)
    top = np.where(np.isneginf(m), 0, m) if guard else m
    return (np.exp(x - top[..., None]) / np.where(d == 0, 1, d)[..., None]).astype(x.dtype)


@mutant(ID, default_case=default())
def sum_not_rescaled(x):
    "d_i = d_{i-1} + e^{x_i - m_i}: the factor is forgotten."
    return edited(x, factor=lambda m, new: np.ones_like(m))


@mutant(ID, default_case=default())
def factor_upside_down(x):
    "e^{m_i - m_{i-1}}."
    return edited(x, factor=lambda m, new: np.where(np.isneginf(m), 0, np.exp(new - m)))


@mutant(ID, default_case=default())
def maximum_starts_at_zero(x):
    "m_0 = 0: rows far below zero underflow."
    return edited(x, first=0.0)


@mutant(ID, default_case=default(rising=True))
def latest_instead_of_largest(x):
    "m_i = x_i: right until e^{m_{i-1} - m_i} overflows."
    return edited(x, larger=lambda m, x_i: x_i)


@mutant(ID, default_case=default())
def nan_before_the_first_number(x):
    "(-inf) - (-inf) while a row has shown nothing."
    def factor(m, new):
        return np.where(np.isneginf(m) & ~np.isneginf(new), 0, np.exp(m - new))

    return edited(x, guard=False, factor=factor)


@mutant(ID, default_case=default())
def weights_of_the_running_maximum(x):
    "y_j = e^{x_j - m_j} / d_n, written in the first pass."
    m = np.maximum.accumulate(x, -1)
    y = edited(x)
    last = m[..., -1:]
    return (y * np.exp(np.where(np.isneginf(last), 0, last) - np.where(np.isneginf(m), 0, m))).astype(x.dtype)


@mutant(ID, default_case=default())
def last_odd_number_forgotten(x):
    "Two numbers a step, and no step for the odd one."
    return edited(x, n=x.shape[-1] // 2 * 2)


def _vjp(g, x):
    y = softmax.softmax_of(x)
    dx = y * (g - (g * y).sum(-1, keepdims=True))
    return (np.where(y == y.max(-1, keepdims=True, initial=0.0), y * g, dx).astype(x.dtype),)


@mutant(ID, vjp=_vjp, default_case=default())
def gradient_of_the_last_maximum_lost(x):
    "The largest entry's gradient lacks the sum."
    return edited(x)
