"""Laws and mutants of ancestral sampling for VE."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, follow, gaussian, moments, response, shaped_noise
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "diffusion.ancestral_ve"


def levels(draw, c):
    """Falling sigmas of quarters, K + 1 of them, the last 0 or above."""
    found = np.sort(rng(draw).permutation(np.arange(1, 33))[: c.K + 1])[::-1] / 4.0
    if c.to_zero:
        found[-1] = 0.0
    return found


space = cases(
    ID,
    B=batch(2, 3, large=60),
    K=dims(1, 5, large=20),
    to_zero=choose(True, False),
    sigmas=levels,
    s2=choose(0.25, 1.0, 4.0),
    noise=shaped_noise(lambda c: c.K),
    outputs=shaped_noise(lambda c: c.K),
    score=lambda draw, c: lambda x, t: x * -0.125,
    flags={
        "ends_at_zero": Flag(lambda c: c.sigmas[-1] == 0, {"to_zero": True}),
        "ends_above": Flag(lambda c: c.sigmas[-1] > 0, {"to_zero": False}),
        "several": Flag(lambda c: c.K > 1, {"K": dims(2, 5)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


@law(
    ID, "L1", closed_form=True, given=some.reach("ends_at_zero", "ends_above", "several"),
    kills=["noise_of_reverse_diffusion", "deviations_subtracted", "variance_for_deviation", "levels_swapped",
           "noise_at_the_last_step", "score_of_the_next_level"],
)  # fmt: skip
def each_step_is_the_posterior_at_tweedies_x0(impl, c, expect):
    """x_0hat = x + sigma_t^2 s; the posterior of x_s adds the precisions 1 / (sigma_t^2 - sigma_s^2) of x_t and
    1 / sigma_s^2 of x_0hat."""
    rows, sigmas = [], np.asarray(c.sigmas, np.float64).tolist()
    for t, s in zip(sigmas[:-1], sigmas[1:], strict=True):
        if s == 0:
            rows.append((t, 1.0, t * t))
            continue
        from_t, from_0 = 1 / (t * t - s * s), 1 / (s * s)
        total = from_t + from_0
        rows.append((t, 1.0, from_0 / total * t * t, 0.0, total**-0.5))
    follow(impl, c, expect, rows, argument="score", wide=32)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some,
    kills=["noise_of_reverse_diffusion", "deviations_subtracted", "variance_for_deviation", "levels_swapped"],
)  # fmt: skip
def too_narrow_by_a_known_amount(impl, c, expect):
    """Data N(m, s^2): one step from the exact marginal leaves a variance too small by d^2 s^2 / (sigma_t^2 (s^2 +
    sigma_t^2)), d = sigma_t^2 - sigma_s^2, and the mean exact."""
    model = gaussian(lambda sigma: (1.0, float(sigma)), 1.5, c.s2, "score")
    now = c.replace(sigmas=c.sigmas[:2].copy(), K=1)
    _, parts = response(impl, now, expect, 1, model, calls=1, argument="score")
    a, b = float(c.sigmas[0]) ** 2, float(c.sigmas[1]) ** 2
    mean, variance = moments(parts, 1.5, c.s2 + a)
    limit = bounds.rounding(400, a + c.s2 + 4, "float64")
    expect(mean, 1.5, limit, "mean")
    expect(variance, c.s2 + b - (a - b) ** 2 * c.s2 / (a * (c.s2 + a)), limit, "variance")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=some.reach("ends_at_zero"),
    kills=["noise_of_reverse_diffusion", "noise_at_the_last_step", "variance_for_deviation"],
)  # fmt: skip
def one_point_keeps_every_marginal(impl, c, expect):
    "Data that are one point m: mean m and variance sigma^2 at every level, m itself at 0."
    model = gaussian(lambda sigma: (1.0, float(sigma)), 1.5, 0.0, "score")
    seen, out = response(impl, c, expect, c.K, model, calls=c.K, argument="score")
    limit = bounds.rounding(4000, float(c.sigmas[0]) ** 2 + 4, "float64")
    for sigma, parts in zip(c.sigmas[1:], [s[1:] for s in seen[1:]] + [out], strict=True):
        mean, variance = moments(parts, 1.5, float(c.sigmas[0]) ** 2)
        expect(mean, 1.5, limit, f"mean at {sigma}")
        expect(variance, float(sigma) ** 2, limit, f"variance at {sigma}", scale=float(c.sigmas[0]) ** 2 + 9)


# Mutants ---------------------------------------------------------------------------------------------


def still(**options):
    """The default-size test: x = 0, no score, no noise."""
    fields = {"score": lambda x, t: 0 * x, "sigmas": np.array([2.0, 1.0, 0.0]), **options}
    return lambda: ((np.zeros(3), np.zeros((2, 3))), fields)


def walk(x, noise=None, *, score, sigmas, **edit):
    x, sigmas = np.array(x), np.asarray(sigmas, np.float64).tolist()
    for k in range(len(sigmas) - 1):
        t, s = sigmas[k], sigmas[k + 1]
        asked = s if edit.get("late") and s > 0 else t
        move = edit.get("move", lambda t, s: t * t - s * s)(t, s)
        spread = edit.get("spread", lambda t, s: s * math.sqrt(1 - s * s / (t * t)))(t, s)
        z = noise[k] if noise is not None and k < len(noise) and spread else 0
        x = np.asarray(x + move * score(x, asked) + spread * z, x.dtype)
    return x


@mutant(ID, default_case=still())
def noise_of_reverse_diffusion(*args, **options):
    "sqrt(sigma_t^2 - sigma_s^2) z but for the step to 0."
    return walk(*args, spread=lambda t, s: math.sqrt(t * t - s * s) if s else 0.0, **options)


@mutant(ID, default_case=still())
def noise_at_the_last_step(*args, **options):
    "A last draw of the deviation of the step before, to 0 too."
    return walk(*args, spread=lambda t, s: s * math.sqrt(1 - s * s / (t * t)) if s else t / 2, **options)


@mutant(ID, default_case=still())
def deviations_subtracted(*args, **options):
    "(sigma_t - sigma_s)^2 s."
    return walk(*args, move=lambda t, s: (t - s) ** 2, **options)


@mutant(ID, default_case=still())
def variance_for_deviation(*args, **options):
    "The posterior's variance times z."
    return walk(*args, spread=lambda t, s: s * s * (1 - s * s / (t * t)), **options)


@mutant(ID, default_case=still())
def levels_swapped(*args, **options):
    "wrong posterior variance: sigma_t and sigma_s swapped in front."
    return walk(*args, spread=lambda t, s: t * math.sqrt(1 - s * s / (t * t)) if s else 0.0, **options)


@mutant(ID, default_case=still())
def score_of_the_next_level(*args, **options):
    "off-by-one: the score is asked with sigma_s."
    return walk(*args, late=True, **options)
