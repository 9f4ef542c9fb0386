"""Laws and mutants of the exact model of Gaussian data."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "diffusion.gaussian_model"


def covariance(draw, c):
    """Symmetric, eighths, of rank c.rank: a triangle times its transpose."""
    L = np.tril(rng(draw).integers(-4, 5, (c.d, c.d)) / 4.0)
    L[np.arange(c.d), np.arange(c.d)] = 0.5 + rng(draw).integers(0, 4, c.d) / 4
    return L[:, : c.d - c.lacks] @ L[:, : c.d - c.lacks].T if c.d > c.lacks else np.zeros((c.d, c.d))


space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 4),
    lacks=choose(0, 1, 4),
    x=floats("*B d"),
    mean=floats("d"),
    cov=covariance,
    scale=choose(0.8, 1.0, 0.28, 0.0),
    std=choose(0.6, 2.0, 0.96, 1.0),
    prediction=choose("score", "eps", "x0", "v"),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "singular": Flag(
            lambda c: c.d > 1 and np.linalg.matrix_rank(c.cov) < c.d, {"d": dims(2, 4), "lacks": choose(1, 4)}
        ),
        "correlated": Flag(lambda c: np.any(c.cov - np.diag(np.diag(c.cov))), {"d": dims(2, 4), "lacks": 0}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def f64(c):
    return [np.asarray(c[n], np.float64) for n in ("x", "mean", "cov")]


def by_conditioning(c, cov=None):
    """E[x_0 | x] and E[z | x] from the joint covariance of (x_0, z, x), by its eigenvectors."""
    x, m, S = f64(c)
    S = S if cov is None else cov
    a, b = c.scale, c.std
    values, U = np.linalg.eigh(S)
    off = (x - a * m) @ U
    total = a * a * np.maximum(values, 0) + b * b
    return m + (off * (a * values / total)) @ U.T, (off * (b / total)) @ U.T


def near(c, wide=1.0):
    x, m, S = f64(c)
    size = np.max(np.abs(x), initial=0) + np.max(np.abs(m)) + 1
    condition = 1 + c.scale**2 * np.abs(S).sum() / c.std**2
    return bounds.rounding(60 * c.d, wide * size * condition**2 * (1 + 1 / c.std**2 + c.std), c.dtype)


def wanted_of(c, x0, eps):
    return {"score": -eps / c.std, "eps": eps, "x0": x0, "v": c.scale * eps - c.std * x0}[c.prediction]


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "singular", "correlated"),
    kills=["diagonal_alone", "std_for_variance", "mean_not_scaled", "score_of_the_clean_density", "sign",
           "scale_for_its_square"],
)  # fmt: skip
def conditional_mean_by_the_joint(impl, c, expect):
    "E[x_0 | x], E[z | x], v = a E[z] - b E[x_0] or -E[z] / b, in the eigenbasis of S."
    x0, eps = by_conditioning(c)
    expect(impl(c), wanted_of(c, x0, eps), near(c), c.prediction, scale=1e9)


@law(ID, "L2", closed_form=True, given=some, kills=["x0_is_the_mean", "sign", "mean_not_scaled"])
def predictions_agree(impl, c, expect):
    "a x_0 + b eps = x; v = a eps - b x_0; score = -eps / b."
    found = {p: np.asarray(impl(c.replace(prediction=p)), np.float64) for p in ("score", "eps", "x0", "v")}
    x = np.asarray(c.x, np.float64)
    expect(c.scale * found["x0"] + c.std * found["eps"], x, near(c, 4.0), "x", scale=1e9)
    expect(found["v"], c.scale * found["eps"] - c.std * found["x0"], near(c, 4.0), "v", scale=1e9)
    expect(-found["eps"] / c.std, found["score"], near(c, 4.0), "score", scale=1e9)


@law(
    ID, "L3", closed_form=True, given=some,
    kills=["std_for_variance", "score_of_the_clean_density", "scale_for_its_square"],
)  # fmt: skip
def one_point_and_unit_data(impl, c, expect):
    "S = 0: x_0 = m; S = I, a^2 + b^2 = 1: eps = b (x - a m)."
    x, m, _ = f64(c)
    zero, eye = np.zeros((c.d, c.d), c.dtype), np.eye(c.d, dtype=c.dtype)
    point = impl(c.replace(cov=zero, prediction="x0"))
    expect(point, np.broadcast_to(m, x.shape), near(c.replace(cov=zero)), "one point", scale=1e9)
    unit = impl(c.replace(cov=eye, scale=0.8, std=0.6, prediction="eps"))
    expect(unit, 0.6 * (x - 0.8 * m), near(c.replace(cov=eye, scale=0.8, std=0.6)), "unit data", scale=1e9)


@law(ID, "L4", given=some.where(d=dims(2, 4)), kills=["diagonal_alone"], passes_null=["zeros", "identity"])
def turned_with_the_data(impl, c, expect):
    "Data and x turned by an orthogonal matrix: the prediction is turned."
    Q = np.linalg.qr(np.arange(1.0, c.d * c.d + 1).reshape(c.d, c.d) ** 2 + np.eye(c.d))[0]
    x, m, S = f64(c)
    turned = c.replace(x=(x @ Q.T).astype(c.dtype), mean=(Q @ m).astype(c.dtype), cov=(Q @ S @ Q.T).astype(c.dtype))
    expect(impl(turned), np.asarray(impl(c), np.float64) @ Q.T, 8 * near(c), scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def center(d=2, **options):
    """The default-size test: at the mean of standard data."""
    fields = {"scale": 1.0, "std": 1.0, "prediction": "score", **options}
    return lambda: ((np.zeros((3, d)), np.zeros(d), np.eye(d)), fields)


def exact(x, mean, cov, *, scale, std, prediction="score", **edit):
    x64, m, S = (np.asarray(v, np.float64) for v in (x, mean, cov))
    S = np.diag(np.diag(S)) if edit.get("diagonal") else S
    total = edit.get("total", lambda S, a, b: a * a * S + b * b * np.eye(len(S)))(S, scale, std)
    off = x64 - edit.get("at", lambda a: a)(scale) * m
    w = np.linalg.solve(total, off.reshape(-1, len(m)).T).T.reshape(x64.shape)
    x0 = m + 0 * x64 if edit.get("flat") else m + scale * w @ S
    eps = edit.get("sign", 1) * std * w
    found = {"score": -eps / std, "eps": eps, "x0": x0, "v": scale * eps - std * x0}[prediction]
    return np.asarray(found, x.dtype)


@mutant(ID, default_case=center())
def diagonal_alone(*args, **options):
    "S without its correlations."
    return exact(*args, diagonal=True, **options)


@mutant(ID, default_case=center())
def std_for_variance(*args, **options):
    "V = a^2 S + b I."
    return exact(*args, total=lambda S, a, b: a * a * S + b * np.eye(len(S)), **options)


@mutant(ID, default_case=center())
def scale_for_its_square(*args, **options):
    "V = a S + b^2 I."
    return exact(*args, total=lambda S, a, b: a * S + b * b * np.eye(len(S)), **options)


@mutant(ID, default_case=center())
def mean_not_scaled(*args, **options):
    "x - m: VE for VP."
    return exact(*args, at=lambda a: 1.0, **options)


@mutant(ID, default_case=center())
def score_of_the_clean_density(*args, **options):
    "V = S (kept regular by 1e-3): the noise is ignored."
    return exact(*args, total=lambda S, a, b: S + 1e-3 * np.eye(len(S)), **options)


@mutant(ID, default_case=center())
def sign(*args, **options):
    "eps and the score of the other sign."
    return exact(*args, sign=-1, **options)


@mutant(ID, default_case=center(prediction="x0"))
def x0_is_the_mean(*args, **options):
    "x_0 = m whatever x is."
    return exact(*args, flat=True, **options)
