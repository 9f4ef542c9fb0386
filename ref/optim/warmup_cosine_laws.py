"""Laws and mutants of the warm-up and cosine schedule."""

from __future__ import annotations

import math

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, ints

ID = "optim.warmup_cosine"
DOUBLE = ("float64",)  # a rate is a float64 whatever the parameters are

space = cases(
    ID,
    B=batch(1, 6, large=100),
    warmup=dims(0, 7),
    length=dims(1, 12),
    total=lambda draw, c: c.warmup + c.length,
    peak=choose(1.0, 3e-4, 0.0),
    final=choose(0.0, 3e-5, 1.0),
    step=ints("*B", 0, 24),
    flags={
        "rises": Flag(lambda c: c.warmup > 1, {"warmup": choose(2, 5)}),
        "sudden": Flag(lambda c: c.warmup == 0, {"warmup": 0}),
        "to_zero": Flag(lambda c: c.final == 0, {"final": 0.0}),
        "falls": Flag(lambda c: c.peak > c.final, {"peak": 1.0, "final": choose(0.0, 0.125)}),
    },
)
falling = space.where(falls=True)


def at(impl, c, steps):
    return impl(c.replace(step=np.asarray(steps)))


def limit(c, n=12):
    """The angle is off by 3 u pi, a cosine's slope is at most 1; a dozen roundings besides."""
    return bounds.rounding(n, c.peak + c.final, "float64")


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=falling.where(warmup=dims(1, 7)),
    kills=[
        "counted_from_zero", "one_more_in_the_warm_up", "cosine_over_everything", "down_by_the_peak",
        "angle_of_the_whole_turn",
    ],
)  # fmt: skip
def landmarks(impl, c, expect):
    "r(1) = P / W, r(W) = P, r(N) = F; half way down (W + N even) r = (P + F) / 2."
    W, N, P, F = c.warmup, c.total, c.peak, c.final
    expect(at(impl, c, [1, W, N]), [P / W, P, F], limit(c), scale=P)
    even = c.replace(total=W + 2 * c.length)
    expect(at(impl, even, [W + c.length]), [(P + F) / 2], limit(c), "half way", scale=P)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=falling.where(rises=True),
    kills=["counted_from_zero", "warm_up_from_final"],
)  # fmt: skip
def warm_up_is_linear(impl, c, expect):
    "r(t) = P t / W for t = 0 .. W."
    t = np.arange(c.warmup + 1)
    expect(at(impl, c, t), c.peak * t / c.warmup, limit(c), scale=c.peak)


@law(
    ID, "L3", dtypes=DOUBLE, given=falling.reach("rises", "sudden"), kills=["counted_from_zero", "down_by_the_peak"],
)  # fmt: skip
def decay_is_symmetric_about_its_middle(impl, c, expect):
    "r(W + j) + r(N - j) = P + F for j = 0 .. N - W."
    j = np.arange(c.total - c.warmup + 1)
    both = at(impl, c, c.warmup + j) + at(impl, c, c.total - j)
    expect(both, np.full(j.shape, c.peak + c.final), 2 * limit(c), scale=c.peak)


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE, given=falling.where(length=dims(2, 12)),
    kills=["linear_decay", "cosine_over_everything"],
)  # fmt: skip
def decay_obeys_the_cosine_recurrence(impl, c, expect):
    "x_j = r(W + j) - (P + F) / 2 has x_0 = (P - F) / 2 and x_{j+1} + x_{j-1} = 2 cos(pi / (N - W)) x_j."
    n = c.total - c.warmup
    x = at(impl, c, c.warmup + np.arange(n + 1)) - (c.peak + c.final) / 2
    expect(x[0], (c.peak - c.final) / 2, limit(c), "x_0", scale=c.peak)
    expect(x[2:] + x[:-2], 2 * math.cos(math.pi / n) * x[1:-1], 4 * limit(c), scale=c.peak)


@law(
    ID, "L5", closed_form=True, dtypes=DOUBLE, given=falling.reach("rises", "sudden"),
    kills=["counted_from_zero", "angle_of_the_whole_turn", "warm_up_from_final"],
)  # fmt: skip
def the_area_is_closed(impl, c, expect):
    "sum of r(t), t = 1 .. N: P (W + 1) / 2 (0 if W = 0) + (N - W) F + (P - F) (N - W - 1) / 2."
    W, n, P, F = c.warmup, c.total - c.warmup, c.peak, c.final
    wanted = (P * (W + 1) / 2 if W else 0.0) + n * F + (P - F) * (n - 1) / 2
    found = math.fsum(at(impl, c, np.arange(1, c.total + 1)))
    expect(found, wanted, c.total * limit(c), "area", scale=c.total * P)


