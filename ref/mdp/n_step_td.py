"""n-step TD: values learned from windows of n rewards.

Source: Sutton & Barto 2018, sec. 7.1, the algorithm "n-step TD for estimating V"; Zhao 2025, Mathematical Foundations
of Reinforcement Learning, sec. 7.3.

    V(s_t) <- V(s_t) + a [G - V(s_t)],   G = r_t + .. + gamma^{n-1} r_{t+n-1} + gamma^n V(s_{t+n})

    the update of s_t is made once step t + n - 1 has been, with the V of that time; those of the last n - 1 states of
    an episode when it is over, in order, with what rewards there are

Notation
    V -> values[S]; s_t, r_t, s_{t+1} -> states, rewards, next_states [T]; a -> rate.

Conventions
    C1  Online: each update sees the values that the ones before it left (`n_step_return` gives the targets of fixed
        values).
    C2  An episode that terminated ends in nothing, one that was truncated in V of the state it led to; the last step of
        the recording is a truncation.

Laws
    L1 windows_by_hand                       L2 one_step_is_td0
    L3 long_windows_are_monte_carlo          L4 episodes_do_not_mix
"""

from __future__ import annotations

from ref.mdp.model import check_count, check_gamma
from ref.mdp.rollout import check_indices
from ref.spec import bind, spec

INPUTS = "values[S], states:int[T], rewards[T], next_states:int[T], terminated:bool[T], truncated:bool[T]"
SIGNATURE = f"{INPUTS} -> [S]"


@spec("mdp.n_step_td", SIGNATURE, backends=("numpy",))
def n_step_td(values, states, rewards, next_states, terminated, truncated, *, n, gamma, rate):
    """Values after the T steps of a recording.

    Parameters
    ----------
    values : float[S]
    states : int[T]
        State that each step left.
    rewards : float[T]
    next_states : int[T]
        State that it led to.
    terminated, truncated : bool[T]
        The process ended with the step; the recording was cut after it.
    n : int
        Rewards of a window, at least 1.
    gamma : float
        Discount, 0 <= gamma <= 1.
    rate : float
        0 <= rate <= 1.

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a state that is not there, n, gamma or rate out of range.
    TypeError
        An array of another kind, float dtypes differ, or n is no integer.

    Complexity: T n.

    >>> import numpy as np
    >>> end = np.array([False, True])
    >>> n_step_td(np.zeros(3), np.array([0, 1]), np.array([0.0, 4.0]), np.array([1, 2]), end, 0 * end > 0, n=2,
    ...           gamma=0.5, rate=0.5)
    array([1., 2., 0.])
    """
    sizes = bind(
        "n_step_td", SIGNATURE, values=values, states=states, rewards=rewards, next_states=next_states,
        terminated=terminated, truncated=truncated,
    )  # fmt: skip
    check_count("n_step_td", 1, n=n)
    check_gamma("n_step_td", gamma)
    if not 0 <= rate <= 1:
        raise ValueError(f"n_step_td: rate={rate}; needed 0 <= rate <= 1")
    for name, index in (("states", states), ("next_states", next_states)):
        check_indices("n_step_td", name, index, sizes["S"])
    V, begin = values.copy(), 0
    for t in range(sizes["T"]):
        over = bool(terminated[t] or truncated[t] or t == sizes["T"] - 1)
        # The window that step t completes; when the episode is over, the shorter ones behind it too.
        for i in range(max(begin, t - n + 1), (t if over else t - n + 1) + 1):
            G = 0 if terminated[t] else V[next_states[t]]
            for r in rewards[i : t + 1][::-1]:
                G = r + gamma * G
            V[states[i]] += rate * (G - V[states[i]])
        begin = t + 1 if over else begin
    return V
