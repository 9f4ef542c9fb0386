"""Exact policy evaluation: the value of a policy by one linear solve.

Source: Sutton & Barto 2018, Eq. 4.3-4.4; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 2.7;
Kakade & Langford 2002, Lemma 6.1 for the difference of two policies; Sutton et al. 2000 for the gradient.

    v = R_pi + gamma P_pi v,      v = (I - gamma P_pi)^{-1} R_pi = sum_i gamma^i P_pi^i R_pi

    mu . (v_new - v_old) = 1 / (1 - gamma) sum_s d_new(s) sum_a pi_new(a | s) [q_old(s, a) - v_old(s)],
    d_new the discounted occupancy of pi_new from mu (`occupancy`)

Notation
    pi -> policy[S A], P -> P[S A S], R -> R[S A], P_pi = sum_a pi P, R_pi = sum_a pi R; v -> the result [S].

Conventions
    C1  gamma = 1 is allowed where the policy surely comes to an absorbing state of reward 0 from everywhere; these
        states are worth 0 and are taken out of the system, which is singular otherwise. Elsewhere it is an error that
        names a state.
    C2  Under Tensors it is differentiable in P, R and the policy. For mu . v the gradient in pi(a | s) is
        d(s) q(s, a) / (1 - gamma): the policy gradient theorem.

Laws
    L1 discounted_sum_of_rewards             L2 constant_reward
    L3 performance_difference                L4 ruin_of_a_gambler
    L5 the_bellman_equation_holds            L6 policy_gradient_theorem
    L7 shaped_by_a_potential
"""

from __future__ import annotations

from autodiff import namespace, raw
from ref.mdp.model import check_gamma, check_model, check_rows, first, under
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], policy[S A] -> [S]"


@spec("mdp.policy_evaluation", SIGNATURE, grads=("P", "R", "policy"))
def policy_evaluation(P, R, policy, *, gamma):
    """The value of a policy in every state.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    policy : float[S A]
        Chances of the actions; rows sum to 1.
    gamma : float
        Discount, 0 <= gamma <= 1; 1 only where every state surely leads to an end (C1).

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a row of P or of the policy is no distribution, a reward is not finite, gamma out of range, or
        gamma = 1 and a state from which the policy never reaches an absorbing state of reward 0 (named).
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: S^2 A + S^3 / 3 multiply-adds.

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> policy_evaluation(P, R, np.array([[0.5, 0.5]]), gamma=0.5)
    array([4.])
    """
    S = bind("policy_evaluation", SIGNATURE, P=P, R=R, policy=policy)["S"]
    check_model("policy_evaluation", P, R)
    check_rows("policy_evaluation", "policy", policy)
    check_gamma("policy_evaluation", gamma)
    xp = namespace(P, R, policy)
    P_pi, R_pi = under(xp, P, R, policy)
    if gamma == 1:
        ends = _ends(raw(P_pi), raw(R_pi))
        P_pi, R_pi = xp.where(ends[:, None], 0.0, P_pi), xp.where(ends, 0.0, R_pi)
    return xp.linalg.solve(xp.subtract(xp.eye(S, dtype=P.dtype), gamma * P_pi), R_pi[:, None])[:, 0]


def _ends(P, R):
    """bool[S]: absorbing states of reward 0; ValueError if some state may never come to one."""
    xp, S = namespace(P), P.shape[0]
    leaves = xp.any((P > 0) & (xp.arange(S)[:, None] != xp.arange(S)), axis=1)
    ends = reached = ~leaves & (R == 0)
    for _ in range(S):
        reached = reached | xp.any((P > 0) & reached[None, :], axis=1)
    lost = first(xp, ~reached)
    if lost is not None:
        raise ValueError(
            f"policy_evaluation: gamma=1 and from s = {lost[0]} the policy reaches no absorbing state of reward 0; "
            "needed gamma < 1, or a policy that ends"
        )
    return ends
