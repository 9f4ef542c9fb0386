"""PPO-max's loss: PPO's, its tricks by name, and a share of the pretraining loss.

Source: Zheng et al. 2023 (2307.04964) sec. 4.3 and 5; the released code is MOSS-RLHF's ppo_trainer.py (criterion).

    A' = clip(whiten(A), -advantage_clip, advantage_clip)
    L = policy loss(A') + value_coef value loss + pretrain_coef pretraining loss
    policy loss   clipped surrogate, or -rho A' with policy_clip None;   value loss  clipped or not, its half inside
    all token means over the kept tokens

Conventions
    C1  Every trick off: PPO's policy loss and value loss, to the bit.
    C2  PRESETS: "paper" is what sec. 5 calls PPO-max: reward normalised and clipped (`ppo_max_reward`), advantages
        whitened and clipped, clipped value loss, pretraining mix; it names the tricks, not each number: .12 is its
        ablation's and the weight 1 ours [?]. "script" is train_ppo_zh.sh: both losses clipped at .2, advantages as
        they come, no pretraining.
    C3  Critic pretraining is a phase, not a term: the value loss alone on returns of the fixed policy before PPO
        begins. value_only=True is that loss.
    C4  whiten's ddof 1 and eps 1e-8 are the released code's.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 each_trick_off_is_plain_ppo
    L5 the_pretraining_loss_enters_with_its_weight
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.clipped_surrogate import SIGNATURE as POLICY
from ref.rl.clipped_surrogate import check_policy
from ref.rl.ppo_loss import ppo_loss
from ref.rl.reduce import data, reduce
from ref.rl.value_loss import value_loss
from ref.rl.whiten import whiten
from ref.spec import bind, spec

PRESETS = {
    "paper": {"advantage_norm": True, "advantage_clip": 0.12, "policy_clip": 0.2, "value_clip": 0.2, "value_coef": 1.0,
              "pretrain_coef": 1.0},
    "script": {"advantage_norm": False, "advantage_clip": None, "policy_clip": 0.2, "value_clip": 0.2,
    "value_coef": 1.0,
               "pretrain_coef": 0.0},
}  # fmt: skip
VALUES = "values[B T], old_values[B T], returns[B T]"
SIGNATURE = POLICY.replace("mask:", f"{VALUES}, mask:").replace("advantages[B t]", "advantages[B T]")


@spec("rl.ppo_max_loss", f"{SIGNATURE}, pretraining[] -> []", grads=("log_probs", "values", "pretraining"))
def ppo_max_loss(
    log_probs, old_log_probs, advantages, values, old_values, returns, mask, pretraining, *, advantage_norm,
    advantage_clip,
    policy_clip, value_clip, value_coef, pretrain_coef, value_only=False, count=None,
):  # fmt: skip
    """The loss of policy and critic together.

    Parameters
    ----------
    log_probs, old_log_probs, advantages : float[B T]
    values, old_values, returns : float[B T]
    mask : bool[B T]
        The responses' own tokens.
    pretraining : float[]
        Loss of a batch of pretraining data; it counts pretrain_coef times.
    advantage_norm : bool
    advantage_clip, policy_clip, value_clip : float, optional
    value_coef, pretrain_coef : float
    value_only : bool
        The critic's pretraining (C3).
    count : int, optional
        Kept tokens of the whole batch, where this is a part of one; advantages then come whitened.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, a clip <= 0, a negative coefficient, advantage_norm with a count, or what `ppo_loss`,
        `value_loss` and `whiten` refuse.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: one exponential a token.

    >>> import numpy as np
    >>> one, mask = np.ones((1, 2)), np.ones((1, 2), bool)
    >>> float(ppo_max_loss(-one, -one, one, one, one, 2 * one, mask, np.array(0.0), **PRESETS["script"]))  # -1 + 1/2
    -0.5
    """
    arrays = {"log_probs": log_probs, "old_log_probs": old_log_probs, "advantages": advantages, "mask": mask}
    bind("ppo_max_loss", SIGNATURE, **arrays, values=values, old_values=old_values, returns=returns)
    check_policy("ppo_max_loss", *arrays.values(), policy_clip or 0.2, policy_clip or 0.2)
    clips = (advantage_clip, policy_clip, value_clip)
    if any(c is not None and not c > 0 for c in clips) or not (value_coef >= 0 and pretrain_coef >= 0):
        raise ValueError(
            f"ppo_max_loss: clips {clips}, value_coef={value_coef}, pretrain_coef={pretrain_coef}; needed clips > 0 "
            "or None and coefficients >= 0")  # fmt: skip
    if advantage_norm and count is not None:
        raise ValueError("ppo_max_loss: advantage_norm with a count; whiten over the whole batch first")
    critic = value_loss(values, old_values, returns, mask, clip=value_clip, reduction="token-mean", count=count)
    if value_only:
        return value_coef * critic
    xp = namespace(log_probs, old_log_probs, advantages, values, mask, pretraining)
    a = data(advantages)
    if advantage_norm:
        a = whiten(a, mask, ddof=1, eps=1e-8)
    if advantage_clip is not None:
        a = xp.where(mask, xp.clip(a, -advantage_clip, advantage_clip), 0.0)
    if policy_clip is not None:
        clip = {"eps_low": policy_clip, "eps_high": policy_clip}
        policy = ppo_loss(log_probs, old_log_probs, a, mask, **clip, reduction="token-mean", count=count)
    else:
        ratio = xp.exp(xp.where(mask, log_probs - data(old_log_probs), 0.0))
        policy = reduce(xp.multiply(-a, ratio), mask, reduction="token-mean", count=count)
    loss = policy + value_coef * critic
    return xp.add(loss, pretrain_coef * pretraining) if pretrain_coef else loss
