"""Broadcast with a gradient.

Source: Griewank & Walther 2008, Evaluating Derivatives, sec. 3.2.

    y_r = x_root
    sum_of_losses    dx_root = sum_r g_r,  dx_r = 0 elsewhere    a reduce: the map's own adjoint
    one_loss         dx_root = g_root,     dx_r = 0 elsewhere    every rank computes the same loss, which counts once

Notation
    n -> comm.size, x_r and y_r -> input and output of rank r, g_r -> cotangent of y_r, dx_r -> of x_r.

Conventions
    C1  What the other ranks pass gives the shape alone, so its gradient is zero.

Laws
    L1 every_rank_has_the_root_s_array      L2 adjoint_of_the_sum_of_losses
    L3 one_loss_counts_once
"""

from __future__ import annotations

from autodiff import custom, namespace
from ref.distributed.binomial_broadcast import binomial_broadcast
from ref.distributed.ranks import check_adjoint, on_tensors
from ref.spec import spec


@spec("distributed.differentiable_broadcast", "comm:tree, x[n L] -> [n L]", grads=("x",), backends=("numpy",))
@on_tensors("x")
def differentiable_broadcast(comm, x, *, root=0, adjoint="sum_of_losses"):
    """The array of the root, on every rank, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : float array or Tensor
        The same shape and dtype on every rank.
    root : int
    adjoint : "sum_of_losses" or "one_loss"
        What the cotangents are of.

    Returns
    -------
    float array or Tensor
        Of the shape of x.

    Raises
    ------
    ValueError
        Unknown adjoint, or no such root.

    Complexity: one broadcast forward; one reduce backward, or none.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> differentiable_broadcast.vjp(np.array([[1.0], [10.0]]), ThreadWorld(2), np.array([[3.0], [4.0]]), root=1)
    (array([[ 0.],
           [11.]]),)
    """
    check_adjoint("differentiable_broadcast", adjoint)
    return _broadcast(x, comm=comm, root=root, adjoint=adjoint)


def _forward(x, *, comm, root, adjoint):
    return binomial_broadcast(comm, x, root=root), ()


def _vjp(g, out, saved, needs, x, *, comm, root, adjoint):
    if adjoint == "one_loss":
        return (g if comm.rank == root else namespace(g).zeros_like(g),)
    from ref.distributed.differentiable_reduce import differentiable_reduce

    return (differentiable_reduce(comm, g, root=root),)


_broadcast = custom("broadcast", _forward, _vjp, differentiable=True, labels=("x",))
