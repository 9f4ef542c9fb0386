"""Laws and mutants of the linear schedule."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, integer
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "diffusion.linear_schedule"

space = cases(
    ID,
    T=integer(*range(1, 13), 300),
    first=choose(1e-4, 0.25, 0.02),
    last=choose(0.02, 0.75, 0.0625),
    flags={
        "one": Flag(lambda c: c.T == 1, {"T": integer(1)}),
        "rising": Flag(lambda c: c.T > 1 and c.last > c.first, {"T": integer(*range(2, 13)), "first": 1e-4}),
    },
)


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space.reach("one", "rising"),
    kills=["left_ends", "right_ends", "linear_in_the_root", "geometric", "from_last_to_first"],
)  # fmt: skip
def ends_and_equal_steps(impl, c, expect):
    "beta_1 = first, beta_T = last (T > 1), and all differences are (last - first) / (T - 1)."
    beta = impl(c)
    top = max(c.first, c.last)
    expect(beta[0], c.first, bounds.rounding(2, top, "float64"), "beta_1")
    if c.T > 1:
        expect(beta[-1], c.last, bounds.rounding(2, top, "float64"), "beta_T")
        step = (c.last - c.first) / (c.T - 1)
        expect(
            np.diff(beta), np.full(int(c.T) - 1, step), bounds.rounding(6, top, "float64"), "a difference", scale=top
        )


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.where(rising=True),
    kills=["left_ends", "right_ends", "linear_in_the_root", "geometric"],
)  # fmt: skip
def sum_of_an_arithmetic_progression(impl, c, expect):
    "beta_1 + .. + beta_T = T (first + last) / 2."
    expect(math.fsum(impl(c)), c.T * (c.first + c.last) / 2, bounds.rounding(4, c.T * c.last, "float64"))


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space.where(T=integer(1000, 1500)),
    kills=["left_ends", "right_ends"],
)  # fmt: skip
def limit_of_many_steps(impl, c, expect):
    """first = b_0 / T, last = b_1 / T: E(T) = T (sum ln(1 - beta) + (b_0 + b_1) / 2) -> -(b_0^2 + b_0 b_1 + b_1^2) / 6,
    and 2 E(2 T) - E(T) is nearer by another 1 / T."""
    for low, high in ((0.1, 20.0), (1.0, 5.0)):

        def error(T, low=low, high=high):
            beta = impl(c.replace(T=np.array(T), first=low / T, last=high / T))
            return T * (math.fsum(np.log1p(-beta)) + (low + high) / 2)

        wanted = -(low * low + low * high + high * high) / 6
        # The 1 / T terms cancel; of the next order T sum beta^4 / 4 <= b_1^4 / (4 T^2) is the largest.
        size = high**4 / (4 * int(c.T) ** 2) + 1e-6
        expect(2 * error(2 * int(c.T)) - error(int(c.T)), wanted, size, "limit of T (ln alpha_bar + int beta)")


# Mutants ---------------------------------------------------------------------------------------------


def flat(T=8, value=0.02):
    """The default-size test: one variance for all steps."""
    return lambda: ((np.array(T),), {"first": value, "last": value})


def line(T, first, last, part):
    return np.array([first + (last - first) * part(t) for t in range(1, int(T) + 1)])


@mutant(ID, default_case=flat())
def left_ends(T, *, first=1e-4, last=0.02):
    "off-by-one: the T left ends of T equal parts; the last variance is never reached."
    return line(T, first, last, lambda t: (t - 1) / T)


@mutant(ID, default_case=flat())
def right_ends(T, *, first=1e-4, last=0.02):
    "off-by-one: t / T; the first variance is never used."
    return line(T, first, last, lambda t: t / T)


@mutant(ID, default_case=flat())
def linear_in_the_root(T, *, first=1e-4, last=0.02):
    "sqrt(beta) on a straight line."
    return line(T, first**0.5, last**0.5, lambda t: (t - 1) / max(T - 1, 1)) ** 2


@mutant(ID, default_case=flat())
def geometric(T, *, first=1e-4, last=0.02):
    "ln(beta) on a straight line."
    return np.exp(line(T, np.log(first), np.log(last), lambda t: (t - 1) / max(T - 1, 1)))


@mutant(ID, default_case=flat())
def from_last_to_first(T, *, first=1e-4, last=0.02):
    "Indexed by the reverse process."
    return line(T, last, first, lambda t: (t - 1) / max(T - 1, 1))
