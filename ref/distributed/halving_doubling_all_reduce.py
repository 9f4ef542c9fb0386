"""Halving and doubling all-reduce (Rabenseifner).

Source: Rabenseifner 2004, Optimization of collective reduction operations (ICCS, LNCS 3036); Thakur, Rabenseifner &
Gropp 2005 (IJHPCA 19:1) sec. 4.5.

    p, e and the folding of the ranks beyond p as in `recursive_doubling_all_reduce`; x is cut into p chunks
    reduce-scatter, d = 1, 2, .. p/2: v and v xor d halve the range they share; the lower place keeps the lower half,
        sends the other, and combines what comes
    all-gather, d = p/2, .. 1: they exchange the ranges they hold

    bytes of all ranks 2 (p - 1) S + 2 e S = 2 (n - 1) S; messages of a place 2 log2 p
    time 2 (log2 p) alpha + 2 (p - 1)/p S beta + (p - 1)/p S gamma          n = p, p | L

Notation
    n -> comm.size, S -> bytes of x; v -> place of a rank among the p; chunks are elements L i // p .. L (i + 1) // p.

Conventions
    C1  Near ranks exchange the long messages (distance 1 first). With the far ones first the places that are combined
        do not follow each other, and an op would have to commute.
    C2  A chunk is the balanced tree over the p arrays in rank order, so the bits are those of recursive doubling.

Laws
    L1 is_the_exact_reduction               L2 is_the_balanced_tree
    L3 bytes_and_messages_are_the_formula   L4 order_of_ranks_is_kept
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import bounds, collective
from ref.distributed.ranks import check_op, combine_into, working_copy
from ref.distributed.recursive_doubling_all_reduce import fold_in, fold_out, rank_of
from ref.spec import spec


@spec("distributed.halving_doubling_all_reduce", "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))
@collective
def halving_doubling_all_reduce(comm, x, *, op="sum", out=None):
    """The reduction of every rank's x on every rank, with the ring's bytes in 2 log2 p messages.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank.
    op : "sum", "prod", "max", "min" or function (left, right, *, out)
        Elementwise and associative.
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

    Complexity: 2 log2 p (+ 2) messages and 2 (p - 1)/p S (+ S) bytes a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> halving_doubling_all_reduce(ThreadWorld(4), np.array([[1, 2], [10, 20], [100, 200], [0, 0]]))[3]
    array([111, 222])
    """
    check_op("halving_doubling_all_reduce", op)
    result, y = working_copy(comm, "halving_doubling_all_reduce", x, out)
    n, r = comm.size, comm.rank
    buffer = comm.empty(y, y.size)
    p, v = fold_in(comm, op, y, buffer)
    if v is not None:
        cut = bounds(y.size, p)
        low, high, trail, d = 0, p, [], 1
        while d < p:
            peer, middle = rank_of(v ^ d, n - p), (low + high) // 2
            kept, given = ((middle, high), (low, middle)) if v & d else ((low, middle), (middle, high))
            low, high = kept
            mine = y[cut[low] : cut[high]]
            got = buffer[: mine.size]
            comm.sendrecv(y[cut[given[0]] : cut[given[1]]], peer, got, peer)
            combine_into(comm, op, mine, got, peer < r)
            trail.append((peer, given))
            d *= 2
        for peer, (start, stop) in reversed(trail):
            comm.sendrecv(y[cut[low] : cut[high]], peer, y[cut[start] : cut[stop]], peer)
            low, high = min(low, start), max(high, stop)
    fold_out(comm, y, p)
    return result
