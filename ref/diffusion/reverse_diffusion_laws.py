"""Laws and mutants of reverse diffusion sampling."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, follow, gaussian, moments, response, shaped_noise
from ref.diffusion.reverse_diffusion import ve_forward, vp_forward
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "diffusion.reverse_diffusion"


def levels(draw, c):
    """Falling sigmas of quarters, K + 1 of them, the last above 0."""
    return np.sort(rng(draw).permutation(np.arange(1, 33))[: c.K + 1])[::-1] / 4.0


def forward(draw, c):
    """(times, gains, spreads): VE on the sigmas, or VP on betas of sixteenths, by the paper's formulas."""
    if c.kind == "ve":
        a = c.sigmas
        return a[:-1], np.ones(c.K), np.sqrt(a[:-1] ** 2 - a[1:] ** 2)
    return np.arange(float(c.K), 0, -1), np.sqrt(1 - c.beta[::-1]), np.sqrt(c.beta[::-1])


space = cases(
    ID,
    B=batch(2, 3, large=60),
    K=dims(1, 5, large=20),
    kind=choose("ve", "vp"),
    sigmas=levels,
    beta=lambda draw, c: rng(draw).integers(1, 8, c.K) / 16.0,
    steps=forward,
    times=lambda draw, c: c.steps[0],
    gains=lambda draw, c: c.steps[1],
    spreads=lambda draw, c: c.steps[2],
    s2=choose(0.25, 1.0, 4.0),
    last_noise=choose(False, True),
    noise=shaped_noise(lambda c: c.K),
    outputs=shaped_noise(lambda c: c.K),
    score=lambda draw, c: lambda x, t: x * -0.125,
    flags={
        "one_step": Flag(lambda c: c.K == 1, {"K": 1}),
        "several": Flag(lambda c: c.K > 1, {"K": dims(2, 5)}),
        "vp": Flag(lambda c: c.kind == "vp", {"kind": "vp"}),
        "ve": Flag(lambda c: c.kind == "ve", {"kind": "ve"}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


@law(
    ID, "L1", closed_form=True, given=some.reach("one_step", "several", "vp", "ve"),
    kills=["gain_inverted", "spread_for_its_square", "ancestral_noise", "noise_at_the_last_step", "times_shifted",
           "gain_ignored"],
)  # fmt: skip
def each_step_by_its_terms(impl, c, expect):
    "x - (gain - 1) x + spread^2 s + spread z; VP: (2 - sqrt(1 - beta)) x + beta s + sqrt(beta) z."
    rows = []
    for k in range(c.K):
        if c.kind == "vp":
            b = float(c.beta[c.K - 1 - k])
            A, variance = 2 - math.sqrt(1 - b), b
        else:
            A, variance = 1.0, float(c.sigmas[k]) ** 2 - float(c.sigmas[k + 1]) ** 2
        quiet = k == c.K - 1 and not c.last_noise
        rows.append((float(c.times[k]), A, variance, 0.0, 0.0 if quiet else math.sqrt(variance)))
    follow(impl, c, expect, rows, argument="score", wide=8)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some.where(ve=True, last_noise=True),
    kills=["spread_for_its_square", "ancestral_noise", "posterior_noise"],
)  # fmt: skip
def ve_is_too_wide_by_a_known_amount(impl, c, expect):
    """Data N(m, s^2): one step from the exact marginal leaves a variance too large by d^2 / (s^2 + sigma_t^2),
    d = sigma_t^2 - sigma_s^2, and the mean exact; with s = 0 as well."""
    for s2 in (c.s2, 0.0):
        model = gaussian(lambda sigma: (1.0, float(sigma)), 1.5, s2, "score")
        now = c.replace(times=c.times[:1], gains=c.gains[:1], spreads=c.spreads[:1], K=1)
        _, parts = response(impl, now, expect, 1, model, calls=1, argument="score")
        a, b = float(c.sigmas[0]) ** 2, float(c.sigmas[1]) ** 2
        mean, variance = moments(parts, 1.5, s2 + a)
        limit = bounds.rounding(400, a + s2 + 4, "float64")
        expect(mean, 1.5, limit, "mean")
        expect(variance, s2 + b + (a - b) ** 2 / (s2 + a), limit, "variance")


@law(ID, "L3", closed_form=True, given=some.where(several=True), kills=["noise_at_the_last_step"])
def no_noise_at_the_last_step(impl, c, expect):
    "Without last_noise the K-th draw does nothing and all before it count; with it all count."
    for last in (False, True):
        _, (_, _, weights) = response(
            impl, c, expect, c.K, lambda x, t: x * -0.0078125, argument="score", last_noise=last
        )
        expect.holds(bool((weights[-1] != 0) == last), f"last_noise={last} decides the last draw")
        expect.holds(bool(np.all(weights[:-1] != 0)), "every other draw counts")


@law(ID, "L4", given=some, kills=["posterior_noise", "gain_inverted", "spread_for_its_square"])
def forward_steps_are_the_kernels(impl, c, expect):
    """`ve_forward` and `vp_forward` give the forward steps whose kernels compose: variance gain^2 V + spread^2 from 0
    is sigma_0^2 - sigma_K^2, or 1 - prod(1 - beta); run on them the sampler does what the formulas say."""
    V = 0.0
    times, gains, spreads = ve_forward(c.sigmas.tolist()) if c.kind == "ve" else vp_forward(c.beta.tolist())
    for gain, spread in zip(gains[::-1], spreads[::-1], strict=True):
        V = gain**2 * V + spread**2
    wanted = float(c.sigmas[0]) ** 2 - float(c.sigmas[-1]) ** 2 if c.kind == "ve" else 1 - float(np.prod(1 - c.beta))
    expect(V, wanted, 1e-12 * (1 + wanted), "variance")
    x = np.asarray(c.x, np.float64)
    size = np.abs(x)
    for k, (gain, spread) in enumerate(zip(gains, spreads, strict=True)):
        x, size = x * (2 - gain - spread**2 / 8), size * (2 + spread**2)
        if k < c.K - 1 or c.last_noise:
            x, size = x + spread * np.asarray(c.noise[k], np.float64), size + 4 * spread
    out = impl(c.replace(times=times, gains=gains, spreads=spreads))
    expect(out, x, bounds.rounding(40 * c.K, size, c.dtype), "the sample", scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def still(K=2, **options):
    """The default-size test: x = 0, no score, no noise."""

    def make():
        fields = {
            "score": lambda x, t: 0 * x,
            "times": np.arange(K, 0.0, -1),
            "gains": np.ones(K),
            "spreads": np.ones(K),
        }
        return (np.zeros(3), np.zeros((K, 3))), {**fields, **options}

    return make


def walk(x, noise, *, score, times, gains, spreads, last_noise=False, **edit):
    x, K = np.array(x), len(times)
    for k in range(K):
        t = times[min(k + edit.get("shift", 0), K - 1)]
        gain, spread = float(gains[k]), float(spreads[k])
        A = edit.get("A", lambda g: 2 - g)(gain)
        moved = A * x + edit.get("B", lambda s: s * s)(spread) * score(x, t if isinstance(t, int) else float(t))
        if noise is not None and k < len(noise) and (k < K - 1 or last_noise or edit.get("noisy")):
            moved = moved + edit.get("c", lambda s, k: s)(spread, k) * noise[k]
        x = np.asarray(moved, x.dtype)
    return x


@mutant(ID, default_case=still())
def gain_inverted(*args, **options):
    "1 / gain for 2 - gain: DDPM's mean, the same to first order."
    return walk(*args, A=lambda g: 1 / g, **options)


@mutant(ID, default_case=still())
def gain_ignored(*args, **options):
    "VP / VE swapped: A = 1."
    return walk(*args, A=lambda g: 1.0, **options)


@mutant(ID, default_case=still())
def spread_for_its_square(*args, **options):
    "spread s."
    return walk(*args, B=lambda s: s, **options)


@mutant(ID, default_case=still())
def ancestral_noise(*args, **options):
    "Noise narrowed by what the next step removes."
    spreads = [float(s) for s in options["spreads"]]

    def narrowed(s, k):
        left = sum(v * v for v in spreads[k + 1 :])
        return s * math.sqrt(left / (left + s * s))

    return walk(*args, c=narrowed, **options)


@mutant(ID, default_case=still())
def posterior_noise(*args, **options):
    "wrong posterior variance: spread / sqrt(1 + spread^2)."
    return walk(*args, c=lambda s, k: s / math.sqrt(1 + s * s), **options)


@mutant(ID, default_case=still())
def noise_at_the_last_step(*args, **options):
    "Noise at every step."
    return walk(*args, noisy=True, **options)


@mutant(ID, default_case=still())
def times_shifted(*args, **options):
    "off-by-one: the score is asked with the time that the step leads to."
    return walk(*args, shift=1, **options)
