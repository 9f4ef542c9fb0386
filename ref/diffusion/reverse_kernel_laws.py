"""Laws and mutants of the reverse step."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import by_bayes, falling, gaussian, leading, over, steps_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats

ID = "diffusion.reverse_kernel"


def mixes(draw, c):
    return np.asarray(floats("*S")(draw, c) / 2) if c.variance == "learned" else None


space = cases(
    ID,
    S=batch(2, 3, large=50),
    T=leading,
    N=dims(1, 6, large=50),
    alpha_bar=falling,
    t=steps_of,
    prediction=choose("eps", "x0", "v", "score"),
    variance=choose("small", "large", "learned"),
    mix=mixes,
    flags={
        "first": Flag(lambda c: np.any(c.t == 1) and c.N > 1, {"N": dims(2, 5), "t": lambda draw, c: np.full(c.T, 1)}),
        "one_step": Flag(lambda c: c.N == 1, {"N": 1}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
        "per_example": Flag(
            lambda c: len(c.T) == 1 and len(set(c.t.tolist())) > 1,
            {"S": choose((3, 2), (2, 2)), "T": lambda draw, c: c.S[:1], "N": dims(3, 6)},
        ),
    },
)
some = space.where(some=True)


def levels(c):
    bars = np.concatenate([[1.0], np.asarray(c.alpha_bar, np.float64)])
    return bars[c.t], bars[c.t - 1]


def spans(c):
    """(log of the lower variance, log beta)[*T], by precisions; at t = 1 the lower one of step 2 (of beta_1, if
    alone)."""
    bars = [1.0, *np.asarray(c.alpha_bar, np.float64).tolist()]
    low, high = np.zeros(c.T), np.zeros(c.T)
    for at in np.ndindex(tuple(c.T)):
        t = int(c.t[at])
        high[at] = np.log(1 - bars[t] / bars[t - 1])
        k = max(t, 2)
        low[at] = np.log(by_bayes(bars[k], bars[k - 1])[2]) if len(bars) > 2 else high[at]
    return low, high


def predicted_x0(c, a, b):
    """x_0 from the output, in float64."""
    x, m = np.asarray(c.x, np.float64), np.asarray(c.output, np.float64)
    n = a * a + b * b
    return {
        "eps": lambda: (x - b * m) / a,
        "x0": lambda: m,
        "v": lambda: (a * x - b * m) / n,
        "score": lambda: (x + b * b * m) / a,
    }[c.prediction]()


@law(
    ID, "L1", closed_form=True, given=some.reach("first", "per_example"),
    kills=["output_is_eps", "no_division_by_alpha", "one_step_late", "deviation_missing"],
)  # fmt: skip
def mean_is_the_posterior_of_the_prediction(impl, c, expect):
    "The mean is that of q(x_{t-1} | x_t, x_0) at the predicted x_0, by precisions."
    now, before = levels(c)
    a, b = over(now**0.5, c.S), over((1 - now) ** 0.5, c.S)
    weights = np.array([by_bayes(*pair) for pair in zip(now.ravel(), before.ravel(), strict=True)]).reshape(*c.T, 3)
    c_0, c_t = over(weights[..., 0], c.S), over(weights[..., 1], c.S)
    x0 = predicted_x0(c, a, b)
    mean, _ = impl(c)
    size = (np.abs(c.x) + np.abs(c.output)) * (1 / a + 1)
    expect(mean, c_0 * x0 + c_t * c.x, bounds.rounding(200, size, c.dtype), "mean", scale=1 + np.max(size))


@law(
    ID,
    "L2",
    closed_form=True,
    given=some.where(variance=choose("small", "large"), mix=None).reach("first", "one_step"),
    kills=["always_small", "zero_at_the_first_step", "one_step_late"],
)
def variances_by_name(impl, c, expect):
    "small: btilde_t, at t = 1 btilde_2 (beta_1 if N = 1); large: beta_t."
    low, high = spans(c)
    wanted = over(np.exp(low if c.variance == "small" else high), c.S)
    _, variance = impl(c)
    expect(variance, wanted, bounds.rounding(200, wanted, c.dtype), "variance")


@law(
    ID, "L3", closed_form=True, given=some.where(variance="learned").reach("first"),
    kills=["variances_mixed", "mix_the_other_way", "zero_at_the_first_step", "always_small"],
)  # fmt: skip
def the_mix_interpolates_logarithms(impl, c, expect):
    "learned: log variance = v log beta + (1 - v) log btilde, outside [0, 1] too."
    low, high = (over(v, c.S) for v in spans(c))
    v = np.asarray(c.mix, np.float64)
    wanted = np.exp(v * high + (1 - v) * low)
    _, variance = impl(c)
    limit = bounds.rounding(200, wanted * (1 + np.abs(v) * np.abs(high) + np.abs(1 - v) * np.abs(low)), c.dtype)
    expect(variance, wanted, limit, "variance", scale=np.max(wanted + 4 * limit))


@law(
    ID, "L4", closed_form=True, given=some.where(variance="learned", N=dims(2, 6), t=lambda draw, c: np.full(c.T, c.N)),
    kills=["no_division_by_alpha", "variances_mixed", "output_is_eps", "mix_the_other_way"],
)  # fmt: skip
def exact_for_gaussian_data(impl, c, expect):
    """x_0 ~ N(m, s^2), the exact model, and v such that the variance is btilde + c_0^2 Var(x_0 | x_t): the step takes
    q(x_t) to q(x_{t-1}), mean and variance."""
    m, s2 = 1.5, 0.25
    bars = np.asarray(c.alpha_bar, np.float64)
    now, before = bars[c.N - 1], bars[c.N - 2]
    model = gaussian(lambda t: (now**0.5, (1 - now) ** 0.5), m, s2, c.prediction)
    total = now * s2 + 1 - now
    c_0, _, btilde = by_bayes(now, before)
    exact = btilde + c_0**2 * s2 * (1 - now) / total
    low, high = np.log(btilde), np.log(1 - now / before)
    mix = np.full(c.S, (np.log(exact) - low) / (high - low), c.dtype)
    means = [
        np.asarray(
            impl(c.replace(x=x.astype(c.dtype), output=np.asarray(model(x, 0), c.dtype), mix=mix))[0], np.float64
        )
        for x in (np.zeros(c.S), np.ones(c.S))
    ]
    _, variance = impl(c.replace(mix=mix))
    gain = means[1] - means[0]
    limit = bounds.rounding(1000, (1 + abs(m)) / now, c.dtype)
    expect(means[0] + gain * now**0.5 * m, np.full(c.S, before**0.5 * m), limit, "mean", scale=4 * limit + 2)
    expect(gain**2 * total + variance, np.full(c.S, before * s2 + 1 - before), limit, "variance", scale=4 * limit + 2)


# Mutants ---------------------------------------------------------------------------------------------


def one(N=1, t=1, **options):
    """The default-size test: output and x are 0, one step."""
    return lambda: ((np.zeros(3), np.zeros(3), np.array(t), np.full(N, 0.5)), options)


def step(output, x, t, alpha_bar, mix=None, *, prediction="eps", variance="small", **edit):
    """Mean and variance in plain NumPy, whose parts an edit replaces."""
    bars = np.concatenate([[1.0], np.asarray(alpha_bar, np.float64)])
    t = np.minimum(np.asarray(t) + edit.get("shift", 0), len(bars) - 1)
    now, before = bars[t], bars[t - 1]
    a, b = over(np.sqrt(now), x.shape), over(edit.get("spread", np.sqrt)(1 - now), x.shape)
    eps = {
        "eps": output,
        "x0": (x - a * output) / b,
        "v": b * x + a * output,
        "score": -b * output,
    }[edit.get("take", prediction)]
    alpha, beta = over(now / before, x.shape), over(1 - now / before, x.shape)
    mean = (x - beta / np.sqrt(1 - over(now, x.shape)) * eps) / edit.get("divide", np.sqrt)(alpha)
    at = edit.get("low_at", lambda t, bars: np.maximum(t, 2) if len(bars) > 2 else t)(t, bars)
    low = (1 - bars[at - 1]) / (1 - bars[at]) * (1 - bars[at] / bars[at - 1])
    low = np.where(low == 0, 0 if "low_at" in edit else 1 - now / before, low)
    found = {
        "small": lambda: over(low, x.shape),
        "large": lambda: beta,
        "learned": lambda: edit.get("mixed", lambda v, p, q: np.exp(v * np.log(q) + (1 - v) * np.log(p)))(
            mix, over(low, x.shape), beta
        ),
    }[edit.get("kind", variance)]()
    return mean.astype(x.dtype), np.array(found, x.dtype)


@mutant(ID, default_case=one())
def output_is_eps(*args, **options):
    "The prediction is ignored."
    return step(*args, take="eps", **options)


@mutant(ID, default_case=one())
def no_division_by_alpha(*args, **options):
    "The mean without 1 / sqrt(alpha): VE for VP."
    return step(*args, divide=lambda alpha: 1.0, **options)


@mutant(ID, default_case=one(N=2, t=2))
def one_step_late(*args, **options):
    "off-by-one: the coefficients of step t + 1."
    return step(*args, shift=1, **options)


@mutant(ID, default_case=one())
def deviation_missing(*args, **options):
    "1 - alpha_bar for its root in what turns x_0, v and score to eps."
    return step(*args, spread=lambda v: v, **options)


@mutant(ID, default_case=one(variance="small"))
def always_small(*args, variance="small", **options):
    "wrong posterior variance: btilde, whatever is asked for."
    return step(*args, kind="small", **options)


@mutant(ID, default_case=one(variance="large"))
def zero_at_the_first_step(*args, **options):
    "btilde_1 = 0 as it stands: no density at t = 1."
    return step(*args, low_at=lambda t, bars: t, **options)


@mutant(ID, default_case=one(variance="large"))
def variances_mixed(*args, **options):
    "v beta + (1 - v) btilde."
    return step(*args, mixed=lambda v, p, q: np.abs(v * q + (1 - v) * p), **options)


@mutant(ID, default_case=one(variance="large"))
def mix_the_other_way(*args, **options):
    "v weighs btilde."
    return step(*args, mixed=lambda v, p, q: np.exp(v * np.log(p) + (1 - v) * np.log(q)), **options)
