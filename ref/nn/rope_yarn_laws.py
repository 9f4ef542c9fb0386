"""Laws and mutants of YaRN's frequencies and attention factor."""

from __future__ import annotations

import math

import numpy as np

from ref.nn.common_laws import FREQUENCIES, frequency_bound, frequency_space, plain_frequencies
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, choose, dims

ID = "nn.rope_yarn"
space = frequency_space(
    ID, factor=choose(1.0, 2.0, 40.0), trained_length=choose(64, 4096, 32768), beta_fast=choose(32.0, 8.0),
    beta_slow=choose(1.0, 0.5), ramp=choose("pairs", "rotations"), mscale=choose(None, 1.0, 0.707),
    mscale_all_dim=choose(None, 1.0, 0.707),
)  # fmt: skip
space = space.where(n=dims(1, 32, large=64))
space.flags.update(between=Flag(lambda c: ((keep_of(c) > 0.01) & (keep_of(c) < 0.99)).any(), {"n": choose(16, 32)}))


def keep_of(c):
    """The share of its own frequency that each pair keeps, a pair at a time."""
    L, d, keep = c.trained_length, 2 * c.n, []
    low, high = (d * math.log(L / (b * 2 * math.pi)) / (2 * math.log(c.base)) for b in (c.beta_fast, c.beta_slow))
    low, high = max(math.floor(low), 0), min(math.ceil(high), d - 1)
    for i in range(c.n):
        if c.ramp == "pairs":
            share = 1 - (i - low) / (high - low if high != low else 0.001)
        else:
            share = (L / (2 * math.pi / c.theta[i]) - c.beta_slow) / (c.beta_fast - c.beta_slow)
        keep.append(min(max(share, 0.0), 1.0))
    return np.array(keep)


def bound_of(c):
    """The ramp is a quotient of differences: r up to L / 2 pi, against beta_fast - beta_slow of at least 7."""
    slack = bounds.rounding(8, c.trained_length * c.theta / (c.beta_fast - c.beta_slow), "float64")
    return frequency_bound(c) + slack * (keep_of(c) < 1) * c.theta


@law(
    ID, "L1", closed_form=True, dtypes=FREQUENCIES, given=space.where(ramp="rotations"),
    kills=["ramp_reversed", "no_turn_of_two_pi", "all_interpolated"],
)  # fmt: skip
def fast_pairs_stay_slow_ones_are_divided(impl, c, expect):
    "More than beta_fast turns in L tokens: theta to the bit. Less than beta_slow: theta / s to the bit."
    found, _ = impl(c)
    turns = c.trained_length * c.theta / (2 * math.pi)
    fast, slow = turns > c.beta_fast * 1.0001, turns < c.beta_slow / 1.0001
    expect.same(found[fast], c.theta[fast], "the fast")
    expect.same(found[slow], (c.theta / c.factor)[slow], "the slow")
    expect(found, np.clip(found, c.theta / c.factor, c.theta), frequency_bound(c), "those between")


@law(
    ID, "L2", closed_form=True, dtypes=FREQUENCIES, given=space.reach("between"),
    kills=["ramp_reversed", "no_turn_of_two_pi", "bounds_not_whole", "ramp_over_channels", "always_pairs",
           "always_rotations", "all_interpolated"],
)  # fmt: skip
def the_ramp_is_the_named_one(impl, c, expect):
    "(1 - gamma) theta / s + gamma theta, gamma linear in the rotations or, between whole pairs, in the pair."
    keep = keep_of(c)
    expect(impl(c)[0], (1 - keep) * c.theta / c.factor + keep * c.theta, bound_of(c))


@law(
    ID, "L3", closed_form=True, dtypes=FREQUENCIES, given=space.where(factor=1.0),
    kills=["factor_of_one_is_scaled"],
)  # fmt: skip
def factor_one_changes_nothing(impl, c, expect):
    "s = 1: the same frequencies, and an attention factor of 1."
    theta, a = impl(c)
    expect(theta, c.theta, frequency_bound(c))
    expect.same(a, 1.0, "the attention factor")


