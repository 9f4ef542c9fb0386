"""Laws and mutants of the evidence lower bound."""

from __future__ import annotations

import numpy as np

from ref.density.common_laws import (
    WHOLE,
    bits,
    cotangent,
    direction_of,
    log_bernoulli,
    roundings,
    sigmoid,
    strings,
)
from ref.density.vae_elbo import SHAPES
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, dims, rng

ID = "density.vae_elbo"


def draw_params(draw, c):
    """Numbers near 1/2, so that codes stay near the prior."""
    g, sizes = rng(draw), {"n": c.n, "z": c.z, "E": c.E, "D": c.D}
    return {name: np.clip(np.round(g.standard_normal([sizes[a] for a in axes.split()]) * 8), -16, 16) / 16
            for name, axes in SHAPES.items()}  # fmt: skip


space = cases(
    ID,
    B=batch(2, 3, large=40),
    n=dims(1, 4, large=30),
    z=dims(1, 3, large=10),
    E=dims(1, 3, large=20),
    D=dims(1, 3, large=20),
    x=bits,
    params=draw_params,
    flags={
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.n > 1 and c.z > 1,
                     {"B": (2, 3), "n": dims(2, 4), "z": dims(2, 3)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": (2,)}),
    },
)  # fmt: skip
some = space.where(some=True)


def wide(c, kind=np.float64):
    return {n: a.astype(kind) for n, a in c.params.items()}


def coded(x, p):
    """(mean, log variance) of the encoder, a unit at a time."""
    h = np.tanh(_affine(x, p, "encoder.hidden"))
    return _affine(h, p, "encoder.mean"), _affine(h, p, "encoder.log_variance")


def _affine(x, p, name):
    W, b = p[f"{name}.weight"], p[f"{name}.bias"]
    return np.stack([b[k] + sum(W[k, j] * x[..., j] for j in range(W.shape[1])) for k in range(len(b))], -1)


def decoded(z, p):
    return _affine(np.tanh(_affine(z, p, "decoder.hidden")), p, "decoder.logits")


def soft(z):
    """log(1 + e^z), real or complex."""
    return np.where(z.real > 0, z, 0) + np.log1p(np.exp(np.where(z.real > 0, -z, z)))


def slow(x, noise, p, *, spread=lambda s: np.exp(s / 2), variance=lambda s: s, pixels=1.0, codes=1.0, sign=1,
         noisy=True, act=np.tanh):  # fmt: skip
    """(ELBO, divergence) from the equations, with parts that an edit replaces."""
    mean, s = coded(x, p)
    z = mean + (spread(s) * noise if noisy else 0)
    logits = _affine(act(_affine(z, p, "decoder.hidden")), p, "decoder.logits")
    v = variance(s)
    divergence = (mean * mean + np.exp(v) - 1 - v).sum(-1) / 2 / codes
    return (x * logits - soft(logits)).sum(-1) / pixels - sign * divergence, divergence


def bound(c):
    kinds = (np.float64, np.longdouble) if c.dtype == np.float64 else (np.float32, np.float64)
    at = [slow(c.x.astype(k), c.noise.astype(k), wide(c, k)) for k in kinds]
    lost = max(float(np.max(np.abs(a.astype(kinds[1]) - b), initial=0)) for a, b in zip(*at, strict=True))
    # A tanh or an exponential of ours may be off by 4 ulp of itself, which the weights behind it enlarge.
    gain = 1 + sum(float(np.abs(a).sum()) for a in wide(c).values())
    size = np.abs(at[1][0].astype(np.float64)) + at[1][1].astype(np.float64) + c.n + c.z
    return 4 * lost + roundings(c, 4 * (c.n + c.z + c.E + c.D) + 40, size * gain)


def scale(c):
    return float(c.n + np.max(np.abs(slow(c.x, c.noise, wide(c))[0]), initial=0)) + c.z


@law(
    ID, "L1", closed_form=True, given=space.reach("rows"),
    kills=["mean_over_the_pixels", "divergence_added", "mean_over_the_code", "encoder_gives_log_std"],
)  # fmt: skip
def silent_decoder_is_the_divergence_alone(impl, c, expect):
    """W_2 = 0: the decoder is p(x) = prod_i Bernoulli(b_i), so ELBO = log p(x) - KL(q || N(0, I)); and where W_4 = W_5
    = 0 the code is the same for all x."""
    quiet = ("decoder.logits.weight", "encoder.mean.weight", "encoder.log_variance.weight")
    c = c.replace(params={n: np.zeros_like(a) if n in quiet else a for n, a in c.params.items()})
    p, x = wide(c), np.asarray(c.x, np.float64)
    m, s = p["encoder.mean.bias"], p["encoder.log_variance.bias"]
    divergence = np.full(c.B, np.sum(m * m + np.exp(s) - 1 - s) / 2)
    wanted = log_bernoulli(x, p["decoder.logits.bias"]).sum(-1) - divergence
    elbo, found = impl(c)
    expect(elbo, wanted, bound(c), "ELBO", scale=scale(c))
    expect(found, divergence, bound(c), "divergence", scale=scale(c))


NODES = np.arange(-144, 145) / 16.0
WEIGHTS = np.exp(-(NODES**2) / 2) / np.sqrt(2 * np.pi) / 16


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE, given=some.where(z=1, values=("dyadic",)),
    kills=["noise_times_the_variance", "no_noise", "divergence_added", "mean_over_the_pixels",
           "encoder_gives_log_std"],
)  # fmt: skip
def the_gap_is_the_divergence_from_the_posterior(impl, c, expect):
    """z = 1: log p(x) - E ELBO = KL(q(z | x) || p(z | x)), each side by the trapezoid rule over 289 nodes: the noise on
    one side, q log (q p(x) / (p(z) p(x | z))) on the other. Exact to rounding, as the integrands are analytic and
    the nodes close."""
    row = c.x.reshape(-1, c.n)[:1]
    x = np.repeat(row, len(NODES), 0)
    elbo, _ = impl(c.replace(x=x, noise=NODES[:, None].astype(c.dtype), B=(len(NODES),)))
    p = wide(c)

    def likelihood(z):
        return log_bernoulli(x, decoded(z[:, None], p)).sum(-1)

    evidence = np.log(np.sum(WEIGHTS * np.exp(likelihood(NODES))))
    mean, s = (float(a[0, 0]) for a in coded(row.astype(np.float64), p))
    z = mean + np.exp(s / 2) * NODES
    log_q, log_prior = -(NODES**2) / 2 - s / 2, -(z**2) / 2
    gap = np.sum(WEIGHTS * (log_q - log_prior - likelihood(z) + evidence))
    expect.at_most(-1e-9, gap, "the divergence from the posterior")
    expect(evidence - np.sum(WEIGHTS * np.asarray(elbo, np.float64)), gap, 1e-9, "log p(x) - E ELBO", scale=1.0)


