"""Laws and mutants of denoising score matching."""

from __future__ import annotations

import itertools

import numpy as np

import backends
from ref.diffusion.common_laws import Linear, constant, over
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "diffusion.denoising_score_matching"


def linear(draw, c):
    g = rng(draw)
    return Linear(g.integers(-8, 9, (c.d, c.d)) / 4, g.integers(-4, 5, c.d) / 2)


space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 4),
    std=lambda draw, c: np.asarray(2.0 ** rng(draw).integers(-3, 3, c.B)),
    score=linear,
    weighting=choose("none", "variance"),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "levels": Flag(lambda c: len(set(np.ravel(c.std).tolist())) > 1, {"B": (3,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,), (2, 2))}),
    },
)
some = space.where(some=True)


def noised(c):
    b = over(c.std, (*c.B, c.d))
    x, z = np.asarray(c.x, np.float64), np.asarray(c.noise, np.float64)
    return x + b * z, z, b


def near(c, size):
    return bounds.rounding(60 * (c.d + 2), size, c.dtype)


def size(c):
    """|b s| + |z| over the entries, squared and summed, over b^2 where nothing weighs."""
    y, z, b = noised(c)
    s = (np.abs(c.x) + b * np.abs(z) + 2) @ np.full((c.d, c.d), 2.0)
    total = np.sum((b * s + np.abs(z) + 1) ** 2, -1)
    return total if c.weighting == "variance" else total / np.asarray(c.std, np.float64) ** 2


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "levels"),
    kills=["noise_of_the_other_sign", "target_without_its_std", "clean_score"],
)  # fmt: skip
def the_score_of_the_kernel_loses_nothing(impl, c, expect):
    "A score that says -z / b, asked once at x + b z and std: 0."
    y, z, b = noised(c)
    asked = []

    def score(x, std):
        asked.append((backends.namespace(x).to_numpy(x), backends.namespace(std).to_numpy(std)))
        return constant(-z / b, x)

    out = impl(c.replace(score=score))
    expect.holds(len(asked) == 1, "the score is asked once")
    expect(asked[0][0], y, bounds.rounding(6, np.abs(c.x) + b * np.abs(z), c.dtype), "x + b z", scale=1e9)
    expect.same(asked[0][1], c.std, "std")
    expect(out, np.zeros(c.B), bounds.rounding(60, 1.0, c.dtype) ** 2 * size(c), "loss", scale=1.0)


@law(
    ID, "L2", closed_form=True, given=some.where(weighting="none", B=(), d=1),
    kills=["noise_of_the_other_sign", "target_without_its_std", "clean_score", "whole_square", "weighted_always"],
)  # fmt: skip
def constant_away_from_explicit(impl, c, expect):
    """x ~ N(m, v), s = -k (y - n): the loss less E|s - grad ln q_b|^2 / 2, q_b = N(m, v + b^2), is
    (1 / b^2 - 1 / (v + b^2)) / 2 for every k and n; expectations by the signs of x - m and z."""
    m, root, b = 1.0, 0.5, float(c.std)
    pairs = np.array(list(itertools.product((1.0, -1.0), repeat=2)))
    x, z = (m + root * pairs[:, :1]), pairs[:, 1:]
    total = root**2 + b * b
    for k, n in ((0.5, 0.0), (2.0, 1.0), (1 / total, m), (0.0, 0.0)):
        now = c.replace(x=x.astype(c.dtype), noise=z.astype(c.dtype), std=np.full(4, b, c.dtype),
                        score=Linear([[k]], [n]), B=(4,))  # fmt: skip
        explicit = (total * (k - 1 / total) ** 2 + k**2 * (m - n) ** 2) / 2
        wanted = explicit + (1 / b**2 - 1 / total) / 2
        found = np.mean(np.asarray(impl(now), np.float64))
        expect(found, wanted, near(c, (k * (2 + b) + 1 / b + 1) ** 2), f"k = {k}, n = {n}", scale=1e9)