@law(ID, "L6", closed_form=True, dtypes=DOUBLE, given=falling, kills=["rises_again", "zero_after_the_end"])
def after_the_end_it_stays(impl, c, expect):
    "r(t) = F for t >= N, far away too."
    t = c.total + np.array([0, 1, 2, c.total, 10**9])
    expect(at(impl, c, t), np.full(t.shape, c.final), limit(c), scale=c.peak)
    expect.holds(float(at(impl, c, [c.warmup])[0]) > 0, "r(W) > 0")


@law(ID, "L7", dtypes=DOUBLE, given=falling.where(B=(6,)), kills=["rises_again", "angle_of_the_whole_turn"])
def it_falls_after_the_peak(impl, c, expect):
    "Between W and N each step lowers the rate; any array of steps gets the rates of its entries."
    rates = at(impl, c, np.arange(2 * c.total + 2))
    fall = np.diff(rates[c.warmup : c.total + 1])
    expect.at_most(fall, -1e-6 * c.peak, "a step down the cosine")
    expect.at_most(np.diff(rates[c.total :]), limit(c), "a step after the end")
    expect.same(impl(c), rates[np.minimum(c.step, 2 * c.total + 1)], "the rates of the entries")


# Mutants ---------------------------------------------------------------------------------------------


def schedule(step, *, peak, warmup, total, final=0.0, **edit):
    """The schedule in plain loops, whose parts an edit replaces."""
    W, N, P, F = warmup, total, peak, final
    rise = edit.get("rise", lambda t: P * t / W)
    shape = edit.get("shape", lambda x: (1 + math.cos(math.pi * x)) / 2)
    part = edit.get("part", lambda t: (t - W) / (N - W))
    fall = edit.get("fall", lambda y: F + (P - F) * y)

    def rate(t):
        t = max(t + edit.get("shift", 0), 0)
        if t < W:
            return rise(t)
        return edit.get("after", lambda t: F)(t) if t > N else fall(shape(part(t)))

    return np.array([rate(int(t)) for t in np.ravel(step)], np.float64).reshape(np.shape(step))


def points(steps, **options):
    return lambda: ((np.array(steps),), {"peak": 1.0, "warmup": 10, "total": 100, **options})


@mutant(ID, default_case=points([101, 150], final=0.125))
def counted_from_zero(step, **options):
    "Step t gets the rate of t - 1: the first step does nothing."
    return schedule(step, shift=-1, **options)


@mutant(ID, default_case=points([10, 55, 100]))
def one_more_in_the_warm_up(step, *, peak, warmup, total, final=0.0):
    "(t + 1) / (W + 1)."
    rise = lambda t: peak * (t + 1) / (warmup + 1)  # noqa: E731
    return schedule(step, peak=peak, warmup=warmup, total=total, final=final, rise=rise)


@mutant(ID, default_case=points([0, 50, 100], warmup=0))
def cosine_over_everything(step, *, total, **options):
    "The cosine counts from 0, not from the end of the warm-up."
    return schedule(step, total=total, part=lambda t: t / total, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def down_by_the_peak(step, *, peak, final=0.0, **options):
    "F + P (1 + cos) / 2: the same where F = 0."
    return schedule(step, peak=peak, final=final, fall=lambda y: final + peak * y, **options)


@mutant(ID, default_case=points([5, 10, 200], final=0.125))
def angle_of_the_whole_turn(step, **options):
    "cos(2 pi x): back at the peak at the end."
    return schedule(step, shape=lambda x: (1 + math.cos(2 * math.pi * x)) / 2, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def warm_up_from_final(step, *, peak, warmup, final=0.0, **options):
    "The warm-up starts from F."
    rise = lambda t: final + (peak - final) * t / warmup  # noqa: E731
    return schedule(step, peak=peak, warmup=warmup, final=final, rise=rise, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def linear_decay(step, **options):
    "A straight line: the same at both ends and half way."
    return schedule(step, shape=lambda x: 1 - x, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def rises_again(step, *, peak, warmup, total, final=0.0):
    "The cosine goes on after the end."
    again = lambda t: final + (peak - final) * (1 + math.cos(math.pi * (t - warmup) / (total - warmup))) / 2  # noqa: E731
    return schedule(step, peak=peak, warmup=warmup, total=total, final=final, after=again)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def zero_after_the_end(step, **options):
    "0, not F, after the end."
    return schedule(step, after=lambda t: 0.0, **options)
