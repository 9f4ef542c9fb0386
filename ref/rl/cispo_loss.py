"""CISPO's loss: the importance weight is clipped and held fixed, and no token loses its gradient.

Source: MiniMax 2025 (2506.13585) Eq. 4-5.

    L = -(1 / sum_i n_i) sum_i sum_t sg(clip(rho, 1 - eps_low, 1 + eps_high)) A log pi_t

Conventions
    C1  rho is data: d L / d log pi_t = -clip(rho) A / N for every kept token, clipped or not. PPO drops those it clips.
    C2  eps_low None (the paper tunes the upper bound alone) leaves the ratio without a lower bound.
    C3  The upper bound is 1 + eps_high. TRL's epsilon_high is the bound itself: eps_high here is that less 1.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L5 any_cut_adds_up                      L6 clipped_tokens_keep_their_gradient
"""

from __future__ import annotations

from ref.rl.clipped_surrogate import SIGNATURE, check_policy
from ref.rl.reduce import row_weights
from ref.rl.score_loss import score_loss
from ref.spec import spec


@spec("rl.cispo_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def cispo_loss(
    log_probs, old_log_probs, advantages, mask, *, eps_low=None, eps_high=4.0, reduction="token-mean", count=None,
    length=None, empty="refuse",
):  # fmt: skip
    """Loss of a batch of groups of responses.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    eps_low, eps_high : float
        The ratio's bounds are 1 - eps_low (none if None) and 1 + eps_high.
    reduction, count, length, empty
        As `reduce` takes them.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        What `clipped_surrogate` and `reduce` refuse.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: one exponential a token.

    >>> import numpy as np
    >>> new, old, mask = np.log([[0.5, 0.5]]), np.log([[0.25, 0.5]]), np.ones((1, 2), bool)
    >>> round(float(cispo_loss(new, old, np.array([[1.0]]), mask, eps_high=0.5) / np.log(2)), 6)  # (1.5 + 1) / 2
    1.25
    """
    check_policy("cispo_loss", log_probs, old_log_probs, advantages, mask, eps_low or 0.0, eps_high)
    how = {"reduction": reduction, "count": count, "length": length, "empty": empty}
    weights = row_weights("cispo_loss", mask, log_probs.dtype, **how)
    low = None if eps_low is None else 1 - eps_low
    clip = {"old_log_probs": old_log_probs, "low": low, "high": 1 + eps_high}
    return score_loss(log_probs, advantages, mask, weights, **clip)
