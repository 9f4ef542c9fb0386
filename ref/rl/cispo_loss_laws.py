"""Laws and mutants of CISPO's loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    Terms,
    even_batch,
    plain,
    policy_cases,
    policy_laws,
    policy_mutant,
    reduction_mutants,
    weights,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import choose

ID = "rl.cispo_loss"
OWN = "token-mean"
space = policy_cases(ID, clip=choose((None, 4.0), (None, 0.3), (0.3, 0.3)), eps_low=lambda draw, c: c.clip[0],
                     eps_high=lambda draw, c: c.clip[1])  # fmt: skip


def terms(c):
    """-clip(rho) A log pi, one by one."""
    values, slopes, sizes = np.zeros((3, *c.mask.shape))
    for i, t in zip(*np.nonzero(c.mask), strict=True):
        a, lp = float(c.advantages[i, t if c.advantages.shape[1] > 1 else 0]), float(c.log_probs[i, t])
        rho = min(math.exp(lp - float(c.old_log_probs[i, t])), 1 + c.eps_high)
        rho = rho if c.eps_low is None else max(rho, 1 - c.eps_low)
        values[i, t], slopes[i, t], sizes[i, t] = -rho * a * lp, -rho * a, abs(rho * a) * (1 + abs(lp))
    return Terms(values, slopes, sizes)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, old, a, mask, *, eps_low=None, eps_high=4.0, reduction=OWN, **edit):
    """(loss, gradient) in plain NumPy."""
    clip, slope = edit.pop("clip", lambda r, low, high: np.clip(r, low, high)), edit.pop("slope", lambda s, r, lp: s)
    low, high = 0.0 if eps_low is None else 1 - eps_low, edit.pop("top", lambda e: 1 + e)(eps_high)

    def token(ratio, a, lp):
        rho = clip(ratio, low, high)
        return -rho * a * lp, slope(-rho * a, ratio, lp)

    return plain(lp, old, a, mask, token=token, reduction=reduction, **edit)


def case(reduction=OWN, **more):
    """The default-size test: on policy, rows of one length."""
    def make():
        args, _ = even_batch()()
        return (args if reduction != "seq-mean-token-sum" else tuple(x[:, :1] for x in args)), more

    return make


def _mutant(name, doc, **edits):
    policy_mutant(ID, name, doc, base, default_case=case(), **edits)


whole, numerator, junk = reduction_mutants(ID, base, case, OWN)
_mutant("drops_the_clipped", "A clipped token loses its gradient: PPO's way.",
        slope={"slope": lambda s, r, lp: np.where(r > 1.3, 0, s)})  # fmt: skip
_mutant("ratio_differentiated", "rho is not held fixed.", slope={"slope": lambda s, r, lp: s * (1 + lp)},
        )  # fmt: skip
_mutant("bound_is_eps_high", "The bound is eps_high itself, not 1 + eps_high.", value={"top": lambda e: max(e, 1.0)})
_mutant("lower_bound_ignored", "eps_low accepted and dropped.",
        value={"clip": lambda r, low, high: np.minimum(r, high)})  # fmt: skip
_mutant("ratio_ignored", "REINFORCE.", value={"clip": lambda r, low, high: np.ones_like(r)})
policy_laws(
    ID, space, terms,
    kills={"L1": [*whole, "bound_is_eps_high", "lower_bound_ignored", "ratio_ignored"],
           "L2": ["drops_the_clipped", "ratio_differentiated"], "L3": junk, "L4": numerator, "L5": ["mean_of_means"]},
)  # fmt: skip


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.where(eps_high=0.3),
     kills=["drops_the_clipped", "bound_is_eps_high"], passes_null=["cached"])  # fmt: skip
def clipped_tokens_keep_their_gradient(impl, c, expect):
    "rho = 2 everywhere, above the bound 1.3: each kept token's gradient is -1.3 A w, not 0."
    w = weights(c)[:, None] * np.asarray(c.mask)
    now = c.replace(old_log_probs=(c.log_probs.astype(np.float64) - math.log(2)).astype(c.dtype))
    wanted = -1.3 * np.asarray(c.advantages, np.float64) * w
    found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
    expect(found, wanted, bounds.rounding(32, wanted, c.dtype), "d log pi", scale=1.0)
