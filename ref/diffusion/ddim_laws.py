"""Laws and mutants of DDIM."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import (
    DOUBLE,
    Recorder,
    ancestral_rows,
    clipped_walk,
    falling,
    follow,
    gaussian,
    kernel,
    ladder,
    moments,
    order_of,
    response,
    rising,
    shaped_noise,
    steps_in,
    telling,
    to_x0,
)
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.ddim"
MEAN = 1.5

space = cases(
    ID,
    B=batch(2, 3, large=100),
    N=dims(1, 6, large=40),
    alpha_bar=falling,
    steps=steps_in,
    eta=choose(0.0, 1.0, 0.5, 0.25),
    s2=choose(0.25, 4.0),
    noise=shaped_noise(lambda c: c.N),
    outputs=shaped_noise(lambda c: c.N),
    model=lambda draw, c: lambda x, t: x * 0.5 + t / 8,
    prediction=choose("eps", "x0", "v", "score"),
    flags={
        "one_step": Flag(lambda c: c.N == 1, {"N": 1, "steps": None}),
        "subsequence": Flag(lambda c: c.steps is not None and 1 < len(c.steps) < c.N,
                            {"N": dims(3, 6), "steps": lambda draw, c: rising(draw, c.N)}),
        "uneven": Flag(lambda c: c.steps is not None and len(set(np.diff(c.steps).tolist())) > 1,
                       {"N": dims(5, 6), "steps": lambda draw, c: np.array([1, 2, c.N])}),
        "several": Flag(lambda c: c.N > 2 and c.steps is None, {"N": dims(3, 6), "steps": None}),
        "noisy": Flag(lambda c: c.eta > 0, {"eta": choose(1.0, 0.5, 0.25)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (2,), (3, 2))}),
    },
)  # fmt: skip
WIDE = 200  # roundings of a step's coefficients: 1 - alpha_bar of sixteenths loses four bits, and roots


def sigma_of(now, before, eta):
    return eta * math.sqrt((1 - before) / (1 - now)) * math.sqrt(1 - now / before)


def wide(c):
    return WIDE / 24 / min(np.asarray(c.alpha_bar, np.float64)) ** 0.5


@law(
    ID, "L1", closed_form=True, given=space.where(some=True).reach("one_step", "subsequence", "uneven", "noisy"),
    kills=["previous_by_stride", "last_alpha_bar_kept", "one_step_late", "eta_ignored", "direction_without_sigma",
           "sigma_of_the_large_variance", "steps_from_zero", "output_is_eps", "noise_at_the_last_step"],
)  # fmt: skip
def each_step_by_predicted_x0_and_noise(impl, c, expect):
    """x_s = sqrt(alpha_bar_s) x_0hat + sqrt(1 - alpha_bar_s - sigma^2) eps + sigma z, at every neighbouring pair of
    steps, with alpha_bar = 1 before the first."""
    rows = []
    for t, now, before in ladder(c):
        a, b = math.sqrt(now), math.sqrt(1 - now)
        p, q = to_x0(c.prediction, a, b)
        sigma = sigma_of(now, before, c.eta)
        k = math.sqrt(max(1 - before - sigma**2, 0))
        # eps = (x - a x_0) / b
        rows.append((t, math.sqrt(before) * p + k * (1 - a * p) / b, (math.sqrt(before) - k * a / b) * q, 0.0, sigma))
    follow(impl, c, expect, rows, wide=wide(c))


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.where(some=True).reach("subsequence", "uneven", "noisy"),
    kills=["previous_by_stride", "last_alpha_bar_kept", "one_step_late", "direction_without_sigma", "output_is_eps",
           "noise_at_the_last_step"],
)  # fmt: skip
def one_point_keeps_every_marginal(impl, c, expect):
    """Data that are one point m: from N(sqrt(alpha_bar_T) m, 1 - alpha_bar_T) mean and variance are the marginal's
    after every step, for every eta and subsequence, and the sample is m."""
    steps = ladder(c)
    model = gaussian(kernel(c), MEAN, 0.0, c.prediction)
    seen, out = response(impl, c, expect, len(steps), model, calls=len(steps))
    now = steps[0][1]
    limit = bounds.rounding(4000, 1 / min(c.alpha_bar), "float64")
    for (t, _, before), parts in zip(steps, [s[1:] for s in seen[1:]] + [out], strict=True):
        mean, variance = moments(parts, math.sqrt(now) * MEAN, 1 - now)
        expect(mean, math.sqrt(before) * MEAN, limit, f"mean after step {t}")
        expect(variance, 1 - before, limit, f"variance after step {t}", scale=1.0)


@law(
    ID, "L3", closed_form=True, given=space.where(some=True, eta=0.0, prediction="eps", several=True),
    kills=["one_step_late", "euler_in_the_wrong_variable", "last_alpha_bar_kept"],
)  # fmt: skip
def eta_zero_is_euler_in_the_noise_ratio(impl, c, expect):
    """eta = 0: y = x / sqrt(alpha_bar) moves by (s' - s) eps, s = sqrt((1 - alpha_bar) / alpha_bar), to s' = 0 at the
    end."""
    outputs = [np.asarray(o, c.dtype) for o in c.outputs]
    recorder = telling(outputs)
    out = impl(c.replace(model=recorder))
    steps = ladder(c)
    recorder.called(expect, len(steps))
    ratio = lambda bar: math.sqrt((1 - bar) / bar)  # noqa: E731
    y, error = np.asarray(c.x, np.float64) / math.sqrt(steps[0][1]), 0.0
    for k, (t, now, before) in enumerate(steps):
        y = y + (ratio(before) - ratio(now)) * outputs[k].astype(np.float64)
        found = recorder.seen[k + 1][0] if k + 1 < len(steps) else out
        error = error + bounds.rounding(WIDE, (np.abs(y) + ratio(now) * np.abs(outputs[k]) + 1), c.dtype)
        expect(found, math.sqrt(before) * y, error, f"x after step {t}", scale=1e9)


@law(
    ID, "L4", closed_form=True, given=space.where(some=True, eta=1.0).reach("subsequence"),
    kills=["sigma_of_the_large_variance", "previous_by_stride", "eta_ignored", "direction_without_sigma"],
)  # fmt: skip
def eta_one_is_ancestral_with_the_small_variance(impl, c, expect):
    "eta = 1: coefficient by coefficient the posterior at x_0hat, with noise of variance btilde, on subsequences too."
    follow(impl, c, expect, ancestral_rows(c, c.prediction, "small"), wide=2 * wide(c))


@law(
    ID, "L5", given=space.where(some=True, subsequence=True), kills=["previous_by_stride", "steps_from_zero"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_subsequence_is_a_schedule(impl, c, expect):
    "Steps tau of alpha_bar are all steps of alpha_bar[tau - 1], with the model asked at tau: the same bits."
    tau, model = [int(t) for t in c.steps], c.model
    asked = Recorder(lambda x, t, k: model(x, tau[t - 1]))
    short = c.replace(alpha_bar=c.alpha_bar[np.array(tau) - 1].copy(), steps=None, model=asked)
    expect.same(impl(short), impl(c), "the sample")


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
    kills=["clips_without_forming_eps_again", "clip_ignored"],
)  # fmt: skip
def clipping_bounds_the_predicted_x0(impl, c, expect):
    "clip: the predicted x_0 is bounded and eps = (x - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar) formed from it."

    def step(now, before, x0, x):
        a, b = math.sqrt(now), math.sqrt(1 - now)
        sigma = sigma_of(now, before, c.eta)
        k = math.sqrt(max(1 - before - sigma**2, 0))
        return math.sqrt(before) * x0 + k * (x - a * x0) / b, 1 / a + 2 / b, sigma

    clipped_walk(impl, c, expect, step)


@law(
    ID, "L8", closed_form=True, dtypes=DOUBLE, given=space.where(B=(), N=2, eta=0.0, s2=choose(0.25, 4.0)),
    kills=["euler_in_the_wrong_variable", "one_step_late"],
)  # fmt: skip
def first_order_for_gaussian_data(impl, c, expect):
    """N(m, s^2), the exact model, steps even in log((1 - alpha_bar) / alpha_bar): against the ODE's solution
    a_1 m + sqrt(V_1 / V_T) (x_T - a_T m) at t = 1 the error falls by half with twice the steps, within .1 in order."""
    errors = []
    for N in (64, 128):
        ratio = np.linspace(-6.0, 4.0, N)
        bars = 1 / (1 + np.exp(ratio))
        now = c.replace(alpha_bar=bars, steps=None, N=N)
        model = gaussian(kernel(now), MEAN, c.s2, c.prediction)
        recorder = Recorder(lambda x, t, k, model=model: model(x, t))
        impl(now.replace(x=np.array(0.7), model=recorder))
        recorder.called(expect, N)
        first, last = bars[-1], bars[0]
        V = [bar * c.s2 + 1 - bar for bar in (first, last)]
        exact = math.sqrt(last) * MEAN + math.sqrt(V[1] / V[0]) * (0.7 - math.sqrt(first) * MEAN)
        errors.append(float(recorder.seen[-1][0]) - exact)
    expect.at_most(abs(errors[-1]), 0.2, "the error at 128 steps")
    expect(order_of(errors), 1.0, 0.1, "order")


# Mutants ---------------------------------------------------------------------------------------------


def point(N=1, bar=0.5, steps=None, **options):
    """The default-size test: x = 0, a model that says 0, no noise."""

    def make():
        fields = {"alpha_bar": np.cumprod(np.full(N, bar)), "model": lambda x, t: 0 * x, "steps": steps, **options}
        return (np.zeros(3), np.zeros((N, 3))), fields

    return make


def path(x, noise=None, *, model, alpha_bar, steps=None, eta=0.0, prediction="eps", clip=None, **edit):
    """Eq. 12 in plain NumPy, whose parts an edit replaces."""
    bars = np.asarray(alpha_bar, np.float64)
    steps = list(range(1, len(bars) + 1)) if steps is None else [int(t) for t in steps]
    eta = edit.get("noisiness", eta)
    x = np.asarray(x)
    for k, t in enumerate(steps[::-1]):
        i = len(steps) - 1 - k
        now = bars[min(t - 1 + edit.get("shift", 0), len(bars) - 1)]
        before = bars[steps[i - 1] - 1] if i else edit.get("zeroth", lambda bars: 1.0)(bars)
        before = edit.get("before", lambda t, i, before: before)(t, i, before)
        a, b = np.sqrt(now), np.sqrt(1 - now)
        m = model(x, edit.get("ask", lambda t: t)(t))
        x0 = {
            "eps": lambda x=x, m=m, a=a, b=b: (x - b * m) / a,
            "x0": lambda m=m: m,
            "v": lambda x=x, m=m, a=a, b=b: a * x - b * m,
            "score": lambda x=x, m=m, a=a, b=b: (x + b * b * m) / a,
        }[edit.get("take", prediction)]()
        eps = (x - a * x0) / b
        if clip is not None and not edit.get("unclipped"):
            x0 = np.clip(x0, -clip, clip)
            eps = eps if edit.get("old_eps") else (x - a * x0) / b
        sigma = edit.get(
            "sigma", lambda now, before, eta: eta * np.sqrt((1 - before) / (1 - now) * (1 - now / before))
        )(now, before, eta)
        k2 = max(1 - before - (0 if edit.get("full_direction") else sigma**2), 0)
        z = noise[k] if noise is not None and k < len(noise) and sigma and (i or edit.get("noisy_end")) else 0
        moved = edit.get("move", lambda x0, eps, before, k, x, now: np.sqrt(before) * x0 + k * eps)(
            x0, eps, before, np.sqrt(k2), x, now
        )
        x = np.asarray(moved + sigma * z, x.dtype)
    return x


@mutant(ID, thread="diffusers#11347", default_case=point(3))
def previous_by_stride(x, noise=None, *, alpha_bar, steps=None, **options):
    "ddim-stride: the step before is t - N / S, not the neighbour."
    bars = np.asarray(alpha_bar, np.float64)
    stride = 1 if steps is None else len(bars) // len(steps)

    def before(t, i, _):
        return bars[t - stride - 1] if t - stride >= 1 else 1.0

    return path(x, noise, alpha_bar=alpha_bar, steps=steps, before=before, **options)


@mutant(ID, thread="diffusers#12633", default_case=point(1))
def last_alpha_bar_kept(*args, **options):
    "The last step has zero length: alpha_bar_1 stays before it."
    return path(*args, zeroth=lambda bars: bars[0], **options)


@mutant(ID, default_case=point(3))
def one_step_late(*args, **options):
    "off-by-one: alpha_bar[t] at step t."
    return path(*args, shift=1, **options)


@mutant(ID, default_case=point(3))
def steps_from_zero(*args, **options):
    "The model is asked at t - 1."
    return path(*args, ask=lambda t: max(t - 1, 1), **options)


@mutant(ID, default_case=point(3))
def eta_ignored(*args, **options):
    "eta = 0 always."
    return path(*args, noisiness=0.0, **options)


@mutant(ID, default_case=point(3))
def direction_without_sigma(*args, **options):
    "sqrt(1 - alpha_bar_s) eps besides the noise: too much of it."
    return path(*args, full_direction=True, **options)


@mutant(ID, default_case=point(3))
def sigma_of_the_large_variance(*args, **options):
    "sigma = eta sqrt(beta)."

    def sigma(now, before, eta):
        return min(eta * np.sqrt(1 - now / before), np.sqrt(1 - before))

    return path(*args, sigma=sigma, **options)


@mutant(ID, default_case=point(3))
def output_is_eps(*args, prediction="eps", **options):
    "The prediction is ignored."
    return path(*args, prediction=prediction, take="eps", **options)


@mutant(ID, default_case=point(3))
def noise_at_the_last_step(*args, **options):
    "sigma of the step before, where alpha_bar_s = 1."

    def sigma(now, before, eta):
        return (
            eta * np.sqrt((1 - before) / (1 - now) * (1 - now / before)) if before < 1 else eta * np.sqrt(1 - now) / 2
        )

    return path(*args, sigma=sigma, noisy_end=True, **options)


@mutant(ID, default_case=point(1))
def euler_in_the_wrong_variable(*args, **options):
    "Euler in sqrt(1 - alpha_bar): exact to x_0 = 0 alone."

    def move(x0, eps, before, k, x, now):
        return np.sqrt(before / now) * x + (np.sqrt(1 - before) - np.sqrt(1 - now)) * eps

    return path(*args, move=move, **options)


@mutant(ID, default_case=point(3))
def clips_without_forming_eps_again(*args, **options):
    "The old eps with the clipped x_0."
    return path(*args, old_eps=True, **options)


@mutant(ID, default_case=point(3))
def clip_ignored(*args, **options):
    "No clipping."
    return path(*args, unclipped=True, **options)
