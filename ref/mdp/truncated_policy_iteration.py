"""Truncated policy iteration: the evaluation cut after j sweeps (modified policy iteration).

Source: Puterman & Shin 1978; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 4.3; Sutton & Barto
2018, sec. 4.6 (generalised policy iteration).

    pi_{k+1} = greedy(v_k),   v_{k+1} = (T_{pi_{k+1}})^j v_k

    j = 1 is value iteration, j = oo policy iteration

Notation
    P -> P[S A S], R -> R[S A], v_0 -> start[S], j -> sweeps; v_k, pi_k -> the results v[S], policy[S A].

Conventions
    C1  An evaluation goes on from the value before it; starting it from 0 each time is another algorithm, which for
        small j never arrives (`mc_basic` is that one).
    C2  From a common v_0 <= T v_0: all iterates are at most v*, those of every j >= 1 at least value iteration's, and
        those of policy iteration at least value iteration's. Policy iteration's are at least the truncated ones at
        k = 1 only: later it may be greedy for other values (L5 has a witness).
    C3  It stops when gamma / (1 - gamma) |T v_k - v_k| <= tolerance, and returns T v_k, whose error that bounds; or
        after `iterations`, with v_k itself.

Laws
    L1 one_sweep_is_value_iteration          L2 many_sweeps_are_policy_iteration
    L3 between_value_iteration_and_the_optimum   L4 stops_within_the_tolerance
    L5 policy_iteration_may_fall_behind      L6 sweeps_go_on_from_the_value_before
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import backup, check_count, check_gamma, check_model, greedy, under
from ref.mdp.value_iteration import Stop
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], start[S] -> v[S], policy[S A]"


@spec("mdp.truncated_policy_iteration", SIGNATURE)
def truncated_policy_iteration(P, R, start=None, *, gamma, sweeps, tolerance=1e-8, iterations=None):
    """The optimal values and a greedy policy, by evaluations of j sweeps.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    start : float[S], optional
        v_0; zeros if not given.
    gamma : float
        Discount, 0 <= gamma < 1; 1 too with `iterations`.
    sweeps : int
        j, at least 1.
    tolerance : float
        The largest error allowed in any state, more than 0.
    iterations : int, optional
        Improve and evaluate so many times, at least once, whatever the tolerance.

    Returns
    -------
    v : float[S]
    policy : float[S A]
        The last greedy policy, one 1 a row.

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution or a reward is not finite (names (s, a)), gamma, sweeps, tolerance
        or iterations out of range.
    TypeError
        An array is not float, dtypes or backends differ, or sweeps or iterations is no integer.

    Complexity: S^2 (A + j) multiply-adds an iteration.

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> truncated_policy_iteration(P, R, gamma=0.5, sweeps=3, iterations=1)
    (array([7.]), array([[0., 1.]]))
    """
    name = "truncated_policy_iteration"
    bind(name, SIGNATURE, P=P, R=R, start=start)
    S, _ = check_model(name, P, R)
    check_gamma(name, gamma, below_one=iterations is None)
    check_count(name, 1, sweeps=sweeps, **({} if iterations is None else {"iterations": iterations}))
    # From v_0 less |T v_0 - v_0| / (1 - gamma), which changes no policy, it rises at least as fast as value iteration.
    stop = Stop(name, gamma, tolerance, 6 / (1 - gamma)) if iterations is None else None
    xp, k = namespace(P, R, start), 0
    v = xp.zeros(S, dtype=R.dtype) if start is None else start
    while True:
        q = backup(xp, P, R, v, gamma)
        policy, best = greedy(xp, q), xp.max(q, axis=1)  # best = T v is the first of the j sweeps
        if stop is not None and stop(float(xp.max(xp.abs(best - v)))):
            return best, policy
        P_pi, R_pi = under(xp, P, R, policy)
        v = best
        for _ in range(sweeps - 1):
            v = R_pi + gamma * xp.matmul(P_pi, v)
        k += 1
        if k == iterations:
            return v, policy
