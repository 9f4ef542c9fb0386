"""Laws and mutants of DPM-Solver++(2M)."""

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

ID = "diffusion.dpm_solver_pp_2m"
SDES = {"vp": plain_vp, "ve": lambda t: plain_ve(t, 0.25, 8.0), "sub_vp": plain_sub_vp}


def times(draw, c):
    found = falling_times(0.125, 1.0)(draw, c)
    if c.rises:
        return found[::-1].copy()
    if c.to_zero and c.kind != "ve":
        found[-1] = 0.0
    return found


space = cases(
    ID,
    B=batch(2, 3, large=60),
    K=dims(1, 4, large=20),
    kind=choose("vp", "ve", "sub_vp"),
    rises=choose(False, True),
    to_zero=choose(False, True),
    sde=lambda draw, c: SDES[c.kind],
    times=times,
    prediction=choose("x0", "eps", "v", "score"),
    outputs=shaped_noise(lambda c: c.K),
    model=lambda draw, c: lambda x, t: x * 0.5,
    flags={
        "upwards": Flag(lambda c: c.times[0] < c.times[-1], {"rises": True}),
        "ends_at_zero": Flag(lambda c: c.times[-1] == 0, {"rises": False, "to_zero": True, "kind": "vp"}),
        "uneven": Flag(lambda c: c.K > 2, {"K": dims(3, 4)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def ratio(sde, before, t, to):
    """1 / (2 r): half the last step in lambda over the one before."""
    return (log_snr(sde, to) - log_snr(sde, t)) / (2 * (log_snr(sde, t) - log_snr(sde, before)))


@law(
    ID, "L1", closed_form=True, given=some.where(prediction="x0").reach("upwards", "ends_at_zero", "uneven"),
    kills=["ratio_inverted", "even_steps_assumed", "first_order", "noise_form", "last_output_added",
           "ratio_of_the_times"],
)  # fmt: skip
def each_step_is_the_two_step_rule(impl, c, expect):
    """x' = (b' / b) x - a' (e^(-h) - 1) D, D = (1 + 1 / (2 r)) m - m_before / (2 r), r from the two last steps in
    lambda; the first step and one to b' = 0 (e^(-h) = 0) with D = m."""
    rows, steps = [], np.asarray(c.times, np.float64).tolist()
    for i, (t, to) in enumerate(zip(steps[:-1], steps[1:], strict=True)):
        (_, _, _, b), (_, _, a1, b1) = c.sde(t), c.sde(to)
        shrink = -1.0 if b1 == 0 else math.expm1(log_snr(c.sde, t) - log_snr(c.sde, to))
        lean = 0.0 if i == 0 or b1 == 0 else ratio(c.sde, steps[i - 1], t, to)
        rows.append((t, b1 / b, -a1 * shrink * (1 + lean), a1 * shrink * lean))
    follow(impl, c, expect, rows, wide=64)


solver_laws(
    ID,
    some,
    order=2,
    back=2,
    grid=even_in_log_snr,
    steps=(48, 96),
    kills={
        "L2": ["first_order", "last_output_added", "noise_form", "output_is_x0"],
        "L3": ["noise_form"],
        "L4": ["first_order", "last_output_added"],
        "L5": ["output_is_x0"],
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
    """The default-size test: x = 0 and a model that says 0, one step."""
    fields = {"model": lambda x, t: 0 * x, "sde": plain_vp, "times": np.array([1.0, 0.5]), **options}
    return lambda: ((np.zeros(3),), fields)


def solve(x, *, model, sde, times, prediction="eps", **edit):
    times, x, last = np.asarray(times, np.float64).tolist(), np.array(x), None
    for i, (t, to) in enumerate(zip(times[:-1], times[1:], strict=True)):
        (_, _, a, b), (_, _, a1, b1) = sde(t), sde(to)
        m = model(x, t)
        n = a * a + b * b
        data = {"eps": (x - b * m) / a, "x0": m, "v": (a * x - b * m) / n, "score": (x + b * b * m) / a}[
            edit.get("take", prediction)
        ]
        lean = 0.0
        if last is not None and b1 > 0 and not edit.get("one"):
            lean = edit.get("lean", ratio)(sde, times[i - 1], t, to)
        D = data if last is None else (1 + lean) * data - edit.get("sign", 1) * lean * last
        shrink = -1.0 if b1 == 0 else math.expm1(log_snr(sde, t) - log_snr(sde, to))
        keep = edit.get("keep", lambda a, b, a1, b1: b1 / b)(a, b, a1, b1)
        x = np.asarray(keep * x - a1 * shrink * D, x.dtype)
        last = data
    return x


@mutant(ID, default_case=still())
def ratio_inverted(*args, **options):
    "1 / (2 r) with r = h_i / h_{i-1}: the same for even steps."
    return solve(*args, lean=lambda *k: 1 / (4 * ratio(*k)), **options)


@mutant(ID, default_case=still())
def even_steps_assumed(*args, **options):
    "1 / (2 r) = 1/2."
    return solve(*args, lean=lambda *k: 0.5, **options)


@mutant(ID, default_case=still())
def ratio_of_the_times(*args, **options):
    "r of the steps in t."
    return solve(*args, lean=lambda sde, before, t, to: (to - t) / (2 * (t - before)), **options)


@mutant(ID, default_case=still())
def first_order(*args, **options):
    "The last output unused: DDIM."
    return solve(*args, one=True, **options)


@mutant(ID, default_case=still())
def noise_form(*args, **options):
    "(a' / a) x, the integrator of eps, with the data's term."
    return solve(*args, keep=lambda a, b, a1, b1: a1 / a, **options)


@mutant(ID, default_case=still())
def last_output_added(*args, **options):
    "+ 1 / (2 r) of the last output."
    return solve(*args, sign=-1, **options)


@mutant(ID, default_case=still())
def output_is_x0(*args, **options):
    "The prediction is ignored."
    return solve(*args, take="x0", **options)
