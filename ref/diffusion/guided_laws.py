"""Laws and mutants of classifier-free guidance."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose

ID = "diffusion.guided"

space = cases(
    ID,
    S=batch(2, 3, large=100),
    strength=choose(0.0, 1.0, 3.0, 7.5, -0.5, -1.0),
    convention=choose("weight", "scale"),
    flags={
        "none": Flag(lambda c: 0 in c.S, {"S": (0, 2)}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2))}),
    },
)
some = space.where(some=True)


def near(c, s):
    size = np.abs(np.asarray(c.conditional, np.float64)) + np.abs(np.asarray(c.unconditional, np.float64))
    return bounds.rounding(8, (1 + 2 * abs(s)) * size, c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "some"),
    kills=["conventions_swapped", "models_swapped", "always_scale", "difference_alone", "unconditional_not_removed"],
)  # fmt: skip
def landmarks(impl, c, expect):
    "w = 0 or s = 1: conditional; w = -1 or s = 0: unconditional; w = 1 or s = 2: 2 m_c - m_u."
    shift = 0.0 if c.convention == "weight" else 1.0
    m_c, m_u = (np.asarray(x, np.float64) for x in (c.conditional, c.unconditional))
    for w, wanted in ((0.0, m_c), (-1.0, m_u), (1.0, 2 * m_c - m_u)):
        expect(impl(c.replace(strength=w + shift)), wanted, near(c, 2.0), f"w = {w}", scale=9.0)


@law(ID, "L2", given=some.where(convention="weight"), kills=["conventions_swapped", "always_scale"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def scale_is_weight_plus_one(impl, c, expect):
    "Scale s = 1 + w is weight w."
    other = impl(c.replace(strength=1 + c.strength, convention="scale"))
    expect(impl(c), np.asarray(other, np.float64), near(c, c.strength), scale=1e9)


@law(
    ID, "L3", closed_form=True,
    given=some.where(strength=choose(0.5, 1.0, 3.0, 0.0), S=choose((2,), (3,))),
    kills=["models_swapped", "difference_alone", "unconditional_not_removed", "always_scale"],
)  # fmt: skip
def a_product_of_gaussians(impl, c, expect):
    """p(x) = N(0, 1), p(x | c) = N(m, v): the guided score at x is that of p(x) (p(x | c) / p(x))^s, a Gaussian of
    precision s / v + 1 - s and mean s (m / v) over it."""
    s = 1 + c.strength if c.convention == "weight" else c.strength
    x = np.asarray(c.conditional, np.float64)
    m, v = 1.5, 0.25
    precision = s / v + 1 - s
    now = c.replace(conditional=((m - x) / v).astype(c.dtype), unconditional=(-x).astype(c.dtype))
    size = np.abs(m - x) / v + np.abs(x)
    expect(impl(now), -(precision * x - s * m / v), bounds.rounding(16, (1 + s) * size, c.dtype), "score", scale=1e9)


@law(ID, "L4", closed_form=True, needs=("vjp",), given=some, kills=["unconditional_detached"])
def gradients_are_the_weights(impl, c, expect):
    "1 + w and -w, or s and 1 - s."
    s = 1 + c.strength if c.convention == "weight" else c.strength
    found = impl.vjp(c, np.ones(c.S, c.dtype))
    expect(found["conditional"], np.full(c.S, s), bounds.rounding(2, abs(s), c.dtype), "of m_c", scale=9.0)
    expect(found["unconditional"], np.full(c.S, 1 - s), bounds.rounding(2, 1 + abs(s), c.dtype), "of m_u", scale=9.0)


# Mutants ---------------------------------------------------------------------------------------------


def alike(value=1.0, strength=0.0, convention="weight"):
    """The default-size test: both models say the same."""
    return lambda: ((np.full(3, value), np.full(3, value)), {"strength": strength, "convention": convention})


def blend(m_c, m_u, s, by=None):
    return np.asarray(m_u + s * (m_c - m_u), m_c.dtype)


@mutant(ID, default_case=alike())
def conventions_swapped(m_c, m_u, *, strength, convention="weight"):
    "w read as s and s as w."
    return blend(m_c, m_u, strength if convention == "weight" else 1 + strength)


@mutant(ID, default_case=alike())
def always_scale(m_c, m_u, *, strength, convention="weight"):
    "The number is always s."
    return blend(m_c, m_u, strength)


@mutant(ID, default_case=alike())
def models_swapped(m_c, m_u, *, strength, convention="weight"):
    "Pushed away from the condition."
    return blend(m_u, m_c, 1 + strength if convention == "weight" else strength)


@mutant(ID, default_case=alike(0.0))
def difference_alone(m_c, m_u, *, strength, convention="weight"):
    "s (m_c - m_u)."
    s = 1 + strength if convention == "weight" else strength
    return np.asarray(s * (m_c - m_u), m_c.dtype)


@mutant(ID, default_case=alike(0.0))
def unconditional_not_removed(m_c, m_u, *, strength, convention="weight"):
    "(1 + w) m_c."
    s = 1 + strength if convention == "weight" else strength
    return np.asarray(s * m_c, m_c.dtype) + 0 * m_u


def _half(g, m_c, m_u, *, strength, convention="weight"):
    s = 1 + strength if convention == "weight" else strength
    return {"conditional": g * m_c.dtype.type(s), "unconditional": np.zeros_like(g)}


@mutant(ID, default_case=alike(), vjp=_half)
def unconditional_detached(m_c, m_u, *, strength, convention="weight"):
    "No gradient into the unconditional model."
    return blend(m_c, m_u, 1 + strength if convention == "weight" else strength)
