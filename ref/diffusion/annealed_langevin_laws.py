"""Laws and mutants of annealed Langevin dynamics."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, follow, gaussian, moments, response, shaped_noise
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "diffusion.annealed_langevin"
MEAN = 1.5


def sigmas(draw, c):
    """L falling levels in quarters of powers of 2."""
    return 2.0 ** -np.arange(c.L) * (1 + rng(draw).integers(0, 4, 1)[0] / 4) * 2


space = cases(
    ID,
    B=batch(2, 3, large=60),
    L=dims(1, 3, large=6),
    steps=dims(1, 3),
    sigmas=sigmas,
    step=choose(0.0625, 0.015625, 0.125),
    convention=choose("full", "half"),
    denoise=choose(True, False),
    s2=choose(0.25, 1.0),
    noise=shaped_noise(lambda c: c.L * c.steps + 1),
    outputs=shaped_noise(lambda c: c.L * c.steps + 1),
    score=lambda draw, c: lambda x, sigma: x * (-0.5 / sigma**2),
    flags={
        "one_level": Flag(lambda c: c.L == 1, {"L": 1}),
        "levels": Flag(lambda c: c.L > 1, {"L": dims(2, 3)}),
        "several": Flag(lambda c: c.L > 1 and c.steps > 1, {"L": dims(2, 3), "steps": dims(2, 3)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def levels(c):
    """[(sigma, weight of the score, of the noise)] of every step."""
    last = float(c.sigmas[-1])
    found = []
    for sigma in np.asarray(c.sigmas, np.float64).tolist():
        h = c.step * sigma**2 / last**2 * (1.0 if c.convention == "full" else 0.5)
        found += [(sigma, h, math.sqrt(2 * h))] * c.steps
    return found


@law(
    ID,
    "L1",
    closed_form=True,
    given=some.reach("one_level", "several"),
    kills=[
        "step_not_scaled",
        "step_by_sigma",
        "step_by_the_first_level",
        "noise_of_the_half_step",
        "noise_when_denoising",
        "never_denoised",
        "denoised_by_sigma",
        "one_step_too_many",
        "levels_from_the_end",
    ],
)
def each_step_by_its_level(impl, c, expect):
    """K steps at each sigma with a = eps sigma^2 / sigma_L^2, then x + sigma_L^2 s: every state, every sigma, every
    draw."""
    rows = [(sigma, 1.0, h, 0.0, noise) for sigma, h, noise in levels(c)]
    last = float(c.sigmas[-1])
    follow(impl, c, expect, [*rows, (last, 1.0, last**2)] if c.denoise else rows, argument="score")


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some.where(levels=True, denoise=False),
    kills=["step_not_scaled", "step_by_the_first_level", "noise_of_the_half_step", "levels_from_the_end"],
)  # fmt: skip
def variance_of_every_level_on_a_gaussian(impl, c, expect):
    """Data N(m, s^2): at level i with v = s^2 + sigma_i^2 the variance after K steps is w + (1 - h / v)^(2 K) (C - w),
    w = v / (1 - h / (2 v)), the mean's error (1 - h / v)^K of itself, level after level."""
    model = gaussian(lambda sigma: (1.0, sigma), MEAN, c.s2, "score")
    count = c.L * c.steps
    seen, parts = response(impl, c, expect, count, model, calls=count, argument="score")
    states = [p[1:] for p in seen[c.steps :: c.steps]] + [parts]
    C, off = 4.0, -MEAN
    for (sigma, h, _), state in zip(levels(c)[:: c.steps], states, strict=True):
        v = c.s2 + sigma**2
        settled = v / (1 - h / (2 * v))
        C = settled + (1 - h / v) ** (2 * c.steps) * (C - settled)
        off *= (1 - h / v) ** c.steps
        mean, variance = moments(state, 0.0, 4.0)
        expect(mean, MEAN + off, bounds.rounding(400, 9.0, "float64"), f"mean at {sigma}", scale=9.0)
        expect(variance, C, bounds.rounding(2000, 9.0 + C, "float64"), f"variance at {sigma}")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=some.where(denoise=True),
    kills=["never_denoised", "denoised_by_sigma", "noise_when_denoising"],
)  # fmt: skip
def denoising_gives_the_posterior_mean(impl, c, expect):
    "Data N(m, s^2): the end is m + s^2 / (s^2 + sigma_L^2) (x - m) of the state before; one point m gives m."
    last = float(c.sigmas[-1])
    for s2 in (c.s2, 0.0):
        model = gaussian(lambda sigma: (1.0, sigma), MEAN, s2, "score")
        count = c.L * c.steps
        seen, out = response(impl, c, expect, count + 1, model, calls=count + 1, argument="score")
        before, kept = seen[-1][1:], s2 / (s2 + last**2)
        wanted = [MEAN + kept * (before[0] - MEAN), kept * before[1], kept * before[2]]
        for found, value in zip(out, wanted, strict=True):
            size = 9 + np.abs(np.asarray(before[0])) + np.max(np.abs(before[2]))
            expect(found, value, bounds.rounding(400, size, "float64"), "the end", scale=99.0)


