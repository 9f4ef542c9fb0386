"""Ring all-gather.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 4.1.

    step k = 0 .. n - 2: rank r sends block r - k to r + 1 and takes what comes as block r - k - 1

    rank r sends all but block r + 1, in n - 1 messages; time (n - 1) alpha + (n - 1)/n S beta

Notation
    n -> comm.size, r -> comm.rank, S -> bytes of the result; ranks and blocks count modulo n.

Conventions
    C1  Blocks follow each other along axis 0, as torch's all_gather_into_tensor has them; MPI counts bytes.
    C2  Without `length` all blocks have the size of x. With it block i has rows length i // n .. length (i + 1) // n:
        what `ring_reduce_scatter` leaves on rank i.

Laws
    L1 the_blocks_in_rank_order             L2 bytes_and_messages_are_the_formula
    L3 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.ranks import gathered
from ref.spec import spec


@spec("distributed.ring_all_gather", "comm:tree, x:tree -> :any[n M]", backends=("numpy",))
@collective(ragged=True)
def ring_all_gather(comm, x, *, length=None, out=None):
    """Every rank's rows, on every rank, in rank order.

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

    Complexity: n - 1 messages and (n - 1)/n S bytes a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> ring_all_gather(ThreadWorld(2), [np.array([1]), np.array([2, 3])], length=3)
    array([[1, 2, 3],
           [1, 2, 3]])
    """
    result, block = gathered(comm, "ring_all_gather", x, length, out)
    n, r = comm.size, comm.rank
    comm.copy(x, block[r])
    for k in range(n - 1):
        comm.sendrecv(block[(r - k) % n], (r + 1) % n, block[(r - k - 1) % n], (r - 1) % n)
    return result
