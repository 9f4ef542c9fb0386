"""Discounted returns, from the last step backwards.

Source: Sutton & Barto 2018, Eq. 3.8-3.9; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 2.1 and
5.2.

    G_t = r_t + gamma G_{t+1} = sum_i gamma^i r_{t+i}       to the end of the episode, or of the recording

Notation
    r -> rewards[*N] with time first or last; G -> the result [*N].

Conventions
    C1  ended[t] marks the last step of an episode; what comes after it is another's.
    C2  There is no value to go on with: an episode that was cut is taken for one that ended. Where a cut must count as
        a cut, `lambda_return` with lam = 1 takes the value there.
    C3  G_t includes r_t, the reward of the step taken at t (Sutton & Barto's R_{t+1}).

Laws
    L1 direct_sum                            L2 constant_rewards
    L3 time_first_or_last                    L4 episodes_do_not_mix
"""

from __future__ import annotations

from ref.mdp.trajectories import backward_sum, spread, steps
from ref.spec import bind, spec

SIGNATURE = "rewards[*N], ended:bool[*N] -> [*N]"


@spec("mdp.discounted_returns", SIGNATURE)
def discounted_returns(rewards, ended=None, *, gamma, time_axis=-1):
    """The return from every recorded step.

    Parameters
    ----------
    rewards : float[*N]
        Of each step.
    ended : bool[*N], optional
        The episode ended with this step; by default only with the last one.
    gamma : float
        Discount, 0 <= gamma <= 1.
    time_axis : int
        0 for arrays [T ...], -1 for [... T].

    Returns
    -------
    float[*N]

    Raises
    ------
    ValueError
        Shapes differ, no axis, time on an inner axis, gamma out of range.
    TypeError
        An array of another kind, or dtypes or backends differ.

    Complexity: 2 operations a step.

    >>> import numpy as np
    >>> discounted_returns(np.array([1.0, 2.0, 4.0]), gamma=0.5)
    array([3., 4., 4.])
    """
    bind("discounted_returns", SIGNATURE, rewards=rewards, ended=ended)
    xp, axis = steps("discounted_returns", time_axis, gamma, rewards=rewards)
    carry = spread(xp, gamma, rewards)
    carry = carry if ended is None else xp.where(ended, 0.0, carry)
    return backward_sum(xp, xp.asarray(rewards, copy=True), carry, axis)
