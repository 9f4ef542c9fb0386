"""Laws and mutants of SimPO."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    even_pairs,
    pair_cases,
    pair_laws,
    pair_loss,
    pair_mutants,
    policy_mutant,
    scores,
    sigma,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import choose

ID = "rl.simpo_loss"
space = pair_cases(ID, ref=False, beta=choose(2.0, 0.5), gamma=choose(1.0, 0.25, 0.0))


def terms(c):
    """softplus(gamma - beta (avg_w - avg_l)), pair by pair."""
    x, size = scores(c, "mean")
    d = c.beta * (x[:, 0] - x[:, 1]) - c.gamma
    losses = np.array([max(-v, 0) + math.log1p(math.exp(-abs(v))) for v in d])
    slope = -c.beta / (1 + np.exp(d))
    return losses, np.stack([slope, -slope], 1), losses + c.beta * size.sum(-1) + c.gamma


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, mask, *, beta=2.0, gamma=1.0, count=None, **edit):
    """(loss, gradient) in plain NumPy."""
    target = edit.pop("target", lambda beta, gamma: gamma)(beta, gamma)

    def f(w, r):
        d = beta * (w - r) - target
        return np.logaddexp(0, -d), -beta * sigma(-d), beta * sigma(-d)

    return pair_loss(lp, mask, f=f, of="mean", count=count, **edit)


kills = pair_mutants(ID, base, even_pairs(ref=False), even_pairs(1, ref=False))
for name, doc, case, edit in (
    ("gamma_times_beta", "gamma / beta was given, gamma was meant.", even_pairs(ref=False, beta=1.0),
     {"target": lambda beta, gamma: beta * gamma}),
    ("gamma_added", "+ gamma: the target margin the other way.", even_pairs(ref=False, gamma=0.0),
     {"target": lambda beta, gamma: -gamma}),
    ("mean_over_the_width", "Divided by the padded width.", even_pairs(ref=False),
     {"n": lambda n, mask: np.full_like(n, mask.shape[-1])}),
):  # fmt: skip
    policy_mutant(ID, name, doc, base, default_case=case, value=edit)
kills["L1"] += ["gamma_times_beta", "gamma_added", "mean_over_the_width"]
pair_laws(ID, space, terms, kills, of="mean", junk=("log_probs",))


@law(ID, "L5", closed_form=True, given=space, kills=["gamma_added", "gamma_times_beta"])
def log_two_at_the_target_margin(impl, c, expect):
    "beta (avg_w - avg_l) = gamma: log 2, whatever the lengths."
    lp = np.full(c.mask.shape, -0.5)
    lp[:, 1] -= c.gamma / c.beta
    now = c.replace(log_probs=lp.astype(c.dtype))
    wanted = math.log(2) * c.P / (c.count or c.P)
    expect(impl(now), np.array(wanted), bounds.rounding(2 * c.T + 64, wanted * (1 + c.beta + c.gamma), c.dtype),
           scale=1.0)  # fmt: skip


@law(ID, "L6", given=space, kills=["sum_and_mean_confused", "mean_over_the_width"],
     passes_null=["constant", "cached", "zeros", "identity"])  # fmt: skip
def repeating_a_response_changes_nothing(impl, c, expect):
    "The chosen response written twice: the same average, the same loss. A sum would double."
    twice = {n: np.concatenate([c[n], c[n]], -1) for n in ("log_probs", "mask")}
    twice["mask"][:, 1, c.T :] = False
    _, _, sizes = terms(c)
    slack = bounds.rounding(4 * c.T + 128, np.sum(sizes) / (c.count or c.P), c.dtype)
    expect(impl(c.replace(**twice, T=2 * c.T)), impl(c), slack,
        scale=max(float(np.sum(sizes) / (c.count or c.P)), 1e-9))
