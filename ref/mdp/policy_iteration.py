"""Policy iteration.

Source: Howard 1960; Sutton & Barto 2018, sec. 4.3; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec.
4.2.

    pi_{k+1} = greedy(v_k),   v_{k+1} = v of pi_{k+1} = (I - gamma P_pi)^{-1} R_pi

    v_k <= v_{k+1} <= v*, with equality at the end alone, which comes: there are A^S deterministic policies

Notation
    P -> P[S A S], R -> R[S A], v_0 -> start[S]; v_k, pi_k -> the results v[S], policy[S A].

Conventions
    C1  It starts from a value, not from a policy: the first policy is greedy for v_0, as in value iteration and its
        truncated form, so that the three can be laid side by side.
    C2  Of equally good actions the first is taken. It ends when a policy comes again: rounding may swap equals for
        ever, and no policy that is strictly better ever comes back.
    C3  At gamma = 1 every policy on the way must end (`policy_evaluation`, C1).

Laws
    L1 no_policy_is_better                   L2 rises_to_the_optimum
    L3 first_step_is_the_greedy_policys_value   L4 the_policy_earns_the_value
    L5 faster_than_value_iteration           L6 affine_in_the_rewards_of_a_continuing_task
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import backup, check_count, check_gamma, check_model, greedy
from ref.mdp.policy_evaluation import policy_evaluation
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], start[S] -> v[S], policy[S A]"


@spec("mdp.policy_iteration", SIGNATURE)
def policy_iteration(P, R, start=None, *, gamma, iterations=None):
    """The optimal values and a policy that earns them.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    start : float[S], optional
        v_0; zeros if not given.
    gamma : float
        Discount, 0 <= gamma <= 1.
    iterations : int, optional
        Improve at most so many times, at least once.

    Returns
    -------
    v : float[S]
    policy : float[S A]
        Deterministic: one 1 a row; v is its value.

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution or a reward is not finite (names (s, a)), gamma or iterations out
        of range, or gamma = 1 and a policy on the way that never ends.
    TypeError
        An array is not float, dtypes or backends differ, or iterations is no integer.

    Complexity: S^2 A + S^3 / 3 multiply-adds an iteration.

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> policy_iteration(P, R, gamma=0.5)
    (array([8.]), array([[0., 1.]]))
    """
    bind("policy_iteration", SIGNATURE, P=P, R=R, start=start)
    S, _ = check_model("policy_iteration", P, R)
    check_gamma("policy_iteration", gamma)
    if iterations is not None:
        check_count("policy_iteration", 1, iterations=iterations)
    xp, seen = namespace(P, R, start), set()
    v, policy = xp.zeros(S, dtype=R.dtype) if start is None else start, None
    while iterations is None or len(seen) < iterations:
        better = greedy(xp, backup(xp, P, R, v, gamma))
        actions = tuple(int(a) for a in xp.argmax(better, axis=1))
        if actions in seen:
            break
        seen.add(actions)
        policy, v = better, policy_evaluation(P, R, better, gamma=gamma)
    return v, policy
