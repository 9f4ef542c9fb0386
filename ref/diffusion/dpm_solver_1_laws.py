"""Laws and mutants of DPM-Solver-1."""

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
    to_x0,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.dpm_solver_1"
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
    prediction=choose("eps", "x0", "v", "score"),
    outputs=shaped_noise(lambda c: c.K),
    model=lambda draw, c: lambda x, t: x * 0.5,
    flags={
        "upwards": Flag(lambda c: c.times[0] < c.times[-1], {"rises": True}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


@law(
    ID, "L1", closed_form=True, given=some.reach("upwards"),
    kills=["euler_in_lambda", "std_of_the_start", "output_is_eps", "preserved_always", "sign_of_the_noise"],
)  # fmt: skip
def each_step_is_the_exponential_integrator(impl, c, expect):
    "x' = (a' / a) x - b' (e^h - 1) eps, h the change of ln(a / b): the predicted x_0 and eps at the new level."
    rows, steps = [], np.asarray(c.times, np.float64).tolist()
    for t, to in zip(steps[:-1], steps[1:], strict=True):
        (_, _, a, b), (_, _, a1, b1) = c.sde(t), c.sde(to)
        p, q = to_x0_of(c.prediction, a, b)
        # eps = (x - a x_0) / b.
        grow = math.expm1(log_snr(c.sde, to) - log_snr(c.sde, t))
        rows.append((t, a1 / a - b1 * grow * (1 - a * p) / b, b1 * grow * a * q / b))
    follow(impl, c, expect, rows, wide=64)


def to_x0_of(prediction, a, b):
    """(p, q) with x_0 = p x + q output, for any a and b."""
    p, q = to_x0(prediction, a, b)
    n = a * a + b * b if prediction == "v" else 1.0
    return p / n, q / n


solver_laws(
    ID, some, order=1, back=1, grid=even_in_log_snr, steps=(16, 32),
    kills={
        "L2": ["euler_in_lambda", "sign_of_the_noise", "output_is_eps"],
        "L3": ["euler_in_lambda", "sign_of_the_noise", "std_of_the_start"],
        "L4": ["sign_of_the_noise", "std_of_the_start"],
        "L5": ["output_is_eps"],
    },
    names=("first_order_on_a_gaussian", "one_point_is_exact", "there_and_back", "every_prediction_gives_the_same_path"),
)  # fmt: skip


@law(
    ID,
    "L6",
    closed_form=True,
    given=some.where(kind="vp"),
    kills=["euler_in_lambda", "sign_of_the_noise", "output_is_eps"],
)
def it_is_ddim(impl, c, expect):
    "VP: coefficient by coefficient DDIM with eta = 0, sqrt(alpha_bar') x_0hat + sqrt(1 - alpha_bar') eps."
    rows, steps = [], np.asarray(c.times, np.float64).tolist()
    for t, to in zip(steps[:-1], steps[1:], strict=True):
        bar, bar_to = plain_vp(t)[2] ** 2, plain_vp(to)[2] ** 2
        a, b = math.sqrt(bar), math.sqrt(1 - bar)
        p, q = to_x0(c.prediction, a, b)
        a1, b1 = math.sqrt(bar_to), math.sqrt(1 - bar_to)
        rows.append((t, a1 * p + b1 * (1 - a * p) / b, (a1 - b1 * a / b) * q))
    follow(impl, c, expect, rows, wide=64)


# Mutants ---------------------------------------------------------------------------------------------


def still(**options):
    """The default-size test: x = 0 and a model that says 0."""
    fields = {"model": lambda x, t: 0 * x, "sde": plain_vp, "times": np.array([1.0, 0.5]), **options}
    return lambda: ((np.zeros(3),), fields)


def solve(x, *, model, sde, times, prediction="eps", **edit):
    times, x = np.asarray(times, np.float64).tolist(), np.array(x)
    for t, to in zip(times[:-1], times[1:], strict=True):
        (_, _, a, b), (_, _, a1, b1) = sde(t), sde(to)
        m = model(x, t)
        n = 1.0 if edit.get("preserved") else a * a + b * b
        eps = {"eps": m, "x0": (x - a * m) / b, "v": (b * x + a * m) / n, "score": -b * m}[edit.get("take", prediction)]
        grow = edit.get("grow", math.expm1)(log_snr(sde, to) - log_snr(sde, t))
        x = np.asarray((a1 / a) * x - edit.get("sign", 1) * (b if edit.get("early") else b1) * grow * eps, x.dtype)
    return x


@mutant(ID, default_case=still())
def euler_in_lambda(*args, **options):
    "h for e^h - 1."
    return solve(*args, grow=lambda h: h, **options)


@mutant(ID, default_case=still())
def std_of_the_start(*args, **options):
    "off-by-one: b (e^h - 1) eps for b'."
    return solve(*args, early=True, **options)


@mutant(ID, default_case=still())
def output_is_eps(*args, **options):
    "The prediction is ignored."
    return solve(*args, take="eps", **options)


@mutant(ID, default_case=still())
def preserved_always(*args, **options):
    "VP / VE swapped: a^2 + b^2 taken for 1 where v is turned to eps."
    return solve(*args, preserved=True, **options)


@mutant(ID, default_case=still())
def sign_of_the_noise(*args, **options):
    "+ b' (e^h - 1) eps."
    return solve(*args, sign=-1, **options)
