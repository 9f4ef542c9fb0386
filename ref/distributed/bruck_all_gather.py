"""Bruck's all-gather.

Source: Bruck et al. 1997, Efficient algorithms for all-to-all communications (IEEE TPDS 8:11) sec. 4.

    rank r holds blocks r, r + 1, .. r + d - 1 in a row; d = 1, 2, 4, ..: it sends the first min(d, n - d) of them to
    r - d and appends what r + d sends; at last the row is turned into rank order

    ceil(log2 n) messages a rank, n - 1 blocks sent; time ceil(log2 n) alpha + (n - 1)/n S beta

Notation
    n -> comm.size, r -> comm.rank, S -> bytes of the result; ranks and blocks count modulo n.

Conventions
    C1  Blocks and `length` are those of `ring_all_gather`.

Laws
    L1 the_blocks_in_rank_order             L2 bytes_and_messages_are_the_formula
    L3 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.ranks import gathered
from ref.spec import spec


@spec("distributed.bruck_all_gather", "comm:tree, x:tree -> :any[n M]", backends=("numpy",))
@collective(ragged=True)
def bruck_all_gather(comm, x, *, length=None, out=None):
    """Every rank's rows, on every rank, in rank order, in ceil(log2 n) rounds: for short ones.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        This rank's rows; the same shape beyond axis 0, and the same dtype, on every rank.
    length : int, optional
        Rows of the result, when n does not divide them; n times those of x if not given.
    out : array, optional
        Takes the result.

    Returns
    -------
    array
        The rows of rank 0, then those of rank 1, ..

    Raises
    ------
    ValueError
        x has other rows than `length` gives this rank, has no axis, or out has another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: ceil(log2 n) messages, (n - 1)/n S bytes and a copy of S a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> bruck_all_gather(ThreadWorld(3), [np.array([1]), np.array([2]), np.array([3])])[2]
    array([1, 2, 3])
    """
    result, block = gathered(comm, "bruck_all_gather", x, length, out)
    n, r = comm.size, comm.rank
    ends = [0]  # of the blocks r, r + 1, .. as they follow each other here
    for i in range(n):
        ends.append(ends[-1] + block[(r + i) % n].size)
    row = comm.empty(result, ends[-1])
    comm.copy(x, row[: ends[1]].reshape(x.shape))
    d = 1
    while d < n:
        count = min(d, n - d)
        comm.sendrecv(row[: ends[count]], (r - d) % n, row[ends[d] : ends[d + count]], (r + d) % n)
        d *= 2
    for i in range(n):
        place = block[(r + i) % n]
        comm.copy(row[ends[i] : ends[i + 1]].reshape(place.shape), place)
    return result
