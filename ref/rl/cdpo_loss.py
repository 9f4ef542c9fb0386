"""Conservative DPO: the label is right with probability 1 - eps, and the loss says so.

Source: Mitchell 2023, A note on DPO with noisy preferences and relationship to IPO, Eq. 3.

    L = mean over pairs of -(1 - eps) log sigma(beta D) - eps log sigma(-beta D)
    optimum of a pair: beta D = logit(1 - eps), finite

Conventions
    C1  This is what TRL, OpenRLHF and torchtune call label_smoothing; `robust_dpo_loss` is another loss.
    C2  eps = 0 is DPO; eps >= 1/2 would prefer the rejected.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 any_cut_adds_up
    L5 the_optimum_is_finite           L6 without_noise_it_is_dpo
"""

from __future__ import annotations

from autodiff.ops import softplus
from ref.rl.dpo_loss import reference_margin
from ref.rl.preference_margin import pair_mean
from ref.spec import spec


@spec("rl.cdpo_loss", "log_probs[P 2 T], ref_log_probs[P 2 T], mask:bool[P 2 T] -> []", grads=("log_probs",))
def cdpo_loss(log_probs, ref_log_probs, mask, *, beta=0.1, eps=0.1, of="sum", count=None):
    """Mean of the two log-losses, weighed by how sure the label is.

    Parameters
    ----------
    log_probs, ref_log_probs : float[P 2 T]
        Of the tokens of P pairs, the chosen response first.
    mask : bool[P 2 T]
        The responses' own tokens.
    beta : float
    eps : float
        Probability that a label is wrong, in [0, 1/2).
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
    >>> round(float(cdpo_loss(lp, lp, mask)), 6)  # log 2
    0.693147
    """
    check_noise("cdpo_loss", eps)
    D = beta * reference_margin("cdpo_loss", log_probs, ref_log_probs, mask, beta=beta, of=of)
    return pair_mean("cdpo_loss", (1 - eps) * softplus(-D) + eps * softplus(D), count)


def check_noise(function, eps):
    """ValueError unless 0 <= eps < 1/2."""
    if not 0 <= eps < 0.5:
        raise ValueError(f"{function}: eps={eps}; needed 0 <= eps < 1/2")
