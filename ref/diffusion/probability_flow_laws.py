"""Laws and mutants of the probability flow's solvers."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import (
    DOUBLE,
    falling_times,
    follow,
    gaussian,
    mild_vp,
    plain_sub_vp,
    plain_ve,
    plain_vp,
    returns,
    runner,
    shaped_noise,
    shows_order,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.probability_flow"
SDES = {"vp": plain_vp, "ve": lambda t: plain_ve(t, 0.25, 8.0), "sub_vp": plain_sub_vp}


def times(draw, c):
    found = falling_times(0.125, 1.0)(draw, c)
    return found[::-1].copy() if c.rises else found


space = cases(
    ID,
    B=batch(2, 3, large=60),
    K=dims(1, 4, large=20),
    kind=choose("vp", "ve", "sub_vp"),
    rises=choose(False, True),
    sde=lambda draw, c: SDES[c.kind],
    times=times,
    method=choose("heun", "euler"),
    outputs=shaped_noise(lambda c: 2 * c.K),
    score=lambda draw, c: lambda x, t: x * -0.5,
    flags={
        "upwards": Flag(lambda c: c.times[0] < c.times[-1], {"rises": True}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


@law(
    ID,
    "L1",
    closed_form=True,
    given=some.reach("upwards"),
    kills=[
        "whole_for_half",
        "forward_drift",
        "midpoint",
        "second_score_at_the_start",
        "euler_always",
        "slopes_not_averaged",
        "coefficients_of_the_start",
    ],
)
def each_stage_by_its_terms(impl, c, expect):
    "Euler: x + h F(x, t); Heun: y = x + h F(x, t), then x + h (F(x, t) + F(y, t')) / 2, with F = f x - g^2 s / 2."
    rows, steps = [], np.asarray(c.times, np.float64).tolist()
    for t, to in zip(steps[:-1], steps[1:], strict=True):
        (f, g, _, _), (f1, g1, _, _), h = c.sde(t), c.sde(to), to - t
        w, w1 = -g * g / 2, -g1 * g1 / 2
        if c.method == "euler":
            rows.append((t, 1 + h * f, h * w))
            continue
        # y = p x + q s;  F(y, t') = f1 y + w1 s'.
        p, q = 1 + h * f, h * w
        rows += [(t, 1.0, 0.0), (to, 1 + h / 2 * (f + f1 * p), h / 2 * w1, h / 2 * (w + f1 * q), 0.0, p, q)]
    follow(impl, c, expect, rows, argument="score", wide=32)


def exact(c):
    return gaussian(lambda t: mild_vp(t)[2:], 1.5, 0.25, "score")


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some,
    kills=["whole_for_half", "forward_drift", "second_score_at_the_start", "euler_always", "slopes_not_averaged",
           "coefficients_of_the_start"],
)  # fmt: skip
def order_on_a_gaussian(impl, c, expect):
    "N(m, s^2), VP, t from 1 to 1/64: against the exact flow the error is of order 1 (Euler) or 2 (Heun), within .1."
    grids = [np.linspace(1.0, 1 / 64, K + 1) for K in (16, 32)]
    shows_order(runner(impl, c, sde=mild_vp, score=exact(c)), grids, mild_vp, 1 if c.method == "euler" else 2, expect)


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=some,
    kills=["euler_always", "second_score_at_the_start", "coefficients_of_the_start"],
)  # fmt: skip
def there_and_back(impl, c, expect):
    "Up the times and down again is the identity to order 1 (Euler) or 3 (Heun)."
    grids = [np.linspace(1.0, 1 / 64, K + 1) for K in (16, 32)]
    returns(runner(impl, c, sde=mild_vp, score=exact(c)), grids, 1 if c.method == "euler" else 3, expect)


# Mutants ---------------------------------------------------------------------------------------------


def still(K=2, **options):
    """The default-size test: x = 0 and no score."""
    fields = {"score": lambda x, t: 0 * x, "sde": plain_vp, "times": np.linspace(1.0, 0.5, K + 1), **options}
    return lambda: ((np.zeros(3),), fields)


def solve(x, *, score, sde, times, method="heun", **edit):
    times, x = np.asarray(times, np.float64).tolist(), np.array(x)

    def slope(y, t, s=None, at=None):
        f, g, _, _ = sde(t if at is None else at)
        s = score(y, t) if s is None else s
        return edit.get("f", 1) * f * y - edit.get("half", 0.5) * g * g * s

    for t, to in zip(times[:-1], times[1:], strict=True):
        h = to - t
        if method == "euler" or edit.get("euler"):
            x = np.asarray(x + h * slope(x, t), x.dtype)
            continue
        first = slope(x, t)
        if edit.get("middle"):
            x = np.asarray(x + h * slope((x + h / 2 * first).astype(x.dtype), t + h / 2), x.dtype)
            continue
        y = x if edit.get("stale") else np.asarray(x + h * first, x.dtype)
        second = slope(y, to, at=t if edit.get("frozen") else None)
        x = np.asarray(x + h * (second if edit.get("second") else (first + second) / 2), x.dtype)
    return x


@mutant(ID, default_case=still())
def whole_for_half(*args, **options):
    "f x - g^2 s: the reverse SDE's drift without its noise."
    return solve(*args, half=1.0, **options)


@mutant(ID, thread="conditional-flow-matching#85", default_case=still())
def forward_drift(*args, **options):
    "reverse-drift: -f x."
    return solve(*args, f=-1, **options)


@mutant(ID, default_case=still())
def midpoint(*args, **options):
    "The midpoint rule: order 2 as well, another method."
    return solve(*args, middle=True, **options)


@mutant(ID, default_case=still())
def second_score_at_the_start(*args, **options):
    "F(x, t') for F(y, t')."
    return solve(*args, stale=True, **options)


@mutant(ID, default_case=still())
def euler_always(*args, **options):
    "Euler under either name."
    return solve(*args, euler=True, **options)


@mutant(ID, default_case=still())
def slopes_not_averaged(*args, **options):
    "The second slope alone: implicit Euler's first iterate."
    return solve(*args, second=True, **options)


@mutant(ID, default_case=still())
def coefficients_of_the_start(*args, **options):
    "f and g of t with the score of t'."
    return solve(*args, frozen=True, **options)
