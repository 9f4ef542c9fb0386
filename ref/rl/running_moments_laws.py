"""Laws and mutants of running moments."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from ref.rl.common_laws import JUNK, dyadics
from ref.rl.running_moments import Moments
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, bools, cases, choose, rng

ID = "rl.running_moments"


def _seen(draw, c):
    """What was seen before: the moments of a few numbers, or of none."""
    seen = rng(draw).integers(-16, 17, c.before) / 4.0
    mean = seen.mean() if len(seen) else 0.0
    return Moments(np.array(float(len(seen))), np.array(mean), np.array(np.sum((seen - mean) ** 2)))


space = cases(
    ID, B=batch(2, 3, large=20), before=choose(0, 1, 4), x=dyadics("*B", -4, 4, 4), mask=bools("*B"), state=_seen,
    flags={
        "several": Flag(lambda c: c.mask.ndim == 1 and np.sum(c.mask) > 1, {"B": choose((3,), (4,))}),
        "nothing": Flag(lambda c: not np.any(c.mask), {"mask": lambda draw, c: np.zeros(c.B, bool)}),
        "first": Flag(lambda c: float(c.state.count) == 0, {"before": 0}),
        "some": Flag(lambda c: np.sum(c.mask) > 0, {"B": choose((2,), (2, 3))}),
    },
)  # fmt: skip


def pooled(c):
    """Count, mean and M2 in fractions."""
    x = [Fraction(float(v)) for v in np.asarray(c.x)[c.mask]]
    n0, m0, s0 = (Fraction(float(v)) for v in c.state)
    n = n0 + len(x)
    mean = (n0 * m0 + sum(x)) / n if n else Fraction(0)
    m2 = s0 + n0 * (m0 - mean) ** 2 + sum((v - mean) ** 2 for v in x)
    return [float(v) for v in (n, mean, m2)]


def close(expect, found, wanted, c, top, what):
    n = c.x.size + 16
    expect(found[0], np.array(wanted[0]), bounds.rounding(2, wanted[0], c.dtype), f"{what}: count", scale=1.0)
    expect(found[1], np.array(wanted[1]), bounds.rounding(n, top, c.dtype), f"{what}: mean", scale=top)
    size = (wanted[0] + 1) * top * top
    expect(found[2], np.array(wanted[2]), bounds.rounding(4 * n, size, c.dtype), f"{what}: M2", scale=size)


def top_of(c):
    return float(max(np.max(np.abs(np.asarray(c.x)[c.mask]), initial=0), abs(float(c.state.mean)), 1))


@law(ID, "L1", closed_form=True, given=space.reach("nothing", "first", "some"),
     kills=["means_averaged", "gap_forgotten", "variance_for_m2", "mask_ignored", "state_ignored"])  # fmt: skip
def moments_in_fractions(impl, c, expect):
    "Count, mean and sum of squares about it, of what was seen and of the batch together, in fractions."
    found = impl(c)
    expect.holds(isinstance(found, Moments), "a Moments")
    close(expect, found, pooled(c), c, top_of(c), "pooled")


@law(ID, "L2", given=space.where(several=True), kills=["means_averaged", "gap_forgotten"],
     passes_null=["zeros", "constant", "identity", "cached"])  # fmt: skip
def any_split_is_the_whole(impl, c, expect):
    "However a batch is cut, one part after the other gives what the whole gives."
    whole = impl(c)
    n = len(c.x)
    for cuts in (k for r in (1, n - 1) for k in itertools.combinations(range(1, n), r)):
        state = c.state
        for rows in np.split(np.arange(n), cuts):
            state = impl(c.replace(x=c.x[rows].copy(), mask=c.mask[rows].copy(), B=(len(rows),), state=state))
        close(expect, state, [float(v) for v in whole], c, top_of(c), f"cut at {cuts}")


@law(ID, "L3", closed_form=True, given=space.where(several=True, before=0), kills=["square_of_the_mean"])
def a_large_mean_keeps_the_digits(impl, c, expect):
    "Values 2^20 + 0, 1, 2, ..: M2 is that of 0, 1, 2, .. (n (n^2 - 1) / 12), to what the mean's rounding leaves."
    n = len(c.x)
    now = c.replace(x=(2.0**20 + np.arange(n)).astype(c.dtype), mask=np.ones(n, bool))
    found = impl(now)
    wanted = n * (n * n - 1) / 12
    off = bounds.rounding(n + 2, 2.0**20, c.dtype)
    expect(found[2], np.array(wanted), 2 * n * off * (n + off) + bounds.rounding(4 * n, wanted, c.dtype), "M2",
        scale=4 * n**3)


@law(ID, "L4", given=space, kills=["mask_ignored", "masked_by_multiplying"], passes_null=["identity"])
def nothing_kept_changes_nothing(impl, c, expect):
    "A batch of which nothing is kept, junk and all, leaves the state as it was, to the bit."
    junk = JUNK[np.arange(c.x.size) % 4].reshape(c.x.shape).astype(c.dtype)
    found = impl(c.replace(x=junk, mask=np.zeros(c.x.shape, bool)))
    for name, a, b in zip(Moments._fields, found, c.state, strict=True):
        expect.same(a, b, name)


# Mutants ---------------------------------------------------------------------------------------------


def first_batch():
    """The default-size test: one value after one like it."""
    one = Moments(np.array(1.0), np.array(2.0), np.array(0.0))
    return (np.array([2.0]), np.array([True]), one), {}


def plain(x, mask, state, **edit):
    kept = edit.get("hide", lambda v, m: v[m])(x, mask)
    n = np.asarray(edit.get("n", lambda kept, mask: mask.sum())(kept, mask), x.dtype)
    mean = kept.sum() / max(n, 1)
    m2 = edit.get("m2", lambda kept, mean, n: ((kept - mean) ** 2).sum())(kept, mean, n)
    a = Moments(*(0 * np.asarray(v) for v in state)) if edit.get("fresh") else state
    total = a.count + n
    share = n / max(total, 1)
    gap = mean - a.mean
    new = edit.get("mean", lambda a, gap, share, mean: a + gap * share)(a.mean, gap, share, mean)
    out = total, new, a.m2 + m2 + edit.get("gap", 1.0) * gap * gap * a.count * share
    return Moments(*(np.asarray(v, x.dtype) for v in out))


def alone():
    """The default-size test of what forgets the state: there is none."""
    zero = np.array(0.0)
    return (np.array([2.0]), np.array([True]), Moments(zero, zero, zero)), {}


def _mutant(name, doc, case=first_batch, **edit):
    def function(*args):
        return plain(*args, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case)(function)


_mutant("means_averaged", "The mean of the two means.", mean=lambda a, gap, share, mean: (a + mean) / 2 if share < 1
    else mean)
_mutant("gap_forgotten", "M2 is added without the distance of the means.", gap=0.0)
_mutant("variance_for_m2", "The batch's variance is added.",
    m2=lambda kept, mean, n: ((kept - mean) ** 2).sum() / max(n, 1))
_mutant("square_of_the_mean", "E x^2 - (E x)^2: of a large mean nothing is left.",
        m2=lambda kept, mean, n: ((kept * kept).astype(np.float32).sum() - n
        * np.float32(mean * mean)).astype(kept.dtype))  # fmt: skip
_mutant("mask_ignored", "Masked values count.", hide=lambda v, m: v.reshape(-1), n=lambda kept, mask: kept.size)
_mutant("masked_by_multiplying", "Values times the mask: NaN stays.", hide=lambda v, m: v * m)
_mutant("state_ignored", "The batch alone.", alone, fresh=True)

