"""Laws and mutants of the incremental mean."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "optim.incremental_mean"


def _rates(draw, c):
    return rng(draw).integers(0, 9, c.k) / 8.0


def _start(draw, c):
    return np.asarray(floats("*B")(draw, c))


space = cases(
    ID,
    B=batch(2, 3),
    k=dims(0, 7),
    rates=choose(None),
    start=choose(None),
    flags={
        "some": Flag(lambda c: c.k > 0 and 0 not in c.B, {"k": dims(1, 7), "B": choose((), (2,), (2, 3))}),
        "none": Flag(lambda c: c.k == 0, {"k": 0}),
    },
)
some = space.where(some=True)
rated = some.where(rates=_rates, start=_start)


def near(c, top):
    """Three roundings a step of numbers no greater than twice the largest seen."""
    return bounds.rounding(4 * max(c.k, 1), 2 * top, c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "some"),
    kills=["one_behind", "rate_of_k_plus_one", "constant_rate", "last_value", "start_counts_as_a_value"],
)  # fmt: skip
def one_over_k_is_the_sample_mean(impl, c, expect):
    "w_k = (x_1 + .. + x_k) / k, in exact fractions, from any start."
    flat = np.asarray(c.values, np.float64).reshape(int(np.prod(c.B)), c.k)
    wanted = [[float(sum(map(Fraction, row[: k + 1].tolist())) / (k + 1)) for k in range(c.k)] for row in flat]
    top = np.max(np.abs(flat), initial=0)
    wanted = np.array(wanted).reshape(c.values.shape)
    expect(impl(c), wanted, near(c, top), scale=top)
    far = np.full(c.B, 100.0, c.dtype)
    expect(impl(c.replace(start=far)), wanted, near(c, 100.0 + top), "from a far start", scale=100 + top)


@law(
    ID, "L2", closed_form=True, given=rated,
    kills=["rates_ignored", "start_ignored", "constant_rate", "weights_swapped"],
)  # fmt: skip
def any_rates_in_closed_form(impl, c, expect):
    "w_k = prod_j (1 - a_j) w_0 + sum_i a_i prod_{j > i} (1 - a_j) x_i, the products by fractions."
    a, x = [Fraction(float(r)) for r in c.rates], np.asarray(c.values, np.float64)
    wanted = np.empty(x.shape)
    for k in range(1, c.k + 1):
        left = [np.prod([1 - r for r in a[i:k]], initial=Fraction(1)) for i in range(k + 1)]
        wanted[..., k - 1] = float(left[0]) * c.start + sum(float(a[i] * left[i + 1]) * x[..., i] for i in range(k))
    top = max(np.max(np.abs(x)), np.max(np.abs(c.start)))
    expect(impl(c), wanted, near(c, top), scale=top)


@law(
    ID, "L3", closed_form=True, given=some.where(rates=lambda draw, c: np.full(c.k, draw(choose(0.25, 0.5, 1.0)))),
    kills=["rates_ignored", "weights_swapped"],
)  # fmt: skip
def a_constant_rate_forgets_geometrically(impl, c, expect):
    "Constant a, all values 1, from 0: w_k = 1 - (1 - a)^k, exactly; and 0 after them leaves (1 - a)^j of it."
    a, ones = float(c.rates[0]), np.ones_like(c.values)
    k = np.arange(1, c.k + 1)
    wanted = np.broadcast_to(1 - (1 - a) ** k, ones.shape)
    expect(impl(c.replace(values=ones)), wanted, bounds.rounding(2, 1.0, c.dtype), "rising")
    first = np.zeros_like(ones)
    first[..., 0] = 1
    wanted = np.broadcast_to(a * (1 - a) ** (k - 1), ones.shape)
    expect(impl(c.replace(values=first)), wanted, bounds.rounding(2, 1.0, c.dtype), "fading", scale=1.0)


@law(
    ID, "L4", closed_form=True, given=some.where(k=dims(2, 5), B=()), kills=["constant_rate", "rate_of_k_plus_one"],
)  # fmt: skip
def variance_over_all_signs(impl, c, expect):
    """Values m + s or m - s with equal odds, all 2^k of them: E w_k = m and Var w_k = s^2 / k; at a constant rate a
    from m it is a s^2 / (2 - a) (1 - (1 - a)^(2 k))."""
    m, s, k = 0.5, 2.0, c.k
    values = np.array([[m + s * e for e in signs] for signs in itertools.product((1.0, -1.0), repeat=k)], c.dtype)
    for a, wanted in ((None, s * s / k), (0.25, 0.25 * s * s / 1.75 * (1 - 0.75 ** (2 * k)))):
        rates = None if a is None else np.full(k, a, c.dtype)
        now = c.replace(values=values, rates=rates, start=np.full(2**k, m, c.dtype), B=(2**k,))
        w = np.asarray(impl(now), np.float64)[:, -1]
        expect(np.mean(w), m, bounds.rounding(8 * k, 3.0, c.dtype), f"mean at {a}", scale=1.0)
        expect(np.mean((w - m) ** 2), wanted, bounds.rounding(16 * k, 9.0, c.dtype), f"variance at {a}", scale=1.0)


@law(
    ID,
    "L5",
    given=rated.where(k=dims(3, 7)),
    kills=["rates_from_the_start", "start_ignored"],
    passes_null=["zeros", "constant", "identity"],
)
def the_next_estimate_needs_no_past(impl, c, expect):
    "Cut after any value and taken up from the estimate there, with the rates that are left: the same bits."
    whole = impl(c)
    for k in range(1, c.k):
        rest = c.replace(values=c.values[..., k:].copy(), rates=c.rates[k:].copy(), start=whole[..., k - 1], k=c.k - k)
        expect.same(impl(rest), whole[..., k:], f"from {k}")


@law(ID, "L6", given=some, kills=["clipped"], passes_null=["zeros", "identity"])
def commutes_with_shift_and_scale(impl, c, expect):
    "Values times 2^j give estimates times 2^j, bit for bit; other signs give other signs."
    wanted = impl(c)
    for scale in (2.0**9, -(2.0**-5)):
        expect.same(impl(c.replace(values=(c.values * scale).astype(c.dtype))), wanted * scale, f"times {scale}")


# Mutants ---------------------------------------------------------------------------------------------


def alike(value=2.0, k=5, **options):
    """The default-size test: values that are all alike."""
    return lambda: ((np.full((2, k), value),), options)


def running(values, *, rates=None, start=None, **edit):
    """The recursion in plain NumPy, whose parts an edit replaces."""
    count = values.shape[-1]
    w = np.zeros(values.shape[:-1]) if start is None else start
    found = []
    for k in range(count):
        a = edit.get("rate", lambda k, rates: 1 / (k + 1) if rates is None else float(rates[k]))(k, rates)
        w = edit.get("mix", lambda w, a, x: w + a * (x - w))(w, a, values[..., k])
        found.append(w)
    out = np.stack(found, axis=-1) if found else np.zeros_like(values)
    return out.astype(values.dtype)


@mutant(ID, default_case=alike())
def one_behind(values, **options):
    "w_k without x_k: Zhao's index taken for ours."
    out = running(values, **options)
    return np.concatenate([out[..., :1], out[..., :-1]], axis=-1)


@mutant(ID, default_case=alike(start=np.full(2, 2.0)))
def rate_of_k_plus_one(values, **options):
    "1 / (k + 1): the start counts as a value."
    return running(values, rate=lambda k, rates: 1 / (k + 2) if rates is None else float(rates[k]), **options)


@mutant(ID, default_case=alike(start=np.full(2, 2.0)))
def start_counts_as_a_value(values, *, start=None, **options):
    "The mean of the start and the values, where there is a start."
    shift = 0 if start is None else 1
    rate = lambda k, rates: 1 / (k + 1 + shift) if rates is None else float(rates[k])  # noqa: E731
    return running(values, start=start, rate=rate, **options)


@mutant(ID, default_case=alike(k=2))
def constant_rate(values, **options):
    "1, then 1 / 2 for ever."
    return running(values, rate=lambda k, rates: 1.0 if k == 0 else 0.5, **options)


@mutant(ID, default_case=alike())
def last_value(values, **options):
    "a = 1."
    return running(values, rate=lambda k, rates: 1.0, **options)


@mutant(ID, default_case=alike())
def rates_ignored(values, *, rates=None, **options):
    "rates are accepted and dropped."
    return running(values, **options)


@mutant(ID, default_case=alike(rates=np.full(5, 0.5), start=np.full(2, 2.0)))
def weights_swapped(values, **options):
    "a w + (1 - a) x: the same at a = 1/2."
    return running(values, mix=lambda w, a, x: a * w + (1 - a) * x, **options)


@mutant(ID, default_case=alike())
def start_ignored(values, *, start=None, **options):
    "From 0."
    return running(values, **options)


@mutant(ID, default_case=alike(rates=np.full(5, 0.5), start=np.full(2, 2.0)))
def rates_from_the_start(values, *, rates=None, **options):
    "The rates are centred first: what comes later changes them."
    moved = None if rates is None else rates + (np.mean(rates) - 0.5) * 0.25
    return running(values, rates=moved, **options)


@mutant(ID, default_case=alike())
def clipped(values, **options):
    "Values are clipped to [-100, 100]."
    return running(np.clip(values, -100, 100), **options)
