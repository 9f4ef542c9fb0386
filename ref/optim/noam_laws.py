"""Laws and mutants of the Transformer's schedule."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import batch, cases, choose, dims, ints

ID = "optim.noam"
DOUBLE = ("float64",)  # a rate is a float64 whatever the parameters are
space = cases(
    ID, B=batch(1, 6), channels=choose(512, 1, 16, 24), warmup=dims(1, 9), factor=choose(1.0, 2.0, 0.25),
    step=ints("*B", 0, 24),
)  # fmt: skip


def at(impl, c, steps):
    return impl(c.replace(step=np.asarray(steps)))


def peak(c):
    return c.factor / (c.channels * c.warmup) ** 0.5


def limit(c, n=12):
    return bounds.rounding(n, peak(c), "float64")


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space,
    kills=["counted_from_zero", "width_ignored", "factor_ignored", "greater_branch"],
)  # fmt: skip
def the_peak_is_at_the_end_of_the_warm_up(impl, c, expect):
    "r(W) = s / sqrt(d W), the greatest; r(0) = 0, r(1) = s / (sqrt(d) W^(3/2)), r(4 W) = r(W) / 2."
    W, P = c.warmup, peak(c)
    expect(at(impl, c, [0, 1, W, 4 * W]), [0, P / W, P, P / 2], limit(c), scale=P)
    expect.at_most(at(impl, c, np.arange(4 * W)), P + limit(c), "rate")


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space,
    kills=["counted_from_zero", "warm_up_by_the_root", "greater_branch", "width_without_the_root"],
)  # fmt: skip
def both_branches_in_fractions(impl, c, expect):
    "r(t)^2 d / s^2 is t^2 / W^3 up to W and 1 / t from there, in exact fractions."
    t, W = np.arange(1, 3 * c.warmup + 2), c.warmup
    exact = [float(Fraction(int(k) ** 2, W**3) if k < W else Fraction(1, int(k))) for k in t]
    expect(at(impl, c, t) ** 2 * c.channels / c.factor**2, exact, bounds.rounding(24, exact, "float64"))


@law(
    ID, "L3", dtypes=DOUBLE, given=space, kills=["width_ignored", "width_without_the_root"], passes_null=["zeros"],
)  # fmt: skip
def wider_models_learn_slower(impl, c, expect):
    "Four times the channels: half the rate, to the bit; twice the factor: twice the rate."
    t = np.arange(12)
    expect(at(impl, c.replace(channels=4 * c.channels), t), at(impl, c, t) / 2, limit(c), "4 d", scale=peak(c))
    expect.same(at(impl, c.replace(factor=2 * c.factor), t), at(impl, c, t) * 2, "2 s")


@law(ID, "L4", dtypes=DOUBLE, given=space, kills=["counted_from_zero", "inverse_of_the_time"], passes_null=["zeros"])
def four_times_the_steps_half_the_rate(impl, c, expect):
    "r(4 t) = r(t) / 2 for t >= W."
    t = c.warmup + np.arange(6)
    expect(at(impl, c, 4 * t), at(impl, c, t) / 2, limit(c), scale=peak(c))


@law(
    ID,
    "L5",
    dtypes=DOUBLE,
    given=space.where(B=(2, 3)),
    kills=["first_row_for_all"],
    passes_null=["zeros", "constant", "identity"],
)
def any_array_gets_the_rates_of_its_entries(impl, c, expect):
    "An array of steps of any shape gets, place by place, the rates of its entries."
    expect.same(impl(c), at(impl, c, np.arange(25))[c.step], "the rates of the entries")


# Mutants ---------------------------------------------------------------------------------------------


def schedule(step, *, channels, warmup, factor=1.0, **edit):
    """The schedule in plain loops, whose parts an edit replaces."""
    width = edit.get("width", lambda d: d**-0.5)(channels)

    def rate(t):
        t = max(t + edit.get("shift", 0), 0)
        fall = edit.get("fall", lambda t: t**-0.5)(t) if t else float("inf")
        rise = edit.get("rise", lambda t, W: t * W**-1.5)(t, warmup)
        return factor * width * edit.get("least", min)(fall, rise) if t else 0.0

    return np.array([rate(int(t)) for t in np.ravel(step)], np.float64).reshape(np.shape(step))


def points(steps, **options):
    return lambda: ((np.array(steps),), {"channels": 1, "warmup": 100, **options})


@mutant(ID, default_case=points([10**8]))
def counted_from_zero(step, **options):
    "Step t gets the rate of t - 1."
    return schedule(step, shift=-1, **options)


@mutant(ID, default_case=points([5, 100, 400]))
def width_ignored(step, **options):
    "No d^(-1/2)."
    return schedule(step, width=lambda d: 1.0, **options)


@mutant(ID, default_case=points([5, 100, 400]))
def width_without_the_root(step, **options):
    "1 / d."
    return schedule(step, width=lambda d: 1 / d, **options)


@mutant(ID, default_case=points([5, 100, 400]))
def factor_ignored(step, *, factor=1.0, **options):
    "factor is accepted and dropped."
    return schedule(step, **options)


@mutant(ID, default_case=points([100]))
def greater_branch(step, **options):
    "max for min: the same at the peak."
    return schedule(step, least=max, **options)


@mutant(ID, default_case=points([100, 400]))
def warm_up_by_the_root(step, **options):
    "sqrt(t) / W up: the same at the peak."
    return schedule(step, rise=lambda t, W: t**0.5 / W, **options)


@mutant(ID, default_case=points([1], warmup=1))
def inverse_of_the_time(step, **options):
    "1 / t."
    return schedule(step, fall=lambda t: 1 / t, **options)


@mutant(ID, default_case=points([5, 100, 400]))
def first_row_for_all(step, **options):
    "Every row gets the rates of the first."
    rates = schedule(step, **options)
    return np.broadcast_to(rates[:1], rates.shape).copy() if rates.ndim > 1 and rates.size else rates
