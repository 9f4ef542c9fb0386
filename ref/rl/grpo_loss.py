"""GRPO's loss: the clipped surrogate and k3, each response's tokens averaged, then the responses.

Source: Shao et al. 2024 (2402.03300, DeepSeekMath) Eq. 3-4.

    L = (1 / R) sum_i (1 / n_i) sum_t [ -min(rho A, clip(rho, 1 - eps, 1 + eps) A) + beta k3(pi, ref) ]

Notation
    R responses of all groups together, n_i kept tokens of each; A from `grpo_advantages`.

Conventions
    C1  The reduction is seq-mean-token-mean, the paper's. Libraries that say GRPO differ: TRL's loss_type="grpo" is
        this one a micro-batch, "bnpo" the token-mean of a micro-batch, "dapo" that of the batch, "dr_grpo" the
        constant; verl's default is the token-mean. Each has its name in `reduce` (trl #2881, #2995, #3178; verl
        #593, #5355).
    C2  k3 is differentiated as it stands: its expected gradient is that of KL(ref | pi), the forward direction. Say
        kl="k2" for the reverse one, or kl_weighted=True for rho k3 (see `kl_estimator`).
    C3  beta = 0 needs no ref_log_probs.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L5 any_cut_adds_up                      L6 on_policy_and_centred_it_is_zero
    L7 beta_weighs_the_kl
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.clipped_surrogate import SIGNATURE, check_policy, clipped_surrogate
from ref.rl.kl_loss import kl_loss
from ref.rl.reduce import row_weights
from ref.spec import spec


@spec("rl.grpo_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def grpo_loss(
    log_probs, old_log_probs, advantages, mask, *, ref_log_probs=None, beta=0.0, eps=0.2, kl="k3", kl_weighted=False,
    reduction="seq-mean-token-mean", count=None, length=None, empty="refuse",
):  # fmt: skip
    """Loss of a batch of groups of responses.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    ref_log_probs : float[B T], optional
        Of the reference policy; needed unless beta is 0.
    beta : float
        Weight of the KL term; the paper's is 0.04.
    eps : float
        The clip range is 1 - eps .. 1 + eps.
    kl : "k1", "k2", "k3" or "abs"
    kl_weighted : bool
        Weigh the KL term by rho (C2).
    reduction, count, length, empty
        As `reduce` takes them.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        What `clipped_surrogate` and `reduce` refuse, beta < 0, or beta without ref_log_probs.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: two exponentials a token.

    >>> import numpy as np
    >>> lp, mask = np.log([[0.5, 0.5], [0.25, 1.0]]), np.array([[True, True], [True, False]])
    >>> float(grpo_loss(lp, lp, np.array([[1.0], [-0.5]]), mask))
    -0.25
    """
    check_policy("grpo_loss", log_probs, old_log_probs, advantages, mask, eps, eps)
    if not beta >= 0 or (beta and ref_log_probs is None):
        state = "missing" if ref_log_probs is None else "given"
        raise ValueError(f"grpo_loss: beta={beta}, ref_log_probs {state}; needed beta >= 0, and both or neither")
    weights = row_weights("grpo_loss", mask, log_probs.dtype, reduction=reduction, count=count, length=length,
        empty=empty)
    loss = clipped_surrogate(log_probs, old_log_probs, advantages, mask, weights, eps_low=eps, eps_high=eps)
    if not beta:
        return loss
    old = old_log_probs if kl_weighted else None
    term = kl_loss(log_probs, ref_log_probs, mask, weights, kind=kl, old_log_probs=old)
    return namespace(loss, term).add(loss, beta * term)
