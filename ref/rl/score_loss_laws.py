"""Laws and mutants of the score-function loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    Terms,
    by_multiplying,
    dyadics,
    even_batch,
    filled_mask,
    log_probs,
    policy_cases,
    policy_laws,
    policy_mutant,
)  # fmt: skip
from ref.spec.cases import Flag, choose

ID = "rl.score_loss"
BOUNDS = ((None, None), (None, 1.3), (0.7, 1.3), (0.7, None))


def terms(c):
    """-c A log pi, one by one."""
    values, slopes, sizes = np.zeros((3, *c.mask.shape))
    for i, t in zip(*np.nonzero(c.mask), strict=True):
        a, lp = float(c.advantages[i, t if c.advantages.shape[1] > 1 else 0]), float(c.log_probs[i, t])
        rho = 1.0 if c.old_log_probs is None else math.exp(lp - float(c.old_log_probs[i, t]))
        if c.old_log_probs is not None:
            rho = max(rho, c.low or 0.0) if c.high is None else min(max(rho, c.low or 0.0), c.high)
        values[i, t], slopes[i, t], sizes[i, t] = -rho * a * lp, -rho * a, abs(rho * a) * (1 + abs(lp))
    return Terms(values, slopes, sizes)


space = policy_cases(
    ID, fixed=True, count=None, weights=dyadics("B", 0.25, 2, 8), mask=filled_mask,
    first={"off": choose(True, False)},
    old_log_probs=lambda draw, c: log_probs(draw, c) if c.off else None, clip=choose(*BOUNDS),
    low=lambda draw, c: c.clip[0] if c.off else None, high=lambda draw, c: c.clip[1] if c.off else None,
    unset={"old_log_probs": {"off": False, "old_log_probs": None}},
    flags={"empty_row": Flag(lambda c: not np.all(np.any(c.mask, -1)),
                             {"mask": lambda draw, c: np.arange(c.T) < np.arange(c.B)[:, None]})},
)  # fmt: skip


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, a, mask, weights, *, old_log_probs=None, low=None, high=None, **edit):
    """(loss, gradient) in plain NumPy."""
    hide = edit.get("hide", lambda x, mask: np.where(mask, x, 0))
    rho = 1.0
    if old_log_probs is not None:
        rho = np.exp(np.minimum(hide(lp - old_log_probs, mask), 80))
        rho = edit.get("clip", lambda rho, low, high: rho if (low, high) == (None, None) else np.clip(rho, low, high))(
            rho, low, high)  # fmt: skip
    coefficient = hide(rho * edit.get("of", lambda a: a)(a) * np.ones_like(lp), mask)
    w = edit.get("w", lambda w, mask: w)(weights, mask)[:, None]
    d = edit.get("slope", lambda d, rho, lp: d)(-coefficient * w, rho, hide(lp, mask))
    return np.asarray(-np.sum(coefficient * hide(lp, mask) * w), lp.dtype), d.astype(lp.dtype)


def case():
    """The default-size test: on policy, rows of one length."""
    (lp, old, a, mask), _ = even_batch()()
    return (lp, a, mask, np.full(3, 0.25)), {"old_log_probs": old, "low": 0.7, "high": 1.3}


def _mutant(name, doc, **edits):
    policy_mutant(ID, name, doc, base, default_case=case, **edits)


_mutant("unclipped", "The bounds accepted and dropped.", value={"clip": lambda rho, low, high: rho})
_mutant("ratio_ignored", "The likelihood alone.", value={"clip": lambda rho, low, high: np.ones_like(rho)})
_mutant("drops_the_clipped", "A token whose ratio is clipped adds nothing: PPO's way.",
        value={"clip": lambda rho, low, high: rho * ((rho >= (low or 0)) & (rho <= (high or np.inf)))})  # fmt: skip
_mutant("advantage_per_row", "The first token's advantage for the whole response.", value={"of": lambda a: a[:, :1]})
_mutant("scaled_by_the_width", "Weights times kept over width.",
        value={"w": lambda w, mask: w * mask.sum(-1) / mask.shape[-1]})  # fmt: skip
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", value={"hide": by_multiplying})
_mutant("slope_through_the_ratio", "The ratio is differentiated too.",
        slope={"slope": lambda d, rho, lp: d * (1 + lp * (np.asarray(rho) != 1))})  # fmt: skip
_mutant("slope_is_the_score", "-A w: right on policy.",
    slope={"slope": lambda d, rho, lp: d / np.where(rho == 0, 1, rho)})
policy_laws(
    ID, space, terms, cut=False,
    kills={"L1": ["unclipped", "ratio_ignored", "drops_the_clipped", "advantage_per_row"],
           "L2": ["slope_through_the_ratio", "slope_is_the_score"], "L3": ["masked_by_multiplying"],
           "L4": ["scaled_by_the_width"]},
)  # fmt: skip
