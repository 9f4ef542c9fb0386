"""Canonical all-reduce: the fold in rank order, whatever the cut.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 4.1 and 4.4: pairwise reduce-scatter, ring all-gather;
the fixed order after Higham 2002, Accuracy and Stability, sec. 4.2 (a sum's bits depend on its order).

    `canonical_reduce_scatter`, then `ring_all_gather`

    rank r sends 2 S - c_r - c_{r+1} bytes in 2 (n - 1) messages; all ranks 2 (n - 1) S

Notation
    n -> comm.size, r -> comm.rank, S -> bytes of x, c_i -> bytes of chunk i.

Conventions
    C1  Every element is folded in the same order, so its bits do not depend on chunks, buckets or shards: ZeRO's sums
        are DDP's. The ring's and the trees' sums depend on where an element stands, or on n's shape.
    C2  The op may be any function of two arrays: it need not commute, nor be associative.

Laws
    L1 is_the_exact_reduction               L2 is_the_fold_in_rank_order
    L3 bytes_and_messages_are_the_formula   L4 parts_have_the_bits_of_the_whole
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.canonical_reduce_scatter import canonical_reduce_scatter
from ref.distributed.ranks import check_op, working_copy
from ref.distributed.ring_all_gather import ring_all_gather
from ref.spec import spec


@spec("distributed.canonical_all_reduce", "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))
@collective
def canonical_all_reduce(comm, x, *, op="sum", out=None):
    """The left fold of every rank's x in rank order, on every rank.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank.
    op : "sum", "prod", "max", "min" or function (left, right, *, out)
        Elementwise.
    out : array, optional
        Takes the result; may be x.

    Returns
    -------
    array
        Of the shape of x; the same bits on every rank, and for every way of cutting x into parts.

    Raises
    ------
    ValueError
        Unknown op, or out of another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: 2 (n - 1) messages and 2 (n - 1)/n S bytes a rank; n chunks of memory.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> canonical_all_reduce(ThreadWorld(3), np.array([[1e16], [1.0], [-1e16]]))[0]
    array([0.])
    """
    check_op("canonical_all_reduce", op)
    result, y = working_copy(comm, "canonical_all_reduce", x, out)
    own = canonical_reduce_scatter(comm, y, op=op)
    ring_all_gather(comm, own, length=y.size, out=y)
    return result
