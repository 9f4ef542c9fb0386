"""Value iteration on a sparse model.

Source: Bellman 1957; Puterman 1994, sec. 6.3 and Theorem 6.3.3 for when to stop; storage by actions as in Chades et al.
2014 (MDPtoolbox).

    v_{k+1} = max_a [R_a + gamma P_a v_k],      |v_{k+1} - v*| <= gamma / (1 - gamma) |v_{k+1} - v_k|

Notation
    P_a -> P[a], a matrix of scipy.sparse [S S]; R -> R[S A], v_0 -> start[S], v_k -> the result [S].

Conventions
    C1  P is a sequence of A sparse matrices, one an action: an action's backup is one product, and the maximum is taken
        as the actions come, so that beside P and R there are three arrays [S] at a time.
    C2  It stops as `value_iteration` does, and gives the same values.

Laws
    L1 sweeps_by_loops                       L2 stops_within_the_tolerance
    L3 a_long_corridor_in_closed_form        L4 storage_is_immaterial
"""

from __future__ import annotations

import numpy as np

from ref.mdp.model import check_count, check_gamma, first
from ref.mdp.value_iteration import Stop
from ref.spec import bind, spec

SIGNATURE = "P:tree, R[S A], start[S] -> [S]"


@spec("mdp.sparse_value_iteration", SIGNATURE, backends=("numpy",))
def sparse_value_iteration(P, R, start=None, *, gamma, tolerance=1e-8, iterations=None):
    """The optimal values of a model with few successors a state.

    Parameters
    ----------
    P : sequence of A scipy.sparse matrices [S S]
        P[a][s, t]: chance that action a leads from s to t; rows sum to 1.
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
        Shapes disagree, a row of P is no distribution or a reward is not finite (names (s, a)), gamma, tolerance or
        iterations out of range.
    TypeError
        A matrix is not sparse, or R or start is not float, or iterations is no integer.

    Complexity: one multiply-add a stored chance and 4 S A operations a sweep.

    >>> import numpy as np, scipy.sparse
    >>> P = [scipy.sparse.eye_array(1), scipy.sparse.eye_array(1)]
    >>> sparse_value_iteration(P, np.array([[0.0, 4.0]]), gamma=0.5, iterations=3)
    array([7.])
    """
    name = "sparse_value_iteration"
    S = bind(name, SIGNATURE, R=R, start=start)["S"]
    rows = _by_rows(name, P, R)
    check_gamma(name, gamma, below_one=iterations is None)
    rewards = [np.ascontiguousarray(R[:, a]) for a in range(R.shape[1])]
    v = np.zeros(S, R.dtype) if start is None else np.array(start)
    if iterations is not None:
        check_count(name, iterations=iterations)
        for _ in range(iterations):
            v = _sweep(rows, rewards, v, gamma)
        return v
    stop = Stop(name, gamma, tolerance)
    while True:
        last, v = v, _sweep(rows, rewards, v, gamma)
        last -= v
        if stop(float(max(last.max(), -last.min()))):
            return v


def _sweep(P, rewards, v, gamma):
    best = None
    for P_a, R_a in zip(P, rewards, strict=True):
        q = P_a @ v
        q *= gamma
        q += R_a
        best = q if best is None else np.maximum(best, q, out=best)
    return best


def _by_rows(function, P, R):
    """The matrices, stored by rows in R's dtype; errors name what is wrong."""
    from scipy import sparse

    S, A = R.shape
    if not (S and A) or len(P) != A:
        raise ValueError(f"{function}: P has {len(P)} matrices, R has S={S}, A={A}; needed one an action, and a state")
    wrong, found = np.zeros((S, A), bool), []
    for a, P_a in enumerate(P):
        if not sparse.issparse(P_a):
            raise TypeError(f"{function}: P[{a}] is a {type(P_a).__name__}; needed a matrix of scipy.sparse")
        if P_a.shape != (S, S):
            raise ValueError(f"{function}: P[{a}] has shape {P_a.shape}, R has S={S}; needed ({S}, {S})")
        P_a = P_a.tocsr().astype(R.dtype, copy=False)
        total = np.asarray(P_a.sum(axis=1)).reshape(S)
        most = int(np.max(np.diff(P_a.indptr)))
        wrong[:, a] = ~(np.abs(total - 1) <= (most + 8) * np.finfo(R.dtype).eps)
        if P_a.data.size and not P_a.data.min() >= 0:
            wrong[:, a] |= np.asarray((P_a < 0).sum(axis=1)).reshape(S) > 0
        found.append(P_a)
    for array, name, fault in (
        (wrong, "P", "is no distribution; needed chances >= 0 that sum to 1"),
        (~np.isfinite(R), "R", "is not finite"),
    ):
        at = first(np, array)
        if at:
            raise ValueError(f"{function}: {name} at (s, a) = {at} {fault}")
    return found
