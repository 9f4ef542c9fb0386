"""The lambda-return: all n-step returns, mixed geometrically (the forward view of TD(lambda)).

Source: Sutton & Barto 2018, Eq. 12.2-12.3; Watkins 1989; the recursion as in rlax's `lambda_returns`.

    G_t = r_t + gamma (1 - terminated_t) [(1 - lam) V(s_{t+1}) + lam G_{t+1}]
    G_t = (1 - lam) sum_{n=1}^{m-1} lam^{n-1} G_t^{(n)} + lam^{m-1} G_t^{(m)},      m steps left in the episode

    G^{(n)} the `n_step_return`; where the recording is cut, G_t = r_t + gamma V(s_{t+1})

Erratum: the three-step return printed in rlax's docstring has r_{t+2} twice; its third reward is r_{t+3} (L1 sums it).

Notation
    r -> rewards, V(s_{t+1}) -> next_values, both [*N] with time first or last; G -> the result [*N].

Conventions
    C1  The longest return takes all the weight that is left, lam^{m-1}; the weights sum to 1.
    C2  next_values, terminated and truncated as in `gae`; G_t - V(s_t) is `gae`'s advantage.
    C3  lam may be an array that broadcasts to [*N].

Laws
    L1 mixture_of_the_n_step_returns         L2 lam_one_is_the_whole_return
    L3 lam_zero_is_one_step                  L4 time_first_or_last
    L5 what_follows_an_end_is_invisible      L6 true_values_stay
"""

from __future__ import annotations

from ref.mdp.trajectories import backward_sum, spread, steps, stops
from ref.spec import bind, spec

SIGNATURE = "rewards[*N], next_values[*N], terminated:bool[*N], truncated:bool[*N] -> [*N]"


@spec("mdp.lambda_return", SIGNATURE)
def lambda_return(rewards, next_values, terminated, truncated, *, gamma, lam, time_axis=-1):
    """The lambda-return from every recorded step.

    Parameters
    ----------
    rewards : float[*N]
        Of each step.
    next_values : float[*N]
        Of the state that the step led to; not read where it terminated.
    terminated, truncated : bool[*N]
        The process ended with this step; the recording was cut after it.
    gamma : float
        Discount, 0 <= gamma <= 1.
    lam : float or float array
        0 <= lam <= 1; an array broadcasts to [*N].
    time_axis : int
        0 for arrays [T ...], -1 for [... T].

    Returns
    -------
    float[*N]

    Raises
    ------
    ValueError
        Shapes differ, no axis, time on an inner axis, gamma or lam out of range.
    TypeError
        An array of another kind, or dtypes or backends differ.

    Complexity: 8 operations a step.

    >>> import numpy as np
    >>> no = np.zeros(3, bool)
    >>> lambda_return(np.ones(3), np.array([4.0, 4.0, 8.0]), no, no, gamma=0.5, lam=0.5)
    array([2.8125, 3.25  , 5.    ])
    """
    arrays = {"rewards": rewards, "next_values": next_values, "terminated": terminated, "truncated": truncated}
    bind("lambda_return", SIGNATURE, **arrays)
    xp, axis = steps("lambda_return", time_axis, gamma, lam=lam, **arrays)
    later = xp.where(stops(xp, terminated, truncated, axis), 0.0, spread(xp, lam, rewards))
    now = rewards + gamma * (1 - later) * xp.where(terminated, 0.0, next_values)
    return backward_sum(xp, now, gamma * later, axis)
