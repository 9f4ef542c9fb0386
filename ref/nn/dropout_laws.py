"""Laws and mutants of dropout."""

from __future__ import annotations

import itertools

import numpy as np

from ref.nn.common_laws import cotangent, f64, roundings, split, threefry
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, draw_bools

ID = "nn.dropout"
space = cases(
    ID,
    B=batch(2, 4, large=300),
    rate=choose(0.5, 0.25, 0.1, 0.75),
    keyed=choose(False, True),
    keep=lambda draw, c: None if c.keyed else np.asarray(draw_bools(draw, c.B)),
    seed=lambda draw, c: draw(choose(0, 7, 2**40 + 3, 2**64 - 1)) if c.keyed else None,
    unset={"seed": {"keyed": False, "seed": None}},
    flags={
        "none": Flag(lambda c: c.x.size == 0, {"B": choose((0,), (2, 0))}),
        "masked": Flag(lambda c: not c.keyed, {"keyed": False}),
        "by_seed": Flag(lambda c: c.keyed, {"keyed": True}),
        "some_dropped": Flag(lambda c: c.x.size > 2 and not mask(c).all(), {"B": choose((4,), (3, 4))}),
        "few": Flag(lambda c: 0 < c.x.size <= 6, {"B": choose((1,), (3,), (2, 2), (2, 3))}),
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1, {"B": (4, 4)}),
    },
)  # fmt: skip


def mask(c):
    """The mask of the case; a seed's is drawn element by element in Python's integers."""
    if c.keep is not None:
        return c.keep
    shape = c.x.shape
    words = [threefry(split(i), split(c.seed))[0] for i in range(c.x.size)]
    return np.array([w >= c.rate * 2**32 for w in words], bool).reshape(shape)


def wanted(c, x):
    return np.where(mask(c), np.asarray(x, np.float64) / (1 - c.rate), 0.0)


@law(
    ID, "L1", closed_form=True, given=space.where(masked=True).reach("none", "some_dropped"),
    kills=["scale_forgotten", "scaled_by_the_share_kept", "scaled_by_one_over_rate", "mask_of_the_first_row"],
)  # fmt: skip
def kept_are_scaled_and_dropped_are_zero(impl, c, expect):
    "y = x / (1 - rate) where kept and 0, exactly, where dropped."
    out, want = impl(c), wanted(c, c.x)
    expect(out, want, roundings(c, 3, want))
    dropped = ~mask(c)
    expect.same(out[dropped], np.zeros(int(dropped.sum())), "dropped elements")


@law(
    ID, "L2", closed_form=True, given=space.where(masked=True, few=True),
    kills=["scale_forgotten", "scaled_by_the_share_kept", "scaled_by_one_over_rate"], passes_null=["identity"],
)  # fmt: skip
def mean_over_all_masks_is_the_input(impl, c, expect):
    "Summed over all 2^n masks, each with its probability, y is x."
    total = np.zeros(c.x.shape)
    for kept in itertools.product((True, False), repeat=c.x.size):
        p = np.prod([1 - c.rate if k else c.rate for k in kept])
        total += p * impl(c.replace(keep=np.array(kept).reshape(c.x.shape))).astype(np.float64)
    (x,) = f64(c, "x")
    expect(total, x, roundings(c, 3, x) + 2.0**-45 * np.abs(x), "E[y]")


@law(ID, "L3", closed_form=True, given=space, kills=["scale_guarded_by_an_eps"], passes_null=["identity"])
def rate_zero_is_the_identity(impl, c, expect):
    "rate = 0 with nothing dropped: y = x, every bit."
    whole = c if c.keep is None else c.replace(keep=np.ones(c.x.shape, bool))
    expect.same(impl(whole.replace(rate=0.0)), c.x)


@law(
    ID, "L4", closed_form=True, given=space.where(by_seed=True).reach("rows", "some_dropped"),
    kills=["one_mask_for_all_rows", "fresh_noise", "seed_ignored"],
)  # fmt: skip
def a_seed_is_its_mask(impl, c, expect):
    "With a seed, element i (row-major) is kept as Threefry of (seed, i) says."
    want = wanted(c, c.x)
    expect(impl(c), want, roundings(c, 3, want))


