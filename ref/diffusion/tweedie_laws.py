"""Laws and mutants of Tweedie's formula."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import leading, levels_of, over
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose

ID = "diffusion.tweedie"

space = cases(
    ID,
    S=batch(2, 3, large=60),
    T=leading,
    variance_preserving=choose(True, False),
    scale=lambda draw, c: levels_of(draw, c)[0],
    std=lambda draw, c: levels_of(draw, c)[1],
    flags={
        "none": Flag(lambda c: 0 in c.S, {"S": (0, 2)}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
        "per_example": Flag(
            lambda c: len(c.T) == 1 and len(c.S) == 2, {"S": choose((2, 3), (2, 2)), "T": lambda draw, c: c.S[:1]}
        ),
    },
)
some = space.where(some=True)


def near(c, size):
    return bounds.rounding(24, size, c.dtype)


@law(
    ID, "L1", closed_form=True, given=some.reach("per_example"),
    kills=["std_for_variance", "sign", "no_division", "score_of_the_last_axis", "half_a_step"],
)  # fmt: skip
def posterior_mean_of_a_gaussian(impl, c, expect):
    "x_0 ~ N(m, v): m + a v / (a^2 v + b^2) (x - a m), from the score -(x - a m) / (a^2 v + b^2)."
    m, v = 1.5, 0.25
    a, b, x = over(c.scale, c.S), over(c.std, c.S), np.asarray(c.x, np.float64)
    total = a * a * v + b * b
    out = impl(c.replace(score=(-(x - a * m) / total).astype(c.dtype)))
    wanted = m + a * v / total * (x - a * m)
    expect(out, wanted, near(c, (np.abs(x) + a * m) * (1 + b * b / total) / a), scale=1e9)


@law(
    ID, "L2", closed_form=True, given=some, kills=["std_for_variance", "sign", "half_a_step"],
)  # fmt: skip
def two_points_are_a_hyperbolic_tangent(impl, c, expect):
    "Data +-m with equal odds: m tanh(a m x / b^2), from the score (a m tanh(a m x / b^2) - x) / b^2."
    m = 0.75
    a, b, x = over(c.scale, c.S), over(c.std, c.S), np.asarray(c.x, np.float64)
    wanted = m * np.tanh(a * m * x / b**2)
    out = impl(c.replace(score=((a * wanted - x) / b**2).astype(c.dtype)))
    expect(out, wanted, near(c, (2 * np.abs(x) + a * m) / a), scale=1e9)


@law(ID, "L3", closed_form=True, needs=("vjp",), given=some, kills=["score_detached"])
def gradients_are_the_coefficients(impl, c, expect):
    "1 / a and b^2 / a."
    found = impl.vjp(c, np.ones(c.S, c.dtype))
    a, b = over(c.scale, c.S), over(c.std, c.S)
    expect(found["x"], 1 / a, near(c, 1 / a), "of x")
    expect(found["score"], b * b / a, near(c, b * b / a), "of the score")


# Mutants ---------------------------------------------------------------------------------------------


def level(a=1.0, b=1.0, s=0.0, shape=(3,)):
    """The default-size test: no score."""
    return lambda: ((np.ones(shape), np.full(shape, s), np.array(a), np.array(b)), {})


def mean(x, score, scale, std, b2=np.square, divide=lambda a: a):
    a, b = over(scale, x.shape), over(std, x.shape)
    return np.asarray((x + b2(b) * score) / divide(a), x.dtype)


@mutant(ID, default_case=level())
def std_for_variance(*args):
    "x + b s."
    return mean(*args, b2=lambda b: b)


@mutant(ID, default_case=level())
def sign(*args):
    "x - b^2 s."
    return mean(*args, b2=lambda b: -b * b)


@mutant(ID, default_case=level())
def no_division(*args):
    "VE for VP: no division by a."
    return mean(*args, divide=np.ones_like)


@mutant(ID, default_case=level())
def half_a_step(*args):
    "x + b^2 s / 2: a step of the probability flow."
    return mean(*args, b2=lambda b: b * b / 2)


@mutant(ID, default_case=level(shape=(2, 2)))
def score_of_the_last_axis(x, score, scale, std):
    "One level an example, laid along the last axis."
    if scale.ndim == 1 and x.ndim > 1:
        scale, std = (np.broadcast_to(np.resize(v, x.shape[-1]), x.shape) for v in (scale, std))
    return mean(x, score, scale, std)


@mutant(ID, default_case=level(), vjp=lambda g, x, score, scale, std: {
    "x": np.asarray(g / over(scale, x.shape), x.dtype), "score": np.zeros_like(score)})  # fmt: skip
def score_detached(*args):
    "The score is a constant."
    return mean(*args)
