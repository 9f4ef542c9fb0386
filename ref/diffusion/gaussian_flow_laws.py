"""Laws and mutants of the exact flow of Gaussian data."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import DOUBLE
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "diffusion.gaussian_flow"
LEVELS = ((0.8, 0.6), (1.0, 2.0), (0.28, 0.96), (0.6, 0.8), (1.0, 0.5))


def covariance(draw, c):
    """Symmetric, of a triangle times its transpose; singular if lacks."""
    L = np.tril(rng(draw).integers(-4, 5, (c.d, c.d)) / 4.0)
    L[np.arange(c.d), np.arange(c.d)] = 0.5 + rng(draw).integers(0, 4, c.d) / 4
    return L[:, : max(c.d - c.lacks, 0)] @ L[:, : max(c.d - c.lacks, 0)].T + np.zeros((c.d, c.d))


space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 4),
    lacks=choose(0, 1),
    x=floats("*B d"),
    mean=floats("d"),
    cov=covariance,
    start=choose(*LEVELS),
    end=choose(*LEVELS, (1.0, 0.0)),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "to_the_data": Flag(lambda c: c.end[1] == 0, {"end": (1.0, 0.0)}),
        "correlated": Flag(lambda c: np.any(c.cov - np.diag(np.diag(c.cov))), {"d": dims(2, 4), "lacks": 0}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def f64(c):
    return [np.asarray(c[n], np.float64) for n in ("x", "mean", "cov")]


def total(S, level):
    return level[0] ** 2 * S + level[1] ** 2 * np.eye(len(S))


def near(c, wide=1.0):
    x, m, S = f64(c)
    reach = np.max(np.abs(x), initial=0) + np.max(np.abs(m)) + 1
    spread = np.sqrt((4 * np.abs(S).sum() + 5) / c.start[1] ** 2)
    # A root of an eigenvalue that is 0 is off by the root of its rounding.
    u = bounds.u(c.dtype)
    lost = np.sqrt(u * (np.abs(S).sum() + 1)) if c.end[1] == 0 else 0.0
    return wide * reach * (bounds.rounding(200 * c.d, spread, c.dtype) + 8 * lost / c.start[1])


def jacobian(impl, c):
    """The map's matrix (columns: where the axes go) and where the origin goes."""
    rows = np.concatenate([np.zeros((1, c.d)), np.eye(c.d)]).astype(c.dtype)
    out = np.asarray(impl(c.replace(x=rows, B=(c.d + 1,))), np.float64)
    return (out[1:] - out[0]).T, out[0]


@law(
    ID, "L1", closed_form=True, given=some.reach("to_the_data", "correlated"),
    kills=["root_missing", "ratio_inverted", "mean_not_moved", "diagonal_alone", "kernel_without_the_data"],
)  # fmt: skip
def moments_go_to_moments(impl, c, expect):
    "The map J is symmetric and positive, J V J^T = V', and a m goes to a' m."
    _, m, S = f64(c)
    J, origin = jacobian(impl, c)
    V, V1 = total(S, c.start), total(S, c.end)
    size = np.abs(V1).sum() + 1
    limit = near(c, 40.0) * size * (1 + np.abs(J).max())
    expect(J @ V @ J.T, V1, limit, "covariance", scale=1e9)
    expect(J, J.T, near(c, 4.0), "the map's transpose", scale=1e9)
    expect.holds(bool(np.all(np.linalg.eigvalsh((J + J.T) / 2) > -near(c, 4.0))), "the map is positive")
    expect(J @ (c.start[0] * m) + origin, c.end[0] * m, near(c, 9.0), "the mean", scale=1e9)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some.where(end=choose(*LEVELS), lacks=0),
    kills=["root_missing", "kernel_without_the_data", "mean_not_moved"],
)  # fmt: skip
def it_solves_the_ode(impl, c, expect):
    """Along a line of levels d x / ds = (da / ds) m + (dV / ds) V^-1 (x - a m) / 2, by differences of the fourth
    order."""
    x, m, S = f64(c)
    (a, b), (p, q) = c.start, (0.25, -0.125)
    level = lambda s: (a + s * p, b + s * q)  # noqa: E731
    h = 2.0**-10
    slope = sum(
        w / h * np.asarray(impl(c.replace(end=level(k * h))), np.float64)
        for k, w in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
    )
    rate = 2 * a * p * S + 2 * b * q * np.eye(c.d)
    wanted = p * m + 0.5 * (x - a * m) @ np.linalg.solve(total(S, c.start), rate).T
    expect(slope, wanted, (near(c) / h + 1e-9) * 4, "d x / ds", scale=1e9)


