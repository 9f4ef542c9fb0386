"""Discounted occupancy: where a policy spends its time.

Source: Puterman 1994, sec. 6.9 (dual variables); Kakade & Langford 2002, sec. 2; Agarwal et al. 2021 (1908.00261)
Eq. 4.

    d(s) = (1 - gamma) sum_i gamma^i P(s_i = s | s_0 ~ mu, pi),      d = (1 - gamma) (I - gamma P_pi^T)^{-1} mu

    mu . v_pi = d . R_pi / (1 - gamma)

Notation
    mu -> start[S], pi -> policy[S A], P -> P[S A S]; d -> the result [S].

Conventions
    C1  Normalised: d sums to 1. Sutton & Barto's and Puterman's sums of visits are d / (1 - gamma).
    C2  The start counts as the first visit (i = 0).

Laws
    L1 sum_over_time                         L2 is_a_distribution
    L3 rewards_weighted_by_visits            L4 performance_difference
    L5 ring_in_closed_form
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import check_gamma, check_model, check_rows
from ref.spec import bind, spec

SIGNATURE = "P[S A S], policy[S A], start[S] -> [S]"


@spec("mdp.occupancy", SIGNATURE)
def occupancy(P, policy, start, *, gamma):
    """The share of discounted time that the policy spends in each state.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    policy : float[S A]
        Chances of the actions; rows sum to 1.
    start : float[S]
        Distribution of the first state.
    gamma : float
        Discount, 0 <= gamma < 1.

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a row of P, of the policy or the start is no distribution, gamma out of range.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: S^2 A + S^3 / 3 multiply-adds.

    >>> import numpy as np
    >>> P = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    >>> occupancy(P, np.ones((2, 1)), np.array([1.0, 0.0]), gamma=0.75)
    array([0.25, 0.75])
    """
    S = bind("occupancy", SIGNATURE, P=P, policy=policy, start=start)["S"]
    check_model("occupancy", P, None)
    check_rows("occupancy", "policy", policy)
    check_rows("occupancy", "start", start[None, :])
    check_gamma("occupancy", gamma, below_one=True)
    xp = namespace(P, policy, start)
    P_pi = xp.sum(xp.multiply(policy[..., None], P), axis=1)
    system = xp.subtract(xp.eye(S, dtype=P.dtype), gamma * xp.matrix_transpose(P_pi))
    return (1 - gamma) * xp.linalg.solve(system, start[:, None])[:, 0]
