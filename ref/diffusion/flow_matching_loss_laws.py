"""Laws and mutants of the flow matching loss."""

from __future__ import annotations

import numpy as np

import backends
from ref.diffusion.common_laws import constant, leading, over
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "diffusion.flow_matching_loss"

space = cases(
    ID,
    S=batch(2, 3, large=60),
    T=leading,
    t=lambda draw, c: np.asarray(rng(draw).integers(0, 17, c.T) / 16.0),
    sigma_min=choose(0.0, 0.125),
    reduction=choose("mean", "sum"),
    velocity=lambda draw, c: lambda x, t: x * 0.0,
    flags={
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
        "per_example": Flag(
            lambda c: len(c.T) == 1 and len(c.S) == 2, {"S": choose((2, 3), (3, 2)), "T": lambda draw, c: c.S[:1]}
        ),
    },
)
some = space.where(some=True)


def parts(c):
    """(x_t, u) in float64."""
    x, z, t, r = np.asarray(c.data, np.float64), np.asarray(c.noise, np.float64), over(c.t, c.S), 1 - c.sigma_min
    return (1 - r * t) * z + t * x, x - r * z


def reduced(c, error):
    axes = tuple(range(len(c.T), len(c.S)))
    return np.mean(error, axis=axes) if c.reduction == "mean" else np.sum(error, axis=axes)


def near(c, extra=0.0):
    size = (np.abs(np.asarray(c.data)) + np.abs(np.asarray(c.noise)) + 2 + extra) ** 2
    return bounds.rounding(60 * max(np.prod(c.S, dtype=int), 1), reduced(c, size), c.dtype)


@law(
    ID, "L1", closed_form=True, given=some.reach("per_example"),
    kills=["halved", "absolute", "summed_always", "mean_of_the_batch", "velocity_of_the_noise", "floor_ignored"],
)  # fmt: skip
def a_constant_error_is_its_square(impl, c, expect):
    "Off by 1, 2, .. for the examples in every entry: its square, times the entries for the sum."
    e = over(1.0 + np.arange(int(np.prod(c.T, dtype=int))).reshape(c.T), c.S)
    _, u = parts(c)
    out = impl(c.replace(velocity=lambda x, t: constant(u + e, x)))
    expect(out, reduced(c, e * e), near(c, np.max(e, initial=0)), "loss", scale=1e9)


@law(
    ID, "L2", closed_form=True, given=some.where(S=(4,), T=(4,), sigma_min=0.0),
    kills=["velocity_of_the_noise", "time_reversed", "halved", "asked_at_the_data"],
)  # fmt: skip
def least_at_the_expected_velocity(impl, c, expect):
    """Data N(m, s^2): at E[u | x_t] = m + (t s^2 - (1 - t)) / V (x_t - t m) the loss is Var(u) - Cov^2 / V, and with
    another slope k off it is k^2 V more; expectations by the four signs of data - m and noise."""
    m, s = 1.5, 0.5
    signs = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)], np.float64)
    t = float(c.t[0])
    V, cov = t * t * s * s + (1 - t) ** 2, t * s * s - (1 - t)
    for k in (0.0, 0.5, -1.0):
        now = c.replace(
            data=(m + s * signs[:, 0]).astype(c.dtype),
            noise=signs[:, 1].astype(c.dtype),
            t=np.full(4, t, c.dtype),
            velocity=lambda x, _, k=k: (x - t * m) * (cov / V + k) + m,
        )
        wanted = s * s + 1 - cov**2 / V + k * k * V
        expect(
            np.mean(np.asarray(impl(now), np.float64)),
            wanted,
            bounds.rounding(900, 30.0, c.dtype),
            f"slope {k} off",
            scale=9.0,
        )


@law(ID, "L3", closed_form=True, given=some, kills=["asked_at_the_data", "time_reversed", "floor_ignored"])
def asked_on_the_path(impl, c, expect):
    "The velocity is asked once, at x_t, with t as given; what it says there is compared with u."
    seen = []

    def velocity(x, t):
        seen.append((backends.namespace(x).to_numpy(x), backends.namespace(t).to_numpy(t)))
        return x * 0.5

    out = impl(c.replace(velocity=velocity))
    expect.holds(len(seen) == 1, "one call of the velocity")
    x, u = parts(c)
    expect(seen[0][0], x, bounds.rounding(16, np.abs(c.data) + np.abs(c.noise), c.dtype), "x_t", scale=9.0)
    expect.same(seen[0][1], c.t, "t")
    expect(out, reduced(c, (x / 2 - u) ** 2), near(c), "loss", scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def unit(shape=(4,), **options):
    """The default-size test: data and noise alike, off by 1."""
    args = np.ones(shape), np.ones(shape), np.full(shape[:1], 0.5)
    return lambda: (args, {"velocity": lambda x, t: 0 * x + 1, **options})


def loss(data, noise, t, *, velocity, sigma_min=0.0, reduction="mean", **edit):
    w, r = over(t, data.shape), 1 - (0 if edit.get("sharp") else sigma_min)
    w = 1 - w if edit.get("reversed") else w
    x = np.asarray((1 - r * w) * noise + w * data, data.dtype)
    u = edit.get("sign", 1) * (data - r * noise)
    error = edit.get("power", np.square)(velocity(data if edit.get("clean") else x, t) - u)
    rows = error.reshape(*t.shape, -1)
    out = rows.mean(-1) if edit.get("kind", reduction) == "mean" else rows.sum(-1)
    return edit.get("after", lambda y: y)(np.asarray(edit.get("factor", 1) * out, data.dtype))


@mutant(ID, default_case=unit(velocity=lambda x, t: 0 * x))
def halved(*args, **options):
    "1/2 | . |^2."
    return loss(*args, factor=0.5, **options)


@mutant(ID, default_case=unit())
def absolute(*args, **options):
    "| . |."
    return loss(*args, power=np.abs, **options)


@mutant(ID, default_case=unit())
def summed_always(*args, **options):
    "The sum: the same for one entry an example."
    return loss(*args, kind="sum", **options)


@mutant(ID, default_case=unit())
def mean_of_the_batch(*args, **options):
    "The mean over the batch in every place."
    return loss(*args, after=lambda y: np.full_like(y, np.mean(y)), **options)


@mutant(ID, thread="conditional-flow-matching#85", default_case=unit())
def velocity_of_the_noise(*args, **options):
    "reverse-drift: u = noise - data."
    return loss(*args, sign=-1, **options)


@mutant(ID, default_case=unit())
def time_reversed(*args, **options):
    "x at 1 - t."
    return loss(*args, reversed=True, **options)


@mutant(ID, default_case=unit())
def asked_at_the_data(*args, **options):
    "The velocity is asked at the data."
    return loss(*args, clean=True, **options)


@mutant(ID, default_case=unit())
def floor_ignored(*args, **options):
    "sigma_min = 0."
    return loss(*args, sharp=True, **options)
