"""What the laws of diffusion share: schedules, models that record, linear responses, Gaussian data."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import strategies as st

import autodiff
import backends
from ref.spec import bounds, law
from ref.spec.cases import choose, rng

DOUBLE = ("float64",)  # the numbers of a schedule are float64 whatever the data are


def integer(*values):
    """A field: one of the integers, as an array without axes."""
    return lambda draw, c: np.array(draw(choose(*values)))


def leading(draw, c):
    """A field: leading axes of *S, all of them or fewer."""
    return tuple(c.S[: draw(st.integers(0, len(c.S)))])


def over(values, shape):
    """An array whose axes lead those of `shape`, in float64, broadcast to it."""
    values = np.asarray(values, np.float64)
    return np.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape)


def levels_of(draw, c):
    """(scale, std)[*T], the same at every call of one case: Pythagorean pairs, or a = 1 and b a power of 2."""
    if "levels" not in c:
        k = rng(draw).integers(0, 4, c.T)
        pairs = np.array([(0.6, 0.8), (0.8, 0.6), (0.28, 0.96), (0.96, 0.28)])
        if not c.variance_preserving:
            pairs = np.array([(1.0, 0.5), (1.0, 2.0), (1.0, 8.0), (0.5, 0.25)])
        c["levels"] = (pairs[k][..., 0], pairs[k][..., 1])
    return c["levels"]


# Schedules -------------------------------------------------------------------------------------------


def falling(draw, c):
    """A field: alpha_bar[N] from betas of sixteenths."""
    return np.cumprod(1 - rng(draw).integers(1, 8, c.N) / 16)


def steps_of(draw, c):
    """A field: steps t[*T] in 1 .. N."""
    return np.asarray(rng(draw).integers(1, c.N + 1, c.T))


def steps_in(draw, c):
    """A field: None for all steps of 1 .. N, or a rising subsequence of them."""
    if draw(st.booleans()):
        return None
    return np.sort(rng(draw).permutation(c.N)[: max(1, (c.N + 1) // 2)]) + 1


def ladder(c):
    """[(t, alpha_bar there, alpha_bar at the step before)], the noisiest first, in float64."""
    bars = np.asarray(c.alpha_bar, np.float64)
    steps = [int(t) for t in (c.steps if c.get("steps") is not None else range(1, len(bars) + 1))]
    found, before = [], 1.0
    for t in steps:
        found.append((t, float(bars[t - 1]), before))
        before = float(bars[t - 1])
    return found[::-1]


def by_bayes(now, before):
    """(c_0, c_t, variance) of x_s given x_t and x_0, by adding the precisions of q(x_t | x_s) and q(x_s | x_0)."""
    if before == 1:
        return 1.0, 0.0, 0.0
    alpha = now / before
    precision = alpha / (1 - alpha) + 1 / (1 - before)
    return math.sqrt(before) / (1 - before) / precision, math.sqrt(alpha) / (1 - alpha) / precision, 1 / precision


def rising(draw, N):
    """A subsequence of 2 .. N - 1 of the N steps."""
    g = rng(draw)
    return np.sort(g.permutation(N)[: g.integers(2, N)]) + 1


def kernel(c):
    """t -> (sqrt(alpha_bar), sqrt(1 - alpha_bar)) at the visited steps of the case."""
    table = {t: (math.sqrt(now), math.sqrt(1 - now)) for t, now, _ in ladder(c)}
    return lambda t: table[int(t)]


def to_x0(prediction, a, b):
    """(p, q) with x_0 = p x + q output."""
    return {"eps": (1 / a, -b / a), "x0": (0, 1), "v": (a, -b), "score": (1 / a, b * b / a)}[prediction]


def ancestral_rows(c, prediction, variance):
    """[(t, A, B, 0, c)]: the posterior, by precisions, at the x_0 that the prediction says; no noise to s = 0."""
    rows = []
    for t, now, before in ladder(c):
        c_0, c_t, small = by_bayes(now, before)
        p, q = to_x0(prediction, math.sqrt(now), math.sqrt(1 - now))
        spread = small if variance == "small" else 1 - now / before
        rows.append((t, c_t + c_0 * p, c_0 * q, 0.0, 0.0 if before == 1 else math.sqrt(spread)))
    return rows


# Models ----------------------------------------------------------------------------------------------


def as_numpy(x):
    """An array of any backend as NumPy."""
    return backends.namespace(x).to_numpy(x)


class Recorder:
    """A model that keeps where it was asked, [(x, t)], and says `says(x, t, k)` at its k-th call."""

    def __init__(self, says):
        self.says, self.seen = says, []

    def __call__(self, x, t):
        self.seen.append((as_numpy(x), t))
        return self.says(x, t, len(self.seen) - 1)

    def called(self, expect, times):
        expect.holds(len(self.seen) == times, f"the model is called {times} times, not {len(self.seen)}")


def telling(outputs):
    """A recorder whose k-th answer is outputs[k], whatever x is."""
    return Recorder(
        lambda x, t, k: backends.namespace(x).from_numpy(np.asarray(outputs[k % len(outputs)], dtype_of(x)))
    )


def dtype_of(x):
    """The NumPy dtype of an array of any backend."""
    return np.dtype(str(x.dtype).rsplit(".", 1)[-1])


def gaussian(kernel, mean, variance, prediction):
    """The exact model of N(mean, variance), one number each, and what it is affine by: t -> (gain, offset)."""

    def line(t):
        a, b = kernel(t)
        precision = 1 / (a * a * variance + b * b)
        gain, eps = {
            "score": (-precision, None),
            "eps": (b * precision, None),
            "x0": (a * variance * precision, None),
            "v": (a * b * precision - b * a * variance * precision, None),
        }[prediction]
        at_center = {"score": 0.0, "eps": 0.0, "x0": mean, "v": -b * mean}[prediction]
        return gain, at_center - gain * a * mean

    def model(x, t):
        gain, offset = line(t)
        return x * gain + offset

    model.line = line
    return model


# The response of a sampler whose model is affine -----------------------------------------------------


def response(impl, c, expect, draws, model, calls=None, argument="model", **fields):
    """How a sampler answers x = 0, x = 1 and each of `draws` unit draws, in one batch, with `calls` calls of the model.

    Returns (states, output): `states` is [(t, offset, gain, weights of the draws)] at every call of the model, `output`
    the same for the result (without t).
    """
    recorder = Recorder(lambda x, t, k: model(x, t))
    n = 2 + draws
    x = np.zeros(n, c.dtype)
    x[1] = 1
    noise = np.zeros((draws, n), c.dtype)
    noise[np.arange(draws), 2 + np.arange(draws)] = 1
    out = impl(c.replace(x=x, noise=noise if "noise" in c else None, B=(n,), **{argument: recorder}, **fields))

    if calls is not None:
        recorder.called(expect, calls)

    def parts(y):
        y = np.asarray(y, np.float64)
        return y[0], y[1] - y[0], y[2:] - y[0]

    return [(t, *parts(y)) for y, t in recorder.seen], parts(out)


def moments(parts, mean, variance):
    """Mean and variance of a state from those of the start, by its response."""
    offset, gain, weights = parts
    return offset + gain * mean, gain**2 * variance + np.sum(weights**2)


# Prescribed outputs ----------------------------------------------------------------------------------


def follow(impl, c, expect, table, wide=1.0, argument="model"):
    """The sampler against x' = A x + B m + C l + c z, m told in advance: every state and every t.

    `table` holds rows (t, A, B, C, c, at_x, at_last); shorter ones are filled with 0, 0, 1, 0. The case's `outputs` are
    what the model says, its noise what is drawn (in order, by the rows with c != 0).
    """
    rows = [(*row, *(0.0, 0.0, 0.0, 1.0, 0.0)[len(row) - 2 :]) for row in table]
    outputs = [np.asarray(o, c.dtype) for o in c.outputs]
    recorder = telling(outputs)
    out = impl(c.replace(**{argument: recorder}))
    x = np.asarray(c.x, np.float64)
    last, error, k, drawn = np.zeros_like(x), np.zeros_like(x), 0, 0
    recorder.called(expect, sum(r[0] is not None for r in rows))
    for t, A, B, C, noise, at_x, at_last in rows:
        m, B = last, 0.0 if t is None else B
        if t is not None:
            m = np.asarray(outputs[k % len(outputs)], np.float64)
            seen, when = recorder.seen[k]
            at = at_x * x + at_last * last
            size = np.abs(at_x * x) + np.abs(at_last * last)
            limit = abs(at_x) * error + bounds.rounding(24 * wide, size, c.dtype)
            expect(seen, at, limit, f"x at call {k}", scale=1 + np.max(np.abs(at), initial=0))
            expect(
                float(when),
                float(t),
                bounds.rounding(24, max(abs(t), 1.0), "float64"),
                f"t of call {k}",
                scale=1 + abs(t),
            )
            k += 1
        terms = [A * x, B * m, C * last]
        if noise:
            terms.append(noise * np.asarray(c.noise[drawn], np.float64))
            drawn += 1
        error = abs(A) * error + bounds.rounding(24 * wide, sum(map(np.abs, terms)), c.dtype)
        x, last = sum(terms), m
    expect(out, x, error, "the result", scale=1 + np.max(np.abs(x), initial=0))


def clipped_walk(impl, c, expect, step):
    """A sampler that clips the predicted x_0; step(now, before, x0, x) = (mean, how errors grow, sigma)."""
    outputs = [np.asarray(o, c.dtype) for o in c.outputs]
    recorder = telling(outputs)
    out = impl(c.replace(model=recorder))
    recorder.called(expect, len(ladder(c)))
    x, error = np.asarray(c.x, np.float64), 0.0
    for k, (t, now, before) in enumerate(ladder(c)):
        a, b = math.sqrt(now), math.sqrt(1 - now)
        expect(recorder.seen[k][0], x, error, f"x at step {t}", scale=1e9)
        p, q = to_x0(c.prediction, a, b)
        x0 = np.clip(p * x + q * outputs[k].astype(np.float64), -c.clip, c.clip)
        mean, growth, sigma = step(now, before, x0, x)
        noise = sigma * np.asarray(c.noise[k], np.float64) if sigma and before < 1 else 0.0
        size = (np.abs(x) + np.abs(outputs[k])) * (1 / a + 1 / b) + 4
        error = error * growth + bounds.rounding(200, size, c.dtype) * growth
        x = mean + noise
    expect(out, x, error, "the sample", scale=1e9)
    expect.at_most(np.abs(out), c.clip, "the size of the sample")


def shaped_noise(draws, kind="normal"):
    """A field: `draws(c)` arrays [*B]."""
    return lambda draw, c: np.clip(np.round(rng(draw).standard_normal((draws(c), *c.B)) * 64), -256, 256) / 64


def order_of(errors, ratio=2.0):
    """The order that the last two errors show, the step having been divided by `ratio` between them."""
    return math.log(abs(errors[-2]) / abs(errors[-1])) / math.log(ratio)


# Scores whose Jacobians are known --------------------------------------------------------------------


def constant(values, x):
    """An array as a constant of the backend and dtype of x, which may be a Tensor."""
    data = autodiff.raw(x)
    return backends.namespace(data).from_numpy(np.asarray(values, dtype_of(data)))


class Net:
    """s(x) = V tanh(W x): no symmetric Jacobian, no linear divergence."""

    def __init__(self, d, hidden, seed):
        g = np.random.default_rng(seed)
        self.W, self.V = g.integers(-4, 5, (hidden, d)) / 4, g.integers(-4, 5, (d, hidden)) / 4

    def __call__(self, x, *_):
        return autodiff.namespace(x).tanh(x @ constant(self.W.T, x)) @ constant(self.V.T, x)

    def value(self, x):
        return np.tanh(np.asarray(x, np.float64) @ self.W.T) @ self.V.T

    def jacobian(self, x):
        """J[*B d d]."""
        h = np.tanh(np.asarray(x, np.float64) @ self.W.T)
        return (self.V * (1 - h * h)[..., None, :]) @ self.W

    def slope_of_the_form(self, x, u, v):
        """d (u^T J v) / dx."""
        h = np.tanh(np.asarray(x, np.float64) @ self.W.T)
        return (-2 * h * (1 - h * h) * (u @ self.V) * (v @ self.W.T)) @ self.W

    def slope_of_the_trace(self, x):
        return sum(self.slope_of_the_form(x, e, e) for e in np.eye(self.W.shape[1]))


class Linear:
    """s(x) = -L (x - m)."""

    def __init__(self, L, m):
        self.L, self.m = np.asarray(L, np.float64), np.asarray(m, np.float64)

    def __call__(self, x, *_):
        return (x - constant(self.m, x)) @ constant(-self.L.T, x)

    def value(self, x):
        return -(np.asarray(x, np.float64) - self.m) @ self.L.T

    def jacobian(self, x):
        return np.broadcast_to(-self.L, (*np.shape(x), self.L.shape[0]))


def signs(d):
    """All 2^d vectors of +-1."""
    return np.array(list(itertools.product((1.0, -1.0), repeat=d))).reshape(2**d, d)


# SDEs ------------------------------------------------------------------------------------------------


def plain_vp(t, low=0.1, high=20.0):
    """(drift, diffusion, scale, std) of VP with a linear beta, by Python's math."""
    beta, area = low + t * (high - low), low * t + (high - low) * t * t / 2
    return -beta / 2, math.sqrt(beta), math.exp(-area / 2), math.sqrt(1 - math.exp(-area))


