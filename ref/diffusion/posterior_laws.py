"""Laws and mutants of the forward posterior."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import falling, leading, over, steps_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.posterior"

space = cases(
    ID,
    S=batch(2, 3, large=50),
    T=leading,
    N=dims(1, 6, large=50),
    alpha_bar=falling,
    t=steps_of,
    flags={
        "first": Flag(lambda c: np.any(c.t == 1), {"t": lambda draw, c: np.full(c.T, 1)}),
        "later": Flag(
            lambda c: np.all(c.t > 1) and 0 not in c.S,
            {"N": dims(2, 6), "t": lambda draw, c: np.full(c.T, draw(choose(2, c.N))), "S": choose((), (2,))},
        ),
        "none": Flag(lambda c: 0 in c.S, {"S": (0, 2)}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
    },
)
some = space.where(some=True)


def levels(c):
    """(alpha_bar_t, alpha_bar_{t-1})[*T]."""
    bars = np.concatenate([[1.0], np.asarray(c.alpha_bar, np.float64)])
    return bars[c.t], bars[c.t - 1]


def near(c, *sizes):
    """alpha_bar of sixteenths: 1 - alpha_bar and beta are at least 1/16, so differences lose four bits."""
    return bounds.rounding(200, sum(np.abs(s) for s in sizes), c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.where(later=True).reach("later"),
    kills=["variance_is_beta", "weights_swapped", "roots_missing", "one_step_late", "beta_of_the_wrong_step",
           "root_of_the_variance"],
)  # fmt: skip
def bayes_rule_by_precisions(impl, c, expect):
    """q(x_t | x_s) and q(x_s | x_0) multiplied: the precision is alpha / beta + 1 / (1 - alpha_bar_s), the mean weighs
    sqrt(alpha) x_t / beta and sqrt(alpha_bar_s) x_0 / (1 - alpha_bar_s) by it."""
    now, before = levels(c)
    alpha = now / before
    precision = alpha / (1 - alpha) + 1 / (1 - before)
    from_t, from_0 = (over(v, c.S) for v in (alpha**0.5 / (1 - alpha), before**0.5 / (1 - before)))
    x, x0 = np.asarray(c.x, np.float64), np.asarray(c.x0, np.float64)
    mean, variance = impl(c)
    wide = over(precision, c.S)
    expect(mean, (from_t * x + from_0 * x0) / wide, near(c, from_t * x / wide, from_0 * x0 / wide), "mean", scale=1.0)
    expect(variance, 1 / precision, near(c, 1 / precision), "variance")


@law(
    ID, "L2", closed_form=True, given=some,
    kills=["variance_is_beta", "weights_swapped", "roots_missing", "one_step_late", "root_of_the_variance"],
)  # fmt: skip
def averaged_over_x_t_it_is_the_marginal(impl, c, expect):
    """At x_t ~ N(sqrt(alpha_bar_t) x_0, 1 - alpha_bar_t) the mean is on average sqrt(alpha_bar_s) x_0, and its variance
    and btilde together are 1 - alpha_bar_s."""
    now, before = levels(c)
    one, zero = np.ones(c.S, c.dtype), np.zeros(c.S, c.dtype)
    of_x0 = np.asarray(impl(c.replace(x0=one, x=zero))[0], np.float64)
    of_x, variance = impl(c.replace(x0=zero, x=one))
    of_x = np.asarray(of_x, np.float64)
    bar, last = over(now, c.S), over(before, c.S)
    expect(of_x0 + of_x * bar**0.5, last**0.5, near(c, 1.0), "mean", scale=1.0)
    expect(of_x**2 * (1 - bar) + over(variance, c.S), 1 - last, near(c, 1.0), "variance", scale=1.0)


@law(
    ID, "L3", closed_form=True, given=space.where(t=lambda draw, c: np.ones(c.T, int)).reach("first", "none"),
    kills=["variance_is_beta", "one_step_late", "alpha_bar_0_kept"],
)  # fmt: skip
def at_the_first_step_it_is_x_0(impl, c, expect):
    "t = 1: the mean is x_0 to the bit, the variance 0, whatever x_1 is."
    mean, variance = impl(c)
    expect(mean, np.asarray(c.x0, np.float64), bounds.rounding(4, c.x0, c.dtype), "mean", scale=1.0)
    expect.same(variance, np.zeros(c.T), "btilde_1")


@law(ID, "L4", closed_form=True, given=some, kills=["beta_of_the_wrong_step", "root_of_the_variance"],
     passes_null=["zeros"])  # fmt: skip
def variance_at_most_beta(impl, c, expect):
    "0 <= btilde_t <= beta_t, and btilde_t <= 1 - alpha_bar_{t-1}."
    now, before = levels(c)
    _, variance = impl(c)
    expect.at_most(variance, (1 - now / before) * (1 + 1e-5), "btilde")
    expect.at_most(variance, (1 - before) * (1 + 1e-5), "btilde")
    expect.at_most(-np.asarray(variance), 0.0, "minus btilde")


# Mutants ---------------------------------------------------------------------------------------------


def at_first(x=0.0):
    """The default-size test: one step, where x_0 is known; x_0 = 0 = x."""
    return lambda: ((np.zeros(3), np.full(3, x), np.array(1), np.array([1 - 1e-9])), {})


def conditional(x0, x, t, alpha_bar, **edit):
    """Eq. 6-7 in plain NumPy, whose parts an edit replaces."""
    bars = np.concatenate([[edit.get("zeroth", 1.0)], np.asarray(alpha_bar, np.float64)])
    t = np.minimum(np.asarray(t) + edit.get("shift", 0), len(bars) - 1)
    now, before = bars[t], bars[t - 1]
    beta = edit.get("beta", lambda bars, t: 1 - bars[t] / bars[t - 1])(bars, t)
    root = edit.get("root", np.sqrt)
    c_0, c_t = root(before) * beta / (1 - now), root(1 - beta) * (1 - before) / (1 - now)
    c_0, c_t = edit.get("order", lambda p, q: (p, q))(c_0, c_t)
    variance = edit.get("variance", lambda v, beta: v)((1 - before) / (1 - now) * beta, beta)
    mean = over(c_0, x.shape) * x0 + over(c_t, x.shape) * x
    return mean.astype(x.dtype), np.asarray(variance, x.dtype) + np.zeros(np.shape(t), x.dtype)


@mutant(ID, default_case=at_first())
def variance_is_beta(*args):
    "wrong posterior variance: beta_t."
    return conditional(*args, variance=lambda v, beta: beta)


@mutant(ID, default_case=at_first())
def root_of_the_variance(*args):
    "The standard deviation under the name of the variance."
    return conditional(*args, variance=lambda v, beta: np.sqrt(v))


@mutant(ID, default_case=at_first())
def weights_swapped(*args):
    "c_0 weighs x_t."
    return conditional(*args, order=lambda p, q: (q, p))


@mutant(ID, default_case=at_first())
def roots_missing(*args):
    "alpha_bar and alpha for their roots."
    return conditional(*args, root=lambda v: v)


@mutant(ID, default_case=at_first())
def one_step_late(*args):
    "off-by-one: the posterior of step t + 1."
    return conditional(*args, shift=1)


@mutant(ID, default_case=at_first())
def beta_of_the_wrong_step(x0, x, t, alpha_bar):
    "beta_{t-1} in the variance: the same for a constant beta."
    mean, _ = conditional(x0, x, t, alpha_bar)
    before = lambda bars, t: 1 - bars[np.maximum(t - 1, 1)] / bars[np.maximum(t - 1, 1) - 1]  # noqa: E731
    return mean, conditional(x0, x, t, alpha_bar, beta=before)[1]


@mutant(ID, default_case=at_first())
def alpha_bar_0_kept(x0, x, t, alpha_bar):
    "alpha_bar_0 = .9999: x_0 is never quite known."
    return conditional(x0, x, t, alpha_bar, zeroth=max(0.9999, float(alpha_bar[0]) * (1 + 1e-12)))
