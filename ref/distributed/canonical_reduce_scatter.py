"""Canonical reduce-scatter: every chunk folded in rank order.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 4.4, pairwise exchange; the fixed order after Higham 2002,
Accuracy and Stability, sec. 4.2 (a sum's bits depend on its order).

    step k = 1 .. n - 1: rank r sends chunk r + k to r + k and takes chunk r of r - k
    then it folds ((x_0 op x_1) op x_2) op .. , all of them chunk r, in rank order

    rank r sends S - c_r bytes in n - 1 messages; time (n - 1) alpha + (n - 1)/n S (beta + gamma)          n | L

Notation
    n -> comm.size, r -> comm.rank, S -> bytes of x, c_i -> bytes of chunk i: rows L i // n .. L (i + 1) // n of x.
    Ranks and chunks count modulo n.

Conventions
    C1  Every element is folded in the same order wherever the cuts fall, so its bits do not depend on chunks, buckets
        or shards. The price is memory for n chunks; `ring_reduce_scatter` needs one.
    C2  The op may be any function of two arrays: it need not commute, nor be associative.

Laws
    L1 is_the_exact_chunk                   L2 is_the_fold_in_rank_order
    L3 bytes_and_messages_are_the_formula   L4 parts_have_the_bits_of_the_whole
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.ranks import check_op, cut_rows, working_copy
from ref.spec import spec


@spec("distributed.canonical_reduce_scatter", "comm:tree, x:any[n L] -> :tree", backends=("numpy",))
@collective
def canonical_reduce_scatter(comm, x, *, op="sum", out=None):
    """This rank's chunk of the left fold of every rank's x in rank order.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank; cut along axis 0.
    op : "sum", "prod", "max", "min" or function (left, right, *, out)
        Elementwise.
    out : array, optional
        Takes the chunk.

    Returns
    -------
    array
        Rows L r // n .. L (r + 1) // n of the fold, L those of x.

    Raises
    ------
    ValueError
        Unknown op, x has no axis, or out of another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: n - 1 messages and (n - 1)/n S bytes a rank; n chunks of memory.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> canonical_reduce_scatter(ThreadWorld(3), np.array([[1e16, 1.0, 1.0], [1.0, 2.0, 3.0], [-1e16, 4.0, 1.0]]))
    array([[0.],
           [7.],
           [5.]])
    """
    check_op("canonical_reduce_scatter", op)
    x, _ = working_copy(comm, "canonical_reduce_scatter", x)
    n, r = comm.size, comm.rank
    chunk = cut_rows("canonical_reduce_scatter", x, n)
    part = [chunk[r] if i == r else comm.empty(x, chunk[r].size).reshape(chunk[r].shape) for i in range(n)]
    for k in range(1, n):
        to, from_ = (r + k) % n, (r - k) % n
        comm.sendrecv(chunk[to], to, part[from_], from_)
    own, _ = working_copy(comm, "canonical_reduce_scatter", part[0], out)
    for p in part[1:]:
        comm.combine(op, own, p, own)
    return own
