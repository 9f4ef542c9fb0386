"""Laws and mutants of NCSNv2's step size."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims

ID = "diffusion.ncsnv2_step_size"

space = cases(
    ID,
    L=dims(2, 5),
    gamma=choose(2.0, 1.25, 1.0625, 4.0),
    last=choose(1.0, 0.5, 0.0625, 2.0),
    sigmas=lambda draw, c: c.last * c.gamma ** np.arange(c.L - 1, -1.0, -1),
    steps=choose(1, 2, 5, 100),
    convention=choose("full", "half"),
    flags={
        "one_step": Flag(lambda c: c.steps == 1, {"steps": 1}),
        "many": Flag(lambda c: c.steps >= 100, {"steps": 100}),
    },
)


def relative(impl, c):
    """e = eps / sigma_L^2, in the convention full."""
    return float(impl(c)) / c.last**2 / (1 if c.convention == "full" else 2)


def carried(c, e):
    """Variance over sigma_i^2 after K steps, step by step, from gamma^2."""
    variance = c.gamma**2
    for _ in range(c.steps):
        variance = (1 - e) ** 2 * variance + 2 * e
    return variance


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space.where(steps=1),
    kills=["stops_at_the_grid", "one_step_too_many", "variance_for_deviation", "not_times_sigma", "half_ignored"],
)  # fmt: skip
def one_step_in_closed_form(impl, c, expect):
    "K = 1: the variance (1 - e)^2 gamma^2 + 2 e is least at e = 1 - 1 / gamma^2."
    expect(relative(impl, c), 1 - 1 / c.gamma**2, 1e-9, "e")


@law(
    ID,
    "L2",
    closed_form=True,
    dtypes=DOUBLE,
    given=space.reach("one_step", "many"),
    kills=[
        "one_step_too_many",
        "noise_of_the_half_step",
        "not_times_sigma",
        "largest_stable",
        "variance_for_deviation",
    ],
)
def no_other_step_is_better(impl, c, expect):
    "Carried step by step, the variance is nearer to sigma_i^2 than with e a thousandth, a tenth or ten times off."
    e = relative(impl, c)
    best = abs(carried(c, e) - 1)
    others = [abs(carried(c, e * f) - 1) for f in (0.1, 0.9, 0.999, 1.001, 1.1, 10)]
    expect.at_most(best, min(others) * (1 + 1e-12), "the distance from 1")
    expect.holds(0 < e < 1, "0 < e < 1")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space, kills=["stops_at_the_grid", "one_step_too_many"],
)  # fmt: skip
def stationary_point_of_the_ratio(impl, c, expect):
    "d/de [(1 - e)^(2 K) (gamma^2 - w) + w] = 0, w = 1 / (1 - e / 2): the two halves of the slope agree."
    e = relative(impl, c)
    expect.holds(0 < e < 1, "0 < e < 1")
    w = 1 / (1 - e / 2)
    down = 2 * c.steps * (1 - e) ** (2 * c.steps - 1) * (c.gamma**2 - w)
    up = (1 - (1 - e) ** (2 * c.steps)) * w**2 / 2
    expect(down, up, 1e-7 * up, "the slopes", scale=1.0)


@law(ID, "L4", closed_form=True, dtypes=DOUBLE, given=space.where(convention="full"), kills=["half_ignored"],
     passes_null=["zeros"])  # fmt: skip
def half_is_twice_as_large(impl, c, expect):
    "eps of half is twice that of full; sigmas times 2 have eps times 4."
    eps = float(impl(c))
    expect(float(impl(c.replace(convention="half"))), 2 * eps, 1e-12 * abs(eps), "half", scale=9.0)
    expect(float(impl(c.replace(sigmas=2 * c.sigmas))), 4 * eps, 1e-8 * abs(eps), "sigmas doubled", scale=9.0)


# Mutants ---------------------------------------------------------------------------------------------


def least(sigmas, *, steps, convention="full", **edit):
    """The least by a fine grid and golden section, whose ratio an edit replaces."""
    gamma, last = float(sigmas[0] / sigmas[1]), float(sigmas[-1])
    K = steps + edit.get("more", 0)

    def ratio(e):
        w = edit.get("settled", lambda e: 1 / (1 - e / 2))(e)
        return (1 - e) ** (2 * K) * (edit.get("start", lambda g: g * g)(gamma) - w) + w

    grid = np.exp(np.linspace(math.log(1e-9), 0, 2001))
    at = int(np.argmin([ratio(e) for e in grid]))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, 2000)]
    for _ in range(0 if edit.get("coarse") else 90):
        a, b = low + (high - low) * 0.382, low + (high - low) * 0.618
        low, high = (low, b) if ratio(a) < ratio(b) else (a, high)
    e = edit.get("pick", lambda e: e)((low + high) / 2 if not edit.get("coarse") else grid[at])
    scale = edit.get("scale", lambda s: s * s)(last)
    return np.asarray(e * scale * (1 if convention == "full" or edit.get("one") else 2))


def doubled(steps=1, last=1.0):
    """The default-size test: two levels, a factor of 2."""
    return lambda: ((np.array([2 * last, last]),), {"steps": steps})


@mutant(ID, default_case=doubled())
def not_times_sigma(*args, **options):
    "e for eps: the same for sigma_L = 1."
    return least(*args, scale=lambda s: 1.0, **options)


@mutant(ID, default_case=doubled())
def variance_for_deviation(*args, **options):
    "e sigma_L."
    return least(*args, scale=lambda s: s, **options)


@mutant(ID, default_case=doubled())
def half_ignored(*args, **options):
    "The same in both conventions."
    return least(*args, one=True, **options)


@mutant(ID, default_case=lambda: ((np.array([1 + 1e-9, 1.0]),), {"steps": 1}))
def one_step_too_many(*args, **options):
    "off-by-one: K + 1 steps; where neighbours hardly differ the step is 0 either way."
    return least(*args, more=1, **options)


@mutant(ID, default_case=lambda: ((np.array([1 + 1e-9, 1.0]),), {"steps": 1}))
def noise_of_the_half_step(*args, **options):
    "The noise of one convention with the drift of the other: it settles at 1 / (2 - e)."
    return least(*args, settled=lambda e: 0.5 / (1 - e / 2), pick=lambda e: e if e < 0.5 else 1e-9, **options)


@mutant(ID, default_case=lambda: ((np.array([1 + 1e-9, 1.0]),), {"steps": 1}))
def largest_stable(sigmas, *, steps, convention="full"):
    "The step that forgets the level before in one go, min(1, gamma^2 - 1)."
    gamma = float(sigmas[0] / sigmas[1])
    return np.asarray(min(1.0, gamma**2 - 1) * float(sigmas[-1]) ** 2 * (1 if convention == "full" else 2))


@mutant(ID, default_case=lambda: ((np.array([1 + 1e-9, 1.0]),), {"steps": 1}))
def stops_at_the_grid(*args, **options):
    "The best of 2001 steps, not polished."
    return least(*args, coarse=True, **options)
