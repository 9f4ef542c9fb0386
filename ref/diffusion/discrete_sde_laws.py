"""Laws and mutants of a discrete schedule as an SDE."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, at_times, falling, moment_equations
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "diffusion.discrete_sde"

space = cases(
    ID,
    B=batch(2, 3, large=60),
    N=dims(1, 6, large=40),
    alpha_bar=falling,
    t=lambda draw, c: np.asarray(rng(draw).integers(0, 8 * c.N + 1, c.B) / 8.0),
    flags={
        "start": Flag(lambda c: np.any(c.t == 0), {"t": lambda draw, c: np.zeros(c.B)}),
        "end": Flag(lambda c: np.any(c.t == c.N), {"t": lambda draw, c: np.full(c.B, float(c.N))}),
        "between": Flag(lambda c: np.any(c.t % 1 > 0), {"t": lambda draw, c: np.full(c.B, c.N - 0.375)}),
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def bars(c):
    return [1.0, *np.asarray(c.alpha_bar, np.float64).tolist()]


@law(
    ID,
    "L1",
    closed_form=True,
    given=some.where(t=lambda draw, c: np.asarray(rng(draw).integers(0, c.N + 1, c.B) * 1.0)).reach("start", "end"),
    kills=["one_step_late", "root_missing", "starts_at_alpha_bar_1"],
)
def at_integers_it_is_the_schedule(impl, c, expect):
    "t = k: scale^2 = alpha_bar_k, std^2 = 1 - alpha_bar_k, 1 and 0 at k = 0."
    wanted = np.array([bars(c)[int(t)] for t in np.ravel(c.t)]).reshape(c.B)
    _, _, a, b = (np.asarray(v, np.float64) for v in impl(c))
    limit = bounds.rounding(60, 1.0, c.dtype)
    expect(a**2, wanted, limit, "scale squared", scale=1.0)
    expect(b**2, 1 - wanted, limit, "std squared", scale=1.0)


@law(
    ID,
    "L2",
    closed_form=True,
    given=space.reach("between", "none"),
    kills=[
        "linear_in_alpha_bar",
        "nearest_step",
        "beta_of_the_next_step",
        "discrete_beta",
        "root_missing",
        "one_step_late",
    ],
)
def straight_lines_between(impl, c, expect):
    """Within (k - 1, k]: scale^2 = alpha_bar_{k-1}^(k - t) alpha_bar_k^(t - k + 1), f = -beta / 2, g^2 = beta = ln of
    their ratio."""
    scale, beta = np.zeros(c.B), np.zeros(c.B)
    known = bars(c)
    for at in np.ndindex(tuple(c.B)):
        t = float(c.t[at])
        k = max(math.ceil(t), 1)
        scale[at] = known[k - 1] ** (k - t) * known[k] ** (t - k + 1)
        beta[at] = math.log(known[k - 1] / known[k])
    f, g, a, b = (np.asarray(v, np.float64) for v in impl(c))
    limit = bounds.rounding(80, 1.0 - np.log(min(known)), c.dtype)
    expect(f, -beta / 2, limit, "drift", scale=4.0)
    expect(g**2, beta, limit, "diffusion squared", scale=4.0)
    expect(a**2, scale, limit, "scale squared", scale=4.0)
    expect(b**2, 1 - scale, limit, "std squared", scale=4.0)


@law(
    ID,
    "L3",
    closed_form=True,
    dtypes=DOUBLE,
    given=some,
    kills=["discrete_beta", "nearest_step", "linear_in_alpha_bar"],
)
def the_kernel_solves_the_moment_equations(impl, c, expect):
    "Within every step d a / dt = f a and d b^2 / dt = 2 f b^2 + g^2; b at a fraction of the way is no chord."
    moment_equations(impl, c, expect, np.arange(c.N) + 0.5, 1 / 64)
    middle = at_times(impl, c, np.arange(c.N) + 0.5)[2] ** 2
    expect(
        middle**2, np.multiply(bars(c)[:-1], bars(c)[1:]), bounds.rounding(80, 1.0, "float64"), "half way", scale=1.0
    )


# Mutants ---------------------------------------------------------------------------------------------


def full(N=2, bar=1 - 1e-9, t=1.0):
    """The default-size test: hardly any noise."""
    return lambda: ((np.full(3, t), np.full(N, bar) ** np.arange(1, N + 1)), {})


def lines(t, alpha_bar, **edit):
    known = np.concatenate([[edit.get("zeroth", 1.0)], np.asarray(alpha_bar, np.float64)])
    N, wide = len(alpha_bar), np.asarray(t, np.float64)
    k = np.clip(edit.get("cell", np.ceil)(wide).astype(int), 1, N)
    left, right = (np.log(known[np.clip(i + edit.get("shift", 0), 0, N)]) for i in (k - 1, k))
    part = edit.get("part", lambda p: p)(wide - (k - 1))
    bar = edit.get("between", lambda p, q, s: np.exp(p + (q - p) * s))(left, right, part)
    beta = edit.get("beta", lambda p, q: p - q)(left, right)
    a, b = edit.get("root", np.sqrt)(bar), np.sqrt(np.maximum(1 - bar, 0))
    return tuple(np.asarray(v, t.dtype) for v in (-beta / 2, np.sqrt(np.maximum(beta, 0)), a, b))


@mutant(ID, default_case=full(bar=1 - 1e-14))
def one_step_late(*args):
    "off-by-one: t counted from 0."
    return lines(*args, shift=1)


@mutant(ID, default_case=full(bar=1 - 1e-15))
def starts_at_alpha_bar_1(t, alpha_bar):
    "alpha_bar_1 at t = 0 too: no clean end."
    return lines(t, alpha_bar, zeroth=float(alpha_bar[0]))


@mutant(ID, default_case=full(bar=1 - 1e-14))
def root_missing(*args):
    "scale = alpha_bar."
    return lines(*args, root=lambda v: v)


@mutant(ID, default_case=full())
def linear_in_alpha_bar(*args):
    "alpha_bar, not its logarithm, on straight lines: the same at integers."
    return lines(*args, between=lambda p, q, s: np.exp(p) + (np.exp(q) - np.exp(p)) * s)


@mutant(ID, default_case=full())
def nearest_step(*args):
    "The step that t rounds up to."
    return lines(*args, part=lambda p: np.ceil(p))


@mutant(ID, default_case=full())
def beta_of_the_next_step(*args):
    "floor for ceil: the slope of [k, k + 1) at t = k."
    return lines(*args, cell=lambda t: np.floor(t) + 1)


@mutant(ID, default_case=full(bar=1 - 1e-6))
def discrete_beta(*args):
    "beta = 1 - alpha_bar_k / alpha_bar_{k-1}, the first order of the slope."
    return lines(*args, beta=lambda p, q: 1 - np.exp(q - p))
