"""Expected Sarsa: the mean over the next action in the place of a draw.

Source: van Seijen et al. 2009; Sutton & Barto 2018, sec. 6.6; Zhao 2025, Mathematical Foundations of Reinforcement
Learning, sec. 7.2.2.

    q(s, a) <- q(s, a) + rate [r + gamma (1 - terminated) sum_b pi(b | s') q(s', b) - q(s, a)]

Notation
    q -> q[S A], pi -> policy[S A]; s, a, r, s' -> states, actions, rewards, next_states [k n]; rate -> rates[k].

Conventions
    C1  Rows of transitions, and termination, as in `td0`.
    C2  pi is the policy to be judged, of which the actions need not be drawn. Greedy for q it is Q-learning, one row at
        a time; it is an argument, so that for control it is given anew as q changes.

Laws
    L1 rows_by_hand                          L2 full_sweeps_are_bellmans_operator
    L3 a_sure_policy_looks_its_action_up     L4 what_follows_an_end_is_invisible
"""

from __future__ import annotations

from ref.mdp.model import check_rows
from ref.mdp.updates import check_steps, toward, worth
from ref.spec import bind, spec

STEPS = "states:int[k n], actions:int[k n], rewards[k n], next_states:int[k n], terminated:bool[k n]"
SIGNATURE = f"q[S A], policy[S A], {STEPS}, rates[k] -> [S A]"


@spec("mdp.expected_sarsa", SIGNATURE)
def expected_sarsa(q, policy, states, actions, rewards, next_states, terminated, rates, *, gamma):
    """Action values after k rows of transitions.

    Parameters
    ----------
    q : float[S A]
    policy : float[S A]
        Chances of the actions; rows sum to 1.
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
        Axes disagree, a row of the policy is no distribution, a state or action that is not there, a rate or gamma out
        of range.
    TypeError
        An array of another kind, or dtypes or backends differ.

    Complexity: k (n A + S A).

    >>> import numpy as np
    >>> q, half, i = np.array([[0.0, 0.0], [4.0, 8.0]]), np.full((2, 2), 0.5), np.array([[1]])
    >>> expected_sarsa(q, half, 0 * i, i, np.array([[2.0]]), i, i < 0, np.ones(1), gamma=0.5)
    array([[0., 5.],
           [4., 8.]])
    """
    sizes = bind(
        "expected_sarsa", SIGNATURE, q=q, policy=policy, states=states, actions=actions, rewards=rewards,
        next_states=next_states, terminated=terminated, rates=rates,
    )  # fmt: skip
    check_rows("expected_sarsa", "policy", policy)
    xp = check_steps("expected_sarsa", gamma, rates, sizes, states=states, actions=actions, next_states=next_states)
    A, table = sizes["A"], xp.reshape(xp.asarray(q, copy=True), (-1,))
    for k in range(sizes["k"]):
        chance = xp.take(policy, next_states[k, :], axis=0)
        following = xp.take(xp.reshape(table, q.shape), next_states[k, :], axis=0)
        target = worth(xp, rewards[k, :], xp.sum(chance * following, axis=1), terminated[k, :], gamma)
        table = toward(xp, table, states[k, :] * A + actions[k, :], target, rates[k])
    return xp.reshape(table, q.shape)
