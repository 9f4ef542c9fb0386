"""Laws and mutants of the inverse square root schedule."""

from __future__ import annotations

import math

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import batch, cases, choose, dims, ints

ID = "optim.inverse_sqrt"
DOUBLE = ("float64",)  # a rate is a float64 whatever the parameters are
space = cases(ID, B=batch(1, 6), warmup=dims(1, 9), peak=choose(1.0, 3e-4, 0.25), step=ints("*B", 0, 24))


def at(impl, c, steps):
    return impl(c.replace(step=np.asarray(steps)))


def limit(c, n=8):
    return bounds.rounding(n, c.peak, "float64")


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space,
    kills=["counted_from_zero", "without_the_warm_up", "peak_at_the_first_step"],
)  # fmt: skip
def landmarks(impl, c, expect):
    "r(0) = 0, r(1) = P / W, r(W) = P, r(4 W) = P / 2, r(9 W) = P / 3; no rate is above P."
    W, P = c.warmup, c.peak
    expect(at(impl, c, [0, 1, W, 4 * W, 9 * W]), [0, P / W, P, P / 2, P / 3], limit(c), scale=P)
    expect.at_most(at(impl, c, np.arange(4 * W)), P + limit(c), "rate")


@law(ID, "L2", closed_form=True, dtypes=DOUBLE, given=space, kills=["counted_from_zero", "root_of_the_warm_up"])
def warm_up_is_linear(impl, c, expect):
    "r(t) = P t / W for t = 0 .. W."
    t = np.arange(c.warmup + 1)
    expect(at(impl, c, t), c.peak * t / c.warmup, limit(c), scale=c.peak)


@law(
    ID, "L3", dtypes=DOUBLE, given=space, kills=["counted_from_zero", "inverse_of_the_time"], passes_null=["zeros"],
)  # fmt: skip
def four_times_the_steps_half_the_rate(impl, c, expect):
    "r(4 t) = r(t) / 2 for t >= W."
    t = c.warmup + np.arange(6)
    expect(at(impl, c, 4 * t), at(impl, c, t) / 2, limit(c), scale=c.peak)


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE, given=space, kills=["from_the_end_of_the_warm_up", "inverse_of_the_time"]
)
def the_square_of_the_inverse_is_linear(impl, c, expect):
    "(P / r(t))^2 = t / W for t >= W, far away too."
    t = np.concatenate([c.warmup + np.arange(6), [10**6]])
    expect((c.peak / at(impl, c, t)) ** 2, t / c.warmup, bounds.rounding(12, t / c.warmup, "float64"))


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


def schedule(step, *, peak, warmup, **edit):
    """The schedule in plain loops, whose parts an edit replaces."""
    W, P = warmup, peak

    def rate(t):
        t = max(t + edit.get("shift", 0), 0)
        if t < W:
            return edit.get("rise", lambda t: P * t / W)(t)
        return edit.get("fall", lambda t: P * math.sqrt(W / t))(t)

    return np.array([rate(int(t)) for t in np.ravel(step)], np.float64).reshape(np.shape(step))


def points(steps, **options):
    return lambda: ((np.array(steps),), {"peak": 1.0, "warmup": 1, **options})


@mutant(ID, default_case=points([10**8]))
def counted_from_zero(step, **options):
    "Step t gets the rate of t - 1."
    return schedule(step, shift=-1, **options)


@mutant(ID, default_case=points([100, 400], warmup=100))
def without_the_warm_up(step, *, peak, **options):
    "T5's: the peak from the start."
    return schedule(step, peak=peak, rise=lambda t: peak, **options)


@mutant(ID, default_case=points([1, 4, 9]))
def peak_at_the_first_step(step, *, peak, warmup):
    "P / sqrt(t): the same for W = 1."
    return schedule(step, peak=peak, warmup=warmup, fall=lambda t: peak / math.sqrt(t))


@mutant(ID, default_case=points([0, 100, 400], warmup=100))
def root_of_the_warm_up(step, *, peak, warmup):
    "P sqrt(t / W) up: the same at both ends."
    return schedule(step, peak=peak, warmup=warmup, rise=lambda t: peak * math.sqrt(t / warmup))


@mutant(ID, default_case=points([50, 100], warmup=100))
def inverse_of_the_time(step, *, peak, warmup):
    "P W / t."
    return schedule(step, peak=peak, warmup=warmup, fall=lambda t: peak * warmup / t)


@mutant(ID, default_case=points([50, 100], warmup=100))
def from_the_end_of_the_warm_up(step, *, peak, warmup):
    "P / sqrt(1 + t - W)."
    return schedule(step, peak=peak, warmup=warmup, fall=lambda t: peak / math.sqrt(1 + t - warmup))


@mutant(ID, default_case=points([50, 100], warmup=100))
def first_row_for_all(step, **options):
    "Every row gets the rates of the first."
    rates = schedule(step, **options)
    return np.broadcast_to(rates[:1], rates.shape).copy() if rates.ndim > 1 and rates.size else rates
