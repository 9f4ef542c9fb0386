"""Laws and mutants of PPO's policy loss."""

from __future__ import annotations

import numpy as np

from ref.rl.common_laws import (
    RANGES,
    Terms,
    by_multiplying,
    clip_loss,
    clipped_terms,
    dyadics,
    emptied_mask,
    even_batch,
    local_mean,
    numerator_only,
    other_reduction,
    plain_weights,
    policy_cases,
    policy_laws,
    policy_mutant,
    surrogate,
    total,
    weights,
)  # fmt: skip
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, choose, dims

ID = "rl.ppo_loss"


def terms(c):
    """The clipped surrogate less coef times the entropy."""
    found = clipped_terms(c)
    if c.entropy is None:
        return found
    bonus = np.where(c.mask, np.asarray(c.entropy, np.float64), 0) * c.entropy_coef
    return Terms(found.values - bonus, found.slopes, found.sizes + np.abs(bonus))


space = policy_cases(
    ID, clip=choose(*RANGES), eps_low=lambda draw, c: c.clip[0], eps_high=lambda draw, c: c.clip[1],
    dual_clip=choose(None, 3.0), level=choose("token", "sequence"), with_entropy=choose(False, True),
    entropy=lambda draw, c: dyadics("B T", 0, 2)(draw, c) if c.with_entropy else None,
    entropy_coef=lambda draw, c: 0.125 if c.with_entropy else 0.0,
    unset={"entropy": {"with_entropy": False, "entropy": None, "entropy_coef": 0.0}},
    flags={
        "refusable": Flag(lambda c: c.level == "token" or bool(np.all(np.any(c.mask, -1)))),
        "bonus": Flag(lambda c: c.entropy is not None, {"with_entropy": True}),
        "empty_row": Flag(lambda c: c.count is not None and not np.all(np.any(c.mask, -1)),
                          {"count": choose(3, 8), "level": "token", "B": dims(1, 3), "T": dims(1, 3),
                           "mask": emptied_mask}),
    },
).where(refusable=True)  # fmt: skip
policy_laws(
    ID, space, terms,
    kills={"L1": ["always_token_mean", "always_sequence_mean", "symmetric_clip", "dual_ignored", "mean_of_means"],
           "L2": ["slope_of_the_clipped", "gradient_of_the_token_mean"], "L3": ["masked_by_multiplying"],
           "L4": ["numerator_only"], "L5": ["mean_of_means"]},
)  # fmt: skip


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space, kills=["gradient_of_the_token_mean"],
     passes_null=["cached"])  # fmt: skip
def at_ratio_one_it_is_the_policy_gradient(impl, c, expect):
    "pi = pi_old: the gradient is -w A a kept token, that of -A log pi, whatever the clip range, and L = -sum w A."
    now = c.replace(old_log_probs=c.log_probs.copy(), entropy=None, entropy_coef=0.0)
    w = weights(c)[:, None] * np.asarray(c.mask)
    a = np.broadcast_to(np.asarray(c.advantages, np.float64), w.shape)
    found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
    expect(found, -w * a, bounds.rounding(16, w * a, c.dtype), "d log pi", scale=1.0)
    size = max(float(np.sum(w * np.abs(a))), 1e-12)
    expect(impl(now), np.array(-np.sum(w * a)), bounds.rounding(c.mask.size + 16, size, c.dtype), scale=size)


@law(ID, "L7", given=space.where(with_entropy=False, entropy=None, entropy_coef=0.0), kills=["normalises_advantages"],
     passes_null=["zeros"])  # fmt: skip
def a_weight_multiplies_the_advantage(impl, c, expect):
    "Advantages times 2, or a half: the loss times the same, to the bit."
    whole = impl(c).astype(np.float64)
    for factor in (2.0, 0.5):
        scaled = c.replace(advantages=c.advantages * c.dtype.type(factor))
        expect.same(impl(scaled), whole * factor, f"times {factor}")


@law(ID, "L8", closed_form=True, given=space.where(bonus=True), kills=["entropy_added", "entropy_of_all_tokens"])
def entropy_enters_with_its_sign(impl, c, expect):
    "The loss falls by coef times the reduction of the entropies, of kept tokens alone."
    w = weights(c)[:, None] * np.asarray(c.mask)
    _, _, sizes = total(c, terms(c))
    size = max(float(np.sum(sizes)), 1e-12)
    bonus = c.entropy_coef * float(np.sum(w * np.asarray(c.entropy, np.float64)))
    without = impl(c.replace(entropy=None, entropy_coef=0.0)).astype(np.float64)
    slack = bounds.rounding(2 * c.mask.size + 96, size, c.dtype)
    expect(impl(c) - without, np.array(-bonus), slack, "with less without", scale=size)


