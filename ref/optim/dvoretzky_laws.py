"""Laws and mutants of Dvoretzky's process."""

from __future__ import annotations

import itertools

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "optim.dvoretzky"
space = cases(
    ID,
    B=batch(1, 3),
    k=dims(0, 7),
    alphas=lambda draw, c: rng(draw).integers(0, 9, c.k) / 8.0,
    betas=lambda draw, c: rng(draw).integers(0, 9, c.k) / 8.0,
    flags={
        "some": Flag(lambda c: c.k > 0 and 0 not in c.B, {"k": dims(1, 7), "B": choose((), (2,), (3,))}),
        "none": Flag(lambda c: c.k == 0, {"k": 0}),
    },
)
some = space.where(some=True)


def top_of(c):
    return np.max(np.abs(c.start), initial=0) + c.k * np.max(np.abs(c.noise), initial=0) + 1e-3


def near(c):
    """Four roundings a step of numbers that a step (1 - alpha in [0, 1]) does not enlarge."""
    return bounds.rounding(4 * max(c.k, 1), top_of(c), c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "some"),
    kills=["one_rate", "noise_by_alpha", "noise_shrinks_too", "alpha_kept", "one_behind"],
)  # fmt: skip
def process_in_closed_form(impl, c, expect):
    "D_{k+1} = prod_j (1 - alpha_j) D_1 + sum_i beta_i prod_{j > i} (1 - alpha_j) eta_i."
    a, b, eta, first = (np.asarray(x, np.float64) for x in (c.alphas, c.betas, c.noise, c.start))
    wanted = np.empty(eta.shape)
    for k in range(1, c.k + 1):
        left = [np.prod(1 - a[i:k]) for i in range(k + 1)]
        wanted[..., k - 1] = left[0] * first + sum(b[i] * left[i + 1] * eta[..., i] for i in range(k))
    expect(impl(c), wanted, near(c), scale=top_of(c))


@law(
    ID, "L2", closed_form=True, given=some.where(k=dims(1, 5), B=()),
    kills=["noise_by_alpha", "noise_shrinks_too", "one_rate"],
)  # fmt: skip
def mean_and_variance_recursions(impl, c, expect):
    """eta = +s or -s with equal odds, all 2^k of them: m' = (1 - alpha) m and V' = (1 - alpha)^2 V + beta^2 s^2,
    at every step."""
    s, m, V = 2.0, float(c.start), 0.0
    signs = np.array(list(itertools.product((s, -s), repeat=c.k)), c.dtype)
    now = c.replace(start=np.full(2**c.k, m, c.dtype), noise=signs, B=(2**c.k,))
    D = np.asarray(impl(now), np.float64)
    size = abs(m) + s * c.k
    for k in range(c.k):
        a, b = float(c.alphas[k]), float(c.betas[k])
        m, V = (1 - a) * m, (1 - a) ** 2 * V + b * b * s * s
        slack = bounds.rounding(8 * c.k, size, c.dtype)
        expect(np.mean(D[:, k]), m, slack, f"mean {k + 1}", scale=size)
        expect(np.mean((D[:, k] - m) ** 2), V, 2 * size * slack, f"variance {k + 1}", scale=size**2)


@law(ID, "L3", closed_form=True, given=some.where(k=choose(6)), kills=["alpha_kept", "one_rate", "noise_shrinks_too"])
def each_condition_is_needed(impl, c, expect):
    """alpha = beta = 1 / k: the mean of the noise, D_1 forgotten. alpha = 1 / (k + 1)^2, beta = 0: D_1 times
    (k + 2) / (2 (k + 1)) is left. alpha = beta = a under eta = 1: 1 - (1 - a)^k (1 - D_1)."""
    k, eta = np.arange(1, c.k + 1), np.asarray(c.noise, np.float64)
    first = np.asarray(c.start, np.float64)[..., None]
    even, none, fast = (x.astype(c.dtype) for x in (1.0 / k, np.zeros(c.k), 1.0 / (k + 1) ** 2))
    found = impl(c.replace(alphas=even, betas=even))
    expect(found, np.cumsum(eta, axis=-1) / k, 2 * near(c), "1 / k", scale=top_of(c))
    found = impl(c.replace(alphas=fast, betas=none))
    expect(found, (k + 2) / (2 * (k + 1)) * first, 2 * near(c), "1 / (k + 1)^2", scale=top_of(c))
    quarter = np.full(c.k, 0.25, c.dtype)
    found = impl(c.replace(alphas=quarter, betas=quarter, noise=np.ones_like(c.noise)))
    expect(found, 1 - 0.75**k * (1 - first), 2 * near(c) + bounds.rounding(8, 2.0, c.dtype), "constant",
           scale=top_of(c) + 1)  # fmt: skip


