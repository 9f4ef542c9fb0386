"""Laws and mutants of the KL term of a policy loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    Terms,
    batch_flags,
    by_multiplying,
    dyadics,
    filled_mask,
    log_probs,
    policy_laws,
    policy_mutant,
)  # fmt: skip
from ref.spec.cases import Flag, cases, choose, dims, none_or

ID = "rl.kl_loss"


def terms(c):
    """The estimates, one by one; x = log u."""
    values, slopes, sizes = np.zeros((3, *c.mask.shape))
    for at in zip(*np.nonzero(c.mask), strict=True):
        lp = float(c.log_probs[at])
        x = float(c.ref_log_probs[at]) - lp
        inside = c.clamp is None or abs(x) <= c.clamp
        x = x if inside else math.copysign(c.clamp, x)
        value = {"k1": -x, "k2": x * x / 2, "k3": math.exp(x) - 1 - x, "abs": abs(x)}[c.kind]
        slope = {"k1": 1.0, "k2": -x, "k3": 1 - math.exp(x), "abs": -np.sign(x)}[c.gradient or c.kind] * inside
        rho = 1.0 if c.old_log_probs is None else math.exp(lp - float(c.old_log_probs[at]))
        values[at], slopes[at] = rho * value, rho * (slope + (0 if c.old_log_probs is None else value))
        sizes[at] = rho * (math.exp(x) + 1 + abs(x) + x * x)
    return Terms(values, slopes, sizes)


space = cases(
    ID, B=dims(1, 3, large=6), T=dims(1, 5, large=40), kind=choose("k3", "k1", "k2"), gradient=none_or("k2"),
    clamp=none_or(1.01), mask=filled_mask, log_probs=log_probs, ref_log_probs=log_probs, weighted=choose(False, True),
    weights=dyadics("B", 0.25, 2, 8), clamp_value=None,
    old_log_probs=lambda draw, c: dyadics("B T", -3, 0)(draw, c) if c.weighted else None,
    unset={"old_log_probs": {"weighted": False, "old_log_probs": None}},
    flags={**{k: v for k, v in batch_flags().items() if k != "empty_row"},
           "far": Flag(lambda c: bool(np.any(np.abs(np.where(c.mask, np.asarray(c.log_probs) - c.ref_log_probs, 0))
           > 2)),
                       {"B": dims(2, 3), "T": dims(3, 5)})},
).where(clamp_value=None)  # fmt: skip
policy_laws(
    ID, space, terms, cut=False, junk=("log_probs", "ref_log_probs"),
    kills={"L1": ["reference_first", "not_weighed", "mean_over_the_width", "clamp_ignored", "rho_ignored"],
           "L2": ["slope_of_k2", "slope_of_the_kind", "slope_without_rho"], "L3": ["masked_by_multiplying"],
           "L4": ["mean_over_the_width"]},
)  # fmt: skip


# Mutants ---------------------------------------------------------------------------------------------


def same_policy(kind="k3", **options):
    """The default-size test: the reference itself, nothing masked."""
    lp = -np.abs(np.random.default_rng(0).standard_normal((2, 4)))
    return lambda: ((lp, lp.copy(), np.ones((2, 4), bool), np.full(2, 0.125)), {"kind": kind, **options})


def base(lp, ref, mask, weights, *, kind="k3", gradient=None, old_log_probs=None, clamp=None, clamp_value=None, **edit):
    """(loss, gradient) in plain NumPy."""
    hide = edit.get("hide", lambda x, mask: np.where(mask, x, 0))
    x = edit.get("x", lambda x: x)(hide(ref - lp, mask))
    inside = 1.0 if clamp is None else np.abs(x) <= clamp
    x = x if clamp is None or "free" in edit else np.clip(x, -clamp, clamp)
    value = {"k1": -x, "k2": x * x / 2, "k3": np.expm1(x) - x, "abs": np.abs(x)}[kind]
    name = edit.get("slope", lambda kind, gradient: gradient or kind)(kind, gradient)
    slope = {"k1": np.ones_like(x), "k2": -x, "k3": -np.expm1(x), "abs": -np.sign(x)}[name] * inside
    if old_log_probs is not None and "alone" not in edit:
        rho = np.exp(hide(lp - old_log_probs, mask))
        slope = rho * (slope + (0 if "detached" in edit else value))
        value = rho * value
    w = edit.get("w", lambda w, mask: w)(weights, mask)[:, None]
    return np.asarray(np.sum(hide(value, mask) * w), lp.dtype), (hide(slope, mask) * w).astype(lp.dtype)


def _mutant(name, doc, thread=None, case=None, value=None, slope=None):
    policy_mutant(ID, name, doc, base, default_case=case or same_policy(), thread=thread, value=value, slope=slope)


_mutant("reference_first", "log pi - log ref where log u was meant.", value={"x": lambda x: -x})
_mutant("not_weighed", "The plain sum.", value={"w": lambda w, mask: np.ones_like(w)})
_mutant("mean_over_the_width", "Weights scaled by kept over width.",
        value={"w": lambda w, mask: w * mask.sum(-1) / mask.shape[-1]})  # fmt: skip
_mutant("clamp_ignored", "The bound accepted and dropped.", value={"free": True})
_mutant("rho_ignored", "old_log_probs accepted and dropped.", value={"alone": True})
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", value={"hide": by_multiplying})
_mutant("slope_of_k2", "The reverse gradient under every name.", thread="NeMo-RL#2506, trl#3025",
        slope={"slope": lambda kind, gradient: "k2"})  # fmt: skip
_mutant("slope_of_the_kind", "gradient='k2' accepted and dropped.", slope={"slope": lambda kind, gradient: kind})
_mutant("slope_without_rho", "rho detached: its own score is lost.", slope={"detached": True}, thread="NeMo-RL#2506")
