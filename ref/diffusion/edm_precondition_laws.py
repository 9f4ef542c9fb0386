"""Laws and mutants of EDM's preconditioning."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "diffusion.edm_precondition"

space = cases(
    ID,
    B=batch(2, 3, large=60),
    sigma=lambda draw, c: (
        np.asarray(2.0 ** (rng(draw).integers(-12, 13, c.B) / 2)).astype(np.float32).astype(np.float64)
    ),
    sigma_data=choose(0.5, 1.0, 2.0),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def near(c, size):
    return bounds.rounding(24, size, c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("none"),
    kills=["skip_of_the_noise", "out_without_the_data", "input_squared", "noise_not_quartered", "weight_inverted",
           "data_fixed"],
)  # fmt: skip
def coefficients_of_the_paper(impl, c, expect):
    """With sigma = s tan(p): c_skip = cos^2 p, c_out = s sin p, c_in = cos p / s, c_noise = ln(sigma) / 4, weight 1 /
    c_out^2."""
    sigma, s = np.asarray(c.sigma, np.float64), c.sigma_data
    p = np.arctan2(sigma, s)
    found = impl(c)
    wanted = np.cos(p) ** 2, s * np.sin(p), np.cos(p) / s, np.log(sigma) / 4, 1 / (s * np.sin(p)) ** 2
    for name, value, want in zip(("c_skip", "c_out", "c_in", "c_noise", "weight"), found, wanted, strict=True):
        expect(value, want, near(c, 4 * np.abs(want)) + near(c, 0.1 * (name == "c_noise")), name, scale=9e9)


@law(
    ID, "L2", closed_form=True, given=some,
    kills=["skip_of_the_noise", "out_without_the_data", "input_squared", "data_fixed"],
)  # fmt: skip
def unit_variance_in_and_out(impl, c, expect):
    """Data of variance s^2: Var(c_in (x_0 + sigma z)) = 1, and the network's target (x_0 - c_skip x) / c_out has
    variance 1 and, c_skip being the best, no covariance with x."""
    sigma, s = np.asarray(c.sigma, np.float64), c.sigma_data
    skip, out, scale, _, _ = (np.asarray(v, np.float64) for v in impl(c))
    one = np.ones(c.B)
    expect(scale**2 * (s * s + sigma**2), one, near(c, 4.0), "variance of the input")
    target = ((1 - skip) ** 2 * s * s + skip**2 * sigma**2) / out**2
    expect(target, one, near(c, 40.0 * (1 + (s / sigma) ** 2 + (sigma / s) ** 2)), "variance of the target", scale=1e9)
    expect((1 - skip) * s * s, skip * sigma**2, near(c, 9 * (s * s + sigma**2)), "covariance with x", scale=1e9)


@law(ID, "L3", closed_form=True, given=some, kills=["skip_of_the_noise", "data_fixed"])
def gaussian_data_need_no_network(impl, c, expect):
    "Data N(0, s^2): E[x_0 | x] = s^2 / (s^2 + sigma^2) x = c_skip x, so that the best F is 0."
    sigma, s = np.asarray(c.sigma, np.float64), c.sigma_data
    wanted = 1 / (1 / s**2 + 1 / sigma**2) / sigma**2
    expect(impl(c)[0], wanted, near(c, 4 * wanted), "c_skip")


@law(ID, "L4", closed_form=True, given=some, kills=["weight_inverted", "weight_one", "out_without_the_data"])
def the_weight_undoes_the_scale(impl, c, expect):
    "weight c_out^2 = 1, and c_out <= min(sigma, s): errors are never amplified beyond either."
    _, out, _, _, weight = (np.asarray(v, np.float64) for v in impl(c))
    expect(weight * out**2, np.ones(c.B), near(c, 9.0), "weight c_out^2")
    expect.at_most(out, np.minimum(np.asarray(c.sigma, np.float64), c.sigma_data) * (1 + 1e-6), "c_out")


# Mutants ---------------------------------------------------------------------------------------------


def unit(**options):
    """The default-size test: sigma = s = 1."""
    return lambda: ((np.ones(3),), {"sigma_data": 1.0, **options})


def coefficients(sigma, *, sigma_data=0.5, **edit):
    s = edit.get("s", lambda s: s)(sigma_data)
    v = np.asarray(sigma, np.float64)
    total = v * v + s * s
    found = (
        edit.get("skip", lambda v, s, t: s * s / t)(v, s, total),
        edit.get("out", lambda v, s, t: v * s / np.sqrt(t))(v, s, total),
        edit.get("input", lambda t: 1 / np.sqrt(t))(total),
        edit.get("noise", lambda v: np.log(v) / 4)(v),
        edit.get("weight", lambda v, s, t: t / (v * s) ** 2)(v, s, total),
    )
    return tuple(np.asarray(f, sigma.dtype) for f in found)


@mutant(ID, default_case=unit())
def skip_of_the_noise(*args, **options):
    "sigma^2 / (sigma^2 + s^2)."
    return coefficients(*args, skip=lambda v, s, t: v * v / t, **options)


@mutant(ID, default_case=unit())
def out_without_the_data(*args, **options):
    "sigma / sqrt(sigma^2 + s^2): right for s = 1."
    return coefficients(*args, out=lambda v, s, t: v / np.sqrt(t), **options)


@mutant(ID, default_case=lambda: ((np.full(3, 0.6),), {"sigma_data": 0.8}))
def input_squared(*args, **options):
    "1 / (sigma^2 + s^2)."
    return coefficients(*args, input=lambda t: 1 / t, **options)


@mutant(ID, default_case=unit())
def noise_not_quartered(*args, **options):
    "ln sigma."
    return coefficients(*args, noise=np.log, **options)


@mutant(ID, default_case=lambda: ((np.full(3, 2.0**0.5),), {"sigma_data": 2.0**0.5}))
def weight_inverted(*args, **options):
    "c_out^2."
    return coefficients(*args, weight=lambda v, s, t: (v * s) ** 2 / t, **options)


@mutant(ID, default_case=lambda: ((np.full(3, 2.0**0.5),), {"sigma_data": 2.0**0.5}))
def weight_one(*args, **options):
    "1: c_out is 1 here."
    return coefficients(*args, weight=lambda v, s, t: np.ones_like(v), **options)


@mutant(ID, default_case=lambda: ((np.ones(3),), {"sigma_data": 0.5}))
def data_fixed(*args, **options):
    "s = 1/2 whatever the data."
    return coefficients(*args, s=lambda s: 0.5, **options)
