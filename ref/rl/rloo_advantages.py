"""Leave-one-out advantages: each reward against the mean of the others.

Source: Kool et al. 2019; Ahmadian et al. 2024 (2402.14740, RLOO) Eq. 8.

    A_i = r_i - (1 / (G - 1)) sum_{j != i} r_j = G / (G - 1) (r_i - mean)

Conventions
    C1  The baseline does not contain r_i: the gradient is unbiased, exactly, for every G >= 2. `grpo_advantages` with
        scale=None is (G - 1) / G of it.
    C2  Groups are told by prompt ids, in any order, and have one size.

Laws
    L1 value_is_the_definition              L2 expected_gradient_is_exact
    L3 the_group_adds_up_to_zero            L4 own_reward_enters_once
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.grpo_advantages import SIGNATURE, grouped
from ref.spec import spec


@spec("rl.rloo_advantages", SIGNATURE)
def rloo_advantages(rewards, prompts):
    """Rewards less the mean of the others of their group.

    Parameters
    ----------
    rewards : float[B]
    prompts : int[B]
        Rewards of equal ids are a group.

    Returns
    -------
    float[B]

    Raises
    ------
    ValueError
        No reward, a reward that is not finite, groups of different sizes or of fewer than two (named).
    TypeError
        rewards is not float or prompts not int.

    Complexity: B log B operations.

    >>> import numpy as np
    >>> rloo_advantages(np.array([1.0, 0.0, 0.5]), np.zeros(3, int))
    array([ 0.75, -0.75,  0.  ])
    """
    r, back = grouped("rloo_advantages", rewards, prompts)
    xp = namespace(rewards)
    others = (xp.sum(r, axis=1, keepdims=True) - r) / (r.shape[1] - 1)
    return xp.take(xp.reshape(r - others, (-1,)), back, axis=0)