def plain_ve(t, low=0.01, high=50.0):
    """The same of VE, sigma(0)^2 not subtracted."""
    sigma = low * (high / low) ** t
    return 0.0, sigma * math.sqrt(2 * math.log(high / low)), 1.0, sigma


def plain_sub_vp(t, low=0.1, high=20.0):
    """The same of sub-VP."""
    f, g, a, b = plain_vp(t, low, high)
    return f, g * math.sqrt(1 - a**4), a, b * b


def at_times(impl, c, times):
    """The four coefficients at the times, in float64."""
    times = np.asarray(times, np.float64)
    return [np.asarray(v, np.float64) for v in impl(c.replace(t=times, B=times.shape))]


def moment_equations(impl, c, expect, times, h):
    """d scale / dt = f scale and d std^2 / dt = 2 f std^2 + g^2, by differences of the fourth order at step h."""
    times = np.asarray(times, np.float64)
    f, g, a, b = at_times(impl, c, times)
    expect.holds(bool(np.all(a > 0) and np.all(b > 0)), "scale and std are positive inside")
    stencil = [(-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)]
    slopes = [0.0, 0.0]
    for k, weight in stencil:
        _, _, scale, std = at_times(impl, c, times + k * h)
        slopes = [s + weight / h * y for s, y in zip(slopes, (scale, std**2), strict=True)]
    # The stencil's error is h^4 y^(5) / 30; derivatives grow by at most (|f| + g^2 / b^2 + 2) each.
    rate = 2 * np.abs(f) + g**2 / b**2 + np.abs(f[-1]) / 2 + 4
    for name, found, wanted, size in (
        ("scale", slopes[0], f * a, a),
        ("variance", slopes[1], 2 * f * b**2 + g**2, b**2),
    ):  # fmt: skip
        limit = size * (h**4 * rate**5 / 30 + 40 * 2.0**-53 / h) + 1e-12 * np.abs(wanted)
        expect(found, wanted, limit, f"d {name} / dt", scale=np.max(limit) * 4 + np.max(np.abs(wanted)))


