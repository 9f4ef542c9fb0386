"""Policy mirror descent on a finite space, exactly: the optimum of a reward under a KL penalty.

Source: Kimi k1.5 (2501.12599) Eq. 3-4; the same is the optimum of RLHF, Rafailov et al. 2023 (2305.18290) Eq. 4.

    pi_{i+1} = argmax E_pi[r] - tau KL(pi | pi_i) = pi_i e^{r / tau} / Z
    after n steps pi_n = pi_0 e^{n r / tau} / Z_n
    E_pi[r] - tau KL(pi | pi_i) = tau log Z - tau KL(pi | pi_{i+1}) for every pi

Notation
    log pi_i -> log_policy[*B K], r -> rewards[*B K], K responses.

Conventions
    C1  In log space: a reward of 1000 tau overflows nothing. log_policy need not be normalised; the result is.
    C2  A response of probability 0 (log -oo) keeps it, whatever its reward.

Laws
    L1 weights_times_exponentials           L2 n_steps_are_one_of_tau_over_n
    L3 a_shift_of_the_rewards_is_invisible  L4 no_policy_does_better
    L5 the_impossible_stays_so
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "log_policy[*B K], rewards[*B K] -> [*B K]"


@spec("rl.mirror_descent", SIGNATURE, infinite=True)
def mirror_descent(log_policy, rewards, *, tau):
    """The logarithm of the next policy.

    Parameters
    ----------
    log_policy : float[*B K]
        At least one of a row is finite.
    rewards : float[*B K]
    tau : float

    Returns
    -------
    float[*B K]

    Raises
    ------
    ValueError
        Shapes that differ, K < 1, tau <= 0, or a reward that is not finite.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: K operations a row.

    >>> import numpy as np
    >>> np.exp(mirror_descent(np.log([0.5, 0.5]), np.log([1.0, 3.0]), tau=1.0))
    array([0.25, 0.75])
    """
    K = bind("mirror_descent", SIGNATURE, log_policy=log_policy, rewards=rewards)["K"]
    xp = namespace(log_policy, rewards)
    if K < 1 or not tau > 0 or not bool(xp.all(xp.isfinite(rewards))):
        raise ValueError(f"mirror_descent: K={K}, tau={tau}; needed K >= 1, tau > 0 and finite rewards")
    x = log_policy + rewards / tau
    top = xp.max(x, axis=-1, keepdims=True)
    shifted = xp.where(x == -math.inf, x, x - xp.where(top == -math.inf, 0.0, top))
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