@law(
    ID, "L3", given=some.reach("rows"), kills=["divergence_at_the_sample"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def the_divergence_has_no_noise(impl, c, expect):
    "Other noise: the same bits of the divergence."
    expect.same(impl(c.replace(noise=c.noise[..., ::-1] * 2 + 1))[1], impl(c)[1], "divergence")


@law(
    ID, "L4", closed_form=True, given=some.where(n=dims(1, 4)), kills=["mean_over_the_pixels", "divergence_added"],
)  # fmt: skip
def fixed_code_sums_to_one(impl, c, expect):
    "W_4 = W_5 = 0 and one noise: sum over all 2^n strings of e^{ELBO + KL} = sum of p(x | z) = 1."
    quiet = ("encoder.mean.weight", "encoder.log_variance.weight")
    x = strings(c.n, c.dtype)
    noise = np.repeat(c.noise.reshape(-1, c.z)[:1], len(x), 0)
    now = c.replace(
        x=x, noise=noise, B=(len(x),), params={n: np.zeros_like(a) if n in quiet else a for n, a in c.params.items()}
    )
    elbo, divergence = (np.asarray(a, np.float64) for a in impl(now))
    expect(np.exp(elbo + divergence).sum(), 1.0, 4 * float(np.max(bound(now))), "sum of p(x | z)")


@law(
    ID, "L5", closed_form=True, given=space.reach("rows"),
    kills=["noise_times_the_variance", "no_noise", "mean_over_the_code", "sigmoid_units", "encoder_gives_log_std"],
)  # fmt: skip
def networks_written_out(impl, c, expect):
    "The equations in the header, a unit at a time, in extended precision."
    k = np.longdouble
    elbo, divergence = impl(c)
    wanted = slow(c.x.astype(k), c.noise.astype(k), wide(c, k))
    expect(elbo, wanted[0].astype(np.float64), bound(c), "ELBO", scale=scale(c))
    expect(divergence, wanted[1].astype(np.float64), bound(c), "divergence", scale=scale(c))


@law(
    ID, "L6", needs=("vjp",), given=some.reach("rows"), dtypes=WHOLE,
    kills=["code_cut_off", "noise_scale_cut_off", "divergence_has_no_gradient"],
)  # fmt: skip
def gradient_is_the_slope(impl, c, expect):
    "<gradient of ELBO, u> is the complex-step slope of the equations along u, for every parameter, noise held."
    g = cotangent(c, c.B)
    found = impl.vjp(c, (g, np.zeros(c.B, c.dtype)))["params"]
    p, x, noise = wide(c), np.asarray(c.x, np.float64), np.asarray(c.noise, np.float64)
    gain = 1 + sum(float(np.abs(a).sum()) for a in p.values())
    for name in SHAPES:
        u = direction_of(p[name])
        terms = g * slow(x, noise, {**p, name: p[name] + 1e-30j * u})[0].imag / 1e-30
        size = gain**2 * (1 + np.abs(noise).sum()) * (1 + np.abs(terms).sum()) * (1 + np.exp(scale(c) / 8))
        limit = roundings(c, 8 * (c.n + c.z + c.E + c.D) + 80, size)
        expect(np.vdot(found[name], u), terms.sum(), limit, f"slope along {name}", scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def default(n=1, z=1, **given):
    """The default-size test: a fresh model, whose code is the prior and whose decoder says nothing."""

    def make():
        g, sizes = np.random.default_rng(0), {"n": n, "z": z, "E": 3, "D": 3}
        params = {name: g.standard_normal([sizes[a] for a in axes.split()]) for name, axes in SHAPES.items()}
        quiet = [n for n in SHAPES if n.startswith(("encoder.mean", "encoder.log_variance", "decoder.logits.weight"))]
        params |= {n: np.zeros_like(params[n]) for n in quiet}
        return (g.integers(0, 2, (4, n)).astype(float), g.standard_normal((4, z)), params), {}

    return make


def scored(x, noise, params, **edit):
    return tuple(a.astype(x.dtype) for a in slow(x, noise, params, **edit))


@mutant(ID, default_case=default())
def mean_over_the_pixels(x, noise, params):
    "log p(x | z) over n: the divergence weighs n times too much."
    return scored(x, noise, params, pixels=x.shape[-1])


@mutant(ID, default_case=default())
def mean_over_the_code(x, noise, params):
    "The divergence over the size of the code."
    return scored(x, noise, params, codes=noise.shape[-1])


@mutant(ID, default_case=default())
def divergence_added(x, noise, params):
    "log p(x | z) + KL: a sign lost on the way to a loss."
    return scored(x, noise, params, sign=-1)


@mutant(ID, default_case=default())
def encoder_gives_log_std(x, noise, params):
    "The second head is log sigma in the divergence and in the code."
    return scored(x, noise, params, spread=np.exp, variance=lambda s: 2 * s)


@mutant(ID, default_case=default())
def noise_times_the_variance(x, noise, params):
    "z = mu + sigma^2 e: the same at sigma = 1."
    return scored(x, noise, params, spread=np.exp)


@mutant(ID, default_case=default())
def no_noise(x, noise, params):
    "z = mu: a plain autoencoder with a penalty."
    return scored(x, noise, params, noisy=False)


@mutant(ID, default_case=default())
def sigmoid_units(x, noise, params):
    "sigma for tanh in the decoder."
    return scored(x, noise, params, act=sigmoid)


@mutant(ID, default_case=lambda: _at_the_mean())
def divergence_at_the_sample(x, noise, params):
    "log q(z) - log p(z) at the sample instead of its mean over the noise."
    elbo, divergence = slow(x, noise, params)
    mean, s = coded(x, params)
    z = mean + np.exp(s / 2) * noise
    sampled = ((z * z - noise * noise - s) / 2).sum(-1)
    return (elbo + divergence - sampled).astype(x.dtype), sampled.astype(x.dtype)


def _at_the_mean():
    (x, noise, params), options = default()()
    return (x, noise, {n: np.zeros_like(a) if n.startswith("encoder") else a for n, a in params.items()}), options


def _vjp_mutant(name, doc, edit):
    """A backward through the equations with one path cut: the slopes of `edit`, a direction at a time."""

    def function(x, noise, params):
        return scored(x, noise, params)

    def vjp(g, x, noise, params):
        out = {}
        for key, a in params.items():
            out[key] = np.zeros(a.shape)
            for at in np.ndindex(a.shape):
                u = np.zeros(a.shape, complex)
                u[at] = 1e-30j
                moved = edit(x, noise, {**params, key: a + u}, params)
                out[key][at] = sum(float((w * m.imag).sum()) / 1e-30 for w, m in zip(g, moved, strict=True))
        return {"params": {k: v.astype(x.dtype) for k, v in out.items()}}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


def _held(x, noise, moved, params, mean_held, spread_held):
    m, s = coded(x, moved)
    m0, s0 = coded(x, params)
    z = (m0 if mean_held else m) + np.exp((s0 if spread_held else s) / 2) * noise
    logits = decoded(z, moved)
    divergence = (m * m + np.exp(s) - 1 - s).sum(-1) / 2
    return (x * logits - soft(logits)).sum(-1) - divergence, divergence


def _no_divergence(x, noise, moved, params):
    elbo, divergence = slow(x, noise, moved)
    return elbo + divergence, 0 * divergence


_vjp_mutant("code_cut_off", "The sample is a constant for the encoder: no reparametrisation.",
            lambda *a: _held(*a, True, True))  # fmt: skip
_vjp_mutant("noise_scale_cut_off", "sigma is a constant in the sample.", lambda *a: _held(*a, False, True))
_vjp_mutant("divergence_has_no_gradient", "The divergence is reported and not trained.", _no_divergence)
