"""The clipped surrogate: what PPO, GRPO, Dr.GRPO, DAPO and GSPO have in common, under weights of the rows.

Source: Schulman et al. 2017 (1707.06347) Eq. 7; dual clip: Ye et al. 2020 (1912.09729) Eq. 5; two bounds: Yu et al.
2025 (2503.14476) Eq. 10; the response's ratio with each token's gradient: Zheng et al. 2025 (2507.18071) Eq. 14.

    rho = pi / pi_old of the token, or of its response: (pi(y) / pi_old(y))^(1 / n), n kept tokens
    loss_t = -min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A)
    with dual clip c > 1 + eps_high, where A < 0:   loss_t = -max(the min above, c A)
    L = sum_i w_i sum_{t kept} loss_it

    One clip, in log space:  loss_t = -A exp(clip(log rho, low, high)),   low, high = -oo, log(1 + eps_high) where A >=
                                                                        0 and log(1 - eps_low), log c where A < 0
    d loss_t / d log pi_t = -rho A, but 0 where A > 0 and rho > 1 + eps_high, where A < 0 and rho < 1 - eps_low, and
    (dual clip) where A < 0 and rho > c

Notation
    log pi, log pi_old -> log_probs, old_log_probs[B T]; A -> advantages[B t], t = T (of tokens) or 1 (of responses);
    w -> weights[B].

Conventions
    C1  pi_old, A and w are data: no gradient flows to them.
    C2  What is masked may hold anything, NaN too, and changes neither the loss nor a gradient.
    C3  level="sequence": the value is the response's ratio, the gradient each token's own (GSPO-token). With one A a
        response this is GSPO, whose gradient through the mean is the same.
    C4  log rho is clipped, not rho: nothing overflows that the clip would cut.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L6 flat_in_its_corners_alone            L7 never_above_the_unclipped
    L8 sequence_ratio_is_differentiated_through_its_mean
    L9 far_ratios_stay_finite
"""

from __future__ import annotations

import math

from autodiff import fusable, namespace
from ref.rl.importance_ratio import log_ratio
from ref.rl.reduce import data
from ref.spec import bind, spec

SIGNATURE = "log_probs[B T], old_log_probs[B T], advantages[B t], mask:bool[B T]"


@spec("rl.clipped_surrogate", f"{SIGNATURE}, weights[B] -> []", grads=("log_probs",))
@fusable("rl.clipped_surrogate", tensors=("log_probs",))
def clipped_surrogate(
    log_probs, old_log_probs, advantages, mask, weights, *, eps_low=0.2, eps_high=0.2, dual_clip=None, level="token"
):  # fmt: skip
    """Weighted sum of clipped surrogate losses.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    weights : float[B]
        What each kept token of a row weighs.
    eps_low, eps_high : float
        The clip range is 1 - eps_low .. 1 + eps_high.
    dual_clip : float, optional
        c > 1 + eps_high: the most that a ratio counts where the advantage is negative.
    level : "token" or "sequence"
        Whose ratio is clipped (C3).

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, t neither T nor 1, 0 <= eps_low <= 1 or eps_high >= 0 violated, a dual_clip <= 1 + eps_high,
        another level, or at level "sequence" a row with no kept token.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: one exponential a token.

    >>> import numpy as np
    >>> new, old = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    >>> a, mask = np.array([[1.0, -1.0]]), np.ones((1, 2), bool)
    >>> round(float(clipped_surrogate(new, old, a, mask, np.array([0.5]))), 6)  # (-1.2 + .8) / 2
    -0.2
    """
    check_policy("clipped_surrogate", log_probs, old_log_probs, advantages, mask, eps_low, eps_high, dual_clip, level)
    xp = namespace(log_probs, old_log_probs, advantages, mask, weights)
    a = xp.where(mask, data(advantages), 0.0)
    low = xp.where(a < 0, math.log1p(-eps_low) if eps_low < 1 else -math.inf, xp.full_like(a, -math.inf))
    high = xp.where(a < 0, math.inf if dual_clip is None else math.log(dual_clip),
        xp.full_like(a, math.log1p(eps_high)))
    gap = _log_ratio(xp, log_probs, old_log_probs, mask, level)
    return xp.sum(xp.sum(xp.multiply(-a, xp.exp(xp.clip(gap, low, high))), axis=-1) * data(weights))


def _log_ratio(xp, log_probs, old_log_probs, mask, level):
    """log rho[B T]; at level "sequence" the value is the response's, the gradient each token's own (C3)."""
    gap = log_ratio("clipped_surrogate", log_probs, old_log_probs, mask, level)
    if level == "token":
        return gap
    own = xp.where(mask, log_probs, 0.0)
    return data(gap) + (own - data(own))


def check_policy(
    function, log_probs, old_log_probs, advantages, mask, eps_low=0.2, eps_high=0.2, dual_clip=None, level="token"
):  # fmt: skip
    """{axis: size}; ValueError or TypeError unless the arrays fit and the clip range is one."""
    arrays = {"log_probs": log_probs, "old_log_probs": old_log_probs, "advantages": advantages, "mask": mask}
    sizes = bind(function, SIGNATURE, **arrays)
    if sizes["t"] not in (1, sizes["T"]):
        raise ValueError(f"{function}: advantages has t={sizes['t']}; needed T={sizes['T']} or 1")
    if not (0 <= eps_low <= 1 and eps_high >= 0):
        raise ValueError(f"{function}: eps_low={eps_low}, eps_high={eps_high}; needed 0 <= eps_low <= 1, eps_high >= 0")
    if dual_clip is not None and not dual_clip > 1 + eps_high:
        raise ValueError(f"{function}: dual_clip={dual_clip}; needed more than 1 + eps_high = {1 + eps_high}")
    if level not in ("token", "sequence"):
        raise ValueError(f"{function}: level={level!r}; needed 'token' or 'sequence'")
    return sizes
