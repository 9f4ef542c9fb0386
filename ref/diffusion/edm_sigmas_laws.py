"""Laws and mutants of EDM's noise levels."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, integer
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "diffusion.edm_sigmas"

space = cases(
    ID,
    N=integer(*range(1, 13), 40),
    sigma_min=choose(0.002, 0.25, 1.0),
    sigma_max=choose(80.0, 4.0, 9.0),
    rho=choose(7.0, 1.0, 2.0, 3.0),
    flags={
        "one": Flag(lambda c: c.N == 1, {"N": integer(1)}),
        "two": Flag(lambda c: c.N == 2, {"N": integer(2)}),
    },
)


def run(impl, c, expect, **fields):
    """The levels, N + 1 of them."""
    found = impl(c.replace(**fields))
    expect.holds(np.shape(found) == (int(c.N) + 1,), f"{int(c.N)} + 1 levels")
    return found


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space.reach("one", "two"),
    kills=["one_level_short", "no_zero", "inverse_exponents", "rho_fixed", "rising", "geometric"],
)  # fmt: skip
def ends_and_equal_steps_of_the_root(impl, c, expect):
    """sigma_0 = sigma_max, sigma_{N-1} = sigma_min (N > 1), sigma_N = 0; the roots sigma^(1 / rho) in between are
    equally spaced."""
    N, found = int(c.N), run(impl, c, expect)
    limit = bounds.rounding(16 * (1 + c.rho), c.sigma_max, "float64")
    expect(found[0], c.sigma_max, limit, "sigma_0")
    expect.same(found[-1], 0.0, "sigma_N")
    if N > 1:
        expect(found[-2], c.sigma_min, bounds.rounding(200, c.sigma_max, "float64"), "sigma_{N-1}", scale=9.0)
        root = np.array([math.exp(math.log(s) / c.rho) for s in found[:-1]])
        step = (c.sigma_min ** (1 / c.rho) - c.sigma_max ** (1 / c.rho)) / (N - 1)
        rounded = bounds.rounding(60, np.max(root) * (c.sigma_max / c.sigma_min) ** (1 - 1 / c.rho), "float64")
        expect(np.diff(root), np.full(N - 1, step), rounded, "a step of the root", scale=9.0)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.where(N=integer(*range(3, 13))),
    kills=["rho_fixed", "inverse_exponents", "geometric", "one_level_short"],
)  # fmt: skip
def linear_and_nearly_geometric(impl, c, expect):
    """rho = 1: sigma_max + i / (N - 1) (sigma_min - sigma_max); rho -> oo: the progression sigma_max (sigma_min /
    sigma_max)^(i / (N - 1)), within ln^2 / rho."""
    part = np.arange(int(c.N)) / (int(c.N) - 1)
    found = run(impl, c, expect, rho=1.0)[:-1]
    expect(found, c.sigma_max + part * (c.sigma_min - c.sigma_max), 1e-13 * c.sigma_max, "rho = 1")
    span = math.log(c.sigma_max / c.sigma_min)
    wide = run(impl, c, expect, rho=1e6)[:-1]
    wanted = c.sigma_max * np.exp(-span * part)
    expect(wide / wanted, np.ones(int(c.N)), span**2 * 1e-6 + 1e-8, "rho = 10^6 against the progression")


# Mutants ---------------------------------------------------------------------------------------------


def one(**options):
    """The default-size test: one step."""
    return lambda: ((np.array(1),), {"sigma_min": 1.0, "sigma_max": 2.0, "rho": 7.0, **options})


def grid(N, *, sigma_min=0.002, sigma_max=80.0, rho=7.0, **edit):
    N = int(N)
    p = edit.get("p", lambda rho: 1 / rho)(rho)
    low, high = sigma_min**p, sigma_max**p
    t = np.arange(N) / edit.get("count", lambda N: max(N - 1, 1))(N)
    found = (high + t * (low - high)) ** (1 / p)
    return np.append(edit.get("levels", lambda f: f)(found), edit.get("last", 0.0))


@mutant(ID, default_case=one())
def one_level_short(*args, **options):
    "off-by-one: i / N, sigma_min is never reached."
    return grid(*args, count=lambda N: N, **options)


@mutant(ID, default_case=one(sigma_min=1e-9, sigma_max=2.0))
def no_zero(*args, **options):
    "sigma_min for 0 at the end: noise is left."
    return grid(*args, last=options.get("sigma_min", 0.002), **options)


@mutant(ID, default_case=one())
def inverse_exponents(*args, **options):
    "sigma^rho equally spaced."
    return grid(*args, p=lambda rho: min(rho, 50.0), **options)


@mutant(ID, default_case=one())
def rho_fixed(*args, **options):
    "rho = 7 always."
    return grid(*args, p=lambda rho: 1 / 7, **options)


@mutant(ID, default_case=one())
def rising(*args, **options):
    "From sigma_min up, then 0."
    return grid(*args, levels=lambda f: f[::-1], **options)


@mutant(ID, default_case=one())
def geometric(N, *, sigma_min=0.002, sigma_max=80.0, rho=7.0):
    "A progression whatever rho is."
    t = np.arange(int(N)) / max(int(N) - 1, 1)
    return np.append(sigma_max * (sigma_min / sigma_max) ** t, 0.0)