# Solvers of the probability flow ---------------------------------------------------------------------


def mild_vp(t):
    """VP with beta from 0.1 to 4, where few steps already show an order."""
    return plain_vp(t, 0.1, 4.0)


def log_snr(sde, t):
    _, _, a, b = sde(t)
    return math.log(a / b)


def even_in_log_snr(sde, first, last, steps):
    """steps + 1 times from first to last with equal steps in ln(scale / std), by bisection."""
    ends = log_snr(sde, first), log_snr(sde, last)
    found = [first]
    for k in range(1, steps):
        wanted, low, high = ends[0] + (ends[1] - ends[0]) * k / steps, min(first, last), max(first, last)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (log_snr(sde, middle) > wanted) else (low, middle)
        found.append((low + high) / 2)
    return np.array([*found, last])


def flow_of_gaussian(sde, mean, variance, x, t, to):
    """x(to) on the exact probability flow of N(mean, variance) from x at t."""
    (_, _, a, b), (_, _, a_to, b_to) = sde(t), sde(to)
    ratio = (a_to**2 * variance + b_to**2) / (a * a * variance + b * b)
    return a_to * mean + math.sqrt(ratio) * (x - a * mean)


def shows_order(run, grids, sde, order, expect, mean=1.5, variance=0.25, within=0.1):
    """run(x, times) on two grids, the second twice as fine, against the exact flow: the order of the error."""
    errors = []
    for times in grids:
        t, to = float(times[0]), float(times[-1])
        _, _, a, _ = sde(t)
        start = a * mean + 0.75
        errors.append(run(start, times) - flow_of_gaussian(sde, mean, variance, start, t, to))
    expect.holds(bool(errors[0] and errors[1] and np.isfinite(errors).all()), "the errors are numbers and not 0")
    expect.at_most(abs(errors[-1]), 0.2, "the error on the finer grid")
    expect(order_of(errors), order, within, "order", scale=4.0)


