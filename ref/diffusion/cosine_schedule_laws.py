"""Laws and mutants of the cosine schedule."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, integer
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "diffusion.cosine_schedule"

space = cases(
    ID,
    T=integer(*range(1, 13), 60),
    offset=choose(0.008, 0.0, 0.25, 1.0),
    largest=choose(0.999, 0.9, 0.5),
    flags={
        "one": Flag(lambda c: c.T == 1, {"T": integer(1)}),
        "bounded_twice": Flag(
            lambda c: np.sum(1 - np.divide(*roots(c)) >= c.largest) > 1,
            {"T": integer(*range(6, 13)), "largest": 0.5, "offset": 0.0},
        ),
    },
)
free = space.where(largest=1 - 2.0**-52)


def roots(c):
    """(f(1 .. T), f(0 .. T - 1)) by Python's cosine."""
    T = max(int(c.T), 1)
    f = [math.cos((t / T + c.offset) / (1 + c.offset) * math.pi / 2) ** 2 for t in range(T + 1)]
    return np.array(f[1:]), np.array(f[:-1])


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=free.where(T=integer(*range(2, 13), 60)),
    kills=["cosine_not_squared", "offset_not_divided", "steps_from_zero", "beta_of_f"],
)  # fmt: skip
def products_are_the_squared_cosine(impl, c, expect):
    "Without a bound (1 - beta_1) .. (1 - beta_t) = f(t) / f(0) for t < T."
    f, before = roots(c)
    found = np.cumprod(1 - impl(c))[:-1]
    # 1 - beta rounds to u of 1, a cosine near pi / 2 to u of 1: both relative to the smallest ratio.
    size = np.arange(1, int(c.T)) * 8 / np.minimum.accumulate(f[:-1] / before[:-1])
    expect(found, f[:-1] / before[0], bounds.rounding(size, 1.0, "float64") * f[:-1] / before[0] + 1e-15)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=free.where(T=integer(*range(3, 13), 60)),
    kills=["cosine_not_squared", "linear_in_time", "steps_from_zero"],
)  # fmt: skip
def squared_cosines_obey_their_recurrence(impl, c, expect):
    """y_t = 2 f(t) - 1 = cos(2 angle) has y_{t+1} + y_{t-1} = 2 cos(pi / (T (1 + s))) y_t, with f(t) = f(0) times the
    product of 1 - beta."""
    T = int(c.T)
    first = math.cos(c.offset / (1 + c.offset) * math.pi / 2) ** 2
    y = 2 * first * np.concatenate([[1.0], np.cumprod(1 - impl(c))]) - 1
    turn = 2 * math.cos(math.pi / (T * (1 + c.offset)))
    expect(y[2:] + y[:-2], turn * y[1:-1], bounds.rounding(40 * T, 1.0, "float64"), scale=1.0)


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space.reach("one", "bounded_twice"),
    kills=["no_bound", "bound_on_the_last_alone", "bound_on_alpha_bar"],
)  # fmt: skip
def bounded_by_the_largest(impl, c, expect):
    "Every beta is min(1 - f(t) / f(t - 1), largest); the last is largest, and none is 0."
    beta = impl(c)
    f, before = roots(c)
    wanted = np.minimum(1 - f / before, c.largest)
    expect(beta, wanted, bounds.rounding(24, 1.0, "float64") * f / before + 4e-16, "beta")
    expect.same(beta[-1], c.largest, "beta_T")
    expect.holds(bool(np.all(beta > 0)), "all beta > 0")


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE, given=space.where(offset=0.0, T=integer(*range(2, 13))),
    kills=["offset_fixed", "linear_in_time", "cosine_not_squared"],
)  # fmt: skip
def offset_zero_in_closed_form(impl, c, expect):
    "s = 0: beta_1 = min(sin^2(pi / (2 T)), largest)."
    expect(impl(c)[0], min(math.sin(math.pi / (2 * int(c.T))) ** 2, c.largest), 4e-16, "beta_1")


# Mutants ---------------------------------------------------------------------------------------------


def of(T=1, **options):
    """The default-size test: one step, whose beta is the largest."""
    return lambda: ((np.array(T),), options)


def schedule(T, *, offset=0.008, largest=0.999, **edit):
    """The schedule in plain loops, whose parts an edit replaces."""
    T = int(T)
    angle = edit.get("angle", lambda t: (t / T + offset) / (1 + offset) * math.pi / 2)
    f = [edit.get("shape", lambda a: math.cos(a) ** 2)(angle(t)) for t in range(T + 1)]
    beta = [1 - f[t] / f[t - 1] for t in range(1, T + 1)]
    return np.array(edit.get("bound", lambda b: [min(x, largest) for x in b])(beta))


@mutant(ID, default_case=of())
def cosine_not_squared(T, **options):
    "cos for cos^2: the same where the bound is met."
    return schedule(T, shape=math.cos, **options)


@mutant(ID, default_case=of())
def offset_not_divided(T, *, offset=0.008, **options):
    "The angle runs past pi / 2: no division by 1 + s."
    return schedule(T, offset=offset, angle=lambda t: min(t / int(T) + offset, 1.0) * math.pi / 2, **options)


@mutant(ID, default_case=of())
def steps_from_zero(T, *, offset=0.008, **options):
    "off-by-one: f at t / (T + 1), as if there were one step more."
    n = int(T) + (int(T) > 1)
    return schedule(T, offset=offset, angle=lambda t: (t / n + offset) / (1 + offset) * math.pi / 2, **options)


@mutant(ID, default_case=of())
def beta_of_f(T, *, offset=0.008, largest=0.999):
    "alpha_bar_t = f(t) without the division by f(0): beta_1 = 1 - f(1)."
    out = schedule(T, offset=offset, largest=largest)
    first = math.cos((1 / int(T) + offset) / (1 + offset) * math.pi / 2) ** 2
    out[0] = min(1 - first, largest)
    return out


@mutant(ID, default_case=of())
def linear_in_time(T, *, offset=0.008, **options):
    "alpha_bar = 1 - t / T."
    return schedule(T, offset=offset, angle=lambda t: t / int(T), shape=lambda x: 1 - x + 1e-30, **options)


@mutant(ID, default_case=of(4, offset=0.0, largest=0.999))
def no_bound(T, *, offset=0.008, largest=0.999):
    "beta as it comes, 1 at the end but for a floor of 1e-3 in alpha: another bound than the one asked for."
    return schedule(T, offset=offset, largest=0.999)


@mutant(ID, default_case=of(4, offset=0.0))
def bound_on_the_last_alone(T, *, largest=0.999, **options):
    "Only the last beta is bounded."
    return schedule(T, largest=largest, bound=lambda b: [*b[:-1], min(b[-1], largest)], **options)


@mutant(ID, default_case=of(1))
def bound_on_alpha_bar(T, *, largest=0.999, **options):
    "alpha_bar, not alpha, is kept above 1 - largest."

    def bound(beta):
        kept, bar = [], 1.0
        for b in beta:
            after = max(bar * (1 - b), 1 - largest)
            kept.append(1 - after / bar)
            bar = after
        return kept

    return schedule(T, largest=largest, bound=bound, **options)


@mutant(ID, default_case=of(4))
def offset_fixed(T, *, offset=0.008, **options):
    "s = .008 whatever is asked for."
    return schedule(T, offset=0.008, **options)
