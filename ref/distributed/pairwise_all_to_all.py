"""Pairwise all-to-all.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 4.3; Bruck et al. 1997 (IEEE TPDS 8:11) sec. 3.

    step k = 1 .. n - 1: rank r sends block r + k to r + k and takes what comes from r - k as block r - k

    rank r sends its x but block r, in n - 1 messages; time (n - 1) (alpha + S/n beta)

Notation
    n -> comm.size, r -> comm.rank, S -> bytes of x; ranks and blocks count modulo n.

Conventions
    C1  Block j of rank i becomes block i of rank j: a transposition, so twice is the identity.
    C2  Blocks follow each other along axis 0. Without counts they are equal; with them `send` has the rows for each
        rank and `receive` those from each (torch's input_split_sizes and output_split_sizes).

Laws
    L1 transposes_the_blocks                L2 twice_is_the_identity
    L3 bytes_and_messages_are_the_formula   L4 counts_are_followed
    L5 a_plan_gives_the_same
"""

from __future__ import annotations

import math
from itertools import accumulate

from backends.communicators import collective
from ref.distributed.ranks import check_out
from ref.spec import spec


@spec("distributed.pairwise_all_to_all", "comm:tree, x:tree, send:tree, receive:tree -> :tree", backends=("numpy",))
@collective(ragged=True)
def pairwise_all_to_all(comm, x, send=None, receive=None, *, out=None):
    """Every rank's block for this one, in rank order.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x (and one `send` and `receive`) a rank.
    x : array
        Rows for rank 0, then for rank 1, ..; the same shape beyond axis 0, and the same dtype, on every rank.
    send, receive : sequence of int, optional
        Rows for each rank, and from each; equal parts if not given.
    out : array, optional
        Takes the result.

    Returns
    -------
    array
        Rows from rank 0, then from rank 1, ..

    Raises
    ------
    ValueError
        n does not divide the rows of x, counts that do not fit x, one of them without the other, or out of another
        shape.
    TypeError
        x is no array, or out has another dtype.

    Complexity: n - 1 messages and S less the own block a rank.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> pairwise_all_to_all(ThreadWorld(2), np.array([[11, 12], [21, 22]]))
    array([[11, 21],
           [12, 22]])
    """
    n, r = comm.size, comm.rank
    given, taken = _cuts(x, n, send, receive)
    shape = (taken[-1], *x.shape[1:])
    if out is None:
        out = comm.empty(x, math.prod(shape)).reshape(shape)
    else:
        check_out("pairwise_all_to_all", out, shape, x.dtype)
    source = x
    if not x.flags.c_contiguous:
        source = comm.empty(x, x.size).reshape(x.shape)
        comm.copy(x, source)
    comm.copy(source[given[r] : given[r + 1]], out[taken[r] : taken[r + 1]])
    for k in range(1, n):
        to, from_ = (r + k) % n, (r - k) % n
        comm.sendrecv(source[given[to] : given[to + 1]], to, out[taken[from_] : taken[from_ + 1]], from_)
    return out


def _cuts(x, n, send, receive):
    """Where the blocks begin and end in x and in the result."""
    if not hasattr(x, "dtype"):
        raise TypeError(f"pairwise_all_to_all: x is a {type(x).__name__}; needed an array")
    if (send is None) != (receive is None):
        raise ValueError("pairwise_all_to_all: one of send and receive is given; needed both or none")
    rows = x.shape[0] if x.shape else -1
    if send is None:
        if rows < 0 or rows % n:
            raise ValueError(f"pairwise_all_to_all: x has shape {x.shape}; its rows must divide by the {n} ranks")
        send = receive = [rows // n] * n
    send, receive = [int(k) for k in send], [int(k) for k in receive]
    if len(send) != n or len(receive) != n or min(send + receive) < 0 or sum(send) != rows:
        raise ValueError(
            f"pairwise_all_to_all: send={send}, receive={receive}, x has {rows} rows; needed {n} counts each, those of "
            f"send adding up to the rows"
        )
    return [0, *accumulate(send)], [0, *accumulate(receive)]
