"""Ring reduce-scatter.

Source: Patarasuk & Yuan 2009 (JPDC 69:2) sec. 4, the first half of the ring all-reduce.

    step k = 0 .. n - 2: rank r sends chunk r - k - 1 to r + 1 and combines what comes with chunk r - k - 2

    rank r ends with chunk r; it sends all other chunks, S - c_r bytes, in n - 1 messages
    time (n - 1) alpha + (n - 1)/n S (beta + gamma)          n | L

Notation
    n -> comm.size, r -> comm.rank, S -> bytes of x, c_i -> bytes of chunk i: rows L i // n .. L (i + 1) // n of x.
    Ranks and chunks count modulo n.

Conventions
    C1  Rank r ends with chunk r, as MPI and torch have it; inside the paper's ring all-reduce it holds chunk r + 1.
    C2  Chunk j is folded from rank j + 1 on, around the ring, and rank j last; the lowest rank stands left.

Laws
    L1 is_the_exact_chunk                   L2 folds_around_the_ring
    L3 bytes_and_messages_are_the_formula   L4 lowest_rank_stands_left
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.ranks import check_op, combine_into, cut_rows, working_copy
from ref.spec import spec


@spec("distributed.ring_reduce_scatter", "comm:tree, x:any[n L] -> :tree", backends=("numpy",))
@collective
def ring_reduce_scatter(comm, x, *, op="sum", out=None):
    """This rank's chunk of the reduction of every rank's x.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank; cut along axis 0.
    op : "sum", "prod", "max", "min" or function (left, right, *, out)
    out : array, optional
        Takes the chunk.

    Returns
    -------
    array
        Rows L r // n .. L (r + 1) // n of the reduction, L those of x.

    Raises
    ------
    ValueError
        Unknown op, x has no axis, or out of another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: n - 1 messages and (n - 1)/n S bytes a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> ring_reduce_scatter(ThreadWorld(2), np.array([[1, 2, 3], [10, 20, 30]]))
    [array([11]), array([22, 33])]
    """
    check_op("ring_reduce_scatter", op)
    x, _ = working_copy(comm, "ring_reduce_scatter", x)
    n, r = comm.size, comm.rank
    left, right = (r - 1) % n, (r + 1) % n
    chunk = cut_rows("ring_reduce_scatter", x, n)
    buffer = comm.empty(x, max(c.size for c in chunk))
    for k in range(n - 1):
        mine = chunk[(r - k - 2) % n]
        got = buffer[: mine.size].reshape(mine.shape)
        comm.sendrecv(chunk[(r - k - 1) % n], right, got, left)
        combine_into(comm, op, mine, got, r > 0)
    own, _ = working_copy(comm, "ring_reduce_scatter", chunk[r], out)  # a view would keep the whole array
    return own
