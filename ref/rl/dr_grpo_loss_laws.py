"""Laws and mutants of Dr. GRPO's loss."""

from __future__ import annotations

import numpy as np

from ref.rl.common_laws import (
    clip_loss,
    clipped_terms,
    even_batch,
    loss_bound,
    plain_weights,
    policy_cases,
    policy_laws,
    policy_mutant,
    reduction_mutants,
    total,
)  # fmt: skip
from ref.spec import law
from ref.spec.cases import choose

ID = "rl.dr_grpo_loss"
OWN = "constant"
space = policy_cases(ID, fixed=True, length=choose(7, 12), eps=choose(0.2, 0.1))


def terms(c):
    return clipped_terms(c, (c.eps, c.eps, None))


# Mutants ---------------------------------------------------------------------------------------------


def base(*args, eps=0.2, clip=lambda eps: (eps, eps), **options):
    """(loss, gradient) in plain NumPy."""
    return clip_loss(*args, eps_low=clip(eps)[0], eps_high=clip(eps)[1], reduction=OWN, **options)


def case(reduction=OWN, **more):
    """The default-size test: rows of one length, the constant being that length (1 for a sum)."""
    def make():
        args, _ = even_batch()()
        if reduction == "seq-mean-token-sum":
            args = tuple(x[:, :1] for x in args)
        return args, {"length": args[0].shape[1], **more}

    return make


whole, numerator, junk = reduction_mutants(ID, base, case, OWN)
policy_mutant(ID, "width_for_the_constant", "The batch's padded width for the constant.", base, thread="verl#5355",
              default_case=case(),
              value={"weights": lambda m, r, n, length, e: plain_weights(m, r, n, m.shape[1], e)})  # fmt: skip
policy_mutant(ID, "clips_higher", "DAPO's .28 above.", base, default_case=case(),
    value={"clip": lambda eps: (eps, 0.28)})
policy_mutant(ID, "slope_of_the_clipped", "The gradient flows where the clip holds.", base, default_case=case(),
              slope={"slope": lambda own, value, r, a, clip: -r * a})  # fmt: skip
policy_laws(
    ID, space, terms, reduction=OWN,
    kills={"L1": [*whole, "width_for_the_constant", "clips_higher", *numerator], "L2": ["slope_of_the_clipped"],
    "L3": junk,
           "L4": ["width_for_the_constant"], "L5": ["mean_of_means"]},
)  # fmt: skip


@law(ID, "L6", given=space, kills=["width_for_the_constant"], passes_null=["zeros", "constant", "identity"])
def padding_changes_nothing(impl, c, expect):
    "Three more masked columns: the same loss."
    wider = {n: np.concatenate([c[n], c[n][:, :1].repeat(3, 1)], 1) for n in ("log_probs", "old_log_probs")}
    mask = np.concatenate([c.mask, np.zeros((c.B, 3), bool)], 1)
    a = c.advantages if c.advantages.shape[1] == 1 else np.concatenate([c.advantages, c.advantages[:, :1].repeat(3, 1)],
        1)
    sizes = total(c, terms(c), OWN)[2]
    bound = 2 * loss_bound(c, sizes, c.dtype)
    size = max(float(np.sum(sizes)), 1e-9)
    expect(impl(c.replace(**wider, mask=mask, advantages=a, T=c.T + 3, t=a.shape[1])), impl(c), bound, scale=size)
