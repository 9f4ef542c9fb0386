"""Laws and mutants of ancestral sampling."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import (
    DOUBLE,
    Recorder,
    ancestral_rows,
    by_bayes,
    clipped_walk,
    falling,
    follow,
    gaussian,
    kernel,
    ladder,
    moments,
    response,
    rising,
    shaped_noise,
    steps_in,
)
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.ddpm"
MEAN = 1.5

space = cases(
    ID,
    B=batch(2, 3, large=100),
    N=dims(1, 6, large=40),
    alpha_bar=falling,
    steps=steps_in,
    noise=shaped_noise(lambda c: c.N),
    outputs=shaped_noise(lambda c: c.N),
    model=lambda draw, c: lambda x, t: x * 0.5 + t / 8,
    prediction=choose("eps", "x0", "v", "score"),
    variance=choose("small", "large"),
    s2=choose(0.25, 0.0, 1.0),
    flags={
        "one_step": Flag(lambda c: c.N == 1, {"N": 1, "steps": None}),
        "subsequence": Flag(lambda c: c.steps is not None and 1 < len(c.steps) < c.N,
                            {"N": dims(3, 6), "steps": lambda draw, c: rising(draw, c.N)}),
        "several": Flag(lambda c: c.N > 2 and c.steps is None, {"N": dims(3, 6), "steps": None}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (2,), (3, 2))}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.where(some=True).reach("one_step", "subsequence", "several"),
    kills=["beta_of_the_full_schedule", "noise_at_the_last_step", "one_step_late", "steps_from_zero",
           "variance_for_deviation", "always_large", "no_division_by_alpha", "last_alpha_bar_kept", "output_is_eps"],
)  # fmt: skip
def each_step_is_the_posterior_at_the_predicted_x0(impl, c, expect):
    """x_{t-1} = c_0 x_0hat + c_t x_t + sigma z with the posterior's weights, by precisions, between neighbours of the
    steps, and alpha_bar = 1 before the first; the model is asked at those t."""
    follow(
        impl,
        c,
        expect,
        ancestral_rows(c, c.prediction, c.variance),
        wide=16 * 8 / min(np.asarray(c.alpha_bar, np.float64)) ** 0.5,
    )


def states(impl, c, expect, s2, model=None):
    """(ladder, [(offset, gain, weights) where each step starts], result) for Gaussian data N(MEAN, s2)."""
    model = model or gaussian(kernel(c), MEAN, s2, c.prediction)
    steps = ladder(c)
    seen, out = response(impl, c, expect, len(steps) - 1, model, calls=len(steps))
    return steps, [s[1:] for s in seen] + [out]


@law(
    ID,
    "L2",
    closed_form=True,
    dtypes=DOUBLE,
    given=space.where(some=True).reach("subsequence", "several"),
    kills=[
        "beta_of_the_full_schedule",
        "one_step_late",
        "no_division_by_alpha",
        "output_is_eps",
        "last_alpha_bar_kept",
    ],
)
def every_mean_is_exact_for_gaussian_data(impl, c, expect):
    "From q(x_T) with the exact model the mean is sqrt(alpha_bar_s) m after every step, for both variances."
    steps, found = states(impl, c, expect, 0.25)
    start = math.sqrt(steps[0][1]) * MEAN
    size = (1 + abs(MEAN)) / min(c.alpha_bar)
    for (t, _, before), parts in zip(steps, found[1:], strict=True):
        mean, _ = moments(parts, start, 0.0)
        expect(mean, math.sqrt(before) * MEAN, bounds.rounding(2000, size, "float64"), f"mean after step {t}")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space.where(some=True, several=True, s2=choose(0.25, 0.0, 1.0)),
    kills=["always_large", "always_small", "variance_for_deviation", "one_step_late", "no_division_by_alpha"],
)  # fmt: skip
def one_step_of_covariance(impl, c, expect):
    """From q(x_t), t = T, the variance after one step misses alpha_bar_s s^2 + 1 - alpha_bar_s by
    sigma^2 - btilde - c_0^2 Var(x_0 | x_t): large is exact for s = 1, small for s = 0, at every step then."""
    steps, found = states(impl, c, expect, c.s2)
    now0 = steps[0][1]
    start = now0 * c.s2 + 1 - now0
    exact = (c.variance, c.s2) in (("large", 1.0), ("small", 0.0))
    for k, (t, now, before) in enumerate(steps[:-1] if exact else steps[:1]):
        c_0, _, small = by_bayes(now, before)
        spread = small if c.variance == "small" else 1 - now / before
        left = c.s2 * (1 - now) / (now * c.s2 + 1 - now)
        wanted = before * c.s2 + 1 - before + (spread - small - c_0**2 * left)
        _, variance = moments(found[k + 1], 0.0, start)
        limit = bounds.rounding(4000, 1 / min(c.alpha_bar), "float64")
        expect(variance, wanted, limit, f"variance after step {t}")
        if exact:
            expect(wanted, before * c.s2 + 1 - before, limit, "no defect")


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE,
    given=space.where(some=True, several=True, variance="learned", s2=choose(0.25, 0.0625, 4.0)),
    kills=["variances_mixed", "mix_ignored", "mix_clipped"],
)  # fmt: skip
def a_learned_mix_makes_every_covariance_exact(impl, c, expect):
    "sigma^2 = btilde + c_0^2 Var(x_0 | x_t), given as a mix of logarithms: every variance is exact, up to x_1."
    exact = {}
    for t, now, before in ladder(c):
        c_0, _, small = by_bayes(now, before)
        spread = small + c_0**2 * c.s2 * (1 - now) / (now * c.s2 + 1 - now)
        low, high = math.log(small or 0.01), math.log(1 - now / before)
        exact[t] = (math.log(spread) - low) / (high - low)
    base = gaussian(kernel(c), MEAN, c.s2, c.prediction)
    steps, found = states(impl, c, expect, c.s2, lambda x, t: (base(x, t), 0 * x + exact[t]))
    now = steps[0][1]
    for (t, _, before), parts in zip(steps[:-1], found[1:-1], strict=True):
        _, variance = moments(parts, 0.0, now * c.s2 + 1 - now)
        limit = bounds.rounding(20000, 1 / min(c.alpha_bar), "float64")
        expect(variance, before * c.s2 + 1 - before, limit, f"variance after step {t}")


@law(
    ID, "L5", closed_form=True, given=space.where(some=True, several=True),
    kills=["noise_at_the_last_step"],
)  # fmt: skip
def no_noise_at_the_last_step(impl, c, expect):
    "x_0 is the mean: T - 1 draws all count, a T-th does nothing, and a model that says x_0 = 3 gives 3."
    point = gaussian(kernel(c), 3.0, 0.0, c.prediction)
    _, (offset, gain, weights) = response(impl, c, expect, c.N, lambda x, t: x * 0.25)
    expect.same(weights[-1], 0.0, "weight of the draw after the last")
    expect.holds(bool(np.all(weights[:-1] != 0)), "every other draw counts")
    out = impl(c.replace(model=point))
    size = bounds.rounding(400 * c.N, 4 / min(np.asarray(c.alpha_bar, np.float64)), c.dtype)
    expect(out, np.full(c.B, 3.0), size, "the point", scale=8.0)


@law(
    ID, "L6", dtypes=DOUBLE, given=space.where(some=True, prediction="eps"), kills=["output_is_eps"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def every_prediction_gives_the_same_path(impl, c, expect):
    "The exact models of N(m, s^2) that predict eps, x_0, v and the score lead to the same sample."
    outs = [
        np.asarray(impl(c.replace(prediction=p, model=gaussian(kernel(c), MEAN, 0.25, p))), np.float64)
        for p in ("eps", "x0", "v", "score")
    ]
    limit = bounds.rounding(4000 * c.N, 8 / min(c.alpha_bar), "float64")
    for p, out in zip(("x0", "v", "score"), outs[1:], strict=True):
        expect(out, outs[0], limit, p, scale=1.0)


@law(
    ID, "L7", closed_form=True, given=space.where(some=True, prediction=choose("eps", "x0"), clip=choose(0.5, 1.0)),
    kills=["clips_the_state", "clips_the_output", "clip_ignored"],
)  # fmt: skip
def clipping_bounds_the_predicted_x0(impl, c, expect):
    "clip: the predicted x_0 is bounded, then weighed by the posterior; the sample is within the bound."

    def step(now, before, x0, x):
        c_0, c_t, small = by_bayes(now, before)
        sigma = math.sqrt(small if c.variance == "small" else 1 - now / before)
        return c_0 * x0 + c_t * x, c_t + c_0 / math.sqrt(now), sigma

    clipped_walk(impl, c, expect, step)


@law(
    ID, "L8", given=space.where(some=True, subsequence=True), kills=["beta_of_the_full_schedule", "steps_from_zero"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_subsequence_is_a_schedule(impl, c, expect):
    "Steps tau of alpha_bar are all steps of alpha_bar[tau - 1], with the model asked at tau: the same bits."
    tau = [int(t) for t in c.steps]
    model = c.model
    asked = Recorder(lambda x, t, k: model(x, tau[t - 1]))
    short = c.replace(alpha_bar=c.alpha_bar[np.array(tau) - 1].copy(), steps=None, model=asked)
    expect.same(impl(short), impl(c), "the sample")


# Mutants ---------------------------------------------------------------------------------------------


def one_level(N=1, bar=0.5, x=0.0, z=0.0, steps=None, **options):
    """The default-size test: x = 0, a model that says 0, no noise."""

    def make():
        fields = {"alpha_bar": np.cumprod(np.full(N, bar)), "model": lambda x, t: 0 * x, "steps": steps, **options}
        return (np.full(3, x), np.full((N, 3), z)), fields

    return make


def ancestral(x, noise, *, model, alpha_bar, steps=None, prediction="eps", variance="small", clip=None, **edit):
    """Algorithm 2 in plain NumPy, whose parts an edit replaces."""
    bars = np.asarray(alpha_bar, np.float64)
    steps = list(range(1, len(bars) + 1)) if steps is None else [int(t) for t in steps]
    for k, t in enumerate(steps[::-1]):
        i = len(steps) - 1 - k
        now = bars[min(t - 1 + edit.get("shift", 0), len(bars) - 1)]
        before = bars[steps[i - 1] - 1] if i else edit.get("zeroth", lambda bars: 1.0)(bars)
        before = edit.get("before", lambda t, before: before)(t, before)
        alpha = now / before
        a, b = np.sqrt(now), np.sqrt(1 - now)
        said = model(x, edit.get("ask", lambda t: t)(t))
        said, mix = said if variance == "learned" else (said, None)
        said = edit.get("bound", lambda m: m)(said)
        x0 = {
            "eps": lambda x=x, m=said, a=a, b=b: (x - b * m) / a,
            "x0": lambda m=said: m,
            "v": lambda x=x, m=said, a=a, b=b: a * x - b * m,
            "score": lambda x=x, m=said, a=a, b=b: (x + b * b * m) / a,
        }[edit.get("take", prediction)]()
        if clip is not None and not edit.get("unclipped"):
            x0 = np.clip(x0, -clip, clip)
        beta = 1 - alpha
        small = (1 - before) / (1 - now) * beta
        mean = np.sqrt(before) * beta / (1 - now) * x0 + np.sqrt(alpha) * (1 - before) / (1 - now) * x
        mean = mean * edit.get("scale", lambda alpha: 1.0)(alpha)
        kind = edit.get("kind", variance)
        if kind == "learned":
            mixed = edit.get("mixed", lambda v, p, q: np.exp(v * np.log(q) + (1 - v) * np.log(max(p, 1e-9))))
            spread = mixed(mix, small, beta)
        else:
            spread = small if kind == "small" else beta
        sigma = edit.get("root", np.sqrt)(spread)
        last = i == 0 and not edit.get("noisy_end")
        z = 0 if last or k >= len(noise) else noise[k]
        x = np.asarray(mean + sigma * z, np.asarray(x).dtype)
        x = edit.get("after", lambda x: x)(x)
    return x


@mutant(ID, thread="diffusers#12633", default_case=one_level(3))
def beta_of_the_full_schedule(x, noise, *, alpha_bar, **options):
    "ddim-stride: the step before is t - 1, whatever subsequence is run."
    bars = np.concatenate([[1.0], np.asarray(alpha_bar, np.float64)])
    return ancestral(x, noise, alpha_bar=alpha_bar, before=lambda t, before: bars[t - 1], **options)


@mutant(ID, default_case=one_level())
def noise_at_the_last_step(*args, variance="small", **options):
    "Noise of the large variance to x_0 as well."
    return ancestral(*args, noisy_end=True, variance=variance, kind="learned" if variance == "learned" else "large",
                     **options)  # fmt: skip


@mutant(ID, default_case=one_level(3))
def one_step_late(*args, **options):
    "off-by-one: alpha_bar[t] at step t."
    return ancestral(*args, shift=1, **options)


@mutant(ID, default_case=one_level(3))
def steps_from_zero(*args, **options):
    "The model is asked at t - 1, as if it had been trained from 0."
    return ancestral(*args, ask=lambda t: t - 1, **options)


@mutant(ID, default_case=one_level(3))
def variance_for_deviation(*args, **options):
    "sigma^2 z."
    return ancestral(*args, root=lambda v: v, **options)


@mutant(ID, default_case=one_level(3))
def always_large(*args, variance="small", **options):
    "wrong posterior variance: beta."
    return ancestral(*args, variance=variance, kind="learned" if variance == "learned" else "large", **options)


@mutant(ID, default_case=one_level(3))
def always_small(*args, variance="small", **options):
    "wrong posterior variance: btilde."
    return ancestral(*args, variance=variance, kind="learned" if variance == "learned" else "small", **options)


@mutant(ID, default_case=one_level(3))
def no_division_by_alpha(*args, **options):
    "The mean without 1 / sqrt(alpha)."
    return ancestral(*args, scale=np.sqrt, **options)


@mutant(ID, thread="diffusers#6477", default_case=one_level())
def last_alpha_bar_kept(*args, **options):
    "The step before the first has alpha_bar_1 (a little above it), not 1: noise is left in the sample."
    return ancestral(*args, zeroth=lambda bars: bars[0] + (1 - bars[0]) / 2, **options)


@mutant(ID, default_case=one_level(3))
def output_is_eps(*args, prediction="eps", **options):
    "The prediction is ignored."
    return ancestral(*args, prediction=prediction, take="eps", **options)


@mutant(ID, default_case=one_level(3))
def variances_mixed(*args, **options):
    "learned: v beta + (1 - v) btilde."
    return ancestral(*args, mixed=lambda v, p, q: np.abs(v * q + (1 - v) * p), **options)


@mutant(ID, default_case=one_level(3))
def mix_clipped(*args, **options):
    "learned: v kept in [0, 1], so that no variance exceeds beta."

    def mixed(v, p, q):
        v = np.clip(v, 0, 1)
        return np.exp(v * np.log(q) + (1 - v) * np.log(max(p, 1e-9)))

    return ancestral(*args, mixed=mixed, **options)


@mutant(ID, default_case=one_level(3))
def mix_ignored(*args, variance="small", **options):
    "learned: the small variance."
    return ancestral(*args, variance=variance, kind="small" if variance == "learned" else variance, **options)


@mutant(ID, default_case=one_level(3))
def clips_the_state(*args, clip=None, **options):
    "x, not x_0, is clipped."
    bound = (lambda x: x) if clip is None else (lambda x: np.clip(x, -clip, clip))
    return ancestral(*args, clip=clip, unclipped=True, after=bound, **options)


@mutant(ID, default_case=one_level(3))
def clips_the_output(*args, clip=None, **options):
    "The model's output, whatever it is, is clipped."
    bound = (lambda x: x) if clip is None else (lambda x: np.clip(x, -clip, clip))
    return ancestral(*args, clip=clip, unclipped=True, bound=bound, **options)


@mutant(ID, default_case=one_level(3))
def clip_ignored(*args, **options):
    "No clipping."
    return ancestral(*args, unclipped=True, **options)