def returns(run, grids, order, expect, x=0.875, within=0.1):
    """Up the times and down again, on two grids: the order of what is missing to the start."""
    errors = [run(run(x, times[::-1].copy()), times) - x for times in grids]
    expect.holds(bool(errors[0] and errors[1] and np.isfinite(errors).all()), "the errors are numbers and not 0")
    expect.at_most(abs(errors[-1]), 0.2, "what is missing on the finer grid")
    expect(order_of(errors), order, within, "order of the round trip", scale=4.0)


def runner(impl, c, grid="times", **fields):
    """run(x, grid) -> number: the sampler on one sample."""

    def run(x, times):
        out = impl(c.replace(x=np.array([x]), B=(1,), **{grid: np.asarray(times, np.float64)}, **fields))
        return float(out[0])

    return run


def falling_times(low, high):
    """A field: K + 1 falling times of 64ths in [low, high]."""

    def make(draw, c):
        ticks = np.arange(math.ceil(low * 64), int(high * 64) + 1)
        return np.sort(rng(draw).permutation(ticks)[: c.K + 1])[::-1] / 64.0

    return make


def solver_laws(id, given, *, order, back, grid, steps, kills, names):
    """L2 .. L5 of a DPM solver: order, exactness for one point, round trip, agreement of the predictions."""

    def model(c, variance, prediction=None):
        return gaussian(lambda t: mild_vp(t)[2:], 1.5, variance, prediction or c.prediction)

    def grids():
        return [grid(mild_vp, 1.0, 1 / 64, k) for k in steps]

    def of_order(impl, c, expect):
        run = runner(impl, c, sde=mild_vp, model=model(c, 0.25))
        shows_order(run, grids(), mild_vp, order, expect)

    def one_point(impl, c, expect):
        point = gaussian(lambda t: c.sde(t)[2:], 1.5, 0.0, c.prediction)
        x = np.asarray(c.x, np.float64)
        t, to = float(c.times[0]), float(c.times[-1])
        wanted = flow_of_gaussian(c.sde, 1.5, 0.0, x, t, to)
        reach = max(max(c.sde(float(s))[2:]) / c.sde(float(s))[3] for s in c.times if c.sde(float(s))[3] > 0)
        small = min(c.sde(float(s))[2] for s in c.times)
        limit = bounds.rounding(600 * c.K, (np.abs(x) + 9) * reach**2 / small**2, c.dtype)
        expect(impl(c.replace(model=point)), wanted, limit, "the point's flow", scale=1e9)

    def round_trip(impl, c, expect):
        returns(runner(impl, c, sde=mild_vp, model=model(c, 0.25)), grids(), back, expect)

    def agree(impl, c, expect):
        run = {
            p: runner(impl, c, sde=mild_vp, model=model(c, 0.25, p), prediction=p)(0.75, np.linspace(1.0, 0.125, 5))
            for p in ("eps", "x0", "v", "score")
        }
        for p in ("x0", "v", "score"):
            expect(run[p], run["eps"], 1e-11, p, scale=1.0)

    word = {1: "first", 2: "second"}[order]
    of_order.__doc__ = (
        "N(m, s^2), VP, steps even in ln(scale / std) from t = 1 to 1/64: against the exact flow "
        f"of {word} order, within .1."
    )
    one_point.__doc__ = "Data that are one point m: the step is exact on any grid and SDE, a' m + (b' / b) (x - a m)."
    round_trip.__doc__ = f"Up the times and down again is the identity to order {back}, within .1."
    agree.__doc__ = "The exact models of N(m, s^2) that predict eps, x_0, v and the score lead to the same end."
    wide = {"dtypes": DOUBLE}
    bodies = (of_order, one_point, round_trip, agree)
    for label, body, name in zip(("L2", "L3", "L4", "L5"), bodies, names, strict=True):
        body.__name__, body.__module__ = name, f"ref.{id}_laws"
        options = {"closed_form": label != "L5", "kills": kills[label], **wide}
        if label == "L5":
            options["passes_null"] = ("zeros", "constant", "identity")
        law(id, label, given=given, **options)(body)
