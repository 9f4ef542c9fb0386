"""Laws and mutants of DAPO's loss."""

from __future__ import annotations

import numpy as np

from ref.rl.common_laws import (
    clip_loss,
    clipped_terms,
    even_batch,
    policy_cases,
    policy_laws,
    policy_mutant,
    reduction_mutants,
    surrogate,
    weights,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import choose

ID = "rl.dapo_loss"
OWN = "token-mean"
RANGES = ((0.2, 0.28), (0.1, 0.4))
space = policy_cases(ID, fixed=True, clip=choose(*RANGES), eps_low=lambda draw, c: c.clip[0],
                     eps_high=lambda draw, c: c.clip[1])  # fmt: skip


def terms(c):
    return clipped_terms(c, (0.2, 0.28, None))


# Mutants ---------------------------------------------------------------------------------------------


def base(*args, eps_low=0.2, eps_high=0.28, **options):
    """(loss, gradient) in plain NumPy."""
    return clip_loss(*args, eps_low=eps_low, eps_high=eps_high, reduction=OWN, **options)


def case(reduction=OWN):
    """The default-size test: on policy, rows of one length."""
    def make():
        args, _ = even_batch()()
        return (args if reduction != "seq-mean-token-sum" else tuple(x[:, :1] for x in args)), {}

    return make


whole, numerator, junk = reduction_mutants(ID, base, case, OWN)
policy_mutant(ID, "clips_evenly", "eps_low on both sides: PPO's range.", base, default_case=case(),
              value={"token": lambda low, high, dual: surrogate(low, low, None)})  # fmt: skip
policy_mutant(ID, "bounds_exchanged", "1 - .28 .. 1 + .2.", base, default_case=case(),
              value={"token": lambda low, high, dual: surrogate(high, low, None)})  # fmt: skip
policy_mutant(ID, "slope_of_the_clipped", "The gradient flows where the clip holds.", base, default_case=case(),
              slope={"slope": lambda own, value, r, a, clip: -r * a})  # fmt: skip
policy_laws(
    ID, space, terms, reduction=OWN,
    kills={"L1": [*whole, "clips_evenly", "bounds_exchanged"], "L2": ["slope_of_the_clipped"], "L3": junk,
    "L4": numerator,
           "L5": ["mean_of_means"]},
)  # fmt: skip


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space, kills=["slope_of_the_clipped"], passes_null=["cached"])
def the_upper_bound_is_its_own(impl, c, expect):
    "rho = 1.25 (A > 0) and rho = .77 (A < 0): a gradient exactly where rho lies below 1 + eps_high, above 1 - eps_low."
    w = weights(c, OWN)[:, None] * np.asarray(c.mask)
    for rho, a in ((1.25, 1.0), (0.77, -1.0)):
        lp = np.full(c.log_probs.shape, -1.0)
        now = c.replace(log_probs=lp.astype(c.dtype), old_log_probs=(lp - np.log(rho)).astype(c.dtype), t=1,
                        advantages=np.full((c.B, 1), a, c.dtype))  # fmt: skip
        inside = rho <= 1 + c.eps_high if a > 0 else rho >= 1 - c.eps_low
        wanted = -w * rho * a * inside
        found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
        expect(found, wanted, bounds.rounding(64, wanted, c.dtype), f"rho = {rho}, A = {a}", scale=1.0)
