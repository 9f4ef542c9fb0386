"""Laws and mutants of GSPO's loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    Terms,
    any_mask,
    clip_loss,
    clipped,
    even_batch,
    policy_cases,
    policy_laws,
    policy_mutant,
    reduction_mutants,
    weights,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import Flag, choose, dims

ID = "rl.gspo_loss"
OWN = "seq-mean-token-mean"
space = policy_cases(
    ID, fixed=True, clip=choose((0.2, 0.28), (0.1, 0.4)), eps_low=lambda draw, c: c.clip[0],
    eps_high=lambda draw, c: c.clip[1],
    mask=lambda draw, c: any_mask(draw, type("B", (), {"B": c.B, "T": c.T, "count": None})),
    flags={"empty_row": Flag(lambda c: c.count is not None, {"count": choose(3, 8)}),
           "spread": Flag(lambda c: c.T > 2, {"T": dims(3, 5)})},
)  # fmt: skip


def terms(c):
    """Every token with its response's ratio."""
    values, slopes, sizes = np.zeros((3, *c.mask.shape))
    for i in range(c.mask.shape[0]):
        kept = np.flatnonzero(c.mask[i])
        s = math.exp(math.fsum(float(c.log_probs[i, t]) - float(c.old_log_probs[i, t]) for t in kept) / len(kept))
        for t in kept:
            a = float(c.advantages[i, t if c.advantages.shape[1] > 1 else 0])
            values[i, t], slopes[i, t] = clipped(s, a, c.eps_low, c.eps_high)
            sizes[i, t] = abs(a) * max(s, 2.0)
    return Terms(values, slopes, sizes)


# Mutants ---------------------------------------------------------------------------------------------


def base(*args, eps_low=3e-4, eps_high=4e-4, level="sequence", **options):
    """(loss, gradient) in plain NumPy."""
    return clip_loss(*args, eps_low=eps_low, eps_high=eps_high, level=level, reduction=OWN, **options)


def case(reduction=OWN):
    """The default-size test: on policy, rows of one length."""
    def make():
        args, _ = even_batch()()
        return (args if reduction != "seq-mean-token-sum" else tuple(x[:, :1] for x in args)), {}

    return make


def _mutant(name, doc, **edits):
    policy_mutant(ID, name, doc, base, default_case=case(), **edits)


whole, numerator, junk = reduction_mutants(ID, base, case, OWN)
_mutant("token_ratios", "Each token's own ratio: GRPO.", value={"gap": lambda gap, mask: gap})
_mutant("not_length_normalised", "The product of the ratios.", value={"n": lambda mask: 1})
_mutant("mean_over_the_width", "The mean log-ratio over the padded width.", value={"n": lambda mask: mask.shape[-1]})
_mutant("slope_over_n_again", "1 / n once more.",
        slope={"last": lambda d, mask, level: d / np.maximum(mask.sum(-1, keepdims=True), 1)})  # fmt: skip
_mutant("slope_of_the_clipped", "The gradient flows where the clip holds.",
        slope={"slope": lambda own, value, r, a, clip: -r * a})  # fmt: skip
policy_laws(
    ID, space, terms, reduction=OWN,
    kills={"L1": [*whole, "token_ratios", "not_length_normalised"],
    "L2": ["slope_over_n_again", "slope_of_the_clipped"],
           "L3": junk, "L4": [*numerator, "mean_over_the_width"], "L5": ["mean_of_means"]},
)  # fmt: skip


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.where(spread=True, t=1), passes_null=["cached"],
     kills=["token_ratios", "slope_of_the_clipped"])  # fmt: skip
def a_response_is_clipped_as_one(impl, c, expect):
    """Ratios 3, 1, 1/3, .. whose mean logarithm is 0 are not clipped, whatever the sign of A, and all of a response's
    tokens have the same gradient -A / n; scaled by 1.5 none has a gradient where A > 0."""
    mask = np.ones((c.B, c.T), bool)
    w = weights(c.replace(mask=mask), OWN)[:, None]
    turn = np.where(np.arange(c.T) % 2, -1.0, 1.0)
    turn[-1] *= 1 - c.T % 2
    for shift in (0.0, math.log(1.5)):
        for a in (1.0, -1.0):
            gap = np.broadcast_to(turn * math.log(3) + shift, mask.shape)
            lp = np.full(mask.shape, -2.0)
            now = c.replace(mask=mask, log_probs=lp.astype(c.dtype), old_log_probs=(lp - gap).astype(c.dtype),
                            advantages=np.full((c.B, 1), a, c.dtype))  # fmt: skip
            s = math.exp(shift)
            wanted = np.broadcast_to(w * (0.0 if a > 0 and shift else -a * s), mask.shape)
            found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
            expect(found, wanted, bounds.rounding(64 + 8 * c.T, np.abs(wanted), c.dtype), f"A = {a}, s = {s}",
                scale=1.0)