@law(
    ID, "L5", given=space.where(by_seed=True, rows=True), kills=["fresh_noise"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def same_key_same_bits(impl, c, expect):
    "The same seed drops the same elements, call after call: a recomputation in the backward pass too."
    first = impl(c)
    for _ in range(2):
        expect.same(impl(c), first, "a later call")


@law(
    ID, "L6", given=space.where(some_dropped=True), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def dropped_junk_is_gone(impl, c, expect):
    "NaN, inf or 1e30 in dropped elements changes no bit."
    junk = np.array([np.nan, np.inf, -np.inf, 1e30])[np.arange(c.x.size) % 4].reshape(c.x.shape)
    expect.same(impl(c.replace(x=np.where(mask(c), c.x, junk.astype(c.dtype)))), impl(c))


@law(
    ID, "L7", closed_form=True, needs=("vjp",), given=space.reach("masked", "by_seed", "some_dropped"),
    kills=["gradient_draws_again", "gradient_without_the_scale"],
)  # fmt: skip
def gradient_has_the_same_mask(impl, c, expect):
    "dx = g / (1 - rate) where kept and 0, exactly, where dropped."
    g = cotangent(c, c.x.shape)
    found, want = impl.vjp(c, g)["x"], wanted(c, g)
    expect(found, want, roundings(c, 3, want), "dx")
    expect.same(found == 0, ~mask(c) | (g == 0), "where dx is 0")


# Mutants ---------------------------------------------------------------------------------------------


def nothing_dropped():
    """The default-size test: evaluation, rate 0."""
    return (np.random.default_rng(0).standard_normal((3, 4)),), {"rate": 0.0, "seed": 0}


def half():
    """Half of the elements dropped at rate 1/2."""
    x = np.random.default_rng(0).standard_normal((2, 4))
    return (x, np.arange(8).reshape(2, 4) % 2 == 0), {"rate": 0.5}


def _mask(x, keep, rate, seed):
    if keep is not None:
        return keep
    words = [threefry(split(i), split(seed))[0] for i in range(x.size)]
    return np.array([w >= rate * 2**32 for w in words], bool).reshape(x.shape)


def edited(x, keep, rate, seed, scale=None, drawn=None):
    kept = _mask(x, keep, rate, seed) if drawn is None or keep is not None else drawn
    s = 1 / (1 - rate) if scale is None else scale(kept)
    return np.where(kept, x * x.dtype.type(s), x.dtype.type(0))


@mutant(ID, default_case=nothing_dropped)
def scale_forgotten(x, keep=None, *, rate, seed=None):
    "The dropout of 2012, whose scale is due at evaluation."
    return edited(x, keep, rate, seed, scale=lambda kept: 1)


@mutant(ID, default_case=half)
def scaled_by_the_share_kept(x, keep=None, *, rate, seed=None):
    "n / (number kept): another function, and another mean."
    return edited(x, keep, rate, seed, scale=lambda kept: kept.size / max(int(kept.sum()), 1))


@mutant(ID, default_case=half)
def scaled_by_one_over_rate(x, keep=None, *, rate, seed=None):
    "rate read as the probability of being kept: the same at 1/2."
    return edited(x, keep, rate, seed, scale=lambda kept: 1 / rate if rate else 1)


@mutant(ID, default_case=nothing_dropped)
def scale_guarded_by_an_eps(x, keep=None, *, rate, seed=None):
    "A guard against rate = 1: 1 / (1 - rate + 1e-7)."
    return edited(x, keep, rate, seed, scale=lambda kept: 1 / (1 - rate + 1e-7))


@mutant(ID, default_case=lambda: ((np.ones((1, 4)), np.array([[True, False, True, True]])), {"rate": 0.25}))
def mask_of_the_first_row(x, keep=None, *, rate, seed=None):
    "The mask's first row broadcast over the others."
    if keep is not None and keep.ndim == 2 and len(keep):
        keep = np.broadcast_to(keep[:1], keep.shape)
    return edited(x, keep, rate, seed)


@mutant(ID, default_case=nothing_dropped)
def one_mask_for_all_rows(x, keep=None, *, rate, seed=None):
    "The counter starts again in every row."
    row = _mask(x.reshape(-1, x.shape[-1])[0], None, rate, seed) if keep is None and x.size and x.ndim else None
    return edited(x, keep, rate, seed, drawn=None if row is None else np.broadcast_to(row, x.shape))


_calls = itertools.count()


@mutant(ID, thread="OLMo-core#828, guided-diffusion#167", default_case=nothing_dropped)
def fresh_noise(x, keep=None, *, rate, seed=None):
    "A generator with state: the recomputation draws another mask."
    return edited(x, keep, rate, seed, drawn=np.random.default_rng(next(_calls)).random(x.shape) >= rate)


@mutant(ID, default_case=nothing_dropped)
def seed_ignored(x, keep=None, *, rate, seed=None):
    "One key for every layer and step."
    return edited(x, keep, rate, None if seed is None else 0)


@mutant(ID, default_case=half)
def masked_by_multiplying(x, keep=None, *, rate, seed=None):
    "Dropped elements times zero: NaN stays."
    return x * (_mask(x, keep, rate, seed) / (1 - rate)).astype(x.dtype)


def _vjp_mutant(name, doc, vjp, thread=None):
    def function(x, keep=None, *, rate, seed=None):
        return edited(x, keep, rate, seed)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, thread=thread, default_case=nothing_dropped)(function)


def _again(g, x, keep=None, *, rate, seed=None):
    return (edited(g, None if keep is None else np.roll(keep, 1), rate, None if seed is None else seed // 2 + 1),)


_vjp_mutant("gradient_draws_again", "The backward pass drops other elements.", _again, "OLMo-core#828")
_vjp_mutant("gradient_without_the_scale", "dx = g where kept.",
            lambda g, x, keep=None, *, rate, seed=None: (edited(g, keep, rate, seed, scale=lambda kept: 1),))
