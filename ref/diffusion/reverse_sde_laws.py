"""Laws and mutants of the reverse SDE."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import leading, over
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "diffusion.reverse_sde"


def sdes(name):
    """Simple SDEs with the four coefficients in closed form, for arrays of times in [1/8, 1]."""
    return {
        "vp": lambda t: (t * -1.0, (t * 2.0) ** 0.5, 2.718281828459045 ** (t * t * -0.5), None),
        "ve": lambda t: (t * 0.0, (t * 2.0) ** 0.5, t * 0 + 1.0, None),
        "other": lambda t: (t * 0 - 0.5, t * 0 + 2.0, 2.718281828459045 ** (t * -0.5), None),
    }[name]


def kernel(name, t):
    """(f, g^2, a, b^2) in NumPy: a = exp(int f), b^2 with b(0) = 0."""
    return {
        "vp": (-t, 2 * t, np.exp(-t * t / 2), 1 - np.exp(-t * t)),
        "ve": (0 * t, 2 * t, 1 + 0 * t, t * t),
        "other": (0 * t - 0.5, 0 * t + 4.0, np.exp(-t / 2), 4 * (1 - np.exp(-t))),
    }[name]


space = cases(
    ID,
    S=batch(2, 3, large=60),
    T=leading,
    kind=choose("vp", "ve", "other"),
    t=lambda draw, c: np.asarray(rng(draw).integers(1, 9, c.T) / 8.0),
    sde=lambda draw, c: sdes(c.kind),
    lam=choose(1.0, 0.0, 0.5, 2.0),
    flags={
        "none": Flag(lambda c: 0 in c.S, {"S": (0, 2)}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
        "per_example": Flag(
            lambda c: len(c.T) == 1 and len(c.S) == 2, {"S": choose((2, 3), (2, 2)), "T": lambda draw, c: c.S[:1]}
        ),
        "flow": Flag(lambda c: c.lam == 0, {"lam": 0.0}),
    },
)
some = space.where(some=True)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "per_example", "flow"),
    kills=["forward_drift_negated", "score_added", "whole_for_half", "lambda_not_squared", "diffusion_for_its_square",
           "times_of_the_last_axis", "diffusion_without_lambda"],
)  # fmt: skip
def drift_by_its_terms(impl, c, expect):
    "f x - (1 + lambda^2) / 2 g^2 s, and lambda g."
    t = np.asarray(c.t, np.float64)
    f, g2, _, _ = kernel(c.kind, t)
    x, s = np.asarray(c.x, np.float64), np.asarray(c.score, np.float64)
    drift, noise = impl(c)
    terms = over(f, c.S) * x, (1 + c.lam**2) / 2 * over(g2, c.S) * s
    expect(
        drift,
        terms[0] - terms[1],
        bounds.rounding(16, np.abs(terms[0]) + np.abs(terms[1]), c.dtype),
        "drift",
        scale=9.0,
    )
    expect(noise, c.lam * g2**0.5, bounds.rounding(12, c.lam * g2**0.5, c.dtype), "diffusion", scale=9.0)


@law(
    ID, "L2", closed_form=True, given=some.where(S=(2,), T=()),
    kills=["forward_drift_negated", "score_added", "whole_for_half", "lambda_not_squared", "diffusion_without_lambda"],
)  # fmt: skip
def marginals_are_kept_for_every_lambda(impl, c, expect):
    """Data N(m, v) with their exact score: the drift k (x - a m) + f a m and the noise carry mean and variance V of the
    marginal as the forward SDE does, backwards: 2 k V - (lambda g)^2 = 2 f V + g^2, and the drift at a m is f a m."""
    m, v = 1.5, 0.25
    f, g2, a, b2 = (float(y) for y in kernel(c.kind, np.asarray(c.t, np.float64)))
    V = a * a * v + b2
    x = np.array([a * m, a * m + 1])
    drift, noise = impl(c.replace(x=x.astype(c.dtype), score=(-(x - a * m) / V).astype(c.dtype)))
    drift, noise = np.asarray(drift, np.float64), float(noise)
    k = drift[1] - drift[0]
    size = (abs(f) + g2 * (1 + c.lam**2) / V) * (1 + abs(m)) * (1 + V)
    expect(drift[0], f * a * m, bounds.rounding(40, size, c.dtype), "drift at the mean", scale=1e9)
    expect(2 * k * V - noise**2, 2 * f * V + g2, bounds.rounding(80, size, c.dtype), "d V / dt", scale=1e9)


@law(ID, "L3", closed_form=True, needs=("vjp",), given=some, kills=["score_detached"])
def gradients_are_the_weights(impl, c, expect):
    "f, and -(1 + lambda^2) g^2 / 2."
    f, g2, _, _ = kernel(c.kind, np.asarray(c.t, np.float64))
    found = impl.vjp(c, (np.ones(c.S, c.dtype), np.zeros(c.T, c.dtype)))
    weight = (1 + c.lam**2) / 2 * over(g2, c.S)
    expect(found["x"], over(f, c.S), bounds.rounding(8, 1.0, c.dtype), "of x", scale=9.0)
    expect(found["score"], -weight, bounds.rounding(16, weight, c.dtype), "of the score", scale=9.0)


# Mutants ---------------------------------------------------------------------------------------------


def still(kind="ve", lam=1.0, shape=(3,)):
    """The default-size test: x and score 0."""
    return lambda: ((np.zeros(shape), np.zeros(shape), np.full(shape[:1], 0.5)), {"sde": sdes(kind), "lam": lam})


def reverse(x, score, t, *, sde, lam=1.0, **edit):
    f, g = (np.asarray(v, np.float64) for v in sde(t)[:2])
    weight = edit.get("weight", lambda lam: (1 + lam**2) / 2)(lam)
    lay = edit.get("lay", over)
    drift = (
        edit.get("f", 1) * lay(f, x.shape) * x
        - edit.get("s", 1) * weight * lay(edit.get("g2", np.square)(g), x.shape) * score
    )
    return np.asarray(drift, x.dtype), np.asarray(edit.get("noise", lambda lam: lam)(lam) * g, x.dtype)


@mutant(ID, thread="conditional-flow-matching#85", default_case=still())
def forward_drift_negated(*args, **options):
    "reverse-drift: -f x - .., the sign of a walk with dt > 0, half of it."
    return reverse(*args, f=-1, **options)


@mutant(ID, thread="conditional-flow-matching#85", default_case=still())
def score_added(*args, **options):
    "reverse-drift: f x + .."
    return reverse(*args, s=-1, **options)


@mutant(ID, default_case=still())
def whole_for_half(*args, **options):
    "g^2 s for every lambda: right for the SDE, twice the flow's."
    return reverse(*args, weight=lambda lam: 1.0, **options)


@mutant(ID, default_case=still())
def lambda_not_squared(*args, **options):
    "(1 + lambda) / 2: right for 0 and 1."
    return reverse(*args, weight=lambda lam: (1 + lam) / 2, **options)


@mutant(ID, default_case=still())
def diffusion_for_its_square(*args, **options):
    "g s."
    return reverse(*args, g2=lambda g: g, **options)


@mutant(ID, default_case=still())
def diffusion_without_lambda(*args, **options):
    "Noise g, whatever lambda is."
    return reverse(*args, noise=lambda lam: 1.0, **options)


@mutant(ID, default_case=still(shape=(2, 2)))
def times_of_the_last_axis(*args, **options):
    "One time an example, laid along the last axis."

    def lay(v, shape):
        return np.broadcast_to(np.resize(v, shape[-1]), shape) if v.ndim == 1 and len(shape) > 1 else over(v, shape)

    return reverse(*args, lay=lay, **options)


def _vjp(g, x, score, t, *, sde, lam=1.0):
    return {"x": np.asarray(over(sde(t)[0], x.shape) * g[0], x.dtype), "score": np.zeros_like(score)}


@mutant(ID, default_case=still(), vjp=_vjp)
def score_detached(*args, **options):
    "The score is a constant."
    return reverse(*args, **options)
