"""Laws and mutants of the closed-form velocity of Gaussian data."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "diffusion.gaussian_velocity"


def covariance(draw, c):
    """Symmetric and regular, of a triangle times its transpose."""
    L = np.tril(rng(draw).integers(-4, 5, (c.d, c.d)) / 4.0)
    L[np.arange(c.d), np.arange(c.d)] = 0.5 + rng(draw).integers(0, 4, c.d) / 4
    return L @ L.T


space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 4),
    x=floats("*B d"),
    mean=floats("d"),
    cov=covariance,
    t=choose(0.5, 0.25, 0.875, 0.0, 1.0),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "ends": Flag(lambda c: c.t in (0.0, 1.0), {"t": choose(0.0, 1.0)}),
        "correlated": Flag(lambda c: np.any(c.cov - np.diag(np.diag(c.cov))), {"d": dims(2, 4)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def f64(c):
    return [np.asarray(c[n], np.float64) for n in ("x", "mean", "cov")]


def near(c, wide=1.0):
    x, m, S = f64(c)
    reach = np.max(np.abs(x), initial=0) + np.max(np.abs(m)) + 1
    V = c.t**2 * S + (1 - c.t) ** 2 * np.eye(c.d)
    condition = np.abs(np.linalg.inv(V)).sum() * (np.abs(S).sum() + 1)
    return bounds.rounding(60 * c.d, wide * reach * condition**2, c.dtype)


@law(
    ID,
    "L1",
    closed_form=True,
    given=space.reach("none", "ends", "correlated"),
    kills=[
        "time_reversed",
        "noise_not_subtracted",
        "diagonal_alone",
        "velocity_of_the_noise",
        "variance_for_deviation",
    ],
)
def conditional_mean_by_the_joint(impl, c, expect):
    "E[x_1 - z | x_t] = m + Cov(x_1 - z, x_t) Cov(x_t)^-1 (x - t m), the covariances read off the joint of (x_1, z)."
    x, m, S = f64(c)
    d, t = c.d, c.t
    joint = np.block([[S, np.zeros((d, d))], [np.zeros((d, d)), np.eye(d)]])
    of_x, of_u = np.hstack([t * np.eye(d), (1 - t) * np.eye(d)]), np.hstack([np.eye(d), -np.eye(d)])
    gain = of_u @ joint @ of_x.T @ np.linalg.inv(of_x @ joint @ of_x.T)
    expect(impl(c), m + (x - t * m) @ gain.T, near(c), scale=1e9)


@law(
    ID,
    "L2",
    closed_form=True,
    given=some,
    kills=["time_reversed", "velocity_of_the_noise", "noise_not_subtracted", "half_velocity"],
)
def moments_flow_as_the_path_does(impl, c, expect):
    "The field is J x + u_0: at t m it is m, and J V + V J^T = dV / dt = 2 t S - 2 (1 - t) I, V = t^2 S + (1 - t)^2 I."
    _, m, S = f64(c)
    rows = np.concatenate([np.zeros((1, c.d)), np.eye(c.d)]).astype(c.dtype)
    out = np.asarray(impl(c.replace(x=rows, B=(c.d + 1,))), np.float64)
    J, V = (out[1:] - out[0]).T, c.t**2 * S + (1 - c.t) ** 2 * np.eye(c.d)
    wide = near(c, 9.0 * (np.abs(V).sum() + 1))
    expect(J @ V + V @ J.T, 2 * c.t * S - 2 * (1 - c.t) * np.eye(c.d), wide, "dV / dt", scale=1e9)
    expect(J @ (c.t * m) + out[0], m, wide, "the velocity of the mean", scale=1e9)


@law(ID, "L3", closed_form=True, given=some, kills=["time_reversed", "velocity_of_the_noise", "half_velocity"])
def ends_in_closed_form(impl, c, expect):
    "t = 0: m - x, whatever S is; t = 1: x, for S regular (x - z with E z = 0)."
    x, m, _ = f64(c)
    for t, wanted in ((0.0, m - x), (1.0, x)):
        now = c.replace(t=t)
        expect(impl(now), wanted, near(now), f"t = {t}", scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def middle(d=2):
    """The default-size test: standard data at the mean, half way, where the velocity is 0."""
    return lambda: ((np.zeros((3, d)), np.zeros(d), np.eye(d)), {"t": 0.5})


def field(x, mean, cov, *, t, **edit):
    x64, m, S = (np.asarray(v, np.float64) for v in (x, mean, cov))
    S = np.diag(np.diag(S)) if edit.get("diagonal") else S
    t = 1 - t if edit.get("reversed") else t
    eye = np.eye(len(m))
    V = edit.get("V", lambda S, t: t * t * S + (1 - t) ** 2 * eye)(S, t)
    gain = edit.get("gain", lambda S, t: t * S - (1 - t) * eye)(S, t) @ np.linalg.inv(V)
    return np.asarray(edit.get("factor", 1) * (m + (x64 - t * m) @ gain.T), x.dtype)


@mutant(ID, default_case=middle())
def time_reversed(*args, **options):
    "t = 0 is data."
    return field(*args, reversed=True, **options)


@mutant(ID, default_case=middle())
def noise_not_subtracted(*args, **options):
    "E[x_1 | x] for E[x_1 - z | x]."
    return field(*args, gain=lambda S, t: t * S, **options)


@mutant(ID, thread="conditional-flow-matching#85", default_case=middle())
def velocity_of_the_noise(*args, **options):
    "reverse-drift: E[z - x_1 | x]."
    return field(*args, factor=-1, **options)


@mutant(ID, default_case=middle())
def half_velocity(*args, **options):
    "u / 2."
    return field(*args, factor=0.5, **options)


@mutant(ID, default_case=middle())
def diagonal_alone(*args, **options):
    "S without its correlations."
    return field(*args, diagonal=True, **options)


@mutant(ID, default_case=middle())
def variance_for_deviation(*args, **options):
    "V = t^2 S + (1 - t) I: right at both ends."
    return field(*args, V=lambda S, t: t * t * S + (1 - t) * np.eye(len(S)), **options)
