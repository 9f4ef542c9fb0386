"""Binomial broadcast.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 4.2; Johnsson & Ho 1989 (IEEE Trans. Comput. 38:9).

    v = (r - root) mod n; place v > 0 receives from v with its lowest set bit cleared, then sends to v + m for the
    powers of two m below that bit (place 0: all below n), the largest first

    n - 1 messages of S bytes, ceil(log2 n) rounds; time ceil(log2 n) (alpha + S beta)

Notation
    n -> comm.size, r -> comm.rank, v -> place counted from the root, S -> bytes of x.

Conventions
    C1  Every rank passes an array of the shape and dtype that is sent; what it holds counts on the root alone.

Laws
    L1 everyone_has_the_array_of_the_root   L2 messages_are_the_tree
    L3 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.ranks import check_root, working_copy
from ref.spec import spec


@spec("distributed.binomial_broadcast", "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))
@collective
def binomial_broadcast(comm, x, *, root=0, out=None):
    """The array of the root, on every rank.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank.
    root : int
    out : array, optional
        Takes the result; may be x.

    Returns
    -------
    array
        Of the shape of x.

    Raises
    ------
    ValueError
        No such root, or out of another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: ceil(log2 n) rounds of S bytes.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> binomial_broadcast(ThreadWorld(3), np.array([[1.0], [2.0], [3.0]]), root=1)
    array([[2.],
           [2.],
           [2.]])
    """
    check_root("binomial_broadcast", comm, root)
    result, y = working_copy(comm, "binomial_broadcast", x, out)
    n, r = comm.size, comm.rank
    v, bit = (r - root) % n, 1
    while bit < n and not v & bit:
        bit *= 2
    if v:
        comm.recv(y, (r - bit) % n)
    while bit > 1:
        bit //= 2
        if v + bit < n:
            comm.send(y, (r + bit) % n)
    return result
