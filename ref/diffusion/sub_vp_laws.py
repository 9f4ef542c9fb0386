"""Laws and mutants of the sub-VP SDE."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import DOUBLE, moment_equations
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "diffusion.sub_vp"

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


def parts(c):
    """(beta, B) at the case's times, B by Simpson's rule."""
    t = np.asarray(c.t, np.float64)
    beta = lambda s: c.beta_min + s * (c.beta_max - c.beta_min)  # noqa: E731
    return beta(t), t / 6 * (beta(0) + 4 * beta(t / 2) + beta(t))


@law(
    ID, "L1", closed_form=True, given=space.reach("ends", "none"),
    kills=["vp", "root_of_the_variance", "one_e_fold", "half_missing", "diffusion_of_the_kernel"],
)  # fmt: skip
def coefficients_and_kernel(impl, c, expect):
    "f = -beta / 2, g^2 = beta (1 - e^(-2 B)), a^2 = e^(-B), b = 1 - e^(-B)."
    beta, B = parts(c)
    f, g, a, b = (np.asarray(v, np.float64) for v in impl(c))
    top = max(c.beta_min, c.beta_max)
    limit = bounds.rounding(16 + 8 * top, 1.0, c.dtype)
    expect(f, -beta / 2, bounds.rounding(8, top, c.dtype), "drift", scale=top)
    expect(g**2, beta * -np.expm1(-2 * B), limit * beta, "diffusion squared", scale=top)
    expect(a**2, np.exp(-B), limit, "scale squared", scale=1.0)
    expect(b, -np.expm1(-B), limit * (B - np.expm1(-B)), "std", scale=1.0)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.where(some=True),
    kills=["root_of_the_variance", "one_e_fold", "half_missing", "diffusion_of_the_kernel"],
)  # fmt: skip
def the_kernel_solves_the_moment_equations(impl, c, expect):
    "d a / dt = f a and d b^2 / dt = 2 f b^2 + g^2."
    moment_equations(impl, c, expect, np.linspace(0.125, 0.9375, 9), 1 / 1024)


@law(ID, "L3", closed_form=True, given=space.where(some=True), kills=["vp", "root_of_the_variance"])
def variance_at_most_that_of_vp(impl, c, expect):
    "b = 1 - a^2, so b^2 <= 1 - a^2 of VP; g^2 <= beta."
    beta, _ = parts(c)
    _, g, a, b = (np.asarray(v, np.float64) for v in impl(c))
    limit = bounds.rounding(24 + 8 * max(c.beta_min, c.beta_max), 1.0, c.dtype)
    expect(b, 1 - a**2, limit, "b against 1 - a^2", scale=1.0)
    expect.at_most(b**2, 1 - a**2 + limit, "b^2")
    expect.at_most(g**2, beta * (1 + limit), "g^2")


# Mutants ---------------------------------------------------------------------------------------------


def start(**options):
    """The default-size test: t = 0."""
    return lambda: ((np.zeros(3),), {"beta_min": 1.0, "beta_max": 1.0, **options})


def kernel(t, *, beta_min=0.1, beta_max=20.0, **edit):
    beta, B = beta_min + t * (beta_max - beta_min), beta_min * t + (beta_max - beta_min) * t * t / 2
    found = (
        -beta / 2, edit.get("g", lambda beta, B: np.sqrt(beta * -np.expm1(-2 * B)))(beta, B),
        edit.get("a", lambda B: np.exp(-B / 2))(B), edit.get("b", lambda B: -np.expm1(-B))(B),
    )  # fmt: skip
    return tuple(np.asarray(v, t.dtype) for v in found)


@mutant(ID, default_case=lambda: ((np.full(3, 1.0),), {"beta_min": 40.0, "beta_max": 40.0}))
def vp(*args, **options):
    "VP's: the same far out."
    return kernel(*args, g=lambda beta, B: np.sqrt(beta), b=lambda B: np.sqrt(-np.expm1(-B)), **options)


@mutant(ID, default_case=start())
def root_of_the_variance(*args, **options):
    "b = sqrt(1 - e^(-B)) with sub-VP's diffusion."
    return kernel(*args, b=lambda B: np.sqrt(-np.expm1(-B)), **options)


@mutant(ID, default_case=start())
def one_e_fold(*args, **options):
    "g^2 = beta (1 - e^(-B))."
    return kernel(*args, g=lambda beta, B: np.sqrt(beta * -np.expm1(-B)), **options)


@mutant(ID, default_case=start())
def half_missing(*args, **options):
    "a = e^(-B)."
    return kernel(*args, a=lambda B: np.exp(-B), **options)


@mutant(ID, default_case=start())
def diffusion_of_the_kernel(*args, **options):
    "g = sqrt(beta) (1 - e^(-2 B))."
    return kernel(*args, g=lambda beta, B: np.sqrt(beta) * -np.expm1(-2 * B), **options)