@law(ID, "L4", given=some.where(convention="half"), kills=["always_full"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def half_is_full_with_half_the_step(impl, c, expect):
    "The step eps of half is the step eps / 2 of full."
    other = impl(c.replace(convention="full", step=c.step / 2))
    size = bounds.rounding(200 * len(levels(c)), 9.0 + np.max(np.abs(other)), c.dtype)
    expect(impl(c), np.asarray(other, np.float64), size, scale=99.0)


@law(ID, "L5", closed_form=True, dtypes=DOUBLE, given=some.where(one_level=True, denoise=False),
     kills=["one_step_too_many", "noise_of_the_half_step"])  # fmt: skip
def one_level_is_langevin(impl, c, expect):
    "L = 1: plain Langevin dynamics with a = eps, whose stationary variance v / (1 - h / (2 v)) stays."
    model = gaussian(lambda sigma: (1.0, sigma), MEAN, c.s2, "score")
    sigma, h, _ = levels(c)[0]
    v = c.s2 + sigma**2
    settled = v / (1 - h / (2 * v))
    _, parts = response(impl, c, expect, c.steps, model, calls=c.steps, argument="score")
    expect(moments(parts, MEAN, settled)[1], settled, bounds.rounding(2000, settled + 9, "float64"), "variance")


# Mutants ---------------------------------------------------------------------------------------------


def still(L=1, **options):
    """The default-size test: no score, no noise, one level of 1."""

    def make():
        fields = {"score": lambda x, s: 0 * x, "sigmas": np.ones(L), "step": 0.5, "steps": 2, **options}
        return (np.ones(3), np.zeros((2 * L + 1, 3))), fields

    return make


def walk(x, noise, *, score, sigmas, step, steps, convention="full", denoise=True, **edit):
    sigmas = np.asarray(sigmas, np.float64).tolist()
    x, k, last = np.array(x), 0, sigmas[-1]
    for sigma in edit.get("order", lambda s: s)(sigmas):
        h = step * edit.get("ratio", lambda s, last, first: (s / last) ** 2)(sigma, last, sigmas[0])
        h = h if edit.get("kind", convention) == "full" else h / 2
        for _ in range(steps + edit.get("more", 0)):
            z = noise[k] if k < len(noise) else 0
            x = np.asarray(x + h * score(x, sigma) + edit.get("spread", lambda h: math.sqrt(2 * h))(h) * z, x.dtype)
            k += 1
    if edit.get("end", denoise):
        z = noise[k] if edit.get("noisy") and k < len(noise) else 0
        x = np.asarray(x + edit.get("last", lambda s: s * s)(last) * score(x, last) + last * z, x.dtype)
    return x


@mutant(ID, default_case=still())
def step_not_scaled(*args, **options):
    "a = eps at all levels."
    return walk(*args, ratio=lambda s, last, first: 1.0, **options)


@mutant(ID, default_case=still())
def step_by_sigma(*args, **options):
    "a = eps sigma / sigma_L."
    return walk(*args, ratio=lambda s, last, first: s / last, **options)


@mutant(ID, default_case=still())
def step_by_the_first_level(*args, **options):
    "a = eps sigma^2 / sigma_1^2."
    return walk(*args, ratio=lambda s, last, first: (s / first) ** 2, **options)


@mutant(ID, default_case=still())
def noise_of_the_half_step(*args, **options):
    "sqrt(a) z with a s."
    return walk(*args, spread=math.sqrt, **options)


@mutant(ID, default_case=still())
def always_full(*args, **options):
    "half is read as full."
    return walk(*args, kind="full", **options)


@mutant(ID, default_case=still())
def noise_when_denoising(*args, **options):
    "Noise at the last step."
    return walk(*args, noisy=True, **options)


@mutant(ID, default_case=still())
def never_denoised(*args, **options):
    "No last step."
    return walk(*args, end=False, **options)


@mutant(ID, default_case=still())
def denoised_by_sigma(*args, **options):
    "x + sigma_L s."
    return walk(*args, last=lambda s: s, **options)


@mutant(ID, default_case=still())
def one_step_too_many(*args, **options):
    "off-by-one: 0 .. K."
    return walk(*args, more=1, **options)


@mutant(ID, default_case=still())
def levels_from_the_end(*args, **options):
    "From the narrowest level up."
    return walk(*args, order=lambda s: s[::-1], **options)
