"""Dynamic sampling: prompts whose responses all fared alike teach nothing and are drawn again.

Source: Yu et al. 2025 (2503.14476, DAPO) Eq. 11, for binary rewards: 0 < correct < G.

    keep a response if its group has two different rewards

Conventions
    C1  Told by max > min, not by a deviation above 0: that of three rewards .1 is not 0 as computed.
    C2  The kept groups are a biased sample of prompts; the loss counts tokens and responses of kept groups alone.
    C3  Groups have one size and are told by prompt ids.

Laws
    L1 binary_groups_by_their_count         L2 equal_rewards_are_dropped_to_the_bit
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.grpo_advantages import grouped
from ref.spec import spec


@spec("rl.dynamic_sampling", "rewards[B], prompts:int[B] -> :bool[B]")
def dynamic_sampling(rewards, prompts):
    """Which responses stay in the batch.

    Parameters
    ----------
    rewards : float[B]
    prompts : int[B]
        Rewards of equal ids are a group.

    Returns
    -------
    bool[B]

    Raises
    ------
    ValueError
        No reward, a reward that is not finite, groups of different sizes or of fewer than two (named).
    TypeError
        rewards is not float or prompts not int.

    Complexity: B log B operations.

    >>> import numpy as np
    >>> dynamic_sampling(np.array([1.0, 1.0, 0.0, 1.0]), np.array([7, 7, 8, 8]))
    array([False, False,  True,  True])
    """
    r, back = grouped("dynamic_sampling", rewards, prompts)
    xp = namespace(rewards)
    differ = xp.max(r, axis=1, keepdims=True) > xp.min(r, axis=1, keepdims=True)
    return xp.take(xp.reshape(xp.broadcast_to(differ, r.shape), (-1,)), back, axis=0)
