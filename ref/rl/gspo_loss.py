"""GSPO's loss: the ratio of a whole response, length-normalised, clipped once a response.

Source: Zheng et al. 2025 (2507.18071) Eq. 5-7; GSPO-token Eq. 13-14.

    s_i = (pi(y_i) / pi_old(y_i))^(1 / n_i)
    L = (1 / R) sum_i -min(s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i)
    GSPO-token, for advantages of tokens: s_it = sg(s_i) pi_t / sg(pi_t), averaged over a response's tokens

Conventions
    C1  The gradient of s_i by each of its tokens is s_i / n_i; GSPO-token has the same value and, where a response has
        one A, the same gradient. So one formula serves both.
    C2  eps 3e-4 and 4e-4 (the paper's): s lies much nearer to 1 than a token's ratio.
    C3  The reduction is seq-mean-token-mean: each response weighs the same.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L5 any_cut_adds_up                      L6 a_response_is_clipped_as_one
"""

from __future__ import annotations

from ref.rl.clipped_surrogate import SIGNATURE, check_policy, clipped_surrogate
from ref.rl.reduce import row_weights
from ref.spec import spec


@spec("rl.gspo_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def gspo_loss(log_probs, old_log_probs, advantages, mask, *, eps_low=3e-4, eps_high=4e-4, count=None):
    """Loss of a batch of groups of responses.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    eps_low, eps_high : float
        The clip range of s is 1 - eps_low .. 1 + eps_high.
    count : int, optional
        Responses of the whole batch, where this is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        What `clipped_surrogate` and `reduce` refuse, or a row with no kept token.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: one exponential a response.

    >>> import numpy as np
    >>> new, old, mask = np.log([[0.5, 0.5]]), np.log([[0.25, 0.5]]), np.ones((1, 2), bool)
    >>> round(float(gspo_loss(new, old, np.array([[-1.0]]), mask)), 6)  # s = (2 * 1)^(1/2)
    1.414214
    """
    check_policy("gspo_loss", log_probs, old_log_probs, advantages, mask, eps_low, eps_high)
    weights = row_weights("gspo_loss", mask, log_probs.dtype, reduction="seq-mean-token-mean", count=count)
    clip = {"eps_low": eps_low, "eps_high": eps_high, "level": "sequence"}
    return clipped_surrogate(log_probs, old_log_probs, advantages, mask, weights, **clip)
