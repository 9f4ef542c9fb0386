"""Laws and mutants of masked whitening."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ref.rl.common_laws import JUNK, dyadics
from ref.rl.running_moments import Moments
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.whiten"


def _mask(draw, c):
    mask = rng(draw).random((c.B, c.T)) < 0.6
    mask[:, :2] = True  # two kept places in every scope
    return mask


space = cases(
    ID, B=dims(1, 3, large=6), T=dims(2, 5, large=40), shift_mean=choose(True, False), ddof=choose(1, 0),
    eps=choose(1e-8, 0.25),
    eps_at=choose("variance", "deviation"), scope=choose("batch", "row"), moments=None, mask=_mask,
    x=dyadics("B T", -4, 4, 8),
    flags={
        "masked": Flag(lambda c: not np.all(c.mask), {"T": dims(3, 5)}),
        "spread": Flag(lambda c: min(deviations(c)) > 0.25),
        "rows": Flag(lambda c: c.B > 1, {"B": dims(2, 3)}),
    },
)  # fmt: skip


def scopes(c):
    """The kept numbers of each scope, and the rows it covers."""
    rows = [[i] for i in range(c.B)] if c.scope == "row" else [list(range(c.B))]
    return [([Fraction(float(v)) for i in own for v in c.x[i][c.mask[i]]], own) for own in rows]


def deviations(c):
    return [math.sqrt(float(sum((v - sum(x) / len(x)) ** 2 for v in x) / (len(x) - c.ddof))) for x, _ in scopes(c)]


def definition(c):
    """(z, bound): means and variances in fractions."""
    z, slack = np.zeros(c.x.shape), np.zeros(c.x.shape)
    for x, own in scopes(c):
        mean = sum(x) / len(x)
        variance = float(sum((v - mean) ** 2 for v in x) / (len(x) - c.ddof))
        s = math.sqrt(variance + c.eps) if c.eps_at == "variance" else math.sqrt(variance) + c.eps
        top, n = float(max(map(abs, x))), len(x)
        for i in own:
            own_z = np.array([float(Fraction(float(v)) - mean) / s for v in c.x[i]])
            z[i] = own_z + (0 if c.shift_mean else float(mean))
            off = bounds.rounding(n + 8, top, c.dtype) / s  # of a centred number, over s
            slack[i] = off * (1 + np.abs(own_z)) + bounds.rounding(2 * n + 16, np.abs(own_z) + top, c.dtype)
    return np.where(c.mask, z, 0), slack


spread = space.where(spread=True)


@law(ID, "L1", closed_form=True, given=spread.reach("masked", "rows"),
     kills=["other_ddof", "eps_at_the_other_place", "mean_always_shifted", "one_scope", "over_all_places"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "(x - m) / sqrt(v + eps) or (x - m) / (sqrt(v) + eps), m and v in fractions; 0, exactly, where masked."
    z, slack = definition(c)
    found = impl(c)
    expect(found, z, slack, scale=1.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "masked")


@law(ID, "L2", closed_form=True, given=spread.where(shift_mean=True, eps=1e-8, scope="batch"),
    kills=["over_all_places", "other_ddof"])
def mean_zero_and_variance_one(impl, c, expect):
    "Over the kept places the result has mean 0 and variance 1, up to eps over the variance."
    found, n = np.asarray(impl(c), np.float64)[c.mask], int(np.sum(c.mask))
    slack = float(np.max(definition(c)[1])) * 4 * n
    expect(found.mean(), np.array(0.0), slack, "mean", scale=1.0)
    s = deviations(c)[0]
    wanted = (s / (math.sqrt(s * s + c.eps) if c.eps_at == "variance" else s + c.eps)) ** 2
    expect(np.sum(found**2) / (n - c.ddof), np.array(wanted), slack * 4, "variance")


@law(ID, "L3", given=spread.where(masked=True), kills=["masked_by_multiplying"], passes_null=["zeros", "constant"])
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in masked places changes no bit."
    junk = JUNK[np.arange(c.x.size) % 4].reshape(c.x.shape).astype(c.dtype)
    expect.same(impl(c.replace(x=np.where(c.mask, c.x, junk))), impl(c))


@law(ID, "L4", closed_form=True, given=spread.where(shift_mean=True, eps=1e-8), kills=["not_centred"],
    passes_null=["zeros"])
def affine_invariance(impl, c, expect):
    "a x + b, a > 0: the same result; a < 0 its negative (eps being small)."
    _, slack = definition(c)
    for a, b in ((2.0, 0.0), (1.0, 3.0), (-4.0, 1.0)):
        moved = c.replace(x=(np.asarray(c.x, np.float64) * a + b).astype(c.dtype))
        bound = slack + definition(moved)[1] + 8e-7
        expect(impl(moved), np.sign(a) * impl(c).astype(np.float64), bound, f"{a} x + {b}", scale=1.0)


@law(ID, "L5", given=spread.where(rows=True, scope="batch"), kills=["moments_ignored"],
    passes_null=["zeros", "constant", "identity"])
def parts_under_pooled_moments(impl, c, expect):
    "Row by row, each with the moments of the whole batch: the whole's rows."
    x = [float(v) for v in c.x[c.mask]]
    mean = math.fsum(x) / len(x)
    pooled = Moments(*(np.asarray(v, c.dtype) for v in (len(x), mean, math.fsum((v - mean) ** 2 for v in x))))
    whole, (_, slack) = impl(c), definition(c)
    for i in range(c.B):
        part = c.replace(x=c.x[i : i + 1].copy(), mask=c.mask[i : i + 1].copy(), B=1, moments=pooled)
        expect(impl(part), whole[i : i + 1], 4 * slack[i : i + 1], f"row {i}", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def plain(x, mask, *, shift_mean=True, ddof=1, eps=1e-8, eps_at="variance", scope="batch", moments=None, **edit):
    axis = edit.get("axis", lambda scope: None if scope == "batch" else 1)(scope)
    kept = edit.get("hide", lambda x, mask: np.where(mask, x, 0))(x, mask)
    counted = edit.get("counted", lambda mask: mask)(mask)
    n = counted.sum(axis, keepdims=True)
    mean = edit.get("mean", lambda m: m)(kept.sum(axis, keepdims=True) / n)
    m2 = np.where(counted, (kept - mean) ** 2, 0).sum(axis, keepdims=True)
    if moments is not None and not edit.get("alone"):
        n, mean, m2 = moments
    v = m2 / (n - edit.get("ddof_as", lambda d: d)(ddof))
    s = np.sqrt(v + eps) if edit.get("at", lambda a: a)(eps_at) == "variance" else np.sqrt(v) + eps
    z = (kept - mean) / s
    z = z if edit.get("shift", lambda s: s)(shift_mean) else z + mean
    return np.where(mask, z, 0).astype(x.dtype) if "hide" not in edit else (z * mask).astype(x.dtype)


def one_row(mask=None, **options):
    """The default-size test: one centred row, nothing masked."""
    x = np.array([[1.0, -1.0, 2.0, -2.0]])
    return lambda: ((x, np.ones((1, 4), bool)), options)


def _mutant(name, doc, case=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or one_row())(function)


_mutant("other_ddof", "n for n - 1, and n - 1 for n.",
    lambda: ((np.array([[1.0, -1.0] * 40000]), np.ones((1, 80000), bool)), {}),
        ddof_as=lambda d: 1 - d)  # fmt: skip
_mutant("eps_at_the_other_place", "eps added to the deviation, not the variance.",
        at=lambda a: "deviation" if a == "variance" else "variance")  # fmt: skip
_mutant("mean_always_shifted", "shift_mean=False accepted and dropped.", shift=lambda s: True)
_mutant("one_scope", "The batch's moments for every row.", axis=lambda scope: None)
_mutant("over_all_places", "Masked places count as zeros.", counted=np.ones_like)
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", hide=lambda x, mask: x * mask)
_mutant("not_centred", "The mean is not taken off.", mean=lambda m: 0 * m)
_mutant("moments_ignored", "A part's own moments, whatever was given.", alone=True)
