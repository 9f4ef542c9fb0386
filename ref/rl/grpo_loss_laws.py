"""Laws and mutants of GRPO's loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    Terms,
    clip_loss,
    clipped_terms,
    even_batch,
    log_probs,
    plain_weights,
    policy_cases,
    policy_laws,
    policy_mutant,
    reduction_mutants,
    total,
    weights,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import Flag, choose, dims

ID = "rl.grpo_loss"
OWN = "seq-mean-token-mean"


def terms(c):
    """The clipped surrogate plus beta times the estimate of the KL divergence."""
    found = clipped_terms(c, (c.eps, c.eps, None))
    if c.ref_log_probs is None:
        return found
    values, slopes, sizes = found.values.copy(), found.slopes.copy(), found.sizes.copy()
    for at in zip(*np.nonzero(c.mask), strict=True):
        lp = float(c.log_probs[at])
        x = float(c.ref_log_probs[at]) - lp
        value, slope = {"k3": (math.exp(x) - 1 - x, 1 - math.exp(x)), "k2": (x * x / 2, -x), "k1": (-x, 1.0)}[c.kl]
        rho = math.exp(lp - float(c.old_log_probs[at])) if c.kl_weighted else 1.0
        values[at] += c.beta * rho * value
        slopes[at] += c.beta * rho * (slope + (value if c.kl_weighted else 0))
        sizes[at] += c.beta * rho * (math.exp(x) + 1 + abs(x) + x * x)
    return Terms(values, slopes, sizes)


space = policy_cases(
    ID, reduction=OWN, length=None, eps=choose(0.2, 0.1), beta=choose(0.0, 0.125, 2.0), kl=choose("k3", "k2", "k1"),
    kl_weighted=choose(False, True),
    ref_log_probs=lambda draw, c: log_probs(draw, c) if c.beta else None,
    unset={"ref_log_probs": {"beta": 0.0, "ref_log_probs": None}, "beta": {"beta": 0.0, "ref_log_probs": None}},
    flags={"with_kl": Flag(lambda c: c.beta > 0, {"beta": choose(0.125, 2.0)})},
)  # fmt: skip


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, old, a, mask, *, ref_log_probs=None, beta=0.0, eps=0.2, kl="k3", kl_weighted=False, reduction=OWN,
    **options):
    """(loss, gradient) in plain NumPy. Edits besides those of `clip_loss`: kl_slope, kl_value."""
    kl_value, kl_slope = options.pop("kl_value", lambda v, x: v), options.pop("kl_slope", lambda s, x: s)
    low_high = options.pop("clip", lambda eps: (eps, eps))(eps)
    loss, d = clip_loss(lp, old, a, mask, eps_low=low_high[0], eps_high=low_high[1], reduction=reduction, **options)
    if not beta:
        return loss, d
    hide = options.get("hide", lambda x, mask: np.where(mask, x, 0))
    weigh = options.get("weights", plain_weights)
    w = weigh(mask, reduction, *(options.get(n) for n in ("count", "length")), options.get("empty", "refuse"))[:, None]
    x = hide(ref_log_probs - lp, mask)
    value = kl_value({"k3": np.expm1(x) - x, "k2": x * x / 2, "k1": -x, "abs": np.abs(x)}[kl], x)
    slope = kl_slope({"k3": -np.expm1(x), "k2": -x, "k1": np.ones_like(x), "abs": -np.sign(x)}[kl], x)
    rho = np.exp(hide(lp - old, mask)) if kl_weighted else 1.0
    slope = rho * (slope + (value if kl_weighted else 0))
    loss = loss + np.asarray(beta * np.sum(hide(rho * value, mask) * w), lp.dtype)
    return loss, (d + beta * hide(slope, mask) * w).astype(lp.dtype)


def case(reduction=OWN, **more):
    """The default-size test: on policy, the reference itself, rows of one length."""
    def make():
        args, options = even_batch()()
        if reduction == "seq-mean-token-sum":
            args = tuple(x[:, :1] for x in args)
        return args, {"ref_log_probs": args[0].copy(), "beta": 0.04, **more}

    return make


def _mutant(name, doc, thread=None, default=None, value=None, slope=None):
    policy_mutant(ID, name, doc, base, default_case=default or case(), thread=thread, value=value, slope=slope)


whole, numerator, junk = reduction_mutants(ID, base, case, OWN)
_mutant("beta_times_minus_k1", "log pi - log ref for k3: the gradient of nothing.", "NeMo-RL#2506",
        value={"kl_value": lambda v, x: -x})  # fmt: skip
_mutant("reverse_gradient_called_k3", "k2's gradient under the name k3.", "trl#3025",
        slope={"kl_slope": lambda s, x: -x})  # fmt: skip
_mutant("kl_subtracted", "- beta k: the policy is driven away.", value={"kl_value": lambda v, x: -v})
_mutant("clips_higher", "DAPO's .28 above.", value={"clip": lambda eps: (eps, 0.28)})
_mutant("slope_of_the_clipped", "The gradient flows where the clip holds.",
        slope={"slope": lambda own, value, r, a, clip: -r * a})  # fmt: skip

policy_laws(
    ID, space, terms, junk=("log_probs", "old_log_probs"),
    kills={"L1": [*whole, "beta_times_minus_k1", "kl_subtracted", "clips_higher"],
           "L2": ["slope_of_the_clipped", "reverse_gradient_called_k3"], "L3": junk, "L4": numerator,
           "L5": ["mean_of_means"]},
)  # fmt: skip


@law(ID, "L6", closed_form=True, given=space.where(beta=0.0, ref_log_probs=None, count=None, t=1, B=dims(2, 4)),
     kills=["reduced_by_token_mean", "reduced_by_seq_mean_token_sum"], passes_null=["zeros", "cached"])  # fmt: skip
def on_policy_and_centred_it_is_zero(impl, c, expect):
    "pi = pi_old, advantages of responses that add up to 0: L = -(1 / R) sum A = 0, however long the responses are."
    a = np.asarray(c.advantages, np.float64) * 0 + np.arange(c.B)[:, None] * 2.0 - (c.B - 1)
    now = c.replace(old_log_probs=c.log_probs.copy(), advantages=a.astype(c.dtype))
    expect(impl(now), np.array(0.0), bounds.rounding(c.mask.size + 16, c.B, c.dtype), scale=1.0)


@law(ID, "L7", closed_form=True, given=space.where(with_kl=True, kl_weighted=False),
     kills=["beta_times_minus_k1", "kl_subtracted"])  # fmt: skip
def beta_weighs_the_kl(impl, c, expect):
    "The loss less that without the term is beta times the reduced estimates: 0 at the reference, else positive for k3."
    w = weights(c)[:, None] * np.asarray(c.mask)
    sizes = total(c, terms(c))[2]
    slack = bounds.rounding(2 * c.mask.size + 128, np.sum(sizes), c.dtype)
    without = impl(c.replace(beta=0.0, ref_log_probs=None)).astype(np.float64)
    at_ref = impl(c.replace(ref_log_probs=c.log_probs.copy())).astype(np.float64)
    expect(at_ref - without, np.array(0.0), slack, "at the reference", scale=max(float(np.sum(sizes)), 1e-9))
    if c.kl == "k3":
        x = np.where(c.mask, np.asarray(c.ref_log_probs, np.float64) - c.log_probs, 0)
        least = c.beta * float(np.sum(w * (np.exp(x) - 1 - x)))
        expect.at_most(least - slack, impl(c) - without, "beta k3")
