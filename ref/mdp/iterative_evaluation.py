"""Iterative policy evaluation: so many sweeps of Bellman's operator of a policy.

Source: Sutton & Barto 2018, sec. 4.1; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 2.7.2 and 4.3
(truncated evaluation).

    v_{i+1} = R_pi + gamma P_pi v_i,      v_k = sum_{i < k} (gamma P_pi)^i R_pi + (gamma P_pi)^k v_0

    |v_k - v_pi| <= gamma^k |v_0 - v_pi| (maximum norm)

Notation
    pi -> policy[S A], P -> P[S A S], R -> R[S A], v_0 -> start[S], k -> sweeps; v_k -> the result [S].

Conventions
    C1  From v_0 = 0 it is the expected discounted reward of the first k steps; at gamma = 1, what a policy earns under
        a limit of k steps.
    C2  Synchronous: a sweep reads the values of the sweep before.

Laws
    L1 sum_of_the_first_rewards              L2 error_falls_by_gamma_a_sweep
    L3 sweeps_add_up                         L4 rises_from_below
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import check_count, check_gamma, check_model, check_rows, under
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], policy[S A], start[S] -> [S]"


@spec("mdp.iterative_evaluation", SIGNATURE)
def iterative_evaluation(P, R, policy, start, *, gamma, sweeps):
    """The value of a policy after k sweeps.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    policy : float[S A]
        Chances of the actions; rows sum to 1.
    start : float[S]
        v_0: what is left to earn after the k steps.
    gamma : float
        Discount, 0 <= gamma <= 1.
    sweeps : int
        k, at least 0.

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a row of P or of the policy is no distribution, a reward is not finite, gamma or sweeps out of
        range.
    TypeError
        An array is not float, dtypes or backends differ, or sweeps is no integer.

    Complexity: S^2 (A + k) multiply-adds.

    >>> import numpy as np
    >>> P, R = np.ones((1, 1, 1)), np.array([[4.0]])
    >>> iterative_evaluation(P, R, np.ones((1, 1)), np.zeros(1), gamma=0.5, sweeps=3)
    array([7.])
    """
    bind("iterative_evaluation", SIGNATURE, P=P, R=R, policy=policy, start=start)
    check_model("iterative_evaluation", P, R)
    check_rows("iterative_evaluation", "policy", policy)
    check_gamma("iterative_evaluation", gamma)
    check_count("iterative_evaluation", sweeps=sweeps)
    xp = namespace(P, R, policy, start)
    P_pi, R_pi = under(xp, P, R, policy)
    v = xp.asarray(start, copy=True)
    for _ in range(sweeps):
        v = R_pi + gamma * xp.matmul(P_pi, v)
    return v
