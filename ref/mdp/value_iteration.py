"""Value iteration.

Source: Bellman 1957; Sutton & Barto 2018, sec. 4.4; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec.
4.1; Puterman 1994, Theorem 6.3.3 for when to stop.

    v_{k+1} = max_a [R + gamma P v_k] = T v_k

    |v_k - v*| <= gamma^k |v_0 - v*|,      |v_{k+1} - v*| <= gamma / (1 - gamma) |v_{k+1} - v_k|   (maximum norm)

Notation
    P -> P[S A S], R -> R[S A], v_0 -> start[S], v_k -> the result [S].

Conventions
    C1  It stops when the second bound is at most `tolerance`: an error, not a residual. A residual of `tolerance` alone
        leaves an error up to gamma / (1 - gamma) times that.
    C2  With `iterations` it makes exactly so many sweeps; gamma = 1 is then allowed (what can be earned in so many
        steps, `finite_horizon`).
    C3  A tolerance below the rounding of one sweep cannot be met: it then stops where a sweep changes nothing, or after
        as many as the first bound needs.
    C4  v*(a R + b) = a v*(R) + b / (1 - gamma), a > 0, only where no state is absorbing: an end does not pay b.

Laws
    L1 sweeps_by_loops                       L2 error_falls_by_gamma_a_sweep
    L3 stops_within_the_tolerance            L4 affine_in_the_rewards_of_a_continuing_task
    L5 an_end_does_not_pay_the_shift         L6 least_solution_of_the_linear_programme
    L7 one_state_in_closed_form
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.mdp.model import backup, check_count, check_gamma, check_model
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], start[S] -> [S]"


@spec("mdp.value_iteration", SIGNATURE)
def value_iteration(P, R, start=None, *, gamma, tolerance=1e-8, iterations=None):
    """The optimal values, to a tolerance or after so many sweeps.

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
    tolerance : float
        The largest error allowed in any state, more than 0.
    iterations : int, optional
        Make so many sweeps, whatever the tolerance.

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution or a reward is not finite (names (s, a)), gamma, tolerance or
        iterations out of range.
    TypeError
        An array is not float, dtypes or backends differ, or iterations is no integer.

    Complexity: S^2 A multiply-adds a sweep, log(tolerance) / log(gamma) sweeps.

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> value_iteration(P, R, gamma=0.5, iterations=3)
    array([7.])
    """
    bind("value_iteration", SIGNATURE, P=P, R=R, start=start)
    S, _ = check_model("value_iteration", P, R)
    check_gamma("value_iteration", gamma, below_one=iterations is None)
    xp = namespace(P, R, start)
    v = xp.zeros(S, dtype=R.dtype) if start is None else xp.asarray(start, copy=True)
    if iterations is not None:
        check_count("value_iteration", iterations=iterations)
        for _ in range(iterations):
            v = xp.max(backup(xp, P, R, v, gamma), axis=1)
        return v
    stop = Stop("value_iteration", gamma, tolerance)
    while True:
        last, v = v, xp.max(backup(xp, P, R, v, gamma), axis=1)
        if stop(float(xp.max(xp.abs(v - last)))):
            return v


class Stop:
    """Whether |v* - T v_k| <= tolerance is sure, from the residuals |T v_k - v_k|.

    `behind` is how much later than value iteration the residuals may fall, as a factor on the first (C3).
    """

    def __init__(self, function, gamma, tolerance, behind=1.0):
        if not tolerance > 0:
            raise ValueError(f"{function}: tolerance={tolerance}; needed a number > 0")
        self.gamma, self.tolerance, self.behind, self.left = gamma, tolerance, behind, None

    def __call__(self, residual):
        error = self.gamma / (1 - self.gamma) * residual
        if not error > self.tolerance:
            return True
        if self.left is None:
            self.left = math.ceil(math.log(self.tolerance / (error * self.behind)) / math.log(self.gamma))
        self.left -= 1
        return self.left < 0
