"""Laws and mutants of VAPO's policy loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    Terms,
    by_multiplying,
    clip_loss,
    clipped,
    even_batch,
    numerator_only,
    plain_weights,
    policy_cases,
    policy_laws,
    policy_mutant,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import Flag, bools, choose, dims

ID = "rl.vapo_loss"
space = policy_cases(
    ID, fixed=True, clip=choose((0.2, 0.28), (0.1, 0.4)), eps_low=lambda draw, c: c.clip[0],
    eps_high=lambda draw, c: c.clip[1], correct=bools("B", 0.5), mu=choose(0.1, 0.0, 2.0),
    count_correct=lambda draw, c: None if c.count is None else 5,
    flags={"right": Flag(lambda c: bool(np.any(np.asarray(c.mask) & np.asarray(c.correct)[:, None])) and c.mu > 0,
                         {"mu": choose(0.1, 2.0), "correct": lambda draw, c: np.arange(c.B) % 2 == 0}),
           "none_right": Flag(lambda c: not np.any(c.correct), {"correct": lambda draw, c: np.zeros(c.B, bool)})},
)  # fmt: skip


def terms(c):
    """The clipped surrogate; a right response's tokens -mu N / N+ log pi besides."""
    values, slopes, sizes = np.zeros((3, *c.mask.shape))
    n = c.count or int(np.sum(c.mask))
    right = c.count_correct or int(np.sum(np.asarray(c.mask) & np.asarray(c.correct)[:, None]))
    for i, t in zip(*np.nonzero(c.mask), strict=True):
        a, lp = float(c.advantages[i, t if c.advantages.shape[1] > 1 else 0]), float(c.log_probs[i, t])
        rho = math.exp(lp - float(c.old_log_probs[i, t]))
        value, slope = clipped(rho, a, c.eps_low, c.eps_high)
        pull = c.mu * n / right if c.correct[i] and right else 0.0
        values[i, t], slopes[i, t] = value - pull * lp, slope - pull
        sizes[i, t] = abs(a) * max(rho, 2.0) + pull * (1 + abs(lp))
    return Terms(values, slopes, sizes)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, old, a, mask, correct, *, eps_low=0.2, eps_high=0.28, mu=0.1, count=None, count_correct=None, **edit):
    """(loss, gradient) in plain NumPy."""
    own = edit.pop("own", lambda right, mask, n: n or max(right.sum(), 1))
    chosen = edit.pop("chosen", lambda correct: correct)(correct)
    mu = edit.pop("mu_of", lambda mu: mu)(mu)
    loss, d = clip_loss(lp, old, a, mask, eps_low=eps_low, eps_high=eps_high, reduction="token-mean", count=count,
        **edit)
    right = mask & chosen[:, None]
    w = right * (mu / own(right, mask, count_correct))
    hide = edit.get("hide", lambda x, mask: np.where(mask, x, 0))
    return np.asarray(loss - np.sum(hide(lp, right) * w), lp.dtype), (d - w).astype(lp.dtype)


def case(all_right=False):
    """The default-size test: on policy, rows of one length, all right (or none)."""
    def make():
        args, _ = even_batch()()
        return (*args, np.full(3, all_right)), {}

    return make


def _mutant(name, doc, default=None, **edits):
    policy_mutant(ID, name, doc, base, default_case=default or case(), **edits)


_mutant("imitates_all", "Every response's likelihood.", case(True), value={"chosen": np.ones_like})
_mutant("imitates_the_wrong", "The wrong responses' likelihood.", lambda: (
    (*even_batch()()[0], np.array([True, False, True])), {"mu": 0.0}), value={"chosen": np.logical_not})  # fmt: skip
_mutant("imitation_over_all_tokens", "The second mean over N, not N+.", case(True),
        value={"own": lambda right, mask, n: n or mask.sum()})  # fmt: skip
_mutant("mu_ignored", "The surrogate alone.", value={"mu_of": lambda mu: 0.0})
_mutant("likelihood_lowered", "+ mu log pi.", value={"mu_of": lambda mu: -mu})
_mutant("numerator_only", "Masked tokens leave the sum and stay in the count.", thread="trl#6439",
        value={"weights": numerator_only})  # fmt: skip
_mutant("counts_ignored", "The micro-batch's own counts.", thread="transformers#34191; verl#593",
        value={"weights": lambda m, r, n, length, e: plain_weights(m, r, None, length, e),
               "own": lambda right, mask, n: max(right.sum(), 1)})  # fmt: skip
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", value={"hide": by_multiplying})
_mutant("slope_of_the_clipped", "The gradient flows where the clip holds.",
        slope={"slope": lambda own, value, r, a, clip: -r * a})  # fmt: skip
policy_laws(
    ID, space, terms, reduction="token-mean", cut=False,
    kills={"L1": ["imitates_all", "imitation_over_all_tokens", "mu_ignored", "counts_ignored"],
           "L2": ["slope_of_the_clipped"], "L3": ["masked_by_multiplying"], "L4": ["numerator_only"]},
    also={"L4": ["cached"]},
)  # fmt: skip


@law(ID, "L5", given=space.where(count=None, count_correct=None, right=True, B=dims(2, 3)), kills=["counts_ignored"],
     passes_null=["zeros", "cached"])  # fmt: skip
def any_cut_adds_up(impl, c, expect):
    "Row by row under the whole's two counts: the losses add up to the whole's."
    right = np.asarray(c.mask) & np.asarray(c.correct)[:, None]
    n = {"count": int(np.sum(c.mask)), "count_correct": int(right.sum())}
    names = ("log_probs", "old_log_probs", "advantages", "mask", "correct")
    parts = [c.replace(**{k: c[k][i : i + 1].copy() for k in names}, B=1, **n) for i in range(c.B)]
    size = float(np.sum(np.abs(terms(c).sizes))) + 1
    found = sum(float(impl(p)) for p in parts)
    expect(np.array(found), impl(c), bounds.rounding(4 * c.mask.size + 96, size, c.dtype), scale=size)


@law(ID, "L6", closed_form=True, needs=("vjp",),
    given=space.where(count=None, count_correct=None).reach("right", "none_right"),
     kills=["imitates_the_wrong", "likelihood_lowered", "imitates_all"], passes_null=["cached"])  # fmt: skip
def right_answers_are_imitated(impl, c, expect):
    "Advantages 0: the gradient is -mu / N+ for each kept token of a right response and 0 elsewhere; without one, 0."
    right = np.asarray(c.mask) & np.asarray(c.correct)[:, None]
    now = c.replace(advantages=np.zeros_like(c.advantages))
    wanted = -c.mu * right / max(right.sum(), 1)
    found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
    expect(found, wanted, bounds.rounding(8, wanted, c.dtype), "d log pi", scale=1.0)
