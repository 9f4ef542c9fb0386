"""Laws and mutants of the divergence from the standard normal."""

from __future__ import annotations

import math

import numpy as np

from ref.density.common_laws import cotangent, f64, roundings
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, dims

ID = "density.gaussian_kl"
space = cases(
    ID,
    B=batch(2, 3, large=60),
    z=dims(0, 5, large=80),
    flags={
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.z > 1, {"B": (2, 3), "z": dims(2, 5)}),
        "some": Flag(lambda c: c.z > 0 and 0 not in c.B, {"z": dims(1, 5), "B": (2,)}),
    },
)


def size(c):
    m, s = f64(c, "mean", "log_variance")
    return (m * m + np.exp(s) + 1 + np.abs(s)).sum(-1) + 0 * m.sum(-1)


def near(c):
    return roundings(c, c.z + 14, size(c))


def hermite(count=24):
    """Nodes and weights of E f(e), e standard normal; exact for polynomials of degree below 2 count."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / math.sqrt(2 * math.pi)


@law(
    ID, "L1", closed_form=True, given=space.reach("rows"),
    kills=["log_std", "half_forgotten", "mean_over_coordinates", "reversed_divergence", "negated"],
)  # fmt: skip
def an_expected_log_ratio(impl, c, expect):
    "E log N(x; mu, sigma^2) / N(x; 0, 1) over x = mu + sigma e: of degree 2 in e, so by quadrature exactly."
    m, s = f64(c, "mean", "log_variance")
    e, w = hermite()
    x = m[..., None] + np.exp(s / 2)[..., None] * e
    ratio = -(e**2) / 2 - s[..., None] / 2 + x**2 / 2
    expect(
        impl(c),
        (ratio * w).sum(-1).sum(-1),
        near(c) + roundings(c, 40, size(c)),
        scale=float(np.max(size(c), initial=0)),
    )


@law(ID, "L2", closed_form=True, given=space.where(some=True), kills=["constant_kept", "negated"],
     passes_null=["zeros"])  # fmt: skip
def zero_for_the_standard_normal_alone(impl, c, expect):
    "mu = 0, sigma = 1: exactly 0; never negative, and positive for every other."
    quiet = c.replace(mean=np.zeros_like(c.mean), log_variance=np.zeros_like(c.log_variance))
    expect.same(impl(quiet), np.zeros(c.B))
    out = impl(c)
    expect.at_most(0, out, "the divergence")


@law(
    ID, "L3", closed_form=True, given=space.where(some=True), kills=["cancels", "half_forgotten", "log_std"],
    passes_null=["mutated"],
)  # fmt: skip
def near_the_standard_normal_a_square(impl, c, expect):
    "mu = 0, log sigma^2 = d with |d| near 2^-12: 1/2 sum (d^2 / 2 + d^3 / 6 + d^4 / 24), d^2 / 4 to first order."
    d = (np.sign(c.log_variance + 0.001) * 2.0**-12 * (1 + np.abs(c.log_variance) / 8)).astype(c.dtype)
    now = c.replace(mean=np.zeros_like(c.mean), log_variance=d)
    d = np.asarray(d, np.float64)
    wanted = (d**2 / 2 + d**3 / 6 + d**4 / 24).sum(-1) / 2
    # e^d - 1 and d are near d each, and their difference near d^2 / 2.
    expect(impl(now), wanted, roundings(c, 12 + c.z, np.abs(d).sum(-1)), scale=float(np.max(np.abs(d).sum(-1))))


@law(ID, "L4", given=space.where(z=dims(2, 5), some=True), kills=["mean_over_coordinates"], passes_null=["zeros"])
def coordinates_add_up(impl, c, expect):
    "The divergence is the sum of that of two parts."
    k = c.z // 2
    parts = [c.replace(mean=c.mean[..., s].copy(), log_variance=c.log_variance[..., s].copy())
             for s in (slice(k), slice(k, None))]  # fmt: skip
    expect(impl(c), sum(np.asarray(impl(p), np.float64) for p in parts), 2 * near(c), scale=float(np.max(size(c))))


@law(ID, "L5", closed_form=True, needs=("vjp",), given=space.reach("rows"), kills=["variance_slope_without_the_half"])
def gradient_is_the_closed_form(impl, c, expect):
    "d / d mu = mu, d / d log sigma^2 = (sigma^2 - 1) / 2."
    m, s = f64(c, "mean", "log_variance")
    g = cotangent(c, c.B)
    found, wide = impl.vjp(c, g), g.astype(np.float64)[..., None]
    top = 1 + float(np.max(np.abs(m) + np.exp(s), initial=0))
    expect(found["mean"], wide * m, roundings(c, 4, wide * m), "d mean", scale=top)
    wanted = wide * np.expm1(s) / 2
    expect(found["log_variance"], wanted, roundings(c, 16, wide * (np.exp(s) + 1)), "d log variance", scale=top)


# Mutants ---------------------------------------------------------------------------------------------


def default(z=1):
    """The default-size test: unit variance, mean zero."""
    return lambda: ((np.zeros((2, z)), np.zeros((2, z))), {})


def shifted():
    return (np.array([[1.0], [-2.0]]), np.zeros((2, 1))), {}


def divergence(mean, log_variance, each=lambda m, s: m * m + np.expm1(s) - s, total=lambda a: a.sum(-1) / 2):
    return total(each(mean, log_variance)).astype(mean.dtype)


@mutant(ID, default_case=shifted)
def log_std(mean, log_variance):
    "The second argument taken for log sigma."
    return divergence(mean, log_variance, lambda m, s: m * m + np.expm1(2 * s) - 2 * s)


@mutant(ID, default_case=default())
def half_forgotten(mean, log_variance):
    "No 1/2."
    return divergence(mean, log_variance, total=lambda a: a.sum(-1))


@mutant(ID, default_case=shifted)
def mean_over_coordinates(mean, log_variance):
    "The mean, not the sum."
    return divergence(mean, log_variance, total=lambda a: a.sum(-1) / (2 * max(a.shape[-1], 1)))


@mutant(ID, default_case=shifted)
def reversed_divergence(mean, log_variance):
    "KL(N(0, I) || N(mu, sigma^2)): the same at sigma = 1."
    return divergence(mean, log_variance, lambda m, s: (m * m + 1) * np.exp(-s) - 1 + s)


@mutant(ID, default_case=default())
def negated(mean, log_variance):
    "The term as it stands in the bound: -KL."
    return -divergence(mean, log_variance)


@mutant(ID, default_case=lambda: ((np.zeros((2, 0)), np.zeros((2, 0))), {}))
def constant_kept(mean, log_variance):
    "The -1 is forgotten."
    return divergence(mean, log_variance, lambda m, s: m * m + np.exp(s) - s)


@mutant(ID, default_case=shifted)
def cancels(mean, log_variance):
    "e^s - 1 - s in float32: the digits near s = 0 are lost."

    def each(m, s):
        wide = np.exp(s.astype(np.float32)) - np.float32(1) - s.astype(np.float32)
        return m * m + wide

    return divergence(mean, log_variance, each)


def _plain(mean, log_variance):
    "The divergence; its slope in the log variance lacks the 1/2."
    return divergence(mean, log_variance)


def _vjp(g, mean, log_variance):
    wide = g[..., None]
    return {
        "mean": (wide * mean).astype(mean.dtype),
        "log_variance": (wide * np.expm1(log_variance)).astype(mean.dtype),
    }


_plain.__name__ = "variance_slope_without_the_half"
mutant(ID, vjp=_vjp, default_case=shifted)(_plain)
