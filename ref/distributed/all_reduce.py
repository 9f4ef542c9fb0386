"""All-reduce, by the algorithm that a measured table picks, or by name.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 4.5 and 5.

    y_r = x_0 op x_1 op .. op x_{n-1} on every rank r; the order of the fold is that of the algorithm:

    ring, segmented_ring          chunk j from rank j on, around the ring
    recursive_doubling,           the balanced tree in rank order
    halving_doubling
    canonical                     the left fold in rank order, never picked: it has to be named

Notation
    n -> comm.size, S -> bytes of x.

Conventions
    C1  The pick depends on n and S alone, so all ranks pick the same.
    C2  Another pick gives other bits of a float sum. Name the algorithm where bits must stay.

Laws
    L1 is_the_exact_reduction               L2 has_the_bits_of_the_algorithm
    L3 messages_are_those_of_the_algorithm  L4 a_plan_gives_the_same
"""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed.canonical_all_reduce import canonical_all_reduce
from ref.distributed.halving_doubling_all_reduce import halving_doubling_all_reduce
from ref.distributed.recursive_doubling_all_reduce import recursive_doubling_all_reduce
from ref.distributed.ring_all_reduce import ring_all_reduce
from ref.distributed.segmented_ring_all_reduce import segmented_ring_all_reduce
from ref.distributed.select import select
from ref.spec import spec

ALGORITHMS = {
    "ring": ring_all_reduce,
    "segmented_ring": segmented_ring_all_reduce,
    "recursive_doubling": recursive_doubling_all_reduce,
    "halving_doubling": halving_doubling_all_reduce,
    "canonical": canonical_all_reduce,
}


@spec("distributed.all_reduce", "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))
@collective
def all_reduce(comm, x, *, op="sum", algorithm=None, out=None):
    """The reduction of every rank's x, on every rank.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : array
        The same shape and dtype on every rank.
    op : "sum", "prod", "max", "min" or function (left, right, *, out)
    algorithm : str, optional
        A name of `ALGORITHMS`; what `select` says if not given.
    out : array, optional
        Takes the result; may be x.

    Returns
    -------
    array
        Of the shape of x; the same bits on every rank.

    Raises
    ------
    ValueError
        Unknown algorithm or op, or out of another shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: that of the algorithm.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> all_reduce(ThreadWorld(2), np.array([[1.0, 2.0], [3.0, 4.0]]), algorithm="ring")
    array([[4., 6.],
           [4., 6.]])
    """
    if algorithm is None:
        if not hasattr(x, "nbytes"):
            raise TypeError(f"all_reduce: x is a {type(x).__name__}; needed an array")
        algorithm = select(comm.size, x.nbytes)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"all_reduce: algorithm {algorithm!r}; needed one of {', '.join(ALGORITHMS)}")
    return ALGORITHMS[algorithm](comm, x, op=op, out=out)
