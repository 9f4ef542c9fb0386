"""Laws and mutants of the warm-up and straight decay."""

from __future__ import annotations

import math

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, ints

ID = "optim.warmup_linear"
DOUBLE = ("float64",)  # a rate is a float64 whatever the parameters are

space = cases(
    ID,
    B=batch(1, 6),
    warmup=dims(0, 7),
    length=dims(1, 12),
    total=lambda draw, c: c.warmup + c.length,
    peak=choose(1.0, 3e-4, 0.25),
    final=choose(0.0, 3e-5, 1.0),
    step=ints("*B", 0, 24),
    flags={
        "rises": Flag(lambda c: c.warmup > 1, {"warmup": choose(2, 5)}),
        "sudden": Flag(lambda c: c.warmup == 0, {"warmup": 0}),
        "upward": Flag(lambda c: c.final > c.peak, {"peak": 0.25, "final": 1.0}),
    },
)
every = space.reach("rises", "sudden", "upward")


def at(impl, c, steps):
    return impl(c.replace(step=np.asarray(steps)))


def limit(c, n=8):
    return bounds.rounding(n, c.peak + c.final, "float64")


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space.where(warmup=dims(1, 7)),
    kills=["counted_from_zero", "line_over_everything", "down_by_the_peak"],
)  # fmt: skip
def landmarks(impl, c, expect):
    "r(1) = P / W, r(W) = P, r(N) = F, and half way down (W + N even) (P + F) / 2."
    W, N, P, F = c.warmup, c.total, c.peak, c.final
    expect(at(impl, c, [1, W, N]), [P / W, P, F], limit(c), scale=P + F)
    even = c.replace(total=W + 2 * c.length)
    expect(at(impl, even, [W + c.length]), [(P + F) / 2], limit(c), "half way", scale=P + F)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=every,
    kills=["counted_from_zero", "warm_up_from_final", "half_a_cosine", "down_by_the_peak"],
)  # fmt: skip
def both_pieces_are_straight(impl, c, expect):
    "r(t) - r(t - 1) is P / W up to W, and (F - P) / (N - W) from there to N."
    rates = at(impl, c, np.arange(c.total + 1))
    if c.warmup:
        rises = np.full(c.warmup, c.peak / c.warmup)
        expect(np.diff(rates[: c.warmup + 1]), rises, 2 * limit(c), "up", scale=c.peak + c.final)
    falls = np.full(c.length, (c.final - c.peak) / c.length)
    expect(np.diff(rates[c.warmup :]), falls, 2 * limit(c), "down", scale=c.peak + c.final)


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space,
    kills=["counted_from_zero", "line_over_everything", "warm_up_from_final"],
)  # fmt: skip
def the_area_is_a_trapezium(impl, c, expect):
    "sum of r(t), t = 1 .. N: P (W + 1) / 2 (0 if W = 0) + (N - W) (P + F) / 2 - (P - F) / 2."
    W, n, P, F = c.warmup, c.length, c.peak, c.final
    wanted = (P * (W + 1) / 2 if W else 0.0) + n * (P + F) / 2 - (P - F) / 2
    found = math.fsum(at(impl, c, np.arange(1, c.total + 1)))
    expect(found, wanted, c.total * limit(c), "area", scale=c.total * (P + F))


@law(ID, "L4", closed_form=True, dtypes=DOUBLE, given=space, kills=["falls_on", "zero_after_the_end"])
def after_the_end_it_stays(impl, c, expect):
    "r(t) = F for t >= N, far away too; r(W) = P."
    t = c.total + np.array([0, 1, 2, c.total, 10**9])
    expect(at(impl, c, t), np.full(t.shape, c.final), limit(c), scale=c.peak + c.final)
    expect(at(impl, c, [c.warmup]), [c.peak], limit(c), "r(W)", scale=c.peak + c.final)


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
    rates = at(impl, c, np.arange(25))
    expect.same(impl(c), rates[c.step], "the rates of the entries")


# Mutants ---------------------------------------------------------------------------------------------


def schedule(step, *, peak, warmup, total, final=0.0, **edit):
    """The schedule in plain loops, whose parts an edit replaces."""
    W, N, P, F = warmup, total, peak, final

    def rate(t):
        t = max(t + edit.get("shift", 0), 0)
        if t < W:
            return edit.get("rise", lambda t: P * t / W)(t)
        x = edit.get("part", lambda t: (t - W) / (N - W))(t)
        if t > N:
            return edit.get("after", lambda x: F)(x)
        return edit.get("fall", lambda x: F + (P - F) * (1 - x))(x)

    return np.array([rate(int(t)) for t in np.ravel(step)], np.float64).reshape(np.shape(step))


def points(steps, **options):
    return lambda: ((np.array(steps),), {"peak": 1.0, "warmup": 10, "total": 100, **options})


@mutant(ID, default_case=points([120, 150], final=0.125))
def counted_from_zero(step, **options):
    "Step t gets the rate of t - 1."
    return schedule(step, shift=-1, **options)


@mutant(ID, default_case=points([0, 50, 100], warmup=0))
def line_over_everything(step, *, total, **options):
    "BERT's: the line counts from 0, so the rate jumps at W."
    return schedule(step, total=total, part=lambda t: t / total, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def down_by_the_peak(step, *, peak, final=0.0, **options):
    "F + P (1 - x): the same where F = 0."
    return schedule(step, peak=peak, final=final, fall=lambda x: final + peak * (1 - x), **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def warm_up_from_final(step, *, peak, warmup, final=0.0, **options):
    "The warm-up starts from F."
    rise = lambda t: final + (peak - final) * t / warmup  # noqa: E731
    return schedule(step, peak=peak, warmup=warmup, final=final, rise=rise, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def half_a_cosine(step, *, peak, final=0.0, **options):
    "A cosine: the same at both ends and half way."
    fall = lambda x: final + (peak - final) * (1 + math.cos(math.pi * x)) / 2  # noqa: E731
    return schedule(step, peak=peak, final=final, fall=fall, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def falls_on(step, *, peak, final=0.0, **options):
    "The line goes on after the end, below 0."
    return schedule(step, peak=peak, final=final, after=lambda x: final + (peak - final) * (1 - x), **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def zero_after_the_end(step, **options):
    "0, not F, after the end."
    return schedule(step, after=lambda x: 0.0, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def first_row_for_all(step, **options):
    "Every row gets the rates of the first."
    rates = schedule(step, **options)
    return np.broadcast_to(rates[:1], rates.shape).copy() if rates.ndim > 1 and rates.size else rates
