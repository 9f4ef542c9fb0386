"""Generalised advantage estimation.

Source: Schulman et al. 2016 (1506.02438) Eq. 11-16; truncation as in Pardo et al. 2018 (1712.00378).

    delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)
    A_t = delta_t + gamma lam (1 - done_t) A_{t+1},      done = terminated or truncated,   A_T = 0
    A_t = sum_{j >= t} (gamma lam)^{j - t} delta_j       to the end of the episode, or of the recording

    lam = 0 gives delta, lam = 1 the return less V; with the true V, E[A_t | s_t, a_t] is the advantage for every lam

Erratum: Eq. 11 of the PPO paper (1707.06347) ends in (gamma lam)^{T-t+1} delta_{T-1}; the exponent is T - t - 1.

Notation
    r -> rewards, V(s_t) -> values, V(s_{t+1}) -> next_values, all [*N] with time first or last; A -> advantages.

Conventions
    C1  next_values is V of the state that step t led to. `values` shifted by one is that inside an episode only: at a
        cut it is the first state of the next episode. (`ref.mdp.trajectories`)
    C2  Termination: nothing follows, next_values is not read (it may be NaN). Truncation: it is read, and the chain of
        later deltas is cut all the same. Marked as both: terminated.
    C3  terminated[t] and truncated[t] belong to the step that they end. CleanRL's dones[t] is the flag of the step
        before (of the observation of step t): shift it by one before it comes here.
    C4  The last recorded step is cut; next_values carries on from there.
    C5  lam may be an array that broadcasts to [*N]: a length-adaptive lambda for every row, say.
    C6  No gradient is meant: targets and advantages are data for the losses. No whitening: that is the loss's.

Laws
    L1 triangular_sum_of_deltas              L2 lam_one_is_the_return_less_the_value
    L3 lam_zero_is_delta                     L4 true_values_give_the_advantage
    L5 a_truncation_is_not_felt              L6 time_first_or_last
    L7 what_follows_an_end_is_invisible      L8 episodes_do_not_mix
    L9 a_lambda_for_every_row
"""

from __future__ import annotations

from ref.mdp.trajectories import backward_sum, spread, steps
from ref.spec import bind, spec

INPUTS = "rewards[*N], values[*N], next_values[*N], terminated:bool[*N], truncated:bool[*N]"
SIGNATURE = f"{INPUTS} -> advantages[*N], targets[*N]"


@spec("mdp.gae", SIGNATURE)
def gae(rewards, values, next_values, terminated, truncated, *, gamma, lam, time_axis=-1):
    """Advantages of recorded steps, and targets A + V for the values.

    Parameters
    ----------
    rewards : float[*N]
        Of each step.
    values : float[*N]
        Of the state that the step left.
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
    advantages : float[*N]
    targets : float[*N]

    Raises
    ------
    ValueError
        Shapes differ, no axis, time on an inner axis, gamma or lam out of range.
    TypeError
        An array of another kind, or dtypes or backends differ.

    Complexity: 8 operations a step.

    >>> import numpy as np
    >>> r, v, no = np.ones(3), np.zeros(3), np.zeros(3, bool)
    >>> gae(r, v, np.array([0.0, 0.0, 8.0]), no, no, gamma=0.5, lam=1.0)[0]
    array([2.75, 3.5 , 5.  ])
    >>> gae(r, v, np.array([0.0, 0.0, 8.0]), np.array([False, False, True]), no, gamma=0.5, lam=1.0)[0]
    array([1.75, 1.5 , 1.  ])
    """
    arrays = {
        "rewards": rewards, "values": values, "next_values": next_values, "terminated": terminated,
        "truncated": truncated,
    }  # fmt: skip
    bind("gae", SIGNATURE, **arrays)
    xp, axis = steps("gae", time_axis, gamma, lam=lam, **arrays)
    delta = rewards + gamma * xp.where(terminated, 0.0, next_values) - values
    carry = xp.where(terminated | truncated, 0.0, spread(xp, gamma * lam, delta))
    advantages = backward_sum(xp, delta, carry, axis)
    return advantages, advantages + values