@law(
    ID, "L3", closed_form=True, dtypes=("float64",), given=some.where(d=dims(1, 3), B=()),
    kills=["noise_of_the_other_sign", "clean_score", "target_without_its_std"],
)  # fmt: skip
def best_linear_score(impl, c, expect):
    """x ~ N(m, S): at L = (S + b^2)^-1 and its mean the loss is least, and moved by E it is tr(E (S + b^2) E^T) / 2
    more; expectations by all signs of S^-1/2 (x - m) and z."""
    d, b = c.d, float(c.std)
    root = np.eye(d) + np.tri(d, k=-1) / 2
    m, S = np.arange(1.0, d + 1), root @ root.T
    pairs = np.array(list(itertools.product((1.0, -1.0), repeat=2 * d)))
    L = np.linalg.inv(S + b * b * np.eye(d))
    E = np.outer(np.ones(d), np.arange(1, d + 1)) / 8
    weight = b * b if c.weighting == "variance" else 1.0
    found = [
        np.mean(impl(c.replace(x=m + pairs[:, :d] @ root.T, noise=pairs[:, d:].copy(), std=np.full(4**d, b),
                               score=Linear(A, m), B=(4**d,))))
        for A in (L, L + E, L - E)
    ]  # fmt: skip
    more = weight * np.trace(E @ (S + b * b * np.eye(d)) @ E.T) / 2
    limit = bounds.rounding(4000, (4 + d * b + 1 / b) ** 2 * (1 + weight), "float64")
    expect(found[1] - found[0], more, limit, "moved by E", scale=1e9)
    expect(found[2] - found[0], more, limit, "moved by -E", scale=1e9)


@law(ID, "L4", closed_form=True, given=some, kills=["weighted_always", "weighted_by_std", "whole_square"])
def weighting_by_the_variance(impl, c, expect):
    "none: |s + z / b|^2 / 2; variance: b^2 times it, |b s + z|^2 / 2."
    y, z, b = noised(c)
    s = c.score.value(y)
    off = np.sum((s + z / b) ** 2, -1) / 2
    out = impl(c)
    wanted = off * np.asarray(c.std, np.float64) ** 2 if c.weighting == "variance" else off
    expect(out, wanted, near(c, size(c) * 9), c.weighting, scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def still(d=2):
    """The default-size test: no noise, a score that is 0, std 1."""
    return lambda: ((np.ones((3, d)), np.zeros((3, d)), np.ones(3)), {"score": Linear(np.zeros((d, d)), np.zeros(d))})


def term(x, noise, std, *, score, weighting="none", **edit):
    b = std[..., None]
    y = x if edit.get("clean") else x + b * noise
    s = np.asarray(score(y.astype(x.dtype), std), np.float64)
    target = edit.get("target", lambda z, b: -z / b)(noise, b)
    out = np.sum((s - target) ** 2, -1) * edit.get("factor", 0.5)
    kind = edit.get("kind", weighting)
    return np.asarray(out * {"none": 1.0, "variance": std**2, "std": std}[kind], x.dtype)


@mutant(ID, default_case=still())
def noise_of_the_other_sign(*args, **options):
    "Target z / b."
    return term(*args, target=lambda z, b: z / b, **options)


@mutant(ID, default_case=still())
def target_without_its_std(*args, **options):
    "Target -z."
    return term(*args, target=lambda z, b: -z, **options)


@mutant(ID, default_case=still())
def clean_score(*args, **options):
    "The score is asked at the clean x."
    return term(*args, clean=True, **options)


@mutant(ID, default_case=still())
def whole_square(*args, **options):
    "Without the half."
    return term(*args, factor=1.0, **options)


@mutant(ID, default_case=still())
def weighted_always(*args, weighting="none", **options):
    "b^2 whatever is asked for."
    return term(*args, kind="variance", **options)


@mutant(ID, default_case=still())
def weighted_by_std(*args, weighting="none", **options):
    "b for b^2."
    return term(*args, kind="std" if weighting == "variance" else "none", **options)
