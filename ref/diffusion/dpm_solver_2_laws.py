"""Laws and mutants of DPM-Solver-2."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import (
    even_in_log_snr,
    falling_times,
    follow,
    log_snr,
    plain_sub_vp,
    plain_ve,
    plain_vp,
    shaped_noise,
    solver_laws,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.dpm_solver_2"
SDES = {"vp": plain_vp, "ve": lambda t: plain_ve(t, 0.25, 8.0), "sub_vp": plain_sub_vp}


def times(draw, c):
    found = falling_times(0.125, 1.0)(draw, c)
    return found[::-1].copy() if c.rises else found


space = cases(
    ID,
    B=batch(2, 3, large=60),
    K=dims(1, 3, large=12),
    kind=choose("vp", "ve", "sub_vp"),
    rises=choose(False, True),
    sde=lambda draw, c: SDES[c.kind],
    times=times,
    prediction=choose("eps", "x0", "v", "score"),
    outputs=shaped_noise(lambda c: 2 * c.K),
    model=lambda draw, c: lambda x, t: x * 0.5,
    flags={
        "upwards": Flag(lambda c: c.times[0] < c.times[-1], {"rises": True}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def middle(sde, t, to):
    """The time half way in ln(scale / std), by bisection."""
    return float(even_in_log_snr(sde, t, to, 2)[1])


@law(
    ID,
    "L1",
    closed_form=True,
    given=some.where(prediction="eps").reach("upwards"),
    kills=[
        "middle_of_the_times",
        "first_order",
        "second_output_at_the_start",
        "half_step_not_half",
        "both_outputs_averaged",
        "two_half_steps",
    ],
)
def each_step_is_the_exponential_midpoint(impl, c, expect):
    """u = (a_m / a) x - b_m (e^(h / 2) - 1) eps, asked at t_m half way in lambda; x' = (a' / a) x - b' (e^h - 1)
    eps(u, t_m)."""
    rows, steps = [], np.asarray(c.times, np.float64).tolist()
    for t, to in zip(steps[:-1], steps[1:], strict=True):
        m = middle(c.sde, t, to)
        (_, _, a, _), (_, _, a1, b1), (_, _, am, bm) = c.sde(t), c.sde(to), c.sde(m)
        h = log_snr(c.sde, to) - log_snr(c.sde, t)
        rows += [(t, 1.0, 0.0), (m, a1 / a, -b1 * math.expm1(h), 0.0, 0.0, am / a, -bm * math.expm1(h / 2))]
    follow(impl, c, expect, rows, wide=1024)


solver_laws(
    ID,
    some,
    order=2,
    back=3,
    grid=even_in_log_snr,
    steps=(16, 32),
    kills={
        "L2": ["first_order", "second_output_at_the_start", "half_step_not_half", "two_half_steps", "output_is_eps"],
        "L3": ["half_step_not_half"],
        "L4": ["first_order", "second_output_at_the_start", "half_step_not_half", "both_outputs_averaged"],
        "L5": ["output_is_eps"],
    },
    names=(
        "second_order_on_a_gaussian",
        "one_point_is_exact",
        "there_and_back",
        "every_prediction_gives_the_same_path",
    ),
)


# Mutants ---------------------------------------------------------------------------------------------


def still(**options):
    """The default-size test: x = 0 and a model that says 0."""
    fields = {"model": lambda x, t: 0 * x, "sde": plain_vp, "times": np.array([1.0, 0.5]), **options}
    return lambda: ((np.zeros(3),), fields)


def solve(x, *, model, sde, times, prediction="eps", **edit):
    times, x = np.asarray(times, np.float64).tolist(), np.array(x)

    def eps_at(y, t):
        y, (_, _, a, b) = np.asarray(y, x.dtype), sde(t)
        m = model(y, t)
        return {"eps": m, "x0": (y - a * m) / b, "v": (b * y + a * m) / (a * a + b * b), "score": -b * m}[
            edit.get("take", prediction)
        ]

    for t, to in zip(times[:-1], times[1:], strict=True):
        m = edit.get("middle", middle)(sde, t, to)
        (_, _, a, _), (_, _, a1, b1), (_, _, am, bm) = sde(t), sde(to), sde(m)
        h, half = log_snr(sde, to) - log_snr(sde, t), log_snr(sde, m) - log_snr(sde, t)
        first = eps_at(x, t)
        if edit.get("one"):
            x = np.asarray(a1 / a * x - b1 * math.expm1(h) * first, x.dtype)
            continue
        u = am / a * x - bm * math.expm1(edit.get("half", 1.0) * half) * first
        second = eps_at(x if edit.get("stale") else u, m)
        if edit.get("mean"):
            second = (first + second) / 2
        if edit.get("from_middle"):
            x = np.asarray(a1 / am * u - b1 * math.expm1(h - half) * second, x.dtype)
            continue
        x = np.asarray(a1 / a * x - b1 * math.expm1(h) * second, x.dtype)
    return x


@mutant(ID, default_case=still())
def middle_of_the_times(*args, **options):
    "t_m = (t + t') / 2."
    return solve(*args, middle=lambda sde, t, to: (t + to) / 2, **options)


@mutant(ID, default_case=still())
def first_order(*args, **options):
    "DPM-Solver-1, the second output unused."
    return solve(*args, one=True, **options)


@mutant(ID, default_case=still())
def second_output_at_the_start(*args, **options):
    "eps(x, t_m) for eps(u, t_m)."
    return solve(*args, stale=True, **options)


@mutant(ID, default_case=still())
def half_step_not_half(*args, **options):
    "e^h - 1 for e^(h / 2) - 1 in u."
    return solve(*args, half=2.0, **options)


@mutant(ID, default_case=still())
def both_outputs_averaged(*args, **options):
    "Heun's average of the two outputs at the midpoint's nodes."
    return solve(*args, mean=True, **options)


@mutant(ID, default_case=still())
def two_half_steps(*args, **options):
    "Two first-order steps of half the length."
    return solve(*args, from_middle=True, **options)


@mutant(ID, default_case=still())
def output_is_eps(*args, **options):
    "The prediction is ignored."
    return solve(*args, take="eps", **options)
