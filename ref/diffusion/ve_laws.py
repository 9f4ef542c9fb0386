"""Laws and mutants of the VE SDE."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, at_times, moment_equations
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "diffusion.ve"

space = cases(
    ID,
    B=batch(2, 3, large=60),
    t=lambda draw, c: np.asarray(rng(draw).integers(0, 65, c.B) / 64.0),
    sigma_min=choose(0.01, 0.25, 1.0),
    sigma_max=choose(50.0, 2.0, 8.0),
    exact=choose(False, True),
    flags={
        "ends": Flag(lambda c: np.any(c.t == 0), {"t": lambda draw, c: np.zeros(c.B)}),
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)


@law(
    ID, "L1", closed_form=True, given=space.reach("ends", "none"),
    kills=["start_kept", "start_always_subtracted", "preserving", "diffusion_is_sigma", "log_not_doubled",
           "linear_in_sigma", "deviations_subtracted"],
)  # fmt: skip
def coefficients_and_kernel(impl, c, expect):
    "f = 0, a = 1; sigma = sigma_min r^t, g = sigma sqrt(2 ln r), b^2 = sigma^2, less sigma_min^2 where exact."
    t, r = np.asarray(c.t, np.float64), c.sigma_max / c.sigma_min
    sigma = c.sigma_min * r**t
    f, g, a, b = impl(c)
    limit = bounds.rounding(16 + 4 * math.log(r), sigma, c.dtype)
    expect.same(f, np.zeros(c.B), "drift")
    expect.same(a, np.ones(c.B), "scale")
    expect(g, sigma * math.sqrt(2 * math.log(r)), limit * math.sqrt(2 * math.log(r)), "diffusion")
    variance = sigma**2 - (c.sigma_min**2 if c.exact else 0)
    expect(np.asarray(b, np.float64) ** 2, variance, 4 * limit * sigma, "std squared", scale=c.sigma_max**2)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.where(some=True),
    kills=["diffusion_is_sigma", "log_not_doubled", "linear_in_sigma", "deviations_subtracted", "preserving"],
)  # fmt: skip
def the_kernel_solves_the_moment_equations(impl, c, expect):
    "d b^2 / dt = g^2; exact: from b(0) = 0."
    moment_equations(impl, c, expect, np.linspace(0.125, 0.9375, 9), 1 / 1024)
    if c.exact:
        expect.same(at_times(impl, c, [0.0])[3], [0.0], "std at 0")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space.where(exact=False),
    kills=["linear_in_sigma", "start_always_subtracted"],
)  # fmt: skip
def levels_in_geometric_progression(impl, c, expect):
    "sigma(0) = sigma_min, sigma(1) = sigma_max, and sigma(t)^2 = sigma(t - h) sigma(t + h)."
    sigma = at_times(impl, c, np.linspace(0, 1, 9))[3]
    limit = bounds.rounding(80, sigma, "float64")
    expect(sigma[[0, -1]], [c.sigma_min, c.sigma_max], limit[[0, -1]], "ends")
    expect(sigma[1:-1] ** 2, sigma[:-2] * sigma[2:], 4 * (limit * sigma)[1:-1], "progression")


# Mutants ---------------------------------------------------------------------------------------------


def unit(t=1.0, **options):
    """The default-size test: almost one level for all t."""
    return lambda: ((np.full(3, t),), {"sigma_min": 1.0, "sigma_max": 1.0 + 1e-7, **options})


def kernel(t, *, sigma_min=0.01, sigma_max=50.0, exact=False, **edit):
    r = sigma_max / sigma_min
    sigma = edit.get("sigma", lambda t, low, r: low * r**t)(t.astype(np.float64), sigma_min, r)
    g = edit.get("g", lambda s, r: s * math.sqrt(2 * math.log(r)))(sigma, r)
    b = edit.get("b", lambda s, low, exact: np.sqrt(s**2 - low**2 * exact))(sigma, sigma_min, exact)
    found = (0 * sigma, g, edit.get("a", np.ones_like)(sigma), b)
    return tuple(np.asarray(v, t.dtype) for v in found)


@mutant(ID, default_case=unit())
def start_kept(*args, **options):
    "exact is ignored."
    return kernel(*args, b=lambda s, low, exact: s, **options)


@mutant(ID, default_case=unit(exact=True))
def start_always_subtracted(*args, **options):
    "sigma(0)^2 subtracted in practice's kernel too."
    return kernel(*args, b=lambda s, low, exact: np.sqrt(s**2 - low**2), **options)


@mutant(ID, default_case=unit(t=0.0, exact=True))
def deviations_subtracted(*args, **options):
    "sigma(t) - sigma(0)."
    return kernel(*args, b=lambda s, low, exact: s - low * exact, **options)


@mutant(ID, default_case=unit(t=0.0, exact=True))
def preserving(*args, **options):
    "VP / VE swapped: a = sqrt(1 - b^2) as far as it goes."
    f, g, a, b = kernel(*args, **options)
    return f, g, np.sqrt(np.maximum(1 - b**2, 0)).astype(a.dtype), b


@mutant(ID, default_case=lambda: ((np.zeros(3),), {"sigma_min": 1.0, "sigma_max": math.exp(0.5)}))
def diffusion_is_sigma(*args, **options):
    "g = sigma: right for ln r = 1/2."
    return kernel(*args, g=lambda s, r: s, **options)


@mutant(ID, default_case=unit(sigma_max=1 + 1e-14))
def log_not_doubled(*args, **options):
    "sqrt(ln r)."
    return kernel(*args, g=lambda s, r: s * math.sqrt(math.log(r)), **options)


@mutant(ID, default_case=unit())
def linear_in_sigma(*args, **options):
    "sigma on a straight line."
    return kernel(*args, sigma=lambda t, low, r: low * (1 + (r - 1) * t), **options)
