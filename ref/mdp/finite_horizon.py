"""Backward induction: the best that can be earned in so many steps.

Source: Bellman 1957; Puterman 1994, sec. 4.5.

    v_0 = final,   v_k(s) = max_a [R(s, a) + gamma sum_t P(t | s, a) v_{k-1}(t)]

Notation
    P -> P[S A S], R -> R[S A]; v_k -> values[k], what is best with k steps to go, n = horizon + 1 of them; what to do
    with k steps to go -> policy[k - 1].

Conventions
    C1  Indices count the steps that are left, not those that were made: with a limit of h steps, the policy of step t
        (from 0) is policy[h - 1 - t].
    C2  The policy depends on the time left. Under a time limit no policy of the state alone need be as good: on
        gymnasium's slippery 4x4 lake the best such policy reaches the goal within 100 steps with chance .740165, a
        policy that looks at the clock with .744190.

Laws
    L1 best_of_all_plans                     L2 the_policy_earns_the_value
    L3 no_fixed_policy_is_better             L4 one_step_is_the_best_reward
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import backup, check_count, check_gamma, check_model, greedy
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], final[S] -> values:tree, policy:tree"


@spec("mdp.finite_horizon", SIGNATURE)
def finite_horizon(P, R, final=None, *, horizon, gamma=1.0):
    """Optimal values and policies by the number of steps that are left.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    final : float[S], optional
        Worth of the states when no step is left; zeros if not given.
    horizon : int
        h, at least 1.
    gamma : float
        Discount, 0 <= gamma <= 1.

    Returns
    -------
    values : float[h+1 S]
    policy : float[h S A]
        One 1 a row: the first of the best actions.

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution or a reward is not finite (names (s, a)), gamma or horizon out of
        range.
    TypeError
        An array is not float, dtypes or backends differ, or horizon is no integer.

    Complexity: h S^2 A multiply-adds.

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> values, policy = finite_horizon(P, R, horizon=2)
    >>> values[:, 0], policy[:, 0]
    (array([0., 4., 8.]), array([[0., 1.],
           [0., 1.]]))
    """
    bind("finite_horizon", SIGNATURE, P=P, R=R, final=final)
    S, _ = check_model("finite_horizon", P, R)
    check_gamma("finite_horizon", gamma)
    check_count("finite_horizon", 1, horizon=horizon)
    xp = namespace(P, R, final)
    values, policy = [xp.zeros(S, dtype=R.dtype) if final is None else final], []
    for _ in range(horizon):
        q = backup(xp, P, R, values[-1], gamma)
        values.append(xp.max(q, axis=1))
        policy.append(greedy(xp, q))
    return xp.stack(values), xp.stack(policy)
