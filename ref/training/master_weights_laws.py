"""Laws and mutants of master weights."""

from __future__ import annotations

import itertools

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "training.master_weights"
SINGLE = ("float32",)


def _weights(draw, c):
    """bfloat16 numbers between 2^-6 and 2^9 in size: 8 digits."""
    g = rng(draw)
    return np.ldexp(g.integers(128, 256, c.n) * 1.0, g.integers(-13, 2, c.n)) * (1 - 2 * g.integers(0, 2, c.n))


def gap(w, d):
    """Distance from |w| to the next bfloat16 number on d's side: half as far below a power of two as above."""
    exponent = np.frexp(np.abs(w))[1] - 8
    inward = (np.frexp(np.abs(w))[0] == 0.5) & (np.sign(d) != np.sign(w))
    return np.ldexp(1.0, exponent - inward)


def _small(draw, c):
    """Updates below half a gap on their side, over 2^6 of a gap."""
    g = rng(draw)
    share = g.integers(-31, 32, (c.T, c.n)) / 64
    return share * gap(c.w, share)


def _noise(draw, c):
    return rng(draw).integers(0, 1 << 16, (c.T, c.n)).astype(np.uint16) if c.keep == "stochastic" else None


space = cases(
    ID,
    n=dims(1, 4),
    T=dims(0, 5),
    keep=choose("master", "low", "stochastic"),
    w=_weights,
    updates=_small,
    noise=_noise,
    flags={
        "stochastic": Flag(lambda c: c.keep == "stochastic", {"keep": "stochastic"}),
        "power_of_two": Flag(
            lambda c: bool(np.any(np.frexp(c.w)[0] == 0.5)), {"w": lambda draw, c: np.full(c.n, 256.0)}
        ),
        "long": Flag(lambda c: c.T > 1, {"T": dims(2, 5)}),
    },
)


@law(
    ID, "L1", closed_form=True, dtypes=SINGLE, given=space.where(keep="low").reach("power_of_two", "long"),
    kills=["low_is_a_master", "truncated"], passes_null=["wrong_dtype"],
)  # fmt: skip
def half_a_gap_is_lost(impl, c, expect):
    """w + d = w, however often, while |d| is below half the gap on d's side; at half a gap the even one of the two
    neighbours is taken: 256 + 1 = 256, 258 + 1 = 260."""
    state, weights = impl(c)
    expect.same(weights, c.w)
    expect.same(state, c.w, "state")
    ties = c.replace(w=np.array([256, 258, -258], np.float32), updates=np.array([[1, 1, -1]], np.float32), n=3, T=1)
    expect.same(impl(ties)[1], np.array([256.0, 260.0, -260.0]), "weights at a tie")


@law(
    ID, "L2", closed_form=True, dtypes=SINGLE, given=space.where(keep="master").reach("long", "power_of_two"),
    kills=["master_from_the_copy", "updates_rounded", "copy_not_rounded"],
)  # fmt: skip
def masters_add_up(impl, c, expect):
    "Updates of a 64th of a gap are summed exactly: the state is w + sum_t d_t, the weights are that rounded once."
    state, weights = impl(c)
    total = c.w.astype(np.float64) + c.updates.astype(np.float64).sum(0)
    expect.same(state, total, "state")
    unit = np.ldexp(1.0, np.frexp(np.where(total == 0, 1, total))[1] - 8)
    expect.same(weights, np.rint(total / unit) * unit)
    fine = c.replace(w=np.ones(c.n, np.float32), updates=np.full((c.T, c.n), 2.0**-7 + 2.0**-16, np.float32))
    expect.same(impl(fine)[0], np.full(c.n, 1 + c.T * (2.0**-7 + 2.0**-16)), "sum of updates of ten digits")


