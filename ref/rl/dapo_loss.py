"""DAPO's loss: clip-higher and the mean over all tokens of the batch.

Source: Yu et al. 2025 (2503.14476) Eq. 8-12.

    L = (1 / sum_i n_i) sum_i sum_t -min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A),   eps_low .2, eps_high .28

Conventions
    C1  One mean over the tokens of all responses: a micro-batch or a rank divides by the whole batch's count of tokens.
        Dividing by its own and averaging is TRL's "bnpo" (trl #2881) and the bug of torchtitan #2206.
    C2  Tokens of truncated responses that are masked leave both the sum and the count (trl #6439).
    C3  No KL term. Dynamic sampling and the overlong penalty are functions of their own.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L5 any_cut_adds_up                      L6 the_upper_bound_is_its_own
"""

from __future__ import annotations

from ref.rl.clipped_surrogate import SIGNATURE, check_policy, clipped_surrogate
from ref.rl.reduce import row_weights
from ref.spec import spec


@spec("rl.dapo_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def dapo_loss(log_probs, old_log_probs, advantages, mask, *, eps_low=0.2, eps_high=0.28, count=None):
    """Loss of a batch of groups of responses.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    eps_low, eps_high : float
        The clip range is 1 - eps_low .. 1 + eps_high.
    count : int, optional
        Kept tokens of the whole batch, where this is a part of one.

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
    >>> lp, mask = np.log([[0.5, 0.5], [0.25, 1.0]]), np.array([[True, True], [True, False]])
    >>> round(float(dapo_loss(lp, lp, np.array([[1.0], [-0.5]]), mask)), 6)
    -0.5
    """
    check_policy("dapo_loss", log_probs, old_log_probs, advantages, mask, eps_low, eps_high)
    weights = row_weights("dapo_loss", mask, log_probs.dtype, reduction="token-mean", count=count)
    return clipped_surrogate(log_probs, old_log_probs, advantages, mask, weights, eps_low=eps_low, eps_high=eps_high)