@law(ID, "L3", given=some.where(end=choose(*LEVELS)), kills=["ratio_from_unit"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def legs_compose(impl, c, expect):
    "By way of a third level the same point."
    middle = (0.5, 0.75)
    out = impl(c)
    via = impl(c.replace(x=impl(c.replace(end=middle)), start=middle))
    wide = near(c, 20.0) + near(c.replace(start=middle), 20.0)
    expect(via, np.asarray(out, np.float64), wide, "by way of another level", scale=1e9)


@law(
    ID,
    "L4",
    closed_form=True,
    given=space.where(cov=lambda draw, c: np.diag(rng(draw).integers(0, 9, c.d) / 4.0)).reach("none"),
    kills=["root_missing", "ratio_inverted", "mean_not_moved", "kernel_without_the_data", "ratio_from_unit"],
)
def diagonal_data_by_the_number(impl, c, expect):
    "S diagonal: a' m + sqrt((a'^2 v + b'^2) / (a^2 v + b^2)) (x - a m), entry by entry."
    x, m, S = f64(c)
    v, (a, b), (a1, b1) = np.diag(S), c.start, c.end
    wanted = a1 * m + np.sqrt((a1**2 * v + b1**2) / (a * a * v + b * b)) * (x - a * m)
    expect(impl(c), wanted, near(c), scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def still(d=2, **options):
    """The default-size test: standard data, between levels of variance 1, at the mean 0."""
    fields = {"start": (0.8, 0.6), "end": (0.6, 0.8), **options}
    return lambda: ((np.ones((3, d)), np.zeros(d), np.eye(d)), fields)


def flow(x, mean, cov, *, start, end, **edit):
    x64, m, S = (np.asarray(v, np.float64) for v in (x, mean, cov))
    S = np.diag(np.diag(S)) if edit.get("diagonal") else S
    values, U = np.linalg.eigh(S)
    values = np.maximum(values, 0) if not edit.get("noise") else np.zeros_like(values) + 1e-9
    (a, b), (a1, b1) = start, end
    before = a * a * values + b * b if not edit.get("unit") else np.ones_like(values)
    ratio = edit.get("ratio", lambda p, q: np.sqrt(q / p))(before, a1 * a1 * values + b1 * b1)
    moved = (x64 - a * m) @ U * ratio @ U.T
    return np.asarray(moved + edit.get("to", a1) * m, x.dtype)


@mutant(ID, default_case=still())
def root_missing(*args, **options):
    "V' V^-1."
    return flow(*args, ratio=lambda p, q: q / p, **options)


@mutant(ID, default_case=still())
def ratio_inverted(*args, **options):
    "V^(1/2) V'^(-1/2)."
    return flow(*args, ratio=lambda p, q: np.sqrt(p / np.maximum(q, 1e-30)), **options)


@mutant(ID, default_case=still())
def mean_not_moved(*args, start, **options):
    "a m at the end too."
    return flow(*args, start=start, to=start[0], **options)


@mutant(ID, default_case=still())
def diagonal_alone(*args, **options):
    "S without its correlations."
    return flow(*args, diagonal=True, **options)


@mutant(ID, default_case=still(start=(0.8, 0.6), end=(0.8, 0.6)))
def kernel_without_the_data(*args, **options):
    "b' / b: one point's flow."
    return flow(*args, noise=True, **options)


@mutant(ID, default_case=still())
def ratio_from_unit(*args, **options):
    "V = I at the start: right from pure noise."
    return flow(*args, unit=True, **options)
