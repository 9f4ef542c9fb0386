"""Q-learning: the optimal action values, learned from single steps of any policy.

Source: Watkins & Dayan 1992; Sutton & Barto 2018, sec. 6.5; Zhao 2025, Mathematical Foundations of Reinforcement
Learning, sec. 7.4.

    q(s, a) <- q(s, a) + rate [r + gamma (1 - terminated) max_b q(s', b) - q(s, a)]

    with rate 1 in synchronous sweeps over a model of sure outcomes it is value iteration

Notation
    q -> q[S A]; s, a, r, s' -> states, actions, rewards, next_states [k n]; rate -> rates[k].

Conventions
    C1  Rows of transitions, and termination, as in `td0`.
    C2  Off-policy: who chose the actions does not matter, only that all are tried.

Laws
    L1 rows_by_hand                          L2 full_sweeps_are_value_iteration
    L3 optimum_stays_in_the_mean             L4 what_follows_an_end_is_invisible
    L5 rows_one_after_the_other
"""

from __future__ import annotations

from ref.mdp.updates import check_steps, toward, worth
from ref.spec import bind, spec

INPUTS = "q[S A], states:int[k n], actions:int[k n], rewards[k n], next_states:int[k n], terminated:bool[k n], rates[k]"
SIGNATURE = f"{INPUTS} -> [S A]"


@spec("mdp.q_learning", SIGNATURE)
def q_learning(q, states, actions, rewards, next_states, terminated, rates, *, gamma):
    """Action values after k rows of transitions.

    Parameters
    ----------
    q : float[S A]
    states, actions : int[k n]
        State that each step left, and by which action.
    rewards : float[k n]
    next_states : int[k n]
        State that it led to.
    terminated : bool[k n]
        The process ended with it.
    rates : float[k]
        0 <= rate <= 1.
    gamma : float
        Discount, 0 <= gamma <= 1.

    Returns
    -------
    float[S A]

    Raises
    ------
    ValueError
        Axes disagree, no action, a state or action that is not there, a rate or gamma out of range.
    TypeError
        An array of another kind, or dtypes or backends differ.

    Complexity: k (n A + S A).

    >>> import numpy as np
    >>> q, no = np.array([[0.0, 0.0], [4.0, 8.0]]), np.zeros((1, 1), bool)
    >>> q_learning(q, np.array([[0]]), np.array([[1]]), np.array([[2.0]]), np.array([[1]]), no, np.ones(1), gamma=0.5)
    array([[0., 6.],
           [4., 8.]])
    """
    sizes = bind(
        "q_learning", SIGNATURE, q=q, states=states, actions=actions, rewards=rewards, next_states=next_states,
        terminated=terminated, rates=rates,
    )  # fmt: skip
    xp = check_steps("q_learning", gamma, rates, sizes, states=states, actions=actions, next_states=next_states)
    A, table = sizes["A"], xp.reshape(xp.asarray(q, copy=True), (-1,))
    for k in range(sizes["k"]):
        following = xp.take(xp.reshape(table, q.shape), next_states[k, :], axis=0)
        target = worth(xp, rewards[k, :], xp.max(following, axis=1), terminated[k, :], gamma)
        table = toward(xp, table, states[k, :] * A + actions[k, :], target, rates[k])
    return xp.reshape(table, q.shape)
