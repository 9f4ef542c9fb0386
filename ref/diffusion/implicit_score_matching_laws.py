"""Laws and mutants of implicit score matching."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import Linear, Net
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, dims, floats, rng

ID = "diffusion.implicit_score_matching"

space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 4),
    x=floats("*B d"),
    seed=dims(0, 99),
    score=lambda draw, c: Net(c.d, 5, c.seed),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "wide": Flag(lambda c: c.d > 1, {"d": dims(2, 4)}),
    },
)


def near(c, size):
    return bounds.rounding(60 * (c.d + 2), size, c.dtype)


def linear(draw, c):
    g = rng(draw)
    return Linear(g.integers(-8, 9, (c.d, c.d)) / 4, g.integers(-4, 5, c.d) / 2)


@law(
    ID, "L1", closed_form=True, given=space.where(score=linear).reach("none", "wide"),
    kills=["trace_halved", "square_not_halved", "trace_subtracted", "no_trace", "sum_of_the_jacobian"],
)  # fmt: skip
def linear_score_in_closed_form(impl, c, expect):
    "s = -L (x - m): |L (x - m)|^2 / 2 - tr L."
    off = (np.asarray(c.x, np.float64) - c.score.m) @ c.score.L.T
    wanted = np.sum(off**2, -1) / 2 - np.trace(c.score.L)
    reach = (np.abs(np.asarray(c.x, np.float64)) + np.abs(c.score.m)) @ np.abs(c.score.L.T)
    expect(impl(c), wanted, near(c, np.sum(reach**2, -1) + np.abs(c.score.L).sum() + 1), scale=1e9)


@law(
    ID, "L2", closed_form=True, dtypes=("float64",), given=space.where(B=(9,), d=dims(1, 3), values=("normal",)),
    kills=["trace_halved", "square_not_halved", "no_trace", "trace_subtracted"],
)  # fmt: skip
def least_at_the_mean_and_the_biased_covariance(impl, c, expect):
    """Over a sample, s = -L (x - m) costs -tr(S^-1) / 2 at L = S^-1 (S / n, not n - 1) and m the mean; moved by E and
    e it costs tr(E S E^T) / 2 + |(L + E) e|^2 / 2 more."""
    x = np.asarray(c.x, np.float64) + np.eye(9, c.d)
    x = x - np.outer(np.cos(np.arange(9)), np.ones(c.d)) * np.arange(1, c.d + 1) ** 2
    mean, S = x.mean(0), np.cov(x.T, bias=True).reshape(c.d, c.d)
    L = np.linalg.inv(S)
    scale = np.abs(L).sum() ** 2 * (1 + np.abs(x).max()) ** 2 * np.linalg.cond(S)
    found = {}
    for name, E, e in (
        ("least", 0 * L, 0 * mean),
        ("moved", np.outer(mean, mean[::-1]) / 64 + np.eye(c.d) / 8, mean / 8 + 0.25),
    ):
        now = c.replace(x=x, score=Linear(L + E, mean + e), B=(9,))
        found[name] = np.mean(impl(now))
    more = np.trace(E @ S @ E.T) / 2 + np.sum(((L + E) @ e) ** 2) / 2
    expect(found["least"], -np.trace(L) / 2, bounds.rounding(1000, scale, "float64"), "least", scale=1e9)
    expect(found["moved"] - found["least"], more, bounds.rounding(9000, scale + more, "float64"), "more", scale=1e9)


@law(
    ID, "L3", closed_form=True, given=space,
    kills=["sum_of_the_jacobian", "trace_halved", "square_not_halved", "no_trace"],
)  # fmt: skip
def a_nonlinear_net_by_its_jacobian(impl, c, expect):
    "s = V tanh(W x): |s|^2 / 2 + sum_k (1 - tanh^2) (W V)_kk."
    s, J = c.score.value(c.x), c.score.jacobian(c.x)
    wanted = np.sum(s**2, -1) / 2 + np.trace(J, axis1=-2, axis2=-1)
    size = np.sum((np.abs(s) + 5) ** 2, -1) + np.abs(J).sum((-2, -1))
    expect(impl(c), wanted, near(c, 9 * size), scale=1e9)


@law(ID, "L4", closed_form=True, needs=("vjp",), given=space.where(B=(2,)), kills=["trace_detached"])
def gradient_through_the_trace(impl, c, expect):
    "d / dx = J^T s + d tr J / dx: the second backward pass through the first."
    found = impl.vjp(c, np.ones(c.B, c.dtype))["x"]
    s, J = c.score.value(c.x), c.score.jacobian(c.x)
    wanted = np.einsum("...i,...ij->...j", s, J) + c.score.slope_of_the_trace(c.x)
    expect(found, wanted, near(c, (np.abs(s).max() + 5) * (np.abs(J).sum() + 50)), scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def still(d=2):
    """The default-size test: a score that is 0."""
    return lambda: ((np.ones((3, d)),), {"score": Linear(np.zeros((d, d)), np.zeros(d))})


def term(x, *, score, square=0.5, trace=lambda J: np.trace(J, axis1=-2, axis2=-1)):
    return np.asarray(square * np.sum(score.value(x) ** 2, -1) + trace(score.jacobian(x)), x.dtype)


def diagonal(J):
    return np.trace(J, axis1=-2, axis2=-1)


@mutant(ID, default_case=still())
def trace_halved(*args, **options):
    "(|s|^2 + tr) / 2."
    return term(*args, trace=lambda J: diagonal(J) / 2, **options)


@mutant(ID, default_case=still())
def square_not_halved(*args, **options):
    "|s|^2 + tr."
    return term(*args, square=1.0, **options)


@mutant(ID, default_case=still())
def trace_subtracted(*args, **options):
    "|s|^2 / 2 - tr."
    return term(*args, trace=lambda J: -diagonal(J), **options)


@mutant(ID, default_case=still())
def no_trace(*args, **options):
    "|s|^2 / 2: least at s = 0."
    return term(*args, trace=lambda J: 0.0 * diagonal(J), **options)


@mutant(ID, default_case=still())
def sum_of_the_jacobian(*args, **options):
    "The gradient of the sum of the score, summed."
    return term(*args, trace=lambda J: J.sum((-2, -1)), **options)


def _detached(g, x, *, score):
    return {"x": np.asarray(g[..., None] * np.einsum("...i,...ij->...j", score.value(x), score.jacobian(x)), x.dtype)}


@mutant(ID, default_case=still(), vjp=_detached)
def trace_detached(*args, **options):
    "The trace is a constant of the backward pass: nothing pushes the score down."
    return term(*args, **options)
