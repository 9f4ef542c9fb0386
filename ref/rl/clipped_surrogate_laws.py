"""Laws and mutants of the clipped surrogate."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    RANGES,
    by_multiplying,
    clip_loss,
    clipped,
    clipped_terms,
    dyadics,
    even_batch,
    filled_mask,
    policy_cases,
    policy_laws,
    policy_mutant,
    surrogate,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import Flag, choose, dims

ID = "rl.clipped_surrogate"


options = {
    "clip": choose(*RANGES), "eps_low": lambda draw, c: c.clip[0], "eps_high": lambda draw, c: c.clip[1],
    "dual_clip": choose(None, 3.0, 1.75), "level": choose("token", "sequence"),
}  # fmt: skip
space = policy_cases(
    ID, fixed=True, count=None, weights=dyadics("B", 0.25, 2, 8), mask=filled_mask, **options,
    flags={
        "spread": Flag(lambda c: c.T > 2, {"T": dims(3, 5)}),
        "empty_row": Flag(lambda c: not np.all(np.any(c.mask, -1)),
                          {"level": "token", "mask": lambda draw, c: np.arange(c.T) < np.arange(c.B)[:, None]}),
    },
)  # fmt: skip
policy_laws(
    ID, space, clipped_terms, cut=False,
    kills={
        "L1": ["symmetric_clip", "clips_the_loss", "no_minimum", "dual_everywhere", "dual_ignored", "advantage_per_row",
               "token_ratio_for_the_sequence", "mean_over_the_width", "log_ratio_negated"],
        "L2": ["slope_of_the_clipped", "slope_without_the_ratio", "slope_through_the_cap", "sequence_slope_over_n"],
        "L3": ["masked_by_multiplying"],
        "L4": ["mean_over_the_width"],
    },
)  # fmt: skip


def rows_at(c, pairs):
    """A batch with one row for each (log-ratio, advantage): the same at all of its tokens, under the mask of row 0."""
    gaps, a = (np.array(x)[:, None] for x in zip(*pairs, strict=True))
    n, start = len(pairs), np.where(np.abs(gaps) < 8, -1.0, gaps / 2)
    lp = np.broadcast_to(start, (n, c.T))
    mask = np.broadcast_to(np.any(c.mask, 0), (n, c.T)).copy()
    return c.replace(B=n, t=1, log_probs=lp.astype(c.dtype), old_log_probs=(lp - gaps).astype(c.dtype), mask=mask,
                     advantages=a.astype(c.dtype), weights=np.full(n, 0.5, c.dtype))  # fmt: skip


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space,
     kills=["slope_of_the_clipped", "slope_through_the_cap", "flat_on_both_sides"], passes_null=["cached"])  # fmt: skip
def flat_in_its_corners_alone(impl, c, expect):
    """The gradient is 0 in two corners (A > 0, rho > 1 + eps_high; A < 0, rho < 1 - eps_low) and, with a dual clip,
    where A < 0 and rho > c, where L = -c A; everywhere else it is -rho A w."""
    pairs = [(g, a) for g in (-1.5, -0.125, 0.0, 0.09375, 0.40625, 0.75, 1.5) for a in (1.0, -1.0, 0.0)]
    now = rows_at(c, pairs)
    said = [clipped(math.exp(g), a, c.eps_low, c.eps_high, c.dual_clip) for g, a in pairs]
    slopes = np.array([slope for _, slope in said])[:, None]
    found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
    wanted = 0.5 * slopes * now.mask
    expect(found, wanted, bounds.rounding(64, wanted, c.dtype), "d log pi", scale=1.0)
    expect.same(np.any(found != 0, -1), slopes[:, 0] != 0, "where it is flat")
    value = 0.5 * sum(v for v, _ in said) * now.mask[0].sum()
    size = 0.5 * sum(abs(v) for v, _ in said) * now.mask[0].sum()
    expect(impl(now), np.array(value), bounds.rounding(64 + now.mask.size, size, c.dtype), scale=size)


@law(ID, "L7", closed_form=True, given=space.where(dual_clip=None, level="token"),
     kills=["no_minimum", "maximum_for_the_minimum"])  # fmt: skip
def never_above_the_unclipped(impl, c, expect):
    "Without a dual clip the objective is at most that of rho A and that of the clipped ratio: L is at least both."
    w = np.asarray(c.weights, np.float64)[:, None] * np.asarray(c.mask)
    gap = np.where(c.mask, np.asarray(c.log_probs, np.float64) - c.old_log_probs, 0)
    a = np.broadcast_to(np.asarray(c.advantages, np.float64), gap.shape)
    plain_loss = -np.sum(w * np.exp(gap) * a)
    cut_loss = -np.sum(w * np.clip(np.exp(gap), 1 - c.eps_low, 1 + c.eps_high) * a)
    slack = bounds.rounding(c.mask.size + 48, np.sum(w * np.maximum(np.exp(gap), 2) * np.abs(a)), c.dtype)
    expect.at_most(max(plain_loss, cut_loss) - slack, impl(c).astype(np.float64), "the larger of both losses")


@law(ID, "L8", closed_form=True, needs=("vjp",), given=space.where(spread=True, level="sequence", t=1, dual_clip=None),
     kills=["sequence_slope_over_n", "token_slope_for_the_sequence"])  # fmt: skip
def sequence_ratio_is_differentiated_through_its_mean(impl, c, expect):
    """level="sequence", one A a response: L = -sum w n min(s A, clip(s) A), s = exp(mean gap), and the derivative of s
    by each kept log pi is s / n: by central differences of that formula in one variable."""
    found = impl.vjp(c, np.array(1.0, c.dtype))["log_probs"]
    wanted = np.zeros(c.mask.shape)
    for i in range(c.B):
        kept = np.flatnonzero(c.mask[i])
        mean = math.fsum(float(c.log_probs[i, t]) - float(c.old_log_probs[i, t]) for t in kept) / len(kept)
        A = float(c.advantages[i, 0])

        def loss(m, A=A):
            return clipped(math.exp(m), A, c.eps_low, c.eps_high, None)[0]

        h = 1e-5
        wanted[i, kept] = float(c.weights[i]) * (loss(mean + h) - loss(mean - h)) / (2 * h)
    near = [abs(math.exp(m) - b) < 1e-3 for m in np.where(c.mask, np.asarray(c.log_probs) - c.old_log_probs, 0).sum(-1)
            / np.maximum(c.mask.sum(-1), 1) for b in (1 - c.eps_low, 1 + c.eps_high)]  # fmt: skip
    slack = 1e-8 + bounds.rounding(64, 1 + np.abs(wanted), c.dtype) + (100.0 if any(near) else 0.0)
    expect(found, wanted, slack, "d log pi", scale=300.0 if any(near) else 1.0)


@law(ID, "L9", closed_form=True, needs=("vjp",), given=space.where(level="token"),
     kills=["overflows_before_the_clip"])  # fmt: skip
def far_ratios_stay_finite(impl, c, expect):
    "log rho = +-1500: the bound times A where the clip cuts, 0 gradient, whatever exp(1500) is."
    said = [(1500.0, 1.0, -(1 + c.eps_high)), (-1500.0, -1.0, 1 - c.eps_low), (-1500.0, 1.0, 0.0), (1500.0, 0.0, 0.0)]
    said += [] if c.dual_clip is None else [(1500.0, -1.0, c.dual_clip)]
    now = rows_at(c, [(gap, a) for gap, a, _ in said])
    n = 0.5 * now.mask[0].sum()
    value, size = n * sum(v for _, _, v in said), n * sum(abs(v) for _, _, v in said)
    expect(impl(now), np.array(value), bounds.rounding(64 + now.mask.size, size, c.dtype), scale=size)
    found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
    expect.same(found, np.zeros(now.mask.shape), "gradient")


# Mutants ---------------------------------------------------------------------------------------------


def base(log_probs, old_log_probs, advantages, mask, weights, **options):
    """(loss, gradient) in plain NumPy."""
    how = {"reduction": "seq-mean-token-sum", "weights": lambda *a: weights}
    return clip_loss(log_probs, old_log_probs, advantages, mask, **how, **options)


def default(**options):
    """The default-size test: on policy, nothing masked."""
    make = even_batch(**options)

    def case():
        args, options = make()
        return (*args, np.full(3, 0.25)), options

    return case


def _mutant(name, doc, thread=None, case=None, value=None, slope=None):
    policy_mutant(ID, name, doc, base, default_case=case or default(), thread=thread, value=value, slope=slope)


def _tokens(edit):
    """A token loss whose (value, slope) an edit makes from the clip range and (rho, A)."""
    return {"token": lambda low, high, dual: lambda ratio, a, lp: edit(low, high, dual, ratio, a)}


def _unclipped(low, high, dual, ratio, a):
    return -ratio * a, -ratio * a


_mutant("symmetric_clip", "eps_low on both sides.", thread="trl#2881",
        value=_tokens(lambda low, high, dual, r, a: surrogate(low, low, dual)(r, a, 0)))  # fmt: skip
_mutant("clips_the_loss", "clip(rho A, 1 - eps, 1 + eps).", case=lambda: (
    (-np.ones((2, 3)), -np.ones((2, 3)), np.ones((2, 1)), np.ones((2, 3), bool), np.ones(2)), {}),
        value=_tokens(lambda low, high, dual, r, a: (-np.minimum(r * a, np.clip(r * a, 1 - low, 1 + high)),
        -r * a)))  # fmt: skip
_mutant("no_minimum", "The clipped surrogate alone.",
        value=_tokens(lambda low, high, dual, r, a: (-np.clip(r, 1 - low, 1 + high) * a, -r * a)))  # fmt: skip
_mutant("maximum_for_the_minimum", "The optimistic one of the two.",
        value=_tokens(lambda low, high, dual, r, a: (-np.maximum(r * a, np.clip(r, 1 - low, 1 + high) * a),
        -r * a)))  # fmt: skip
_mutant("dual_everywhere", "max(., c A) where A > 0 too.", case=default(),
        value=_tokens(lambda low, high, dual, r, a: (
            surrogate(low, high, None)(r, a, 0)[0] if dual is None else
            -np.maximum(-surrogate(low, high, None)(r, a, 0)[0], dual * a), -r * a)))  # fmt: skip
_mutant("dual_ignored", "dual_clip accepted and dropped.",
        value=_tokens(lambda low, high, dual, r, a: surrogate(low, high, None)(r, a, 0)))  # fmt: skip
_mutant("log_ratio_negated", "pi_old / pi.", value={"gap": lambda gap, mask: -gap})
_mutant("token_ratio_for_the_sequence", "The token's ratio at level 'sequence'.", value={"gap": lambda gap, mask: gap})
_mutant("mean_over_the_width", "The mean log-ratio over the padded width.", case=default(level="sequence"),
        value={"n": lambda mask: mask.shape[-1]})  # fmt: skip
_mutant("masked_by_multiplying", "Everything times the mask: NaN stays.", value={"hide": by_multiplying})
_mutant("slope_of_the_clipped", "The gradient flows where the clip holds.",
        slope={"slope": lambda own, value, r, a, clip: -r * a})  # fmt: skip
_mutant("slope_without_the_ratio", "-A: right on policy.",
        slope={"slope": lambda own, value, r, a, clip: np.where(own == 0, 0, -a)})  # fmt: skip
_mutant("slope_through_the_cap", "The dual clip bounds the value alone.",
        slope={"slope": lambda own, value, r, a, clip: surrogate(*clip[:2], None)(r, a, 0)[1]})  # fmt: skip
_mutant("flat_on_both_sides", "No gradient outside the range, whatever the sign of A.",
        slope={"slope": lambda own, value, r, a, clip: np.where((r < 1 - clip[0]) | (r > 1 + clip[1]), 0,
        own)})  # fmt: skip
_mutant("sequence_slope_over_n", "Another 1 / n in the gradient of a response's ratio.", case=default(),
        slope={"last": lambda d, mask, level: d if level == "token"
        else d / np.maximum(mask.sum(-1, keepdims=True), 1)})  # fmt: skip
_mutant("token_slope_for_the_sequence", "The gradient lands on the first kept token alone.", case=default(),
        slope={"last": lambda d, mask, level: d if level == "token" else d * (np.cumsum(mask, -1) == 1)})  # fmt: skip


def _per_row(log_probs, old_log_probs, advantages, mask, weights, **options):
    return base(log_probs, old_log_probs, advantages[:, :1], mask, weights, **options)


policy_mutant(ID, "advantage_per_row", "The first token's advantage for the whole response.", _per_row,
    default_case=default())


def _overflowing(log_probs, old_log_probs, advantages, mask, weights, *, eps_low=0.2, eps_high=0.2, dual_clip=None,
                 level="token"):  # fmt: skip
    """exp first, in the arrays' own dtype: inf * 0 and inf - inf."""
    found = base(log_probs, old_log_probs, advantages, mask, weights, eps_low=eps_low, eps_high=eps_high,
                 dual_clip=dual_clip, level=level)  # fmt: skip
    with np.errstate(all="ignore"):
        through = 0 * np.exp(np.where(mask, log_probs - old_log_probs, 0))
    return found[0], found[1] + through.astype(found[1].dtype)


policy_mutant(ID, "overflows_before_the_clip", "exp, then clip: the gradient is inf times 0.", _overflowing,
              default_case=default())  # fmt: skip
