"""Laws and mutants of the VP SDE."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, at_times, moment_equations
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "diffusion.vp"

space = cases(
    ID,
    B=batch(2, 3, large=60),
    t=lambda draw, c: np.asarray(rng(draw).integers(0, 65, c.B) / 64.0),
    beta_min=choose(0.1, 0.5, 2.0),
    beta_max=choose(20.0, 5.0, 0.25),
    flags={
        "ends": Flag(lambda c: np.any(c.t == 0), {"t": lambda draw, c: np.zeros(c.B)}),
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)


def area(c, t):
    """int_0^t beta by Simpson, exact for a line."""
    beta = lambda s: c.beta_min + s * (c.beta_max - c.beta_min)  # noqa: E731
    return t / 6 * (beta(0) + 4 * beta(t / 2) + beta(t))


@law(
    ID,
    "L1",
    closed_form=True,
    given=space.reach("ends", "none"),
    kills=[
        "beta_for_its_integral",
        "exploding",
        "half_missing",
        "variance_for_std",
        "diffusion_is_beta",
        "of_the_square",
        "sub_vp",
    ],
)
def coefficients_and_kernel(impl, c, expect):
    "f = -beta / 2, g^2 = beta, a^2 = e^(-B), b^2 = 1 - e^(-B), B by Simpson's rule."
    t = np.asarray(c.t, np.float64)
    beta, B = c.beta_min + t * (c.beta_max - c.beta_min), area(c, t)
    f, g, a, b = impl(c)
    top = max(c.beta_min, c.beta_max)
    expect(f, -beta / 2, bounds.rounding(8, top, c.dtype), "drift", scale=top)
    expect(np.asarray(g, np.float64) ** 2, beta, bounds.rounding(24, top, c.dtype), "diffusion squared", scale=top)
    limit = bounds.rounding(12 + 8 * top, 1.0, c.dtype)
    expect(np.asarray(a, np.float64) ** 2, np.exp(-B), limit, "scale squared", scale=1.0)
    expect(np.asarray(b, np.float64) ** 2, -np.expm1(-B), limit * (-np.expm1(-B) + B), "std squared", scale=1.0)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.where(some=True),
    kills=["beta_for_its_integral", "half_missing", "variance_for_std", "diffusion_is_beta", "of_the_square"],
)  # fmt: skip
def the_kernel_solves_the_moment_equations(impl, c, expect):
    "d a / dt = f a and d b^2 / dt = 2 f b^2 + g^2."
    moment_equations(impl, c, expect, np.linspace(0.125, 0.9375, 9), 1 / 1024)


@law(
    ID, "L3", closed_form=True, given=space, kills=["variance_for_std", "exploding", "sub_vp"],
)  # fmt: skip
def variance_is_preserved(impl, c, expect):
    "a^2 + b^2 = 1 at every t: unit data stay unit."
    _, _, a, b = (np.asarray(v, np.float64) for v in impl(c))
    limit = bounds.rounding(24 + 8 * max(c.beta_min, c.beta_max), 1.0, c.dtype)
    expect(a**2 + b**2, np.ones(c.B), limit, "a^2 + b^2")


@law(ID, "L4", closed_form=True, dtypes=DOUBLE, given=space.where(some=True), kills=["half_missing", "of_the_square"])
def limit_of_ddpm(impl, c, expect):
    """N steps with beta_i = beta(i / N) / N: prod(1 - beta_i) -> a(1)^2, within int beta^2 / (2 N) and what the
    grid's ends give, (b_1 - b_0) / (2 N)."""
    N = 2000
    grid = np.linspace(c.beta_min / N, c.beta_max / N, N)
    bar = math.exp(math.fsum(np.log1p(-grid)))
    a = at_times(impl, c, [1.0])[2][0]
    b0, b1 = c.beta_min, c.beta_max
    defect = -(b0 * b0 + b0 * b1 + b1 * b1) / 6 / N
    expect(math.log(bar) - 2 * math.log(max(a, 1e-300)), defect, 8 * max(b0, b1) ** 3 / N**2, "ln", scale=9.0)


# Mutants ---------------------------------------------------------------------------------------------


def start(**options):
    """The default-size test: t = 0 with beta 1."""
    return lambda: ((np.zeros(3),), {"beta_min": 1.0, "beta_max": 1.0, **options})


def kernel(t, *, beta_min=0.1, beta_max=20.0, **edit):
    beta = beta_min + t * (beta_max - beta_min)
    B = edit.get("area", lambda t, b, low, high: low * t + (high - low) * t * t / 2)(t, beta, beta_min, beta_max)
    found = (
        edit.get("f", lambda b: -b / 2)(beta), edit.get("g", np.sqrt)(beta),
        edit.get("a", lambda B: np.exp(-B / 2))(B), edit.get("b", lambda B: np.sqrt(-np.expm1(-B)))(B),
    )  # fmt: skip
    return tuple(np.asarray(v, t.dtype) + np.zeros_like(t) for v in found)


@mutant(ID, default_case=start())
def beta_for_its_integral(*args, **options):
    "B = beta(t) t."
    return kernel(*args, area=lambda t, b, low, high: b * t, **options)


@mutant(ID, default_case=start())
def of_the_square(*args, **options):
    "B without the half of the quadratic term."
    return kernel(*args, area=lambda t, b, low, high: low * t + (high - low) * t * t, **options)


@mutant(ID, default_case=start())
def half_missing(*args, **options):
    "a = e^(-B)."
    return kernel(*args, a=lambda B: np.exp(-B), **options)


@mutant(ID, default_case=start())
def exploding(*args, **options):
    "VP / VE swapped: a = 1."
    return kernel(*args, a=np.ones_like, **options)


@mutant(ID, default_case=start())
def variance_for_std(*args, **options):
    "b = 1 - e^(-B)."
    return kernel(*args, b=lambda B: -np.expm1(-B), **options)


@mutant(ID, default_case=start())
def sub_vp(t, **options):
    "sub-VP's kernel and diffusion."
    f, g, a, b = kernel(t, **options)
    return f, np.asarray(np.where(t == 0, g, g * np.sqrt(1 - a**4)), t.dtype), a, b * b


@mutant(ID, default_case=start())
def diffusion_is_beta(*args, **options):
    "g = beta."
    return kernel(*args, g=lambda b: b, **options)