@law(ID, "L9", closed_form=True, needs=("vjp",), given=space.where(bonus=True), kills=["entropy_detached"])
def entropy_has_its_gradient(impl, c, expect):
    "d loss / d entropy = -coef w a kept token, 0 a masked one."
    w = weights(c)[:, None] * np.asarray(c.mask)
    found = impl.vjp(c, np.array(1.0, c.dtype))["entropy"]
    expect(found, -c.entropy_coef * w, bounds.rounding(8, w, c.dtype), "d entropy", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def base(log_probs, old_log_probs, advantages, mask, *, entropy=None, entropy_coef=0.0, **options):
    """(loss, gradient) in plain NumPy."""
    edit = {k: options.pop(k) for k in ("bonus", "a") if k in options}
    loss, d = clip_loss(log_probs, old_log_probs, edit.get("a", lambda a: a)(advantages), mask, **options)
    if entropy is not None:
        names = ("reduction", "count", "length", "empty")
        w = plain_weights(mask, *(options.get(n, "refuse" if n == "empty" else None) for n in names))[:, None]
        loss = loss - np.asarray(entropy_coef * edit.get("bonus", lambda e, w, m: np.where(m, e, 0) * w)(
            entropy, w, mask).sum(), loss.dtype)  # fmt: skip
    return loss, d


def case(reduction="token-mean", **more):
    return even_batch(reduction=reduction, **more)


def _mutant(name, doc, thread=None, default=None, value=None, slope=None):
    policy_mutant(ID, name, doc, base, default_case=default or case(), thread=thread, value=value, slope=slope)


_mutant("always_token_mean", "Token-mean under every name.", "trl#2881",
    value={"weights": other_reduction("token-mean")})
_mutant("always_sequence_mean", "The mean of the rows' means under every name.", "verl#5355, trl#2995",
        value={"weights": other_reduction("seq-mean-token-mean")})  # fmt: skip
_mutant("mean_of_means", "The micro-batch's own count.", "transformers#34191, #34242; torchtitan#2206; verl#593",
        value={"weights": local_mean})  # fmt: skip
_mutant("numerator_only", "Masked tokens leave the sum and stay in the count.", "trl#6439",
    value={"weights": numerator_only})
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", "AReaL#1346, ROLL#447", value={"hide": by_multiplying})
_mutant("symmetric_clip", "eps_low on both sides.",
        value={"token": lambda low, high, dual: surrogate(low, low, dual)})  # fmt: skip
_mutant("dual_ignored", "dual_clip accepted and dropped.",
        value={"token": lambda low, high, dual: surrogate(low, high, None)})  # fmt: skip
_mutant("slope_of_the_clipped", "The gradient flows where the clip holds.",
        slope={"slope": lambda own, value, r, a, clip: -r * a})  # fmt: skip
_mutant("gradient_of_the_token_mean", "The gradient of the token-mean.",
        slope={"weights": other_reduction("token-mean")})  # fmt: skip


def _normal():
    (lp, old, a, mask), options = case()()
    return (lp, old, (a - a.mean()) / a.std(), mask), options


_mutant("normalises_advantages", "Whitens advantages that came whitened.", default=_normal,
        value={"a": lambda a: a if a.size < 2 or not a.std() else (a - a.mean()) / a.std()})  # fmt: skip
_mutant("entropy_added", "+ coef H: entropy is driven out.", value={"bonus": lambda e, w, m: -np.where(m, e, 0) * w})
_mutant("entropy_of_all_tokens", "Masked tokens' entropies too.", value={"bonus": lambda e, w, m: e * w})


def _detached(*args, **options):
    return base(*args, **options)[0]


def _no_gradient(g, *args, **options):
    found = {"log_probs": g * base(*args, **options)[1]}
    if options.get("entropy") is not None:
        found["entropy"] = np.zeros_like(options["entropy"])
    return found


_detached.__name__, _detached.__doc__ = "entropy_detached", "The bonus has a value and no gradient."
mutant(ID, vjp=_no_gradient, default_case=case())(_detached)