@law(
    ID, "L3", closed_form=True, dtypes=SINGLE, given=space.where(n=1, keep="stochastic", T=dims(1, 2)),
    kills=["noise_ignored"], passes_null=["wrong_dtype"],
)  # fmt: skip
def noise_is_right_on_average(impl, c, expect):
    "Updates in quarters of a gap: over all 4^T noises of two bits the mean weight is w + sum_t d_t, exactly."
    w = np.array([144.0], np.float32)  # far from the ends of 128 .. 256, where the gap is 1
    d = np.round(c.updates / gap(c.w, c.updates) * 4 + 0.5) / 4 + 0.25
    every = itertools.product(range(0, 1 << 16, 1 << 14), repeat=c.T)
    runs = [c.replace(w=w, updates=d.astype(np.float32), noise=np.array(r, np.uint16)[:, None]) for r in every]
    found = [impl(run)[1].astype(np.float64) for run in runs]
    expect.same(np.sum(found) / 4**c.T, float(w[0] + d.sum()), "mean weight")


@law(
    ID, "L4", dtypes=SINGLE, given=space.reach("stochastic", "long"),
    kills=["master_dropped", "one_noise_for_all_steps"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_run_goes_on_to_the_same_bits(impl, c, expect):
    "T updates are the first k and, from the state then, the others: state and weights to the bit."
    k = c.T // 2
    part = lambda rows: None if c.noise is None else c.noise[rows]  # noqa: E731
    state, _ = impl(c.replace(updates=c.updates[:k], noise=part(slice(k)), T=k))
    rest = c.replace(w=np.array(state, np.float32), updates=c.updates[k:], noise=part(slice(k, None)), T=c.T - k)
    for found, wanted, what in zip(impl(rest), impl(c), ("state", "weights"), strict=True):
        expect.same(found, wanted, what)


# Mutants ---------------------------------------------------------------------------------------------


def _whole(**options):
    def make():
        return (np.array([4.0, -8.0], np.float32), np.array([[1, 2], [3, 4]], np.float32)), options

    return make


def near(x):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def cut(x, noise=None):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((u + (0 if noise is None else noise)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def run(w, updates, noise, keep, *, after=lambda m: m, low=near, last=near, each=lambda d: d, row=lambda t: t):
    """`after` follows each addition to the master, `low` each addition without; `row` picks the noise of a step."""
    m = w.copy() if keep == "master" else near(w)
    for t, d in enumerate(updates):
        m = m + each(d)
        m = after(m) if keep == "master" else low(m) if keep == "low" else cut(m, noise[row(t)])
    return m, last(m) if keep == "master" else m.copy()


@mutant(ID, default_case=_whole())
def master_from_the_copy(w, updates, noise=None, *, keep="master"):
    "The master is read back from the rounded weights after each step."
    return run(w, updates, noise, keep, after=near)


@mutant(ID, default_case=_whole())
def updates_rounded(w, updates, noise=None, *, keep="master"):
    "The update is rounded to bfloat16 before it is added."
    return run(w, updates, noise, keep, each=near)


@mutant(ID, default_case=_whole())
def copy_not_rounded(w, updates, noise=None, *, keep="master"):
    "The weights are the master itself."
    return run(w, updates, noise, keep, last=lambda m: m.copy())


@mutant(ID, default_case=_whole(keep="low"))
def low_is_a_master(w, updates, noise=None, *, keep="master"):
    "Rounded at the end alone."
    m, weights = run(w, updates, noise, "master" if keep == "low" else keep)
    return (weights.copy(), weights) if keep == "low" else (m, weights)


@mutant(ID, default_case=_whole(keep="low"))
def truncated(w, updates, noise=None, *, keep="master"):
    "Rounded towards zero."
    return run(w, updates, noise, keep, low=cut)


@mutant(ID, default_case=_whole())
def one_noise_for_all_steps(w, updates, noise=None, *, keep="master"):
    "The random bits of the first step serve all."
    return run(w, updates, noise, keep, row=lambda t: 0)


@mutant(ID, default_case=_whole())
def noise_ignored(w, updates, noise=None, *, keep="master"):
    "Stochastic rounding to the nearest."
    return run(w, updates, noise, "low" if keep == "stochastic" else keep)


@mutant(ID, default_case=_whole())
def master_dropped(w, updates, noise=None, *, keep="master"):
    "What is handed on is the rounded copy."
    m, weights = run(w, updates, noise, keep)
    return weights.copy(), weights
