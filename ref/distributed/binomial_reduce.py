"""Binomial reduce.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 4.5.

    the tree of `binomial_broadcast` turned round: v = (r - root) mod n combines what v + m sends, for the powers of two
    m = 1, 2, .. below its lowest set bit, then sends to v with that bit cleared

    n - 1 messages of S bytes, ceil(log2 n) rounds; time ceil(log2 n) (alpha + S beta + S gamma)

Notation
    n -> comm.size, r -> comm.rank, v -> place counted from the root, S -> bytes of x.

Conventions
    C1  Of two partial results the one with the lowest rank in it stands left; from a root other than 0 the places run
        through rank 0, so the op should commute.
    C2  Ranks other than the root get None.

Laws
    L1 the_root_has_the_exact_reduction     L2 is_the_binomial_tree
    L3 messages_are_the_tree                L4 lowest_rank_stands_left
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.ranks import check_op, check_root, combine_into, working_copy
from ref.spec import spec


@spec("distributed.binomial_reduce", "comm:tree, x:any[n L] -> :tree", backends=("numpy",))
@collective
def binomial_reduce(comm, x, *, op="sum", root=0, out=None):
    """The reduction of every rank's x, on the root.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank.
    op : "sum", "prod", "max", "min" or function (left, right, *, out)
    root : int
    out : array, optional
        Takes the result on the root and partial ones elsewhere; may be x.

    Returns
    -------
    array or None
        Of the shape of x on the root; None elsewhere.

    Raises
    ------
    ValueError
        Unknown op, no such root, or out of another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: ceil(log2 n) rounds of S bytes.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> binomial_reduce(ThreadWorld(3), np.array([[1.0], [2.0], [3.0]]), root=2)
    [None, None, array([6.])]
    """
    check_op("binomial_reduce", op)
    check_root("binomial_reduce", comm, root)
    result, y = working_copy(comm, "binomial_reduce", x, out)
    n, r = comm.size, comm.rank
    v, bit, got = (r - root) % n, 1, comm.empty(y, y.size)
    while bit < n and not v & bit:
        if v + bit < n:
            comm.recv(got, (r + bit) % n)
            coming = _lowest((r + bit) % n, min(bit, n - v - bit), n)
            combine_into(comm, op, y, got, coming < _lowest(r, bit, n))
        bit *= 2
    if v:
        comm.send(y, (r - bit) % n)
        return None
    return result


def _lowest(first, count, n):
    """The lowest of `count` ranks from `first` on; past rank n - 1 they go on with rank 0."""
    return 0 if first + count > n else first
