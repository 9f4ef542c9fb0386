"""Laws and mutants of flow matching's paths."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import leading, over
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "diffusion.flow_path"

space = cases(
    ID,
    S=batch(2, 3, large=60),
    T=leading,
    t=lambda draw, c: np.asarray(rng(draw).integers(0, 17, c.T) / 16.0),
    sigma_min=choose(0.0, 0.125, 0.5),
    flags={
        "none": Flag(lambda c: 0 in c.S, {"S": (0, 2)}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
        "per_example": Flag(
            lambda c: len(c.T) == 1 and len(c.S) == 2, {"S": choose((2, 3), (2, 2)), "T": lambda draw, c: c.S[:1]}
        ),
        "ends": Flag(lambda c: np.any(c.t == 0), {"t": lambda draw, c: np.zeros(c.T)}),
    },
)
some = space.where(some=True)


def f64(c):
    return np.asarray(c.data, np.float64), np.asarray(c.noise, np.float64)


def near(c):
    data, noise = f64(c)
    return bounds.rounding(12, np.abs(data) + np.abs(noise), c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "per_example", "ends"),
    kills=["time_reversed", "floor_ignored", "preserving_path", "times_of_the_last_axis", "velocity_of_the_noise"],
)  # fmt: skip
def straight_lines(impl, c, expect):
    "x_0 = z, x_1 = data + sigma_min z, and x_t the point that far along; u = x_1 - x_0 at every t."
    data, noise = f64(c)
    start, end = noise, data + c.sigma_min * noise
    x, u = impl(c)
    expect(x, start + over(c.t, c.S) * (end - start), near(c), "x_t", scale=9.0)
    expect(u, end - start, near(c), "velocity", scale=9.0)


@law(
    ID, "L2", closed_form=True, given=some.where(t=lambda draw, c: np.asarray(rng(draw).integers(1, 16, c.T) / 16.0)),
    kills=["velocity_of_the_noise", "preserving_path", "floor_ignored_in_the_velocity", "half_velocity"],
    passes_null=["zeros"],
)  # fmt: skip
def velocity_is_the_derivative(impl, c, expect):
    "(x at t + 1/16 - x at t - 1/16) / (1/8) = u: a difference is exact on a line."
    _, u = impl(c)
    up, down = (np.asarray(impl(c.replace(t=(c.t + s / 16).astype(c.dtype)))[0], np.float64) for s in (1, -1))
    expect(u, (up - down) * 8, near(c) * 20, "velocity", scale=9.0)


@law(
    ID, "L3", closed_form=True, given=some.where(S=(4,), T=(), sigma_min=0.0),
    kills=["preserving_path", "time_reversed", "half_velocity"],
)  # fmt: skip
def moments_of_a_gaussian(impl, c, expect):
    """Data N(m, s^2): x_t has mean t m and variance t^2 s^2 + (1 - t)^2, E u = m, and Cov(x_t, u) = t s^2 - (1 - t),
    by the four signs of data - m and noise."""
    m, s, t = 1.5, 0.5, float(c.t)
    signs = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)], c.dtype)
    x, u = (np.asarray(v, np.float64) for v in impl(c.replace(data=m + s * signs[:, 0], noise=signs[:, 1].copy())))
    limit = bounds.rounding(60, 16.0, c.dtype)
    expect([x.mean(), u.mean()], [t * m, m], limit, "means", scale=9.0)
    expect(np.mean((x - t * m) ** 2), t * t * s * s + (1 - t) ** 2, limit, "variance", scale=9.0)
    expect(np.mean((x - t * m) * (u - m)), t * s * s - (1 - t), limit, "covariance", scale=9.0)


@law(ID, "L4", closed_form=True, needs=("vjp",), given=some, kills=["velocity_detached"])
def gradients_are_the_weights(impl, c, expect):
    "Of data t and 1, of noise 1 - (1 - sigma_min) t and -(1 - sigma_min)."
    one, zero = np.ones(c.S, c.dtype), np.zeros(c.S, c.dtype)
    t, r = over(c.t, c.S), 1 - c.sigma_min
    limit = bounds.rounding(8, 1.0, c.dtype)
    for pair, wanted in (((one, zero), (t, 1 - r * t)), ((zero, one), (1 + 0 * t, -r + 0 * t))):
        found = impl.vjp(c, pair)
        expect(found["data"], wanted[0], limit, "of data", scale=9.0)
        expect(found["noise"], wanted[1], limit, "of noise", scale=9.0)


# Mutants ---------------------------------------------------------------------------------------------


def still(shape=(3,), **options):
    """The default-size test: data and noise 0."""
    return lambda: ((np.zeros(shape), np.zeros(shape), np.full(shape[:1], 0.5)), options)


def path(data, noise, t, *, sigma_min=0.0, **edit):
    w = edit.get("lay", over)(edit.get("clock", lambda t: t)(np.asarray(t, np.float64)), data.shape)
    r = 1 - (0 if edit.get("sharp") else sigma_min)
    a, b = edit.get("weights", lambda t, r: (t, 1 - r * t))(w, r)
    u = edit.get("u", lambda x, z, r: x - r * z)(data, noise, r)
    return np.asarray(a * data + b * noise, data.dtype), np.asarray(u, data.dtype)


@mutant(ID, default_case=still())
def time_reversed(*args, **options):
    "t = 0 is data."
    return path(*args, clock=lambda t: 1 - t, **options)


@mutant(ID, default_case=still())
def floor_ignored(*args, **options):
    "sigma_min = 0 always."
    return path(*args, sharp=True, **options)


@mutant(ID, default_case=still())
def floor_ignored_in_the_velocity(*args, **options):
    "u = data - noise."
    return path(*args, u=lambda x, z, r: x - z, **options)


@mutant(ID, default_case=still())
def preserving_path(*args, **options):
    "x_t = t data + sqrt(1 - t^2) noise: a diffusion's path."
    return path(*args, weights=lambda t, r: (t, np.sqrt(1 - t * t)), **options)


@mutant(ID, thread="conditional-flow-matching#85", default_case=still())
def velocity_of_the_noise(*args, **options):
    "reverse-drift: u = noise - data."
    return path(*args, u=lambda x, z, r: r * z - x, **options)


@mutant(ID, default_case=still())
def half_velocity(*args, **options):
    "u / 2."
    return path(*args, u=lambda x, z, r: (x - r * z) / 2, **options)


@mutant(ID, default_case=still((2, 2)))
def times_of_the_last_axis(*args, **options):
    "One time an example, laid along the last axis."

    def lay(v, shape):
        return np.broadcast_to(np.resize(v, shape[-1]), shape) if v.ndim == 1 and len(shape) > 1 else over(v, shape)

    return path(*args, lay=lay, **options)


def _vjp(g, data, noise, t, *, sigma_min=0.0):
    w = over(t, data.shape)
    return {"data": np.asarray(w * g[0], data.dtype), "noise": np.asarray((1 - (1 - sigma_min) * w) * g[0], data.dtype)}


@mutant(ID, default_case=still(), vjp=_vjp)
def velocity_detached(*args, **options):
    "No gradient through u."
    return path(*args, **options)