@law(
    ID, "L4", closed_form=True, dtypes=FREQUENCIES, given=space,
    kills=["decimal_logarithm", "square_root_of_t", "all_dimensions_ignored", "factor_of_one_is_scaled"],
)  # fmt: skip
def attention_factor_is_a_logarithm(impl, c, expect):
    "1 + ln(s) / 10; with both mscales the quotient of 1 + mscale ln(s) / 10 and 1 + mscale_all_dim ln(s) / 10."
    log = math.log(c.factor) / 10
    both = c.mscale is not None and c.mscale_all_dim is not None
    wanted = (1 + c.mscale * log) / (1 + c.mscale_all_dim * log) if both else 1 + log
    expect(impl(c)[1], wanted, bounds.rounding(40, wanted, "float64"), "the attention factor")


def edited(theta, *, factor, trained_length, base=10000.0, beta_fast=32.0, beta_slow=1.0, ramp="pairs", mscale=None,
           mscale_all_dim=None, turn=2 * math.pi, whole=True, channels=False, keep=lambda k: k, a=None):  # fmt: skip
    n = len(theta)
    if ramp == "pairs":
        low, high = (n * math.log(trained_length / (turn * b)) / math.log(base) for b in (beta_fast, beta_slow))
        low, high = (math.floor(low), math.ceil(high)) if whole else (low, high)
        low, high = max(low, 0), min(high, 2 * n - 1)
        share = 1 - np.clip((np.arange(n) * (2 if channels else 1) - low) / (high - low or 0.001), 0, 1)
    else:
        share = np.clip((trained_length * theta / turn - beta_slow) / (beta_fast - beta_slow), 0, 1)
    share, log = keep(share), 0.1 * math.log(factor)
    if a is None:
        both = mscale and mscale_all_dim
        a = (1 + mscale * log) / (1 + mscale_all_dim * log) if both else 1 + log
    return (1 - share) * (theta / factor) + share * theta, a


# One pair, which every ramp keeps, at a factor of 1.
PLAIN = plain_frequencies(factor=1.0, trained_length=4096)


def _mutant(name, doc, **edit):
    def function(theta, **options):
        return edited(theta, **{**options, **edit})

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=PLAIN)(function)


_mutant("ramp_reversed", "Slow pairs kept, fast ones interpolated.", keep=lambda k: 1 - k)
_mutant("no_turn_of_two_pi", "Radians counted as turns.", turn=1.0)
_mutant("bounds_not_whole", "The ramp's ends are not rounded to whole pairs.", whole=False)
_mutant("ramp_over_channels", "The ramp counts channels, 2 i, not pairs.", channels=True)
_mutant("always_pairs", "The ramp over pairs, whatever is named.", ramp="pairs")
_mutant("always_rotations", "The ramp over rotations, whatever is named.", ramp="rotations")
_mutant("all_interpolated", "Position interpolation with YaRN's attention factor.", keep=lambda k: 0 * k)


@mutant(ID, default_case=PLAIN)
def decimal_logarithm(theta, *, factor, **options):
    "The logarithm to base ten."
    return edited(theta, factor=factor, **options, a=1 + 0.1 * math.log10(factor))


@mutant(ID, default_case=PLAIN)
def square_root_of_t(theta, *, factor, **options):
    "The paper's 1 / sqrt(t) taken once more: the square root of the factor."
    scaled, a = edited(theta, factor=factor, **options)
    return scaled, math.sqrt(a)


@mutant(ID, default_case=PLAIN)
def all_dimensions_ignored(theta, *, mscale=None, mscale_all_dim=None, **options):
    "mscale_all_dim does not divide."
    a = 1 + 0.1 * (mscale or 1.0) * math.log(options["factor"])
    return edited(theta, **options, a=a)


@mutant(ID, default_case=plain_frequencies(factor=2.0, trained_length=4096))
def factor_of_one_is_scaled(theta, *, factor, **options):
    "A factor of 1 is taken for 2."
    return edited(theta, factor=2.0 if factor == 1 else factor, **options)
