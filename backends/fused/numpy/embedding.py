"""Rows of a table by id; the gradient sums the cotangents of each id in the order they came.

    y = W[id],   dW_v = sum over the positions with id = v of g

The sum is a sparse matrix of ones times g, its rows the ids in sorted order: no write is scattered.
"""

import numpy as np
from scipy.sparse import csr_matrix

from backends.fused.numpy._rows import floats

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it


def supports(weight, ids, **others):
    """Whether `forward` takes these: float32 or float64 weight[V d], integer ids, no option."""
    return not others and floats(weight) and weight.ndim == 2 and ids.dtype.kind in "iu"


def forward(weight, ids):
    """weight[V d], ids int[*B] -> weight[ids] [*B d], ().

    Raises
    ------
    ValueError
        An id below 0 or above V - 1 (NumPy would wrap the former around).
    """
    V = weight.shape[0]
    if ids.size and (ids.min() < 0 or ids.max() >= V):
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"embedding: ids hold {bad}, weight has V={V} rows; needs 0..{V - 1}")
    return np.take(weight, ids, axis=0), ()


def vjp(g, out, saved, needs, weight, ids):
    """Cotangent of weight."""
    if not needs[0]:
        return (None,)
    V, d = weight.shape
    n = ids.size
    if not n or not d:
        return (np.zeros((V, d), weight.dtype),)
    flat = ids.reshape(-1)
    starts = np.zeros(V + 1, np.int64)
    np.cumsum(np.bincount(flat, minlength=V), out=starts[1:])
    # A stable sort of 16-bit keys is a radix sort, several times as fast.
    keys = flat.astype(np.uint16) if V <= 2**16 else flat
    order = np.argsort(keys, kind="stable")
    pick = csr_matrix((np.ones(n, weight.dtype), order, starts), shape=(V, n))
    return (pick @ np.ascontiguousarray(g.reshape(n, d)),)
