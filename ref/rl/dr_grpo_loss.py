"""Dr. GRPO's loss: the clipped surrogate, every token weighed by one constant.

Source: Liu et al. 2025 (2503.20783) sec. 3.1-3.2 and appendix A.

    L = 1 / (R length) sum_i sum_t -min(rho A, clip(rho, 1 - eps, 1 + eps) A),   A = r - mean of the group

Conventions
    C1  The constant is the longest response allowed, not the longest of the batch: a weight that changes with the
        batch's padding is another loss.
    C2  Neither 1 / n_i nor 1 / std: with them wrong long answers are punished less a token, and easy and hard prompts
        weigh more (`grpo_advantages` with scale=None).
    C3  No KL term.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L5 any_cut_adds_up                      L6 padding_changes_nothing
"""

from __future__ import annotations

from ref.rl.clipped_surrogate import SIGNATURE, check_policy, clipped_surrogate
from ref.rl.reduce import row_weights
from ref.spec import spec


@spec("rl.dr_grpo_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def dr_grpo_loss(
    log_probs, old_log_probs, advantages, mask, *, length, eps=0.2, count=None, empty="refuse"
):  # fmt: skip
    """Loss of a batch of groups of responses.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    length : int
        The longest response allowed.
    eps : float
        The clip range is 1 - eps .. 1 + eps.
    count : int, optional
        Responses of the whole batch, where this is a part of one.
    empty
        As `reduce` takes it.

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
    >>> float(dr_grpo_loss(lp, lp, np.array([[1.0], [-1.0]]), mask, length=4))
    -0.125
    """
    check_policy("dr_grpo_loss", log_probs, old_log_probs, advantages, mask, eps, eps)
    how = {"reduction": "constant", "count": count, "length": length, "empty": empty}
    weights = row_weights("dr_grpo_loss", mask, log_probs.dtype, **how)
    return clipped_surrogate(log_probs, old_log_probs, advantages, mask, weights, eps_low=eps, eps_high=eps)
