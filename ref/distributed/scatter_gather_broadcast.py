"""Scatter and all-gather broadcast.

Source: Barnett et al. 1994, Interprocessor collective communication library (SHPCC); Thakur, Rabenseifner & Gropp 2005
(IJHPCA 19:1) sec. 4.2, for long messages.

    v = (r - root) mod n; the root's array in n chunks, chunk v for place v
    scatter down the binomial tree: v + m gets the chunks of the places v + m .. v + 2 m - 1 from v
    all-gather around the ring, step k = 0 .. n - 2: v sends chunk v - k to v + 1

    all ranks send the tree's bytes + (n - 1) S; time (ceil(log2 n) + n - 1) alpha + 2 (n - 1)/n S beta

Notation
    n -> comm.size, r -> comm.rank, v -> place counted from the root, S -> bytes of x.

Conventions
    C1  Every rank passes an array of the shape and dtype that is sent; what it holds counts on the root alone.

Laws
    L1 everyone_has_the_array_of_the_root   L2 bytes_and_messages_are_the_formula
    L3 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import bounds, collective
from ref.distributed.ranks import check_root, working_copy
from ref.spec import spec


@spec("distributed.scatter_gather_broadcast", "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))
@collective
def scatter_gather_broadcast(comm, x, *, root=0, out=None):
    """The array of the root, on every rank, with 2 (n - 1)/n of it on the busiest link: for long ones.

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

    Complexity: ceil(log2 n) + n - 1 messages and 2 (n - 1)/n S bytes on the longest way.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> scatter_gather_broadcast(ThreadWorld(2), np.array([[1.0, 2.0], [3.0, 4.0]]), root=1)
    array([[3., 4.],
           [3., 4.]])
    """
    check_root("scatter_gather_broadcast", comm, root)
    result, y = working_copy(comm, "scatter_gather_broadcast", x, out)
    n, r = comm.size, comm.rank
    v, bit, cut = (r - root) % n, 1, bounds(y.size, n)
    while bit < n and not v & bit:
        bit *= 2
    if v:
        comm.recv(y[cut[v] : cut[min(v + bit, n)]], (r - bit) % n)
    while bit > 1:
        bit //= 2
        if v + bit < n:
            comm.send(y[cut[v + bit] : cut[min(v + 2 * bit, n)]], (r + bit) % n)
    for k in range(n - 1):
        mine, next_ = (v - k) % n, (v - k - 1) % n
        comm.sendrecv(y[cut[mine] : cut[mine + 1]], (r + 1) % n, y[cut[next_] : cut[next_ + 1]], (r - 1) % n)
    return result
