"""Best of n: the exact distribution of the best of n draws on a finite space.

Source: Stiennon et al. 2020 (2009.01325) appendix G.3; Beirami et al. 2024 (2401.01879) Theorem 1 for the bound.

    F_i = sum of the probabilities of responses with reward <= r_i,   F_i- those with reward < r_i
    pi(i) = p_i / (F_i - F_i-) (F_i^n - F_i-^n)
    KL(pi | p) <= log n - (n - 1) / n

Conventions
    C1  Ties are broken by the draw: among equal rewards the distribution is the base policy's.
    C2  The bound is reached where every p_i is small; on a finite space it is not.

Laws
    L1 enumeration_of_all_draws             L2 one_draw_is_the_policy
    L3 uniform_rewards_have_mean_n_over_n_plus_one
    L4 divergence_below_the_bound           L5 order_of_the_responses_is_free
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "probs[K], rewards[K] -> [K]"


@spec("rl.best_of_n", SIGNATURE)
def best_of_n(probs, rewards, *, n):
    """Probabilities of the response with the largest reward of n draws.

    Parameters
    ----------
    probs : float[K]
        The base policy, adding up to 1.
    rewards : float[K]
    n : int
        Draws, at least 1.

    Returns
    -------
    float[K]

    Raises
    ------
    ValueError
        Shapes that differ, probabilities that are negative or do not add up to 1, n < 1, or a reward that is NaN.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: K^2 operations.

    >>> import numpy as np
    >>> best_of_n(np.array([0.5, 0.5]), np.array([0.0, 1.0]), n=2)
    array([0.25, 0.75])
    """
    bind("best_of_n", SIGNATURE, probs=probs, rewards=rewards)
    check_probs("best_of_n", probs)
    xp = namespace(probs, rewards)
    if not n >= 1 or bool(xp.any(xp.isnan(rewards))):
        raise ValueError(f"best_of_n: n={n}; needed at least 1, and no reward NaN")
    below = _mass(xp, probs, rewards[None, :] < rewards[:, None])
    level = _mass(xp, probs, rewards[None, :] == rewards[:, None])
    upto = below + level
    # F^n - F-^n = (F - F-) sum_k F^k F-^(n - 1 - k): no difference of nearly equal powers.
    total = sum(upto**k * below ** (n - 1 - k) for k in range(n))
    return probs * total


def _mass(xp, probs, which):
    return xp.sum(xp.where(which, probs[None, :], 0.0), axis=1)


def check_probs(function, probs):
    """ValueError unless the probabilities are >= 0 and add up to 1."""
    xp = namespace(probs)
    slack = 64 * float(xp.finfo(probs.dtype).eps) * max(probs.shape[0], 1)
    if probs.shape[0] < 1 or not bool(xp.all(probs >= 0)) or not abs(float(xp.sum(probs)) - 1) <= slack:
        raise ValueError(
            f"{function}: probs has {probs.shape[0]} entries of sum {float(xp.sum(probs))}; needed >= 0 and sum 1")
