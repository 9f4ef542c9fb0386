"""All-to-all with a gradient.

Source: Griewank & Walther 2008, Evaluating Derivatives, sec. 3.2; expert parallelism: Lepikhin et al. 2020 (2006.16668)
sec. 3.2.

    block i of y_j = block j of x_i
    block j of dx_i = block i of g_j       the map is a permutation: its adjoint is its inverse, itself

Notation
    n -> comm.size, x_r and y_r -> input and output of rank r, g_r -> cotangent of y_r, dx_r -> of x_r.

Conventions
    C1  Blocks and counts are those of `pairwise_all_to_all`; the backward exchanges `send` and `receive`.

Laws
    L1 transposes_the_blocks                L2 adjoint_is_itself
"""

from __future__ import annotations

from autodiff import custom
from ref.distributed.pairwise_all_to_all import pairwise_all_to_all
from ref.distributed.ranks import on_tensors
from ref.spec import spec


@spec(
    "distributed.differentiable_all_to_all", "comm:tree, x:tree, send:tree, receive:tree -> :tree", grads=("x",),
    backends=("numpy",),
)  # fmt: skip
@on_tensors("x")
def differentiable_all_to_all(comm, x, send=None, receive=None):
    """Every rank's block for this one, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x (and one `send` and `receive`) a rank.
    x : float array or Tensor
        Rows for rank 0, then for rank 1, ..
    send, receive : sequence of int, optional
        Rows for each rank, and from each; equal parts if not given.

    Returns
    -------
    float array or Tensor
        Rows from rank 0, then from rank 1, ..

    Raises
    ------
    ValueError
        As `pairwise_all_to_all`.

    Complexity: one all-to-all forward, one backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> g, x = np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros((2, 2))
    >>> differentiable_all_to_all.vjp(g, ThreadWorld(2), x)
    (array([[1., 3.],
           [2., 4.]]),)
    """
    return _exchange(x, comm=comm, send=send, receive=receive)


def _forward(x, *, comm, send, receive):
    return pairwise_all_to_all(comm, x, send, receive), ()


def _vjp(g, out, saved, needs, x, *, comm, send, receive):
    return (_exchange(g, comm=comm, send=receive, receive=send),)


_exchange = custom("all_to_all", _forward, _vjp, differentiable=True, labels=("x",))
