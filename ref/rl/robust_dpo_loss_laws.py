"""Laws and mutants of robust DPO."""

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
    token_pairs,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import choose

ID = "rl.robust_dpo_loss"
space = pair_cases(ID, beta=choose(0.125, 0.5, 2.0), eps=choose(0.125, 0.25, 0.0), of=choose("sum", "mean"))


def softplus(d):
    return max(d, 0) + math.log1p(math.exp(-abs(d)))


def terms(c):
    """[(1 - eps) softplus(-beta D) - eps softplus(beta D)] / (1 - 2 eps), pair by pair."""
    x, size = scores(c)
    D = c.beta * (x[:, 0] - x[:, 1])
    losses = np.array([((1 - c.eps) * softplus(-d) - c.eps * softplus(d)) / (1 - 2 * c.eps) for d in D])
    sizes = np.array([((1 - c.eps) * softplus(-d) + c.eps * softplus(d)) / (1 - 2 * c.eps) for d in D])
    p = 1 / (1 + np.exp(-D))
    slope = -c.beta * ((1 - c.eps) * (1 - p) + c.eps * p) / (1 - 2 * c.eps)
    return losses, np.stack([slope, -slope], 1), sizes + 2 * c.beta * size.sum(-1)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, ref, mask, *, beta=0.1, eps=0.1, of="sum", count=None, **edit):
    """(loss, gradient) in plain NumPy."""
    sign, by = edit.pop("sign", -1.0), edit.pop("by", lambda eps: 1 - 2 * eps)(eps)

    def f(w, r):
        d = beta * (w - r)
        slope = -beta * ((1 - eps) * sigma(-d) - sign * eps * sigma(d)) / by
        return ((1 - eps) * np.logaddexp(0, -d) + sign * eps * np.logaddexp(0, d)) / by, slope, -slope

    return pair_loss(lp, mask, f=f, ref_log_probs=ref, of=of, count=count, **edit)


kills = pair_mutants(ID, base, even_pairs(same=True), even_pairs(1))
policy_mutant(ID, "conservative_divided", "+ eps where - eps is due: cDPO over 1 - 2 eps.", base,
              default_case=even_pairs(same=True, eps=0.0), value={"sign": 1.0})  # fmt: skip
policy_mutant(ID, "not_divided", "1 / (1 - 2 eps) forgotten.", base, default_case=even_pairs(same=True, eps=0.0),
              value={"by": lambda eps: 1.0})  # fmt: skip
kills["L1"] += ["conservative_divided", "not_divided"]
pair_laws(ID, space, terms, kills)


@law(ID, "L5", closed_form=True, given=space.where(eps=choose(0.125, 0.25)),
    kills=["conservative_divided", "not_divided"])
def the_flips_average_to_dpo(impl, c, expect):
    "Both labels of a pair, weighed by how often each is seen: (1 - eps) L(D) + eps L(-D) = -log sigma(beta D)."
    swapped = {n: c[n][:, ::-1].copy() for n in ("log_probs", "ref_log_probs", "mask")}
    both = (1 - c.eps) * impl(c).astype(np.float64) + c.eps * impl(c.replace(**swapped)).astype(np.float64)
    x, size = scores(c)
    wanted = sum(softplus(-c.beta * (a - b)) for a, b in x) / (c.count or c.P)
    sizes = np.sum(terms(c)[2]) / (c.count or c.P)
    expect(both, np.array(wanted), bounds.rounding(4 * c.T + 128, 2 * sizes, c.dtype), scale=float(sizes))


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.where(eps=choose(0.125, 0.25)),
     kills=["slope_negated", "conservative_divided"])  # fmt: skip
def slope_lies_above_dpos(impl, c, expect):
    "The pull on a pair is never less than beta eps / (1 - 2 eps), however sure the policy: DPO's fades, this does not."
    for d in (0.0, 4.0, 24.0):
        now = token_pairs(c, np.array([[-0.5, -0.5 - d]]), np.array([[-0.5, -0.5]]))
        found = -impl.vjp(now, np.array(1.0, c.dtype))["log_probs"][0, 0, 0]
        least = c.beta * c.eps / (1 - 2 * c.eps)
        expect.at_most(least * (1 - 64 * float(np.finfo(c.dtype).eps)), found, f"pull at D = {d}")
