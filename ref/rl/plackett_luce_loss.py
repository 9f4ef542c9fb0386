"""Plackett-Luce: the likelihood of a whole ranking, and the K-wise loss over its pairs.

Source: Luce 1959; Plackett 1975 Eq. 2; K-wise over all pairs of one prompt: Ouyang et al. 2022 (2203.02155) Eq. 1;
both as reward models: Zhu et al. 2023 (2301.11270) Eq. 3 and sec. 4.

    of="ranking"  -log P(1 > 2 > .. > K) = sum_{k < K} [log sum_{j >= k} e^{r_j} - r_k]
    of="pairs"    mean over the K (K - 1) / 2 pairs i < j of softplus(-(r_i - r_j))

Notation
    rewards[*B K], best first.

Conventions
    C1  The ranking is one event: its probabilities over all K! orders add up to 1, and the marginal of any pair is
        sigma(r_i - r_j). The pairs are not independent events; their mean is a surrogate that weighs a prompt once.
    C2  K = 2: both are Bradley-Terry. K = 1: 0.

Laws
    L1 all_orders_add_to_one                L2 marginals_are_bradley_terry
    L3 pairs_in_closed_form                 L4 gradient_in_closed_form
    L5 gauge                                L6 far_rewards_stay_finite
"""

from __future__ import annotations

from autodiff import namespace
from autodiff.ops import logsumexp, softplus
from ref.spec import bind, spec

SIGNATURE = "rewards[*B K] -> [*B]"
OF = ("ranking", "pairs")


@spec("rl.plackett_luce_loss", SIGNATURE, grads=("rewards",))
def plackett_luce_loss(rewards, *, of="ranking"):
    """Loss of each ranking, best first.

    Parameters
    ----------
    rewards : float[*B K]
    of : "ranking" or "pairs"

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        K < 1 or an unknown `of`.
    TypeError
        rewards is not float.

    Complexity: K^2 operations a ranking.

    >>> import numpy as np
    >>> round(float(plackett_luce_loss(np.log([2.0, 1.0, 1.0]))), 6)  # -log(2/4 * 1/2)
    1.386294
    """
    K = bind("plackett_luce_loss", SIGNATURE, rewards=rewards)["K"]
    if K < 1 or of not in OF:
        raise ValueError(f"plackett_luce_loss: K={K}, of={of!r}; needed K >= 1 and one of {', '.join(OF)}")
    xp = namespace(rewards)
    if K == 1:
        return rewards[..., 0] * 0
    if of == "ranking":
        terms = [logsumexp(rewards[..., k:], axis=-1) - rewards[..., k] for k in range(K - 1)]
        return xp.sum(xp.stack(terms, axis=-1), axis=-1)
    terms = [xp.sum(softplus(rewards[..., i + 1 :] - rewards[..., i : i + 1]), axis=-1) for i in range(K - 1)]
    return xp.sum(xp.stack(terms, axis=-1), axis=-1) / (K * (K - 1) / 2)
