"""Laws and mutants of a data set's exact score."""

from __future__ import annotations

import mpmath
import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats

ID = "diffusion.empirical_score"

space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 3),
    n=dims(1, 4, large=30),
    x=floats("*B d"),
    data=floats("n d"),
    std=choose(1.0, 0.5, 2.0, 4.0),
    scale=choose(1.0, 0.5, 0.0),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
        "several": Flag(lambda c: c.n > 1, {"n": dims(2, 4)}),
    },
)
some = space.where(some=True)


def f64(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def near(c, wide=1.0):
    """Logits are off by u |x - y|^2 / b^2 (d + 4) roundings, and so are the weights of |x - y| / b^2."""
    reach = np.max(np.abs(c.x), initial=0) + np.max(np.abs(c.data)) + 1
    logit = c.d * reach**2 / c.std**2
    return bounds.rounding((c.d + 8) * wide * (logit + c.n + 2), reach / c.std**2, c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.where(n=1).reach("none"),
    kills=["std_for_variance", "scale_ignored", "sign", "of_the_clean_density"],
)  # fmt: skip
def one_point(impl, c, expect):
    "n = 1: (a y - x) / b^2."
    x, y = f64(c.x, c.data)
    expect(impl(c), (c.scale * y[0] - x) / c.std**2, near(c), scale=1e9)


@law(
    ID, "L2", closed_form=True, given=some.where(n=2, data=lambda draw, c: np.stack([np.ones(c.d), -np.ones(c.d)])),
    kills=["std_for_variance", "logits_without_the_half", "nearest_alone", "mean_of_all", "sign"],
)  # fmt: skip
def two_points_are_a_hyperbolic_tangent(impl, c, expect):
    "Data +-y: (a y tanh(a x.y / b^2) - x) / b^2."
    (x,) = f64(c.x)
    y = np.ones(c.d)
    tanh = np.tanh(c.scale * (x @ y) / c.std**2)[..., None]
    expect(impl(c), (c.scale * y * tanh - x) / c.std**2, near(c), scale=1e9)


@law(
    ID, "L3", closed_form=True, dtypes=("float64",), given=some.where(B=(), several=True, values=("normal",)),
    kills=["logits_without_the_half", "nearest_alone", "mean_of_all", "of_the_clean_density", "scale_ignored"],
)  # fmt: skip
def gradient_of_the_log_density(impl, c, expect):
    "d/dx ln sum_i e^(-|x - a y_i|^2 / (2 b^2)), by mpmath's differences at 40 digits."
    with mpmath.workdps(40):

        def density(v):
            return mpmath.log(sum(
                mpmath.exp(-sum((v[j] - c.scale * mpmath.mpf(float(y[j]))) ** 2 for j in range(c.d)) / (2 * c.std**2))
                for y in c.data
            ))  # fmt: skip

        wanted = np.zeros(c.d)
        for j in range(c.d):
            v = [mpmath.mpf(float(t)) for t in c.x]
            h = mpmath.mpf(10) ** -15
            up, down = ([*v[:j], v[j] + s * h, *v[j + 1 :]] for s in (1, -1))
            wanted[j] = float((density(up) - density(down)) / (2 * h))
    expect(impl(c), wanted, near(c) + 1e-12, scale=1e9)


@law(
    ID,
    "L4",
    closed_form=True,
    given=some.where(several=True, scale=1.0, std=0.5, d=1),
    kills=["no_shift", "mean_of_all"],
)
def far_away_the_nearest_counts(impl, c, expect):
    "At +-2^10 the score is (y - x) / b^2 with the greatest or the least y: nothing underflows to 0 / 0."
    y = np.arange(float(c.n))[:, None] * 2 - 1
    for sign in (1.0, -1.0):
        now = c.replace(x=np.full((*c.B, 1), sign * 1024, c.dtype), data=y.astype(c.dtype))
        wanted = (sign * np.max(sign * y) - sign * 1024) / 0.25
        expect(impl(now), np.full((*c.B, 1), wanted), bounds.rounding(9, abs(wanted), c.dtype), f"at {sign}")


@law(ID, "L5", given=some, kills=["sum_for_mean"], passes_null=["zeros", "constant", "identity"])
def repeated_data_change_nothing(impl, c, expect):
    "Every point twice, in another order: the same score."
    twice = np.concatenate([c.data, c.data[::-1]])
    out = impl(c)
    expect(impl(c.replace(data=twice, n=2 * c.n)), np.asarray(out, np.float64), near(c, 2.0), scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def at_the_point(n=1, d=2):
    """The default-size test: x on the only point, std 1."""
    return lambda: ((np.ones((3, d)), np.ones((n, d))), {"std": 1.0})


def score(x, data, *, std, scale=1.0, **edit):
    away = scale * data - x[..., None, :]
    logits = -np.sum(away**2, -1, keepdims=True) / (edit.get("two", 2) * std**2)
    top = np.max(logits, -2, keepdims=True) if edit.get("shift", True) else 0
    w = edit.get("weigh", lambda e: e)(np.exp(logits - top))
    total = np.sum(w, -2)
    total = np.where(total == 0, 1, total)
    mean = edit.get("mean", lambda w, y, total: np.sum(w * y, -2) / total)(w, away, total)
    return np.asarray(edit.get("sign", 1) * mean / edit.get("b2", lambda b: b * b)(std), x.dtype)


@mutant(ID, default_case=at_the_point())
def std_for_variance(*args, **options):
    "Divided by b."
    return score(*args, b2=lambda b: b, **options)


@mutant(ID, default_case=at_the_point())
def scale_ignored(x, data, *, std, scale=1.0):
    "a = 1."
    return score(x, data, std=std)


@mutant(ID, default_case=at_the_point())
def sign(*args, **options):
    "(x - mean) / b^2."
    return score(*args, sign=-1, **options)


@mutant(ID, default_case=at_the_point())
def of_the_clean_density(x, data, *, std, scale=1.0):
    "x is scaled too: the score at a x."
    return score(scale * x, data, std=std, scale=scale)


@mutant(ID, default_case=at_the_point())
def logits_without_the_half(*args, **options):
    "e^(-|x - y|^2 / b^2)."
    return score(*args, two=1, **options)


@mutant(ID, default_case=at_the_point())
def nearest_alone(*args, **options):
    "The nearest point has all the weight."
    return score(*args, weigh=lambda e: (e == 1).astype(float), **options)


@mutant(ID, default_case=at_the_point())
def mean_of_all(*args, **options):
    "All points weigh alike."
    return score(*args, weigh=np.ones_like, **options)


@mutant(ID, default_case=at_the_point())
def no_shift(*args, **options):
    "The exponentials as they are: 0 far away."
    return score(*args, shift=False, **options)


@mutant(ID, default_case=at_the_point())
def sum_for_mean(*args, **options):
    "Weights that add up to their number at the nearest point, a kernel density without its count."
    return score(*args, mean=lambda w, y, total: np.sum(w * y, -2), **options)
