"""Segmented ring all-reduce: the ring, its chunks cut into segments that follow each other.

Source: Patarasuk & Yuan 2009 (JPDC 69:2) sec. 4 for the ring; the pipeline of slices is that of NCCL's rings.

    the messages of `ring_all_reduce`, each in m segments, m = ceil(max_i c_i / segment); segment j of a chunk is sent
    on as soon as it has been combined, while segment j + 1 is on its way

    rank r sends 2 S - c_{r+1} - c_{r+2} bytes in 2 (n - 1) m messages

Notation
    n -> comm.size, r -> comm.rank, S -> bytes of x, c_i -> bytes of chunk i; segment j of a chunk of l elements is its
    elements l j // m .. l (j + 1) // m.

Conventions
    C1  Every chunk is cut into the same number of segments, so that sends and receives pair; some may be empty.
    C2  The result has the bits of `ring_all_reduce`: segments change who waits, not who adds.
    C3  A buffer is written again only after the request that reads it has been waited for.

Laws
    L1 is_the_exact_reduction               L2 has_the_bits_of_the_ring
    L3 bytes_and_messages_are_the_formula   L4 lowest_rank_stands_left
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import chunks, collective, wait_all
from ref.distributed.ranks import check_op, combine_into, working_copy
from ref.spec import spec


@spec("distributed.segmented_ring_all_reduce", "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))
@collective
def segmented_ring_all_reduce(comm, x, *, op="sum", segment=1 << 18, out=None):
    """The reduction of every rank's x on every rank, combining one segment while the next travels.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank.
    op : "sum", "prod", "max", "min" or function (left, right, *, out)
    segment : int
        Bytes of a segment, at most.
    out : array, optional
        Takes the result; may be x.

    Returns
    -------
    array
        Of the shape of x; the same bits on every rank.

    Raises
    ------
    ValueError
        Unknown op, segment < 1, or out of another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: 2 (n - 1) m messages and 2 (n - 1)/n S bytes a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> segmented_ring_all_reduce(ThreadWorld(2), np.array([[1, 2, 3], [10, 20, 30]]), segment=8)
    array([[11, 22, 33],
           [11, 22, 33]])
    """
    check_op("segmented_ring_all_reduce", op)
    if segment < 1:
        raise ValueError(f"segmented_ring_all_reduce: segment={segment} bytes; needed at least 1")
    result, y = working_copy(comm, "segmented_ring_all_reduce", x, out)
    n, r = comm.size, comm.rank
    if n == 1:
        return result
    left, right = (r - 1) % n, (r + 1) % n
    whole = chunks(y, n)
    m = max(1, -(-max(c.nbytes for c in whole) // segment))
    piece = [chunks(c, m) for c in whole]
    buffer = [comm.empty(y, max(c[j].size for c in piece)) for j in range(m)]

    def receive(k, j):
        """Begin to receive segment j of step k: reduce-scatter into a buffer, all-gather in place."""
        if k < n - 1:
            return comm.irecv(buffer[j][: piece[(r - k - 1) % n][j].size], left)
        k -= n - 1
        sent[k][j].wait()  # chunk r - k left in step k; only now may it be overwritten
        return comm.irecv(piece[(r - k) % n][j], left)

    sent = [[comm.isend(piece[r][j], right) for j in range(m)]]
    arriving = [receive(0, j) for j in range(m)]
    for k in range(2 * (n - 1)):
        sent.append([])
        for j in range(m):
            arriving[j].wait()
            mine = piece[(r - k - 1) % n][j]
            if k < n - 1:
                combine_into(comm, op, mine, buffer[j][: mine.size], r > 0)
            if k < 2 * (n - 1) - 1:
                arriving[j] = receive(k + 1, j)
                sent[-1].append(comm.isend(mine, right))
    wait_all(request for step in sent[n - 1 :] for request in step)
    return result
