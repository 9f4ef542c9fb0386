"""DPO: a reward model hidden in the policy, fitted to preferences.

Source: Rafailov et al. 2023 (2305.18290) Eq. 7; its gradient is the unnumbered equation after it.

    L = mean over pairs of -log sigma(beta D)
    d L / d log pi(y_w) = -beta sigma(-beta D) / P, of y_l the opposite
    minimiser over all policies, preferences by Bradley-Terry with rewards r:  pi* = ref e^{r / beta} / Z

Notation
    D -> `preference_margin`, sums over the response's tokens.

Conventions
    C1  of="sum" (the paper's); of="mean" is the length-normalised form by name.
    C2  -log sigma(x) is softplus(-x): no exponential overflows, no logarithm sees 0.
    C3  No label smoothing: `cdpo_loss` and `robust_dpo_loss` are the two that are called so.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 any_cut_adds_up
    L5 log_two_at_the_reference        L6 the_optimum_is_the_gibbs_policy
    L7 tokens_or_their_sum
"""

from __future__ import annotations

from autodiff.ops import softplus
from ref.rl.preference_margin import SIGNATURE, pair_mean, preference_margin
from ref.spec import bind, spec

PAIRS = f"{SIGNATURE}, ref_log_probs[P 2 T]"


@spec("rl.dpo_loss", "log_probs[P 2 T], ref_log_probs[P 2 T], mask:bool[P 2 T] -> []", grads=("log_probs",))
def dpo_loss(log_probs, ref_log_probs, mask, *, beta=0.1, of="sum", count=None):
    """Mean of -log sigma(beta D).

    Parameters
    ----------
    log_probs, ref_log_probs : float[P 2 T]
        Of the tokens of P pairs, the chosen response first.
    mask : bool[P 2 T]
        The responses' own tokens.
    beta : float
    of : "sum" or "mean"
        Over the tokens of a response.
    count : int, optional
        Pairs of the whole batch, where this is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, no pair and no count, count < 1, beta <= 0, or what `preference_margin` refuses.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: 2 P T operations.

    >>> import numpy as np
    >>> lp, mask = np.log([[[0.5], [0.25]]]), np.ones((1, 2, 1), bool)
    >>> round(float(dpo_loss(lp, lp, mask)), 6)  # log 2
    0.693147
    """
    D = reference_margin("dpo_loss", log_probs, ref_log_probs, mask, beta=beta, of=of)
    return pair_mean("dpo_loss", softplus(-beta * D), count)


def reference_margin(function, log_probs, ref_log_probs, mask, *, beta=1.0, of="sum"):
    """D against the reference, once the arguments are known to be good; `beta` may be any scale > 0."""
    bind(function, PAIRS, log_probs=log_probs, mask=mask, ref_log_probs=ref_log_probs)
    if ref_log_probs is None:
        raise TypeError(f"{function}: ref_log_probs is None; needed an array")
    if not beta > 0:
        raise ValueError(f"{function}: beta={beta}; needed > 0")
    return preference_margin(log_probs, mask, ref_log_probs=ref_log_probs, of=of)
