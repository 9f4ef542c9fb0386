"""Laws and mutants of sampling along a velocity."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, follow, order_of, returns, runner, shaped_noise
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "diffusion.flow_sampler"
MEAN, S2 = 1.5, 0.25


def times(draw, c):
    """K + 1 times of 16ths in [0, 1], rising or falling."""
    found = np.sort(rng(draw).permutation(17)[: c.K + 1]) / 16.0
    return found if c.rises else found[::-1].copy()


space = cases(
    ID,
    B=batch(2, 3, large=60),
    K=dims(1, 4, large=12),
    rises=choose(True, False),
    times=times,
    method=choose("heun", "euler"),
    outputs=shaped_noise(lambda c: 2 * c.K),
    velocity=lambda draw, c: lambda x, t: x * 0.5,
    flags={
        "downwards": Flag(lambda c: c.times[0] > c.times[-1], {"rises": False}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


@law(
    ID, "L1", closed_form=True, given=some.reach("downwards"),
    kills=["against_the_velocity", "euler_always", "midpoint", "second_velocity_at_the_start", "even_steps"],
)  # fmt: skip
def each_stage_by_its_terms(impl, c, expect):
    "Euler: x + h v; Heun: x + h (v + v') / 2, v' asked at x + h v and t'."
    rows, steps = [], np.asarray(c.times, np.float64).tolist()
    for t, to in zip(steps[:-1], steps[1:], strict=True):
        h = to - t
        if c.method == "euler":
            rows.append((t, 1.0, h))
        else:
            rows += [(t, 1.0, 0.0), (to, 1.0, h / 2, h / 2, 0.0, 1.0, h)]
    follow(impl, c, expect, rows, argument="velocity")


def exact(x, t):
    """The velocity of N(MEAN, S2) on the straight path."""
    return (x - t * MEAN) * ((t * S2 - (1 - t)) / (t * t * S2 + (1 - t) ** 2)) + MEAN


def flowed(x, t, to):
    spread = lambda t: math.sqrt(t * t * S2 + (1 - t) ** 2)  # noqa: E731
    return to * MEAN + spread(to) / spread(t) * (x - t * MEAN)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some,
    kills=["against_the_velocity", "euler_always", "second_velocity_at_the_start"],
)  # fmt: skip
def order_on_a_gaussian(impl, c, expect):
    "N(m, s^2), from noise to data: against t m + sqrt(t^2 s^2 + (1 - t)^2) z the error is of order 1 or 2, within .1."
    errors = []
    for K in (32, 64):
        out = runner(impl, c, velocity=exact)(0.75, np.linspace(0.0, 1.0, K + 1))
        errors.append(out - flowed(0.75, 0.0, 1.0))
    expect.holds(bool(errors[0] and errors[1]), "the errors are not 0")
    expect.at_most(abs(errors[1]), 0.2, "the error at 64 steps")
    expect(order_of(errors), 1.0 if c.method == "euler" else 2.0, 0.1, "order", scale=4.0)


@law(
    ID,
    "L3",
    closed_form=True,
    given=some.where(rises=True, times=lambda draw, c: np.concatenate([times(draw, c)[:-1], [1.0]])),
    kills=["against_the_velocity", "stops_short", "even_steps"],
)
def one_point_in_one_step(impl, c, expect):
    "Data that are one point m: v = (m - x) / (1 - t); Euler from any times ends in m at t = 1, exactly straight."
    point = lambda x, t: (x * -1.0 + MEAN) * (1 / (1 - t)) if t < 1 else x * 0.0  # noqa: E731
    out = impl(c.replace(velocity=point, method="euler"))
    expect(out, np.full(c.B, MEAN), bounds.rounding(200 * c.K, np.abs(c.x) + MEAN + 1, c.dtype), "the point", scale=9.0)


@law(ID, "L4", closed_form=True, dtypes=DOUBLE, given=some, kills=["euler_always", "second_velocity_at_the_start"])
def there_and_back(impl, c, expect):
    "Up the times and down again is the identity to order 1 (Euler) or 3 (Heun)."
    grids = [np.linspace(0.0, 1.0, K + 1) for K in (16, 32)]
    returns(runner(impl, c, velocity=exact), grids, 1 if c.method == "euler" else 3, expect, within=0.15)


# Mutants ---------------------------------------------------------------------------------------------


def still(K=2, **options):
    """The default-size test: x = 0, no velocity."""
    return lambda: ((np.zeros(3),), {"velocity": lambda x, t: 0 * x, "times": np.linspace(0, 1, K + 1), **options})


def walk(x, *, velocity, times, method="heun", **edit):
    times, x = np.asarray(times, np.float64).tolist(), np.array(x)
    if edit.get("short"):
        times = times[:-1] + ([] if len(times) > 2 else times[-1:])
    even = (times[-1] - times[0]) / (len(times) - 1)
    for t, to in zip(times[:-1], times[1:], strict=True):
        h = edit.get("sign", 1) * (even if edit.get("even") else to - t)
        v = velocity(x, t)
        if method == "euler" or edit.get("euler"):
            x = np.asarray(x + h * v, x.dtype)
        elif edit.get("middle"):
            x = np.asarray(x + h * velocity(np.asarray(x + h / 2 * v, x.dtype), (t + to) / 2), x.dtype)
        else:
            y = x if edit.get("stale") else np.asarray(x + h * v, x.dtype)
            x = np.asarray(x + h / 2 * (v + velocity(y, to)), x.dtype)
    return x


@mutant(ID, thread="conditional-flow-matching#85", default_case=still())
def against_the_velocity(*args, **options):
    "reverse-drift: x - h v."
    return walk(*args, sign=-1, **options)


@mutant(ID, default_case=still())
def euler_always(*args, **options):
    "Euler under either name."
    return walk(*args, euler=True, **options)


@mutant(ID, default_case=still())
def midpoint(*args, **options):
    "The midpoint rule under the name of Heun."
    return walk(*args, middle=True, **options)


@mutant(ID, default_case=still())
def second_velocity_at_the_start(*args, **options):
    "v(x, t') for v(y, t')."
    return walk(*args, stale=True, **options)


@mutant(ID, default_case=still())
def even_steps(*args, **options):
    "ddim-stride: all steps as long as their mean."
    return walk(*args, even=True, **options)


@mutant(ID, default_case=still())
def stops_short(*args, **options):
    "off-by-one: the last step is left out."
    return walk(*args, short=True, **options)
