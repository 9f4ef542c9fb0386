"""The n-step return: so many rewards, then a value.

Source: Sutton & Barto 2018, Eq. 7.1 and 7.3 (error reduction); Watkins 1989.

    G_t^{(n)} = sum_{i < m} gamma^i r_{t+i} + gamma^m (1 - terminated_{t+m-1}) V(s_{t+m}),
    m = n, or the steps left in the episode or the recording if these are fewer

    E[G^{(n)} | s_t = s] = (T_pi^n V)(s):  its error is at most gamma^n max |V - v_pi|

Notation
    r -> rewards, V(s_{t+1}) -> next_values, both [*N] with time first or last; G -> the result [*N].

Conventions
    C1  A window that a truncation or the end of the recording cuts is shorter and ends in the value there; one that a
        termination cuts ends in nothing.
    C2  next_values, terminated and truncated as in `gae`.

Laws
    L1 sum_over_the_window                   L2 one_step_and_all_steps
    L3 expectation_is_n_backups              L4 time_first_or_last
    L5 what_follows_an_end_is_invisible
"""

from __future__ import annotations

from ref.mdp.model import check_count
from ref.mdp.trajectories import steps, stops
from ref.spec import bind, spec

SIGNATURE = "rewards[*N], next_values[*N], terminated:bool[*N], truncated:bool[*N] -> [*N]"


@spec("mdp.n_step_return", SIGNATURE)
def n_step_return(rewards, next_values, terminated, truncated, *, n, gamma, time_axis=-1):
    """The n-step return from every recorded step.

    Parameters
    ----------
    rewards : float[*N]
        Of each step.
    next_values : float[*N]
        Of the state that the step led to; not read where it terminated.
    terminated, truncated : bool[*N]
        The process ended with this step; the recording was cut after it.
    n : int
        Rewards, at least 1.
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
        Shapes differ, no axis, time on an inner axis, n or gamma out of range.
    TypeError
        An array of another kind, dtypes or backends differ, or n is no integer.

    Complexity: 3 n operations a step.

    >>> import numpy as np
    >>> no = np.zeros(3, bool)
    >>> n_step_return(np.ones(3), np.array([4.0, 4.0, 8.0]), no, no, n=2, gamma=0.5)
    array([2.5, 3.5, 5. ])
    """
    arrays = {"rewards": rewards, "next_values": next_values, "terminated": terminated, "truncated": truncated}
    bind("n_step_return", SIGNATURE, **arrays)
    check_count("n_step_return", 1, n=n)
    xp, axis = steps("n_step_return", time_axis, gamma, **arrays)
    one = rewards + gamma * xp.where(terminated, 0.0, next_values)
    stop, found = stops(xp, terminated, truncated, axis), one
    for _ in range(min(n, rewards.shape[axis]) - 1):
        found = xp.where(stop, one, rewards + gamma * xp.roll(found, -1, axis=axis))
    return found
