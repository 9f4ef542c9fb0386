"""Dissemination barrier, which also says when the last rank came.

Source: Hensgen, Finkel & Manber 1988, Two algorithms for barrier synchronization (IJPP 17:1) sec. 2.

    d = 1, 2, 4, .. below n: rank r sends the latest arrival it knows of to r + d, waits for what r - d sends, and keeps
    the later of the two

    ceil(log2 n) messages of 8 bytes a rank; time ceil(log2 n) alpha

Notation
    n -> comm.size, r -> comm.rank; ranks count modulo n.

Conventions
    C1  What rank r knows before distance d are the arrivals of ranks r - d + 1 .. r. That it knows all n at the end is
        that none leaves before all have come. Sets overlap when n is no power of two, which a maximum does not mind.
    C2  Times are what the caller says: of one clock, or the barrier alone is of use.

Laws
    L1 everyone_learns_the_latest_arrival   L2 bytes_and_messages_are_the_formula
    L3 a_plan_gives_the_same
"""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.spec import spec


@spec("distributed.dissemination_barrier", "comm:tree, arrival[n] -> [n]", backends=("numpy",))
@collective
def dissemination_barrier(comm, arrival=None):
    """Return when every rank has called, with the latest arrival.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one arrival a rank.
    arrival : float or float array without axes, optional
        When this rank came; 0 if not given.

    Returns
    -------
    float array without axes
        The greatest arrival of all ranks, in its own dtype.

    Raises
    ------
    TypeError
        arrival is no number.

    Complexity: ceil(log2 n) messages a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> dissemination_barrier(ThreadWorld(3), np.array([0.5, 2.0, 1.0]))
    array([2., 2., 2.])
    """
    if not isinstance(arrival, float | int | np.floating | np.ndarray | None):
        raise TypeError(f"dissemination_barrier: arrival is a {type(arrival).__name__}; needed a number")
    n, r, d = comm.size, comm.rank, 1
    x = np.asarray(0.0 if arrival is None else arrival)
    latest, got = comm.empty(x, 1), comm.empty(x, 1)
    comm.copy(x, latest)
    while d < n:
        comm.sendrecv(latest, (r + d) % n, got, (r - d) % n)
        comm.combine("max", latest, got, latest)
        d *= 2
    return latest.reshape(())
