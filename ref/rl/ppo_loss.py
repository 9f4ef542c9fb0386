"""PPO's clipped policy loss, with all its named options.

Source: Schulman et al. 2017 (1707.06347) Eq. 7; dual clip: Ye et al. 2020 (1912.09729) Eq. 5.

    loss_t = -min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A),   rho = pi / pi_old;   at least c A where A < 0
    L = reduction of loss_t over the batch, - entropy_coef times the reduction of the entropies

Notation
    As in `clipped_surrogate`, which is the sum; `reduce` names the reductions.

Conventions
    C1  Advantages are data and come as they are: normalise them with `whiten`, over whatever scope is meant.
    C2  The value loss (`value_loss`), the KL reward (`kl_reward`) and GAE are functions of their own.
    C3  Weights >= 0 of tokens (truncated importance sampling) multiply the advantages: min is positively homogeneous.
    C4  Entropies are of the whole distribution at each token (`entropy`) and carry gradients.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L5 any_cut_adds_up                      L6 at_ratio_one_it_is_the_policy_gradient
    L7 a_weight_multiplies_the_advantage    L8 entropy_enters_with_its_sign
    L9 entropy_has_its_gradient
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.clipped_surrogate import SIGNATURE, check_policy, clipped_surrogate
from ref.rl.reduce import reduce, row_weights
from ref.spec import bind, spec


@spec("rl.ppo_loss", f"{SIGNATURE} -> []", grads=("log_probs", "entropy"))
def ppo_loss(
    log_probs, old_log_probs, advantages, mask, *, eps_low=0.2, eps_high=0.2, dual_clip=None, level="token",
    entropy=None, entropy_coef=0.0, reduction, count=None, length=None, empty="refuse",
):  # fmt: skip
    """Clipped surrogate loss of a batch of responses, less an entropy bonus.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
        Of the tokens, under the policy and under the one that sampled them.
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
        The response's own tokens.
    eps_low, eps_high, dual_clip, level
        As `clipped_surrogate` takes them.
    entropy : float[B T], optional
        Of the policy's distribution at each token.
    entropy_coef : float
        Its weight; it needs `entropy` unless 0.
    reduction, count, length, empty
        As `reduce` takes them.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        What `clipped_surrogate` and `reduce` refuse, or an entropy_coef without an entropy.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: one exponential a token.

    >>> import numpy as np
    >>> new, old = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    >>> a, mask = np.array([[1.0, -1.0]]), np.ones((1, 2), bool)
    >>> round(float(ppo_loss(new, old, a, mask, reduction="token-mean")), 6)  # (-1.2 + .8) / 2
    -0.2
    """
    check_policy("ppo_loss", log_probs, old_log_probs, advantages, mask, eps_low, eps_high, dual_clip, level)
    bind("ppo_loss", "log_probs[B T], entropy[B T]", log_probs=log_probs, entropy=entropy)
    if entropy is None and entropy_coef:
        raise ValueError(f"ppo_loss: entropy_coef={entropy_coef} and no entropy; needed entropy=")
    how = {"reduction": reduction, "count": count, "length": length, "empty": empty}
    weights = row_weights("ppo_loss", mask, log_probs.dtype, **how)
    clip = {"eps_low": eps_low, "eps_high": eps_high, "dual_clip": dual_clip, "level": level}
    loss = clipped_surrogate(log_probs, old_log_probs, advantages, mask, weights, **clip)
    if entropy is None or not entropy_coef:
        return loss
    return namespace(loss, entropy).subtract(loss, entropy_coef * reduce(entropy, mask, **how))
