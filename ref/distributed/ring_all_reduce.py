"""Ring all-reduce.

Source: Patarasuk & Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations (JPDC 69:2), sec. 4.

    reduce-scatter, step k = 0 .. n - 2: rank r sends chunk r - k to r + 1 and combines what comes with chunk r - k - 1
    all-gather,     step k = 0 .. n - 2: rank r sends chunk r + 1 - k to r + 1 and takes what comes as chunk r - k

    rank r sends 2 S - c_{r+1} - c_{r+2} bytes in 2 (n - 1) messages; all ranks 2 (n - 1) S
    time 2 (n - 1) alpha + 2 (n - 1)/n S beta + (n - 1)/n S gamma          n | L

Notation
    n -> comm.size, r -> comm.rank, S -> bytes of x, c_i -> bytes of chunk i, elements L i // n .. L (i + 1) // n; ranks
    and chunks count modulo n.

Conventions
    C1  Empty chunks are sent too: the number of messages does not depend on the length.
    C2  Chunk j is folded from rank j on, around the ring. Of two operands the one with the lowest rank in it stands
        left, which shows in max of 0. and -0. and with an op of one's own.
    C3  op "mean" does not exist: sums and counts are reduced, then divided once.
    C4  A NaN stays in a maximum and a minimum, as in NumPy's; MPI does not say. Integers never become floats.

Laws
    L1 is_the_exact_reduction               L2 folds_around_the_ring
    L3 bytes_and_messages_are_the_formula   L4 lowest_rank_stands_left
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import chunks, collective
from ref.distributed.ranks import check_op, combine_into, working_copy
from ref.spec import spec


@spec("distributed.ring_all_reduce", "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))
@collective
def ring_all_reduce(comm, x, *, op="sum", out=None):
    """The reduction of every rank's x, on every rank, each link carrying 2 (n - 1)/n of it.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank.
    op : "sum", "prod", "max", "min" or function (left, right, *, out)
        Elementwise and associative; commutative.
    out : array, optional
        Takes the result; may be x.

    Returns
    -------
    array
        Of the shape of x; the same bits on every rank.

    Raises
    ------
    ValueError
        Unknown op, or out of another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: 2 (n - 1) messages and 2 (n - 1)/n S bytes a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> ring_all_reduce(ThreadWorld(3), np.array([[1, 2], [10, 20], [100, 200]]))
    array([[111, 222],
           [111, 222],
           [111, 222]])
    """
    check_op("ring_all_reduce", op)
    result, y = working_copy(comm, "ring_all_reduce", x, out)
    n, r = comm.size, comm.rank
    left, right = (r - 1) % n, (r + 1) % n
    chunk = chunks(y, n)
    buffer = comm.empty(y, max(c.size for c in chunk))
    for k in range(n - 1):
        mine = chunk[(r - k - 1) % n]
        got = buffer[: mine.size]
        comm.sendrecv(chunk[(r - k) % n], right, got, left)
        combine_into(comm, op, mine, got, r > 0)
    for k in range(n - 1):
        comm.sendrecv(chunk[(r + 1 - k) % n], right, chunk[(r - k) % n], left)
    return result
