"""Action values: what each action is worth, given what the states are.

Source: Bellman 1957; Sutton & Barto 2018, Eq. 4.6; Zhao 2025, Mathematical Foundations of Reinforcement Learning,
sec. 2.8.

    q(s, a) = R(s, a) + gamma sum_t P(t | s, a) v(t)

Notation
    P -> P[S A S], R -> R[S A], v -> v[S], q -> the result [S A].

Conventions
    C1  R(s, a) is the expected reward of the action, paid before the discount: gamma multiplies what follows alone.
    C2  P's last axis is the state that the action leads to.

Laws
    L1 sum_over_outcomes                     L2 a_sure_outcome_is_looked_up
    L3 linear_in_values_and_rewards          L4 gradient_is_the_transpose
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import backup, check_gamma, check_model
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], v[S] -> q[S A]"


@spec("mdp.action_values", SIGNATURE, grads=("P", "R", "v"))
def action_values(P, R, v, *, gamma):
    """The value of every action in every state.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    v : float[S]
        Values of the states.
    gamma : float
        Discount, 0 <= gamma <= 1.

    Returns
    -------
    float[S A]

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution or a reward is not finite (names (s, a)), gamma out of range.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: S^2 A multiply-adds.

    >>> import numpy as np
    >>> P, R = np.array([[[0.5, 0.5]], [[0.0, 1.0]]]), np.array([[1.0], [0.0]])
    >>> action_values(P, R, np.array([2.0, 4.0]), gamma=0.5)
    array([[2.5],
           [2. ]])
    """
    bind("action_values", SIGNATURE, P=P, R=R, v=v)
    check_model("action_values", P, R)
    check_gamma("action_values", gamma)
    return backup(namespace(P, R, v), P, R, v, gamma)
