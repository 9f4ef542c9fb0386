"""The norm of an array whose rows lie on many ranks, to the same bits however they lie.

Source: Pascanu et al. 2013 (1211.5063) Algorithm 1 for what it is for; blocks with a scale of their own: Blue 1978 (ACM
TOMS 4:1) and LAPACK's dlassq; a sum's bits depend on its order (Higham 2002, sec. 4.2), so the order is fixed.

    row i:  m_i = max_j |x_ij|,   s_i = sum_j (x_ij / m_i)^2          on the rank that has the row, in float64
    all m_i and s_i on every rank, then  M = max_i m_i,   |x| = M sqrt(sum_i s_i (m_i / M)^2)   in the order of rows

Notation
    x_ij -> x[k B], the rows of this rank; i -> at[k], their numbers among all; K -> rows, how many there are.

Conventions
    C1  A row is the block that is never cut. A sum of the shards' sums would have other bits for each number of
        ranks: gradients would be clipped by another factor, and ZeRO would not be DDP to the bit.
    C2  The norm is float64 whatever x is. Squares may overflow or vanish in x's dtype, and in float64.
    C3  Every row has exactly one rank. Where every rank has all rows, `norm_of_rows(row_squares(x))` is the same
        number without a message.
    C4  An infinity gives infinity, a NaN gives NaN, on every rank.

Laws
    L1 pythagorean_rows                      L2 the_cut_is_immaterial
    L3 a_power_of_two_comes_out              L4 squares_may_overflow_or_vanish
    L5 bytes_are_two_numbers_a_row
"""

from __future__ import annotations

import numpy as np

from backends.communicators import on_ranks
from ref.distributed.canonical_all_reduce import canonical_all_reduce
from ref.spec import spec


@spec("distributed.canonical_norm", "comm:tree, x:tree, at:tree -> norm:tree", backends=("numpy",))
@on_ranks
def canonical_norm(comm, x, at, *, rows):
    """sqrt(sum of squares) over the rows of all ranks.

    Parameters
    ----------
    comm : Communicator
        Or a world, with x and at one a rank.
    x : float[k B]
        This rank's rows.
    at : int[k]
        Their numbers, 0 .. rows - 1, each on one rank.
    rows : int
        Of all ranks.

    Returns
    -------
    float64
        The same bits on every rank, and for every distribution of the rows.

    Raises
    ------
    ValueError
        x has not two axes, another number of rows than `at`, or a number out of range.
    TypeError
        x is not float.

    Complexity: two passes over x; 2 (n - 1)/n 16 K bytes sent a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> canonical_norm(ThreadWorld(2), [np.array([[4.0]]), np.array([[3.0]])], [[1], [0]], rows=2)
    array([5., 5.])
    """
    at = np.asarray(at, np.int64)
    _check(x, at, rows)
    mine = np.zeros((rows, 2))
    mine[at] = row_squares(x)
    return norm_of_rows(canonical_all_reduce(comm, mine, out=mine))  # a number and zeros: exact in any order


def row_squares(x):
    """(m_i, s_i) of each row of x[k B], float64[k 2]."""
    x = x.astype(np.float64, copy=False)
    top = np.max(np.abs(x), axis=1, initial=0.0)
    scale = np.where((top == 0) | np.isinf(top), 1.0, top)
    return np.stack((top, np.sum((x / scale[:, None]) ** 2, axis=1)), axis=1)


def norm_of_rows(pairs):
    """The norm, from all (m_i, s_i) in the order of rows."""
    top = np.max(pairs[:, 0], initial=0.0)
    if top == 0 or not np.isfinite(top):
        return top
    return top * np.sqrt(np.sum(pairs[:, 1] * (pairs[:, 0] / top) ** 2))


def _check(x, at, rows):
    if not hasattr(x, "dtype") or x.dtype.kind != "f":
        raise TypeError(f"canonical_norm: x is {getattr(x, 'dtype', type(x).__name__)}; needed a float array")
    if x.ndim != 2 or at.shape != (len(x),):
        raise ValueError(f"canonical_norm: x has shape {x.shape}, at {at.shape}; needed x[k B] and at[k]")
    if at.size and not 0 <= at.min() <= at.max() < rows:
        raise ValueError(f"canonical_norm: at holds {at.min()}..{at.max()}; needed row numbers 0..{rows - 1}")
