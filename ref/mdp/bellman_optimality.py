"""Bellman's optimality operator.

Source: Bellman 1957; Sutton & Barto 2018, Eq. 4.10; Zhao 2025, Mathematical Foundations of Reinforcement
Learning, ch. 3.

    (T v)(s) = max_a [R(s, a) + gamma sum_t P(t | s, a) v(t)]

    |T v - T w| <= gamma |v - w| (maximum norm), so for gamma < 1 it has one fixed point, v*; iterated, it is
    `value_iteration`

Notation
    P -> P[S A S], R -> R[S A], v -> v[S].

Conventions
    C1  The maximum is over actions, outside the mean over outcomes: chance moves after the choice.
    C2  All states are updated from the same v (synchronous).

Laws
    L1 best_of_the_actions                   L2 contraction
    L3 monotone                              L4 a_shift_is_discounted
    L5 best_of_all_policies
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import backup, check_gamma, check_model
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], v[S] -> [S]"


@spec("mdp.bellman_optimality", SIGNATURE)
def bellman_optimality(P, R, v, *, gamma):
    """One sweep of value iteration: T v.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    v : float[S]
    gamma : float
        Discount, 0 <= gamma <= 1.

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution or a reward is not finite (names (s, a)), gamma out of range.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: S^2 A multiply-adds.

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> bellman_optimality(P, R, np.array([10.0]), gamma=0.5)
    array([9.])
    """
    bind("bellman_optimality", SIGNATURE, P=P, R=R, v=v)
    check_model("bellman_optimality", P, R)
    check_gamma("bellman_optimality", gamma)
    xp = namespace(P, R, v)
    return xp.max(backup(xp, P, R, v, gamma), axis=1)
