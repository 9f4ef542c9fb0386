"""Bellman's operator of a policy.

Source: Bellman 1957; Sutton & Barto 2018, Eq. 4.4-4.5; Zhao 2025, Mathematical Foundations of Reinforcement Learning,
sec. 2.4-2.6.

    (T_pi v)(s) = sum_a pi(a | s) [R(s, a) + gamma sum_t P(t | s, a) v(t)],      T_pi v = R_pi + gamma P_pi v

    its one fixed point, for gamma < 1, is v_pi (`policy_evaluation`); iterated, it is `iterative_evaluation`

Notation
    pi -> policy[S A], P -> P[S A S], R -> R[S A], v -> v[S].

Conventions
    C1  All states are updated from the same v (synchronous); in-place sweeps (Gauss-Seidel) are another operator.

Laws
    L1 mean_over_actions_and_outcomes        L2 contraction
    L3 monotone                              L4 a_shift_is_discounted
    L5 the_value_of_the_policy_stays         L6 gradient_is_the_transpose
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import check_gamma, check_model, check_rows, under
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], policy[S A], v[S] -> [S]"


@spec("mdp.bellman_expectation", SIGNATURE, grads=("P", "R", "policy", "v"))
def bellman_expectation(P, R, policy, v, *, gamma):
    """One sweep of evaluation: T_pi v.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    policy : float[S A]
        Chances of the actions; rows sum to 1.
    v : float[S]
    gamma : float
        Discount, 0 <= gamma <= 1.

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a row of P or of the policy is no distribution, a reward is not finite, gamma out of range.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: S^2 A multiply-adds.

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> bellman_expectation(P, R, np.array([[0.5, 0.5]]), np.array([10.0]), gamma=0.5)
    array([7.])
    """
    bind("bellman_expectation", SIGNATURE, P=P, R=R, policy=policy, v=v)
    check_model("bellman_expectation", P, R)
    check_rows("bellman_expectation", "policy", policy)
    check_gamma("bellman_expectation", gamma)
    xp = namespace(P, R, policy, v)
    P_pi, R_pi = under(xp, P, R, policy)
    return xp.add(R_pi, gamma * xp.matmul(P_pi, v))
