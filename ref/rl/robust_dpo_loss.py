"""Robust DPO: an unbiased estimate of the clean DPO loss from labels flipped with probability eps.

Source: Chowdhury et al. 2024 (2403.00409) Eq. 12.

    L = mean over pairs of [-(1 - eps) log sigma(beta D) + eps log sigma(-beta D)] / (1 - 2 eps)
    E over flips: (1 - eps) L(D) + eps L(-D) = -log sigma(beta D)

Conventions
    C1  It may be negative, and is not bounded below in D: the estimate is unbiased, not a likelihood.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 any_cut_adds_up
    L5 the_flips_average_to_dpo        L6 slope_lies_above_dpos
"""

from __future__ import annotations

from autodiff.ops import softplus
from ref.rl.cdpo_loss import check_noise
from ref.rl.dpo_loss import reference_margin
from ref.rl.preference_margin import pair_mean
from ref.spec import spec


@spec("rl.robust_dpo_loss", "log_probs[P 2 T], ref_log_probs[P 2 T], mask:bool[P 2 T] -> []", grads=("log_probs",))
def robust_dpo_loss(log_probs, ref_log_probs, mask, *, beta=0.1, eps=0.1, of="sum", count=None):
    """Mean of the unbiased estimates.

    Parameters
    ----------
    log_probs, ref_log_probs : float[P 2 T]
        Of the tokens of P pairs, the chosen response first.
    mask : bool[P 2 T]
        The responses' own tokens.
    beta : float
    eps : float
        Probability that a label was flipped, in [0, 1/2).
    of : "sum" or "mean"
    count : int, optional
        Pairs of the whole batch, where this is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, no pair and no count, count < 1, beta <= 0, eps outside [0, 1/2), or what
        `preference_margin` refuses.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: 2 P T operations.

    >>> import numpy as np
    >>> lp, mask = np.log([[[0.5], [0.25]]]), np.ones((1, 2, 1), bool)
    >>> round(float(robust_dpo_loss(lp, lp, mask)), 6)  # log 2
    0.693147
    """
    check_noise("robust_dpo_loss", eps)
    D = beta * reference_margin("robust_dpo_loss", log_probs, ref_log_probs, mask, beta=beta, of=of)
    return pair_mean("robust_dpo_loss", ((1 - eps) * softplus(-D) - eps * softplus(D)) / (1 - 2 * eps), count)
