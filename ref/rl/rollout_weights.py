"""Weights for rollouts whose engine is not the trainer: truncated (TIS) or masked (MIS) importance sampling.

Source: Yao et al. 2025, Your efficient RL framework secretly brings you off-policy RL training, for truncation; Ionides
2008 (J. Comput. Graph. Stat. 17) Eq. 2 for truncated importance sampling; Liu et al. 2025, When speed kills stability,
for masking, and for levels of a response.

    rho = pi_trainer / pi_rollout, of the same parameters computed by two programs, at level token, sequence or product
    truncate   w = min(rho, high)
    mask       w = rho [low <= rho <= high], else 0

Notation
    log pi_trainer -> log_probs (of the policy as it was at sampling), log pi_rollout -> rollout_log_probs.

Conventions
    C1  w is data and multiplies the advantage of the token; PPO's own ratio is against the trainer's old policy.
    C2  Levels are `importance_ratio`'s: "token", "product" of a response, "sequence" its n-th root. A response's
        weight stands at each of its tokens.
    C3  Truncation is biased low by E (rho - high)+ f and of bounded variance; masking drops what it distrusts and
        keeps the rest exact. Neither divides by the sum of weights.
    C4  A masked token has weight 0.

Laws
    L1 value_is_the_definition              L2 unbiased_without_a_bound
    L3 the_bias_of_truncation               L4 masked_junk_is_invisible
    L5 the_same_engine_weighs_one
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.importance_ratio import SIGNATURE as RATIO
from ref.rl.importance_ratio import importance_ratio
from ref.rl.reduce import data
from ref.spec import bind, spec

SIGNATURE = RATIO.replace("old_log_probs", "rollout_log_probs")
MODES = ("truncate", "mask")


@spec("rl.rollout_weights", SIGNATURE)
def rollout_weights(log_probs, rollout_log_probs, mask, *, level="token", mode="truncate", low=0.0, high=2.0):
    """Importance weights of the tokens, bounded.

    Parameters
    ----------
    log_probs, rollout_log_probs : float[*B T]
        Of the sampled tokens, by the trainer and by the engine that sampled.
    mask : bool[*B T]
    level : "token", "sequence" or "product"
    mode : "truncate" or "mask"
    low, high : float
        Bounds of rho; `low` is of "mask" alone.

    Returns
    -------
    float[*B T]

    Raises
    ------
    ValueError
        Shapes that differ, an unknown level or mode, 0 <= low < high violated, or low given to "truncate".
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: T exponentials a row, or one.

    >>> import numpy as np
    >>> trainer, rollout = np.log([[0.5, 0.3]]), np.log([[0.1, 0.3]])
    >>> mask = np.ones((1, 2), bool)
    >>> rollout_weights(trainer, rollout, mask), rollout_weights(trainer, rollout, mask, mode="mask")
    (array([[2., 1.]]), array([[0., 1.]]))
    """
    bind("rollout_weights", SIGNATURE, log_probs=log_probs, rollout_log_probs=rollout_log_probs, mask=mask)
    if mode not in MODES or not 0 <= low < high or (mode == "truncate" and low):
        raise ValueError(
            f"rollout_weights: mode={mode!r}, low={low}, high={high}; needed mode of {MODES}, 0 <= low < high, "
            "and low = 0 to truncate")  # fmt: skip
    xp = namespace(log_probs, rollout_log_probs, mask)
    rho = importance_ratio(data(log_probs), data(rollout_log_probs), mask, level=level)
    if mode == "truncate":
        return xp.clip(rho, max=high)
    return xp.where((rho >= low) & (rho <= high), rho, 0.0)
