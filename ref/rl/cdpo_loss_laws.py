"""Laws and mutants of conservative DPO."""

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

ID = "rl.cdpo_loss"
space = pair_cases(ID, beta=choose(0.125, 0.5, 2.0), eps=choose(0.125, 0.25, 0.0), of=choose("sum", "mean"))


def softplus(d):
    return max(d, 0) + math.log1p(math.exp(-abs(d)))


def terms(c):
    """(1 - eps) softplus(-beta D) + eps softplus(beta D), pair by pair."""
    x, size = scores(c)
    D = c.beta * (x[:, 0] - x[:, 1])
    losses = np.array([(1 - c.eps) * softplus(-d) + c.eps * softplus(d) for d in D])
    slope = c.beta * (c.eps - 1 / (1 + np.exp(D)))
    return losses, np.stack([slope, -slope], 1), losses + c.beta * size.sum(-1)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, ref, mask, *, beta=0.1, eps=0.1, of="sum", count=None, **edit):
    """(loss, gradient) in plain NumPy."""
    wrong = edit.pop("eps_of", lambda eps: eps)(eps)
    scale = edit.pop("scale", lambda eps: 1.0)(eps)

    def f(w, r):
        d = beta * (w - r)
        slope = beta * (wrong - sigma(-d)) * scale
        return scale * ((1 - wrong) * np.logaddexp(0, -d) + wrong * np.logaddexp(0, d)), slope, -slope

    return pair_loss(lp, mask, f=f, ref_log_probs=ref, of=of, count=count, **edit)


kills = pair_mutants(ID, base, even_pairs(same=True), even_pairs(1))
for name, doc, edit in (
    ("noise_ignored", "eps accepted and dropped: DPO.", {"eps_of": lambda eps: 0.0}),
    ("smoothed_by_half", "eps / 2, as label smoothing over two classes does.", {"eps_of": lambda eps: eps / 2}),
    ("labels_reversed", "1 - eps and eps exchanged.", {"eps_of": lambda eps: 1 - eps}),
    ("divided_as_the_robust_one", "Over 1 - 2 eps.", {"scale": lambda eps: 1 / (1 - 2 * eps)}),
):
    case = even_pairs(same=True, eps=0.0) if "scale" in edit else even_pairs(same=True)
    policy_mutant(ID, name, doc, base, default_case=case, value=edit)
kills["L1"] += ["noise_ignored", "smoothed_by_half", "divided_as_the_robust_one"]
pair_laws(ID, space, terms, kills)


@law(ID, "L5", closed_form=True, needs=("vjp",), given=space.where(eps=choose(0.125, 0.25)),
     kills=["noise_ignored", "smoothed_by_half"])  # fmt: skip
def the_optimum_is_finite(impl, c, expect):
    "beta D = logit(1 - eps): no gradient, and the loss is the label's entropy; beyond it the gradient turns."
    D = math.log((1 - c.eps) / c.eps) / c.beta
    for d, sign in ((D, 0), (D + 1, 1), (D - 1, -1)):
        now = token_pairs(c, np.array([[-0.5, -0.5 - d]]), np.array([[-0.5, -0.5]]))
        found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"][0, :, 0]
        slope = c.beta * (c.eps - 1 / (1 + math.exp(c.beta * d))) if sign else 0.0
        slack = bounds.rounding(64, 4 * c.beta * (2 + c.beta * abs(d)), c.dtype)
        expect(found, np.array([slope, -slope]), slack, f"gradient at D = {d}", scale=1.0)


@law(ID, "L6", closed_form=True, given=space.where(eps=0.0), kills=["labels_reversed"])
def without_noise_it_is_dpo(impl, c, expect):
    "eps = 0: the mean of softplus(-beta D)."
    x, size = scores(c)
    wanted = sum(softplus(-c.beta * (a - b)) for a, b in x) / (c.count or c.P)
    sizes = np.sum(1 + c.beta * size) / (c.count or c.P)
    expect(impl(c), np.array(wanted), bounds.rounding(2 * c.T + 64, sizes, c.dtype), scale=float(sizes))
