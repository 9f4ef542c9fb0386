"""Sarsa: the action values of the policy that acts, learned from single steps.

Source: Rummery & Niranjan 1994; Sutton & Barto 2018, sec. 6.4; Zhao 2025, Mathematical Foundations of Reinforcement
Learning, sec. 7.2.

    q(s, a) <- q(s, a) + rate [r + gamma (1 - terminated) q(s', a') - q(s, a)],      a' the action taken in s'

Notation
    q -> q[S A]; s, a, r, s', a' -> states, actions, rewards, next_states, next_actions [k n]; rate -> rates[k].

Conventions
    C1  Rows of transitions, and termination, as in `td0`.
    C2  On-policy: a' is the action that will be taken. After a truncation it is one that the policy would take there.

Laws
    L1 rows_by_hand                          L2 full_sweeps_are_bellmans_operator
    L3 mean_over_next_actions_is_the_expected_update
    L4 what_follows_an_end_is_invisible
"""

from __future__ import annotations

from ref.mdp.updates import check_steps, toward, worth
from ref.spec import bind, spec

STEPS = "states:int[k n], actions:int[k n], rewards[k n], next_states:int[k n], next_actions:int[k n]"
SIGNATURE = f"q[S A], {STEPS}, terminated:bool[k n], rates[k] -> [S A]"


@spec("mdp.sarsa", SIGNATURE)
def sarsa(q, states, actions, rewards, next_states, next_actions, terminated, rates, *, gamma):
    """Action values after k rows of transitions.

    Parameters
    ----------
    q : float[S A]
    states, actions : int[k n]
        State that each step left, and by which action.
    rewards : float[k n]
    next_states, next_actions : int[k n]
        State that it led to, and the action taken there.
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
        Axes disagree, a state or action that is not there, a rate or gamma out of range.
    TypeError
        An array of another kind, or dtypes or backends differ.

    Complexity: k (n + S A).

    >>> import numpy as np
    >>> q, i, no = np.array([[0.0, 0.0], [4.0, 8.0]]), np.array([[1]]), np.zeros((1, 1), bool)
    >>> sarsa(q, 0 * i, i, np.array([[2.0]]), i, 0 * i, no, np.ones(1), gamma=0.5)
    array([[0., 4.],
           [4., 8.]])
    """
    sizes = bind(
        "sarsa", SIGNATURE, q=q, states=states, actions=actions, rewards=rewards, next_states=next_states,
        next_actions=next_actions, terminated=terminated, rates=rates,
    )  # fmt: skip
    xp = check_steps(
        "sarsa", gamma, rates, sizes, states=states, actions=actions, next_states=next_states,
        next_actions=next_actions,
    )  # fmt: skip
    A, table = sizes["A"], xp.reshape(xp.asarray(q, copy=True), (-1,))
    for k in range(sizes["k"]):
        later = xp.take(table, next_states[k, :] * A + next_actions[k, :], axis=0)
        target = worth(xp, rewards[k, :], later, terminated[k, :], gamma)
        table = toward(xp, table, states[k, :] * A + actions[k, :], target, rates[k])
    return xp.reshape(table, q.shape)
