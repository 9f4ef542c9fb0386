"""Laws and mutants of alpha_bar."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "diffusion.alpha_bar"

space = cases(
    ID,
    T=dims(0, 9, large=200),
    beta=lambda draw, c: rng(draw).integers(1, 16, c.T) / (16.0 if c.T < 10 else 256.0),  # float32 holds the product
    flags={
        "none": Flag(lambda c: c.T == 0, {"T": 0}),
        "some": Flag(lambda c: c.T > 1, {"T": dims(2, 9)}),
    },
)
some = space.where(some=True)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "some"),
    kills=["starts_at_one", "sum_of_betas", "root_of_the_product", "product_of_betas", "noise_that_is_there"],
)  # fmt: skip
def exact_product_in_fractions(impl, c, expect):
    "alpha_bar_t = (1 - beta_1) .. (1 - beta_t), in fractions."
    wanted, product = [], Fraction(1)
    for b in c.beta.tolist():
        product *= 1 - Fraction(b)
        wanted.append(float(product))
    expect(impl(c), np.array(wanted), bounds.rounding(c.T, wanted, c.dtype))


@law(
    ID, "L2", closed_form=True, given=some.where(beta=lambda draw, c: np.full(c.T, draw(choose(0.5, 0.25, 0.0625)))),
    kills=["starts_at_one", "sum_of_betas", "exponential", "noise_that_is_there"],
)  # fmt: skip
def constant_beta_is_a_geometric_sequence(impl, c, expect):
    "beta_t = b: alpha_bar_t = (1 - b)^t."
    wanted = (1 - float(c.beta[0])) ** np.arange(1, c.T + 1)
    expect(impl(c), wanted, bounds.rounding(c.T, wanted, c.dtype))


@law(ID, "L3", given=some, kills=["exponential_of_the_mean", "starts_at_one"], passes_null=["constant", "zeros"])
def a_schedule_cut_in_two(impl, c, expect):
    "alpha_bar of a schedule's tail, times alpha_bar at the cut, is alpha_bar of the whole."
    whole, cut = impl(c), c.T // 2
    tail = impl(c.replace(beta=c.beta[cut:].copy(), T=c.T - cut))
    head = float(whole[cut - 1])
    expect(head * np.asarray(tail, np.float64), whole[cut:], bounds.rounding(2 * c.T, whole[cut:], c.dtype))


@law(ID, "L4", closed_form=True, given=some, kills=["sum_of_betas", "noise_that_is_there"])
def it_falls_and_stays_positive(impl, c, expect):
    "1 > alpha_bar_1 > .. > alpha_bar_T > 0."
    found = np.concatenate([[1.0], impl(c)])
    expect.holds(bool(np.all(np.diff(found) < 0) and found[-1] > 0), "1 > alpha_bar_1 > .. > alpha_bar_T > 0")


# Mutants ---------------------------------------------------------------------------------------------


def small(T=5, value=1e-9):
    """The default-size test: variances so small that alpha_bar is 1."""
    return lambda: ((np.full(T, value),), {})


@mutant(ID, default_case=small())
def starts_at_one(beta):
    "off-by-one: alpha_bar_0 .. alpha_bar_{T-1}."
    return np.concatenate([np.ones(1, beta.dtype), np.cumprod(1 - beta)])[: len(beta)]


@mutant(ID, default_case=small())
def sum_of_betas(beta):
    "1 - sum beta: the first order."
    return 1 - np.cumsum(beta)


@mutant(ID, default_case=small())
def root_of_the_product(beta):
    "sqrt(alpha_bar), the coefficient of x_0."
    return np.sqrt(np.cumprod(1 - beta))


@mutant(ID, default_case=small(1, 0.5))
def product_of_betas(beta):
    "beta_1 .. beta_t."
    return np.cumprod(beta)


@mutant(ID, default_case=small(1, 0.5))
def noise_that_is_there(beta):
    "1 - alpha_bar."
    return 1 - np.cumprod(1 - beta)


@mutant(ID, default_case=small())
def exponential(beta):
    "e^(-sum beta): the limit of many steps."
    return np.exp(-np.cumsum(beta))


@mutant(ID, default_case=small(4, 0.02))
def exponential_of_the_mean(beta):
    "(1 - mean beta)^t: right for a constant beta."
    mean = np.mean(beta) if len(beta) else 0
    return ((1 - mean) ** np.arange(1, len(beta) + 1)).astype(beta.dtype)
