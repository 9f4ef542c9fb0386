"""Laws and mutants of KTO."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    by_multiplying,
    dyadics,
    filled_mask,
    policy_mutant,
    sigma,
    with_junk,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import Flag, bools, cases, choose, dims, none_or, rng

ID = "rl.kto_loss"


def _other(kind):
    """Mismatched responses where z0 is not given."""

    def make(draw, c):
        if c.z0 is not None:
            return None
        if kind == "mask":
            mask = rng(draw).random((c.M, c.S)) < 0.6
            return mask
        return dyadics("M S", -2, 0)(draw, c)

    return make


space = cases(
    ID, B=dims(1, 4, large=8), T=dims(1, 4, large=30), M=dims(1, 3), S=dims(1, 3), beta=choose(0.5, 0.125),
    count=none_or(2, 7),
    lambda_d=choose(1.0, 1.5), lambda_u=choose(1.0, 0.5), z0=none_or(0.75, 0.0), mask=filled_mask,
    desirable=bools("B", 0.5),
    log_probs=dyadics("B T", -2, 0), ref_log_probs=dyadics("B T", -2, 0), mismatched=_other("lp"),
    ref_mismatched=_other("ref"), mismatched_mask=_other("mask"),
    flags={
        "masked": Flag(lambda c: not np.all(c.mask), {"T": dims(2, 4)}),
        "uneven": Flag(lambda c: len(set(np.sum(c.mask, -1).tolist())) > 1, {"B": dims(2, 4), "T": dims(2, 4)}),
        "several": Flag(lambda c: c.B > 1, {"B": dims(2, 4)}),
        "estimated": Flag(lambda c: c.z0 is None, {"z0": None}),
        "positive": Flag(lambda c: c.z0 is None and point(c) > 0, {"z0": None, "M": dims(2, 3), "S": dims(2, 3)}),
        "negative": Flag(lambda c: c.z0 is None and raw_point(c) < 0, {"z0": None, "M": dims(2, 3), "S": dims(2, 3)}),
    },
)  # fmt: skip


def raw_point(c):
    gaps = [math.fsum(float(a) - float(b) for a, b, k in zip(*rows, strict=True) if k)
            for rows in zip(c.mismatched, c.ref_mismatched, c.mismatched_mask, strict=True)]  # fmt: skip
    return math.fsum(gaps) / len(gaps)


def point(c):
    """z0."""
    return float(c.z0) if c.z0 is not None else max(0.0, raw_point(c))


def terms(c):
    """(losses[B], slopes[B] by D, sizes[B]), response by response."""
    z = point(c)
    out = np.zeros((3, c.mask.shape[0]))
    for i, kept in enumerate(np.asarray(c.mask)):
        D = math.fsum(float(a) - float(b) for a, b in zip(c.log_probs[i][kept], c.ref_log_probs[i][kept], strict=True))
        weight, sign = (c.lambda_d, 1.0) if c.desirable[i] else (c.lambda_u, -1.0)
        p = 1 / (1 + math.exp(-sign * c.beta * (D - z)))
        size = np.sum(np.abs(c.log_probs[i][kept])) + np.sum(np.abs(c.ref_log_probs[i][kept])) + 4 * c.S + abs(z)
        out[:, i] = weight * (1 - p), -weight * sign * c.beta * p * (1 - p), weight * (1 + c.beta * size)
    return out


def limit(c, sizes):
    return bounds.rounding(2 * c.mask.shape[1] + c.B + 4 * c.M * c.S + 64, np.sum(sizes) / (c.count or c.B), c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("masked", "uneven", "estimated", "positive", "negative"),
     kills=["labels_exchanged", "lambdas_exchanged", "z0_ignored", "z0_not_clipped", "mean_for_the_sum", "own_count",
            "log_sigmoid"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "lambda (1 - sigma(+-beta (D - z0))), response by response, over their number."
    losses, _, sizes = terms(c)
    n = c.count or c.B
    expect(impl(c), np.array(np.sum(losses) / n), limit(c, sizes), scale=float(np.sum(sizes) / n))


@law(ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("masked", "estimated"),
     kills=["slope_negated", "slope_through_z0"])  # fmt: skip
def gradient_is_the_definition(impl, c, expect):
    "d loss / d log pi = -+lambda beta p (1 - p) a kept token; z0 is held fixed; a masked token exactly 0."
    _, slopes, sizes = terms(c)
    wanted = 2 * slopes[:, None] / (c.count or c.B) * np.asarray(c.mask)
    found = impl.vjp(c, np.array(2.0, c.dtype))["log_probs"]
    expect(found, wanted, 4 * limit(c, sizes) + bounds.rounding(64, wanted, c.dtype), "d log pi", scale=2.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d log pi of the masked")


@law(ID, "L3", needs=("vjp",), given=space.where(masked=True), kills=["masked_by_multiplying"],
     passes_null=["zeros", "constant"])  # fmt: skip
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in prompts and padding changes no bit, neither of the loss nor of the gradient."
    other, g = with_junk(c, "log_probs", "ref_log_probs"), np.array(1.0, c.dtype)
    expect.same(impl(other), impl(c), "loss beside junk")
    expect.same(impl.vjp(other, g)["log_probs"], impl.vjp(c, g)["log_probs"], "d log pi beside junk")


@law(ID, "L4", given=space.where(several=True, count=None), kills=["own_count"], passes_null=["zeros"])
def any_cut_adds_up(impl, c, expect):
    "Response by response under the whole's count, with one z0 for all: the losses add up to the whole's."
    _, _, sizes = terms(c)
    names = ("log_probs", "ref_log_probs", "mask", "desirable")
    parts = [c.replace(**{n: c[n][i : i + 1].copy() for n in names}, B=1, count=c.B) for i in range(c.B)]
    expect(np.array(sum(float(impl(p)) for p in parts)), impl(c), 4 * limit(c, sizes), scale=float(np.sum(sizes) / c.B))


@law(ID, "L5", closed_form=True, given=space.where(z0=0.0), kills=["lambdas_exchanged"])
def half_at_the_reference(impl, c, expect):
    "pi = ref, z0 = 0: half of lambda_D a desirable response and half of lambda_U an undesirable one."
    now = c.replace(ref_log_probs=c.log_probs.copy())
    wanted = np.sum(np.where(c.desirable, c.lambda_d, c.lambda_u)) / 2 / (c.count or c.B)
    expect(impl(now), np.array(wanted), bounds.rounding(c.B + 16, wanted, c.dtype))


@law(ID, "L6", given=space.where(estimated=True).reach("positive", "negative"),
    kills=["z0_not_clipped", "z0_of_the_matched"],
     passes_null=["zeros", "constant", "cached", "identity"])  # fmt: skip
def z0_is_the_clipped_mean_of_the_mismatched(impl, c, expect):
    "z0 estimated, or the same number given: the same loss. What is masked in the mismatched pairs is invisible."
    _, _, sizes = terms(c)
    given = c.replace(z0=point(c), mismatched=None, ref_mismatched=None, mismatched_mask=None)
    expect(impl(given), impl(c), 2 * limit(c, sizes), scale=float(np.sum(sizes) / (c.count or c.B)))
    junk = np.where(c.mismatched_mask, c.mismatched, c.dtype.type(np.nan))
    expect.same(impl(c.replace(mismatched=junk)), impl(c), "junk in the mismatched")


# Mutants ---------------------------------------------------------------------------------------------


def at_reference(**options):
    """The default-size test: the reference itself, z0 = 0."""

    def make():
        lp = -np.abs(np.random.default_rng(0).standard_normal((4, 3)))
        args = (lp, lp.copy(), np.ones((4, 3), bool), np.array([True, False, True, False]))
        return args, {"z0": 0.0, **options}

    return make


def base(lp, ref, mask, desirable, other=None, ref_other=None, other_mask=None, *, beta=0.1, lambda_d=1.0, lambda_u=1.0,
         z0=None, count=None, **edit):  # fmt: skip
    """(loss, gradient) in plain NumPy."""
    hide = edit.get("hide", lambda x, mask: np.where(mask, x, 0))
    D = edit.get("D", lambda total, n: total)(hide(lp - ref, mask).sum(-1), mask.sum(-1))
    if z0 is None:
        mean = np.where(other_mask, other - ref_other, 0).sum(-1).mean()
        z0 = edit.get("z", lambda mean, D: max(0.0, mean))(mean, D)
    z0 = edit.get("last_z", lambda z: z)(z0)
    lambdas = edit.get("lambdas", lambda d, u: (d, u))(lambda_d, lambda_u)
    sign = np.where(edit.get("label", lambda x: x)(desirable), 1.0, -1.0)
    weight = np.where(desirable, *lambdas)
    p = sigma(sign * beta * (D - z0))
    losses = edit.get("loss", lambda p: 1 - p)(p)
    n = edit.get("count_of", lambda count, B: count or B)(count, len(lp))
    slope = -weight * sign * beta * p * (1 - p) / n
    d = edit.get("slope", lambda d, mask: d)(hide(slope[:, None] * np.ones_like(lp), mask), mask)
    return np.asarray(np.sum(weight * losses) / n, lp.dtype), d.astype(lp.dtype)


def _mutant(name, doc, case=None, value=None, slope=None, thread=None):
    policy_mutant(ID, name, doc, base, default_case=case or at_reference(), value=value, slope=slope, thread=thread)


_mutant("labels_exchanged", "Desirable responses are pushed down.", value={"label": np.logical_not})
_mutant("lambdas_exchanged", "lambda_U for the desirable.", value={"lambdas": lambda d, u: (u, d)})
_mutant("z0_ignored", "z0 = 0.", value={"last_z": lambda z: 0.0})
_mutant("z0_not_clipped", "A negative estimate stays.", value={"z": lambda mean, D: mean})
_mutant("z0_of_the_matched", "The mean over the batch's own responses.",
    value={"z": lambda mean, D: max(0.0, D.mean())})
_mutant("mean_for_the_sum", "The average log-ratio.", value={"D": lambda total, n: total / n}, thread="trl#1265")
_mutant("own_count", "The micro-batch's own number of responses.", value={"count_of": lambda count, B: B},
    thread="transformers#34191")
_mutant("log_sigmoid", "-log sigma: DPO's shape.", lambda: (at_reference()()[0], {"z0": 0.0}),
        value={"loss": lambda p: 0.5 - np.log(2) - np.log(p)})  # fmt: skip
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", value={"hide": by_multiplying})
_mutant("slope_negated", "The gradient pushes the other way.", slope={"slope": lambda d, mask: -d})
_mutant("slope_through_z0", "z0 is differentiated as the mean of the batch's own D.",
        slope={"slope": lambda d, mask: d - mask * d.sum(-1, keepdims=True).mean()})  # fmt: skip