@law(ID, "L4", given=some, kills=["alpha_kept", "overshoots"], passes_null=["zeros"])
def without_noise_it_only_shrinks(impl, c, expect):
    "eta = 0: |D| falls from step to step and keeps its sign; twice the start gives twice the path, bit for bit."
    quiet = c.replace(noise=np.zeros_like(c.noise))
    D = impl(quiet)
    before = np.concatenate([np.asarray(c.start)[..., None], D[..., :-1]], axis=-1)
    expect.at_most(np.abs(D), np.abs(before) * (1 + 1e-6), "|D|")
    expect.at_most(-D * np.sign(before), 0.0, "D against its sign before")
    expect.at_most(np.abs(D) - np.abs(before) * (1 - np.asarray(c.alphas) + 1e-6), 0.0, "what a step leaves")
    expect.same(impl(quiet.replace(start=2 * c.start)), 2 * D, "twice the start")


@law(ID, "L5", given=some.where(k=dims(3, 7)), kills=["one_rate"], passes_null=["zeros", "constant"])
def continues_from_where_it_stopped(impl, c, expect):
    "Cut after any step and taken up from there: the same bits."
    whole = impl(c)
    for k in range(1, c.k):
        left = {n: c[n][..., k:].copy() for n in ("alphas", "betas", "noise")}
        expect.same(impl(c.replace(start=whole[..., k - 1].copy(), k=c.k - k, **left)), whole[..., k:], f"from {k}")


# Mutants ---------------------------------------------------------------------------------------------


def even(alpha=0.5, beta=0.5, start=1.0, noise=1.0, k=4):
    """The default-size test: constant sequences."""
    return lambda: ((np.full(3, start), np.full(k, alpha), np.full(k, beta), np.full((3, k), noise)), {})


def process(start, alphas, betas, noise, **edit):
    """The recursion in plain NumPy, whose parts an edit replaces."""
    D, found = np.asarray(start), []
    for k in range(len(alphas)):
        move = edit.get("move", lambda D, a, b, eta: (1 - a) * D + b * eta)
        a, b = edit.get("rates", lambda k: (float(alphas[k]), float(betas[k])))(k)
        D = move(D, a, b, noise[..., k])
        found.append(D)
    return (np.stack(found, axis=-1) if found else np.zeros_like(noise)).astype(noise.dtype)


@mutant(ID, default_case=even())
def one_rate(start, alphas, betas, noise):
    "The first alpha and beta for ever."
    return process(start, alphas, betas, noise, rates=lambda k: (float(alphas[0]), float(betas[0])))


@mutant(ID, default_case=even())
def noise_by_alpha(*args):
    "alpha eta: the same where beta = alpha."
    return process(*args, move=lambda D, a, b, eta: (1 - a) * D + a * eta)


@mutant(ID, default_case=even(beta=0.0))
def noise_shrinks_too(*args):
    "(1 - alpha) (D + beta eta)."
    return process(*args, move=lambda D, a, b, eta: (1 - a) * (D + b * eta))


@mutant(ID, default_case=even())
def alpha_kept(*args):
    "alpha D: the same at 1/2."
    return process(*args, move=lambda D, a, b, eta: a * D + b * eta)


@mutant(ID, default_case=even())
def one_behind(start, alphas, betas, noise):
    "The process before each step: the same where it rests."
    out = process(start, alphas, betas, noise)
    return np.concatenate([np.asarray(start)[..., None], out[..., :-1]], axis=-1) if len(alphas) else out


@mutant(ID, default_case=even(alpha=0.0, beta=0.0))
def overshoots(*args):
    "1 - 2 alpha."
    return process(*args, move=lambda D, a, b, eta: (1 - 2 * a) * D + b * eta)
