"""Rewards of tokens: the score on the last one, and a KL penalty on each.

Source: Stiennon et al. 2020 (2009.01325) sec. 3.4; Ouyang et al. 2022 (2203.02155) Eq. 2; a token at a time as in the
code of Ziegler et al. 2019 (1909.08593).

    r_t = -beta (log pi_old(y_t) - log ref(y_t)) + score [t is the last kept token]
    sum_t r_t = score - beta log(pi_old(y) / ref(y)),   E of it = E score - beta KL(pi_old | ref)

Notation
    log pi_old, log ref -> log_probs, ref_log_probs[B T]; score -> scores[B].

Conventions
    C1  The last KEPT token: right padding, tools after the answer and left-padded batches alike. At the last column the
        score would land on padding and be masked away.
    C2  kind="k1" (the paper's); "k2", "k3" and "abs" are `kl_estimator`'s. All are data: no gradient flows.
    C3  A masked place is 0.

Laws
    L1 value_is_the_definition              L2 rewards_telescope
    L3 masked_junk_is_invisible             L4 the_bandit_optimum_is_the_gibbs_policy
    L5 the_score_stands_on_a_kept_token
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.kl_estimator import check_kind, kl_estimator
from ref.spec import bind, spec

SIGNATURE = "scores[B], log_probs[B T], ref_log_probs[B T], mask:bool[B T] -> [B T]"


@spec("rl.kl_reward", SIGNATURE)
def kl_reward(scores, log_probs, ref_log_probs, mask, *, beta, kind="k1"):
    """A reward for every token of a response.

    Parameters
    ----------
    scores : float[B]
        Of the whole responses.
    log_probs, ref_log_probs : float[B T]
        Under the policy that sampled, and the reference.
    mask : bool[B T]
        The responses' own tokens.
    beta : float
        Weight of the penalty.
    kind : "k1", "k2", "k3" or "abs"

    Returns
    -------
    float[B T]
        0 where masked.

    Raises
    ------
    ValueError
        Shapes that differ, beta < 0, an unknown kind, a score that is not finite, or a row with no kept token (named).
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: B T operations.

    >>> import numpy as np
    >>> lp, ref = np.array([[-1.0, -2.0, 0.0]]), np.array([[-2.0, -2.0, 0.0]])
    >>> kl_reward(np.array([1.0]), lp, ref, np.array([[True, True, False]]), beta=0.5)
    array([[-0.5,  1. ,  0. ]])
    """
    bind("kl_reward", SIGNATURE, scores=scores, log_probs=log_probs, ref_log_probs=ref_log_probs, mask=mask)
    check_kind("kl_reward", kind, None, None, None)
    if not beta >= 0:
        raise ValueError(f"kl_reward: beta={beta}; needed >= 0")
    xp = namespace(scores, log_probs, ref_log_probs, mask)
    if not bool(xp.all(xp.isfinite(scores))):
        raise ValueError("kl_reward: scores hold a number that is not finite")
    last = last_kept("kl_reward", mask)
    lp, ref = (xp.where(mask, x, 0.0) for x in (log_probs, ref_log_probs))
    penalty = beta * kl_estimator(lp, ref, kind=kind)
    at_last = xp.arange(mask.shape[1]) == last[:, None]
    return xp.where(mask, xp.where(at_last, scores[:, None] - penalty, -penalty), 0.0)


def last_kept(function, mask):
    """int[B]: the last True of each row; ValueError names a row that has none."""
    xp = namespace(mask)
    places = xp.where(mask, xp.arange(mask.shape[1]), -1)
    last = xp.max(places, axis=-1) if mask.shape[1] else xp.full((mask.shape[0],), -1)
    if bool(xp.any(last < 0)):
        raise ValueError(f"{function}: row {int(xp.argmin(last))} of the mask keeps no token; needed one")
    return last
