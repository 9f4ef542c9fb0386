"""Recursive doubling all-reduce.

Source: Thakur, Rabenseifner & Gropp 2005, Optimization of collective communication operations in MPICH (IJHPCA 19:1)
sec. 4.5.

    p = 2^floor(log2 n), e = n - p: of the first 2 e ranks each even one gives its array to its odd neighbour
    the p that are left are numbered v in rank order; d = 1, 2, 4, .. p/2: v and v xor d exchange what they have, and
    combine; at last the odd ones give the result back

    bytes of all ranks (p log2 p + 2 e) S, messages p log2 p + 2 e
    time (log2 p) (alpha + S beta + S gamma)          n = p

Notation
    n -> comm.size, S -> bytes of x; v -> place of a rank among the p.

Conventions
    C1  The result is the balanced tree over the p arrays in rank order, the lower ranks on the left; so both of a pair
        compute the same bits, and an associative op need not commute.

Laws
    L1 is_the_exact_reduction               L2 is_the_balanced_tree
    L3 bytes_and_messages_are_the_formula   L4 order_of_ranks_is_kept
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.ranks import check_op, combine_into, working_copy
from ref.spec import spec


@spec("distributed.recursive_doubling_all_reduce", "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))
@collective
def recursive_doubling_all_reduce(comm, x, *, op="sum", out=None):
    """The reduction of every rank's x on every rank in log2 n rounds of whole arrays: for short ones.

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

    Complexity: log2 p (+ 2) messages of S bytes a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> recursive_doubling_all_reduce(ThreadWorld(3), np.array([[1], [20], [300]]), op="max")
    array([[300],
           [300],
           [300]])
    """
    check_op("recursive_doubling_all_reduce", op)
    result, y = working_copy(comm, "recursive_doubling_all_reduce", x, out)
    n, r = comm.size, comm.rank
    got = comm.empty(y, y.size)
    p, v = fold_in(comm, op, y, got)
    if v is not None:
        d = 1
        while d < p:
            peer = rank_of(v ^ d, n - p)
            comm.sendrecv(y, peer, got, peer)
            combine_into(comm, op, y, got, peer < r)
            d *= 2
    fold_out(comm, y, p)
    return result


def fold_in(comm, op, y, got):
    """Fold the ranks beyond a power of two into their neighbours; (p, place among the p, None for those folded)."""
    n, r = comm.size, comm.rank
    p = 1 << (n.bit_length() - 1)
    extra = n - p
    if r >= 2 * extra:
        return p, r - extra
    if r % 2 == 0:
        comm.send(y, r + 1)
        return p, None
    comm.recv(got, r - 1)
    combine_into(comm, op, y, got, True)
    return p, r // 2


def fold_out(comm, y, p):
    """Give the result to the ranks that were folded in."""
    n, r = comm.size, comm.rank
    if r < 2 * (n - p):
        if r % 2:
            comm.send(y, r - 1)
        else:
            comm.recv(y, r + 1)


def rank_of(v, extra):
    """The rank at place v among the p."""
    return 2 * v + 1 if v < extra else v + extra
