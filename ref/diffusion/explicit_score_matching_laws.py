"""Laws and mutants of explicit score matching."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import Linear, Net, signs
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.explicit_score_matching"

space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 4),
    seed=dims(0, 99),
    gain=choose(0.5, 2.0, 1.0),
    score=lambda draw, c: Net(c.d, 5, c.seed),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "wide": Flag(lambda c: c.d > 1, {"d": dims(2, 4)}),
    },
)


def near(c, size):
    return bounds.rounding(40 * (c.d + 2), size, c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "wide"),
    kills=["whole_square", "mean_of_the_entries", "norm", "added_to_the_target"],
)  # fmt: skip
def half_the_square_of_an_error(impl, c, expect):
    "|s(x) - t|^2 / 2, the sum over d."
    off = c.score.value(c.x) - np.asarray(c.target, np.float64)
    size = (np.abs(off) + 8).max(initial=1) ** 2 * c.d
    expect(impl(c), np.sum(off**2, -1) / 2, near(c, size), scale=1e9)


@law(
    ID, "L2", closed_form=True, given=space.where(d=dims(1, 3), B=(), gain=choose(0.5, 2.0, 1.0)),
    kills=["whole_square", "mean_of_the_entries", "added_to_the_target", "norm"],
)  # fmt: skip
def fisher_divergence_of_gaussians(impl, c, expect):
    """p = N(m, v) and s that of N(n, w): E = sum over d of (v (1/w - 1/v)^2 + (m - n)^2 / w^2) / 2, by the 2^d signs of
    x - m = +-sqrt(v)."""
    g = np.arange(1, c.d + 1)
    m, n, root, w = 1.0 * g, 0.5 * g, 1.0 / g, c.gain * g
    x = m + root * signs(c.d)
    s = Linear(np.diag(1 / w), n)
    now = c.replace(x=x.astype(c.dtype), target=(-(x - m) / root**2).astype(c.dtype), score=s, B=(2**c.d,))
    wanted = np.sum(root**2 * (1 / w - 1 / root**2) ** 2 + (m - n) ** 2 / w**2) / 2
    expect(np.mean(np.asarray(impl(now), np.float64)), wanted, near(c, 400.0), "E", scale=1e9)


@law(ID, "L3", closed_form=True, needs=("vjp",), given=space.where(B=(2,)), kills=["target_detached"])
def gradient_by_the_jacobian(impl, c, expect):
    "d / dx = J^T (s - t), d / dt = -(s - t)."
    found = impl.vjp(c, np.ones(c.B, c.dtype))
    off = c.score.value(c.x) - np.asarray(c.target, np.float64)
    J = c.score.jacobian(c.x)
    size = (np.abs(off).max() + 8) * (np.abs(J).sum((-2, -1)).max() + 8)
    expect(found["x"], np.einsum("...i,...ij->...j", off, J), near(c, size), "of x", scale=1e9)
    expect(found["target"], -off, near(c, size), "of the target", scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def right(d=2):
    """The default-size test: the score is the target."""
    return lambda: ((np.ones((3, d)), np.zeros((3, d))), {"score": Linear(np.zeros((d, d)), np.zeros(d))})


def term(x, target, *, score, **edit):
    off = score.value(x) - edit.get("sign", 1) * target
    out = edit.get("reduce", lambda y: np.sum(y, -1))(off**2) * edit.get("factor", 0.5)
    return np.asarray(edit.get("after", lambda y: y)(out), x.dtype)


@mutant(ID, default_case=right())
def whole_square(*args, **options):
    "Without the half."
    return term(*args, factor=1.0, **options)


@mutant(ID, default_case=right())
def mean_of_the_entries(*args, **options):
    "The mean over d."
    return term(*args, reduce=lambda y: np.mean(y, -1), **options)


@mutant(ID, default_case=right())
def norm(*args, **options):
    "| . |, no square."
    return term(*args, after=lambda y: np.sqrt(2 * y) / 2, **options)


@mutant(ID, default_case=right())
def added_to_the_target(*args, **options):
    "s + t: the other sign of a score."
    return term(*args, sign=-1, **options)


def _half(g, x, target, *, score):
    off = score.value(x) - target
    pulled = np.einsum("...i,...ij->...j", off, score.jacobian(x))
    return {"x": np.asarray(g[..., None] * pulled, x.dtype), "target": np.zeros_like(target)}


@mutant(ID, default_case=right(), vjp=_half)
def target_detached(*args, **options):
    "The target is a constant."
    return term(*args, **options)
