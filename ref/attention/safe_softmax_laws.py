"""Laws and mutants of the three-pass softmax."""

from __future__ import annotations

import numpy as np

from ref.attention import common_laws as softmax
from ref.spec import law, mutant
from ref.spec.cases import dims

ID = "attention.safe_softmax"
rows = softmax.softmax_space(ID)
some = rows.where(n=dims(1, 6, large=300))


@law(ID, "L1", closed_form=True, given=some.reach("rows"), kills=["eps_in_the_denominator", "over_the_first_axis"])
def weights_are_fractions_of_their_sum(impl, c, expect):
    "x_j = log w_j: y_j = w_j / sum w."
    softmax.fractions(impl, c, expect)


@law(ID, "L2", closed_form=True, given=rows.where(n=2), kills=["eps_in_the_denominator"])
def two_numbers_are_a_logistic(impl, c, expect):
    "n = 2: y = (1 - p, p), p = sigma(x_1 - x_0)."
    softmax.logistic(impl, c, expect)


@law(ID, "L3", closed_form=True, given=some, kills=["over_the_first_axis", "eps_in_the_denominator"])
def a_row_sums_to_one(impl, c, expect):
    "y_j >= 0 and sum_j y_j = 1."
    softmax.total_is_one(impl, c, expect)


@law(
    ID, "L4", given=some.reach("rows"), kills=["maximum_of_all_rows", "no_maximum"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def a_shift_is_invisible(impl, c, expect):
    "softmax(x + c) = softmax(x), each row with a c of its own, up to 8192."
    softmax.shift_invariance(impl, c, expect)


@law(ID, "L5", closed_form=True, given=rows.where(n=dims(2, 6, large=300)), kills=["no_maximum"])
def large_numbers_pick_the_largest(impl, c, expect):
    "Numbers 1e4 apart: weight 1 for the largest, 0 for the others."
    softmax.largest_wins(impl, c, expect)


@law(
    ID, "L6", given=rows.where(n=dims(1, 6, large=300)), kills=["plain_exponent_of_the_lowest"],
    passes_null=["zeros"],
)  # fmt: skip
def minus_infinity_is_absence(impl, c, expect):
    "An entry of -inf has weight exactly zero, and the others have what they have without it."
    softmax.absence(impl, c, expect)


@law(ID, "L7", closed_form=True, given=rows.reach("empty"), kills=["nothing_is_nan", "nothing_is_uniform"])
def a_row_of_nothing_is_zero(impl, c, expect):
    "A row of -inf alone gives exactly zeros, and leaves other rows alone."
    softmax.nothing_is_zero(impl, c, expect)


@law(
    ID, "L8", closed_form=True, needs=("vjp",), given=rows,
    kills=["gradient_without_the_sum", "gradient_sum_without_weights"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dx = y (g - <g, y>), zero at -inf."
    softmax.softmax_gradient(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def default(shape=(2, 4)):
    """The default-size test: two rows of four numbers."""
    return lambda: ((np.random.default_rng(0).standard_normal(shape),), {})


def edited(x, m=None, axis=-1, eps=0.0):
    """Softmax with another maximum, axis or denominator."""
    m = np.max(x, axis, keepdims=True, initial=-np.inf) if m is None else m
    e = np.exp(x - np.where(np.isinf(m), 0, m))
    d = e.sum(axis, keepdims=True)
    return (e / (np.where(d == 0, 1, d) + eps)).astype(x.dtype)


@mutant(ID, default_case=default())
def no_maximum(x):
    "exp(x) / sum exp(x): overflows."
    return edited(x, m=np.zeros((), x.dtype))


@mutant(ID, default_case=default())
def maximum_of_all_rows(x):
    "One maximum for all rows: a row far below it underflows."
    return edited(x, m=np.max(x, initial=-np.inf))


@mutant(ID, default_case=default())
def eps_in_the_denominator(x):
    "e / (d + 1e-6): invisible at a tolerance of 1e-5."
    return edited(x, eps=1e-6)


@mutant(ID, default_case=default((4,)))
def over_the_first_axis(x):
    "The first axis instead of the last: the same for one row."
    return edited(x, axis=0)


@mutant(ID, thread="pytorch#41508", default_case=default())
def nothing_is_nan(x):
    "(-inf) - (-inf) in a row that holds nothing else."
    e = np.exp(x - np.max(x, -1, keepdims=True, initial=-np.inf))
    return e / e.sum(-1, keepdims=True)


@mutant(ID, default_case=default())
def nothing_is_uniform(x):
    "-inf replaced by the lowest finite number: a row of nothing gets equal weights."
    return edited(np.maximum(x, np.finfo(x.dtype).min))


@mutant(ID, default_case=default())
def plain_exponent_of_the_lowest(x):
    "-inf replaced by -20, 'low enough': absent entries keep e^-20 of a weight."
    return edited(np.maximum(x, -20))


def _gradient_mutant(name, doc, pull):
    def function(x):
        return edited(x)

    def vjp(g, x):
        return (pull(g, softmax.softmax_of(x)).astype(x.dtype),)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_gradient_mutant("gradient_without_the_sum", "dx = y g: the diagonal of the Jacobian.", lambda g, y: y * g)
_gradient_mutant(
    "gradient_sum_without_weights", "dx = y (g - sum g).", lambda g, y: y * (g - g.sum(-1, keepdims=True))
)
