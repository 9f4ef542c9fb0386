"""Laws and mutants of truncated and masked importance sampling."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ref.rl.common_laws import dyadics, with_junk
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "rl.rollout_weights"


def _mask(draw, c):
    mask = rng(draw).random((*c.B, c.T)) < 0.7
    mask[..., 0] = True
    return mask


space = cases(
    ID, B=batch(2, 3, large=6), T=dims(1, 5, large=30), level=choose("token", "sequence", "product"),
    mode=choose("truncate", "mask"),
    bound=choose((0.0, 2.0), (0.5, 1.5), (0.0, 5.0)), low=lambda draw, c: c.bound[0] if c.mode == "mask" else 0.0,
    high=lambda draw, c: c.bound[1], mask=_mask, log_probs=dyadics("*B T", -2, 0),
    rollout_log_probs=dyadics("*B T", -2, 0),
    flags={"some": Flag(lambda c: 0 not in c.B, {"B": choose((1,), (2,), (2, 3))}),
           "masked": Flag(lambda c: not np.all(c.mask), {"B": choose((2,), (2, 3)), "T": dims(2, 5)}),
           "clear": Flag(lambda c: all(abs(r - b) > 1e-3 for r in np.ravel(ratios(c)) for b in (c.low, c.high) if b)),
           "cut": Flag(lambda c: np.any(ratios(c) > c.high), {"B": choose((3,), (2, 3)), "T": dims(2, 5)})},
)  # fmt: skip


def ratios(c):
    """rho of each kept token, by products of quotients; 0 where masked."""
    out = np.zeros(c.mask.shape)
    for at in np.ndindex(*c.mask.shape[:-1]):
        kept = c.mask[at]
        own = [math.exp(float(a) - float(b)) for a,
            b in zip(c.log_probs[at][kept], c.rollout_log_probs[at][kept], strict=True)]
        whole = math.prod(own)
        out[at][kept] = own if c.level == "token" else whole if c.level == "product" else whole ** (1 / max(len(own),
            1))
    return out


def limit(c, size):
    T = c.mask.shape[-1]
    return bounds.rounding(16 + 4 * T + T * T, size, c.dtype)


@law(ID, "L1", closed_form=True, given=space.where(clear=True).reach("some", "masked", "cut"),
     kills=["engines_exchanged", "masks_for_truncating", "truncates_for_masking", "token_level_always", "clips_below",
     "low_ignored"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "min(rho, high), or rho where low <= rho <= high and else 0; 0, exactly, where masked."
    rho = ratios(c)
    wanted = np.minimum(rho, c.high) if c.mode == "truncate" else np.where((rho >= c.low) & (rho <= c.high), rho, 0)
    found = impl(c)
    expect(found, np.where(c.mask, wanted, 0), limit(c, rho), scale=1.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "masked")


def two_engines(c):
    """Both engines over all responses of T independent bits: (probabilities[2, 2^T], the case, bits)."""
    first = tuple(0 for _ in c.B)
    p, q = (1 / (1 + np.exp(np.asarray(x, np.float64)[first])) for x in (c.log_probs, c.rollout_log_probs))
    bits = np.array(list(itertools.product((0, 1), repeat=c.T)))
    lp, old = (np.log(np.where(bits == 1, r, 1 - r)) for r in (p, q))
    now = c.replace(log_probs=lp.astype(c.dtype), rollout_log_probs=old.astype(c.dtype), mask=np.ones(bits.shape, bool),
                    B=(len(bits),))  # fmt: skip
    return np.exp(lp.sum(-1)), np.exp(old.sum(-1)), now, bits.sum(-1)


@law(ID, "L2", closed_form=True, given=space.where(some=True, T=dims(1, 3), level="product"),
    kills=["engines_exchanged", "normalised"])
def unbiased_without_a_bound(impl, c, expect):
    "All responses of the rollout engine, the weight unbounded: E_rollout[w f] = E_trainer[f]."
    trainer, rollout, now, f = two_engines(c)
    weight = np.asarray(impl(now.replace(low=0.0, high=1e6)), np.float64)[:, 0]
    expect(rollout @ (weight * f), np.array(trainer @ f), limit(now, 64.0), "E w f", scale=4.0)


@law(ID, "L3", closed_form=True, given=space.where(some=True, T=dims(1, 3), level="product"),
     kills=["masks_for_truncating", "truncates_for_masking", "normalised"])  # fmt: skip
def the_bias_of_truncation(impl, c, expect):
    """All responses: truncated, E_trainer[f] - E_rollout[w f] = E_rollout[(rho - high)+ f]; masked, it is the trainer's
    mass of f outside the bounds."""
    trainer, rollout, now, f = two_engines(c)
    rho = trainer / rollout
    # Ties of rho with a bound are no law of floating point: bounds between the ratios.
    ordered = np.unique(np.round(rho, 9))
    high = float((ordered[0] + ordered[-1]) / 2 + 0.0137)
    weight = np.asarray(impl(now.replace(low=0.0, high=high)), np.float64)[:, 0]
    left = np.maximum(rho - high, 0) * rollout @ f if c.mode == "truncate" else trainer[rho > high] @ f[rho > high]
    near = np.any(np.abs(rho - high) < 1e-4)
    expect(trainer @ f - rollout @ (weight * f), np.array(left), limit(now, 64.0) + 10.0 * near, "bias",
        scale=4.0 + 30 * near)


@law(ID, "L4", given=space.where(masked=True), kills=["masked_by_multiplying"], passes_null=["zeros", "constant"])
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in masked slots changes no bit."
    expect.same(impl(with_junk(c, "log_probs", "rollout_log_probs")), impl(c))


@law(ID, "L5", closed_form=True, given=space.where(some=True), kills=["masked_tokens_weigh_one"])
def the_same_engine_weighs_one(impl, c, expect):
    "Equal log-probabilities: weight 1 at every kept token, exactly, and 0 at a masked one."
    now = c.replace(rollout_log_probs=c.log_probs.copy())
    expect.same(impl(now), np.asarray(c.mask, np.float64))


# Mutants ---------------------------------------------------------------------------------------------


def same_engine(level="token", **options):
    """The default-size test: one engine."""
    lp = -np.abs(np.random.default_rng(0).standard_normal((2, 3)))
    return lambda: ((lp, lp.copy(), np.ones((2, 3), bool)), {"level": level, **options})


def plain(lp, old, mask, *, level="token", mode="truncate", low=0.0, high=2.0, **edit):
    gap = edit.get("hide", lambda x, m: np.where(m, x, 0))(edit.get("sign", 1) * (lp - old), mask)
    if edit.get("level_as", lambda x: x)(level) != "token":
        n = np.maximum(mask.sum(-1, keepdims=True), 1) if level == "sequence" else 1
        gap = np.broadcast_to(gap.sum(-1, keepdims=True) / n, mask.shape)
    rho = np.exp(gap)
    low = edit.get("low_as", lambda low: low)(low)
    how = edit.get("mode_as", lambda m: m)(mode)
    w = np.clip(rho, edit.get("floor", 0.0), high) if how == "truncate" else np.where((rho >= low) & (rho <= high), rho,
        0)
    w = edit.get("last", lambda w, m: w)(w, mask)
    return (np.where(mask, w, edit.get("rest", 0.0)) if "hide" not in edit else w * mask).astype(lp.dtype)


def _mutant(name, doc, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=same_engine())(function)


_mutant("engines_exchanged", "pi_rollout / pi_trainer.", sign=-1)
_mutant("masks_for_truncating", "0 above the bound where it was to be truncated.", mode_as=lambda m: "mask")
_mutant("truncates_for_masking", "The bound above it where it was to be dropped.", mode_as=lambda m: "truncate")
_mutant("token_level_always", "The token's ratio at every level.", level_as=lambda x: "token")
_mutant("clips_below", "Truncated from below too, at 1 / high.", floor=0.5)
_mutant("low_ignored", "low accepted and dropped.", low_as=lambda low: 0.0)
_mutant("normalised", "Divided by the mean weight.",
    last=lambda w, m: w / max(np.where(m, w, 0).sum() / max(m.sum(), 1), 1e-30))
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", hide=lambda x, m: x * m)
_mutant("masked_tokens_weigh_one", "A masked token weighs 1.", rest=1.0)
