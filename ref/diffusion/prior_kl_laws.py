"""Laws and mutants of the bound's last term."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import falling
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.prior_kl"

space = cases(
    ID,
    S=batch(2, 3, large=100),
    N=dims(1, 6),
    alpha_bar=falling,
    flags={
        "none": Flag(lambda c: 0 in c.S, {"S": (0, 2)}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2))}),
        "several": Flag(lambda c: c.N > 1, {"N": dims(2, 6)}),
    },
)
some = space.where(some=True)


def near(c, size):
    return bounds.rounding(40, size, c.dtype)


@law(
    ID, "L1", closed_form=True, given=some.reach("several"),
    kills=["the_other_way_round", "first_step", "log_of_alpha_bar", "bits"],
    passes_null=["mutated"],
)  # fmt: skip
def at_zero_it_is_the_schedules_cost(impl, c, expect):
    "x_0 = 0: -(alpha_bar + ln(1 - alpha_bar)) / 2 at the last step, which is above 0."
    bar = float(c.alpha_bar[-1])
    wanted = -(bar + math.log1p(-bar)) / 2
    out = impl(c.replace(x0=np.zeros(c.S, c.dtype)))
    expect(out, np.full(c.S, wanted), near(c, bar + abs(math.log1p(-bar))), "L_T at 0", scale=1.0)


@law(ID, "L2", closed_form=True, given=some, kills=["the_other_way_round", "root_of_the_signal", "first_step", "bits"])
def second_difference_is_alpha_bar(impl, c, expect):
    "L_T(x + 1) - 2 L_T(x) + L_T(x - 1) = alpha_bar, for every x_0."
    bar = float(c.alpha_bar[-1])
    at = [np.asarray(impl(c.replace(x0=(np.asarray(c.x0) + k).astype(c.dtype))), np.float64) for k in (-1, 0, 1)]
    size = (np.abs(np.asarray(c.x0, np.float64)) + 2) ** 2 + 4
    expect(at[0] - 2 * at[1] + at[2], np.full(c.S, bar), near(c, 4 * size), scale=1e9)


@law(
    ID, "L3", closed_form=True, dtypes=("float64",), given=some.where(S=(2,)),
    kills=["the_other_way_round", "log_of_alpha_bar", "root_of_the_signal"],
)  # fmt: skip
def divergence_by_quadrature(impl, c, expect):
    "E_q[ln q(x) - ln p(x)], q = N(sqrt(alpha_bar) x_0, 1 - alpha_bar), p = N(0, 1), by Gauss and Hermite."
    bar = float(c.alpha_bar[-1])
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    x = bar**0.5 * c.x0[:, None] + (1 - bar) ** 0.5 * nodes
    gap = -(nodes**2) / 2 - math.log(1 - bar) / 2 + x**2 / 2
    expect(impl(c), gap @ weights, near(c, 8 * (1 + np.max(c.x0**2))), "L_T", scale=1e9)


@law(ID, "L4", closed_form=True, needs=("vjp",), given=some, kills=["gradient_doubled"])
def gradient_in_closed_form(impl, c, expect):
    "d L_T / d x_0 = alpha_bar x_0."
    bar = float(c.alpha_bar[-1])
    found = impl.vjp(c, np.ones(c.S, c.dtype))
    x = np.asarray(c.x0, np.float64)
    expect(found["x0"], bar * x, near(c, np.abs(x)), scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def tiny(x=0.0, bar=1e-9, N=2):
    """The default-size test: alpha_bar_T = 0, where nothing is lost."""
    return lambda: ((np.full(3, x), np.full(N, bar)), {})


def cost(x0, bar, signal=lambda b: b):
    bar = float(bar)
    return np.asarray((signal(bar) * x0 * x0 - bar - math.log1p(-bar)) / 2, x0.dtype)


@mutant(ID, default_case=tiny())
def the_other_way_round(x0, alpha_bar):
    "KL(p, q)."
    bar = float(alpha_bar[-1])
    return np.asarray((bar * x0 * x0 + 1) / (1 - bar) / 2 - 0.5 + math.log1p(-bar) / 2, x0.dtype)


@mutant(ID, default_case=tiny())
def first_step(x0, alpha_bar):
    "off-by-one: alpha_bar[-2]."
    return cost(x0, alpha_bar[-2] if len(alpha_bar) > 1 else alpha_bar[-1] / 2)


@mutant(ID, default_case=tiny())
def log_of_alpha_bar(x0, alpha_bar):
    "ln(1 + alpha_bar)."
    bar = float(alpha_bar[-1])
    return np.asarray((bar * x0 * x0 - bar + math.log1p(bar)) / 2, x0.dtype)


@mutant(ID, default_case=tiny())
def root_of_the_signal(x0, alpha_bar):
    "sqrt(alpha_bar) x_0^2."
    return cost(x0, alpha_bar[-1], math.sqrt)


@mutant(ID, default_case=tiny())
def bits(x0, alpha_bar):
    "Bits for nats."
    return cost(x0, alpha_bar[-1]) / np.asarray(math.log(2), x0.dtype)


@mutant(ID, default_case=tiny(), vjp=lambda g, x0, alpha_bar: {"x0": 2 * g * x0 * alpha_bar[-1]})
def gradient_doubled(x0, alpha_bar):
    "The half is forgotten in the gradient."
    return cost(x0, alpha_bar[-1])
