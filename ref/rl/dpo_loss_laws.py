"""Laws and mutants of DPO."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    all_pairs,
    bandit,
    even_pairs,
    pair_cases,
    pair_laws,
    pair_loss,
    pair_mutants,
    policy_mutant,
    population_gradient,
    scores,
    sigma,
    token_pairs,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import choose, dims

ID = "rl.dpo_loss"
space = pair_cases(ID, beta=choose(0.125, 0.5, 2.0), of=choose("sum", "mean"))


def terms(c):
    """softplus(-beta D), pair by pair."""
    x, size = scores(c)
    D = c.beta * (x[:, 0] - x[:, 1])
    losses = np.array([max(-d, 0) + math.log1p(math.exp(-abs(d))) for d in D])
    slope = -c.beta / (1 + np.exp(D))
    return losses, np.stack([slope, -slope], 1), losses + c.beta * size.sum(-1)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, ref, mask, *, beta=0.1, of="sum", count=None, **edit):
    """(loss, gradient) in plain NumPy."""
    loss = edit.pop("loss", lambda d: np.logaddexp(0, -d))
    D = edit.pop("D", lambda w, r, beta: beta * (w - r))

    def f(w, r):
        d = D(w, r, beta)
        return loss(d), -beta * sigma(-d), beta * sigma(-d)

    return pair_loss(lp, mask, f=f, ref_log_probs=ref, of=of, count=count, **edit)


kills = pair_mutants(ID, base, even_pairs(same=True), even_pairs(1))
policy_mutant(ID, "reference_ignored", "The policy's own margin.", base, value={"alone": True}, default_case=lambda: (
    (-np.ones((2, 2, 3)), -np.ones((2, 2, 3)), np.ones((2, 2, 3), bool)), {}))  # fmt: skip
policy_mutant(ID, "beta_ignored", "-log sigma(D).", base, default_case=even_pairs(same=True),
              value={"D": lambda w, r, beta: w - r})  # fmt: skip
policy_mutant(ID, "sigmoid_for_its_logarithm", "1 - sigma(beta D): KTO's shape.", base,
              default_case=lambda: (even_pairs(same=True)()[0], {}),
              value={"loss": lambda d: sigma(-d) + math.log(2) - 0.5})  # fmt: skip
policy_mutant(ID, "hinge", "max(0, 1 - beta D): SLiC's.", base, default_case=even_pairs(same=True),
              value={"loss": lambda d: np.maximum(0, 1 - d) + math.log(2) - 1})  # fmt: skip
kills["L1"] += ["reference_ignored", "beta_ignored", "sigmoid_for_its_logarithm", "hinge"]
pair_laws(ID, space, terms, kills)


@law(ID, "L5", closed_form=True, given=space, kills=["reference_ignored"])
def log_two_at_the_reference(impl, c, expect):
    "pi = ref: log 2 a pair, whatever the responses and their lengths."
    now = c.replace(ref_log_probs=c.log_probs.copy())
    wanted = math.log(2) * c.P / (c.count or c.P)
    expect(impl(now), np.array(wanted), bounds.rounding(c.P + 16, wanted, c.dtype))


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.where(P=dims(1, 2), T=dims(1, 2)),
     kills=["chosen_alone_has_a_gradient", "beta_ignored"])  # fmt: skip
def the_optimum_is_the_gibbs_policy(impl, c, expect):
    """A bandit of four responses, every pair compared, preferences sigma(r_i - r_j): the population gradient is 0 at
    pi* = ref e^(r / beta) / Z, and is not at ref."""
    ref, r = bandit(c)
    at = all_pairs(4)
    win = 1 / (1 + np.exp(r[at[:, 1]] - r[at[:, 0]]))
    best = ref * np.exp(r / c.beta)
    best = best / best.sum()
    slack = bounds.rounding(256, 12 * c.beta * 16, c.dtype)
    found = population_gradient(impl, c, best, ref, win)
    expect(found, np.zeros(4), slack, "gradient at pi*", scale=1.0)
    elsewhere = population_gradient(impl, c, ref, ref, win)
    pull = -c.beta * np.array([sum((win - 0.5)[at[:, 0] == k]) for k in range(4)])
    expect(elsewhere, pull - ref * pull.sum(), slack, "gradient at ref", scale=1.0)


@law(ID, "L7", given=space.where(of="sum"), kills=["sum_and_mean_confused"],
    passes_null=["zeros", "constant", "cached"])
def tokens_or_their_sum(impl, c, expect):
    "of='sum': a response of many tokens, or of one with their sum: the same loss. Sums add under concatenation."
    sums = [np.sum(np.where(c.mask, np.asarray(x, np.float64), 0), -1) for x in (c.log_probs, c.ref_log_probs)]
    one = token_pairs(c, *sums).replace(count=c.count)
    losses, _, sizes = terms(c)
    slack = bounds.rounding(4 * c.T + 128, np.sum(sizes) / (c.count or c.P), c.dtype)
    expect(impl(one), impl(c), slack, scale=max(float(np.sum(sizes) / (c.count or c.P)), 1e-9))
