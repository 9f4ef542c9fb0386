"""All-reduce with a gradient.

Source: Griewank & Walther 2008, Evaluating Derivatives, sec. 3.2 (the adjoint of a linear map); Shoeybi et al. 2019,
Megatron-LM (1909.08053) sec. 3, operator g.

    y_r = sum_s x_s
    sum_of_losses    dx_r = sum_s g_s        the loss is the sum of the ranks' losses: the map's own adjoint, itself
    one_loss         dx_r = g_r              every rank computes the same loss, which counts once: Megatron's g

Notation
    n -> comm.size, x_r and y_r -> input and output of rank r, g_r -> cotangent of y_r, dx_r -> of x_r.

Conventions
    C1  Both are right, for different losses. Data parallelism whose ranks have losses of their own wants the first;
        tensor parallelism, where all ranks go on with the same numbers, wants the second: with the first its gradients
        come out n times too large. torch.distributed.nn.functional.all_reduce has the first.
    C2  `copy_to_ranks` is the other half of the second: identity forward, all-reduce backward (Megatron's f).
    C3  A second derivative runs the same functions again.

Laws
    L1 every_rank_has_the_sum               L2 adjoint_of_the_sum_of_losses
    L3 one_loss_counts_once
"""

from __future__ import annotations

from autodiff import custom
from ref.distributed.all_reduce import all_reduce
from ref.distributed.ranks import check_adjoint, on_tensors
from ref.spec import spec


@spec("distributed.differentiable_all_reduce", "comm:tree, x[n L] -> [n L]", grads=("x",), backends=("numpy",))
@on_tensors("x")
def differentiable_all_reduce(comm, x, *, adjoint="sum_of_losses", algorithm=None):
    """The sum of every rank's x, on every rank, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : float array or Tensor
        The same shape and dtype on every rank.
    adjoint : "sum_of_losses" or "one_loss"
        What the cotangents are of.
    algorithm : str, optional
        As of `all_reduce`.

    Returns
    -------
    float array or Tensor
        Of the shape of x.

    Raises
    ------
    ValueError
        Unknown adjoint or algorithm.

    Complexity: one all-reduce forward; another one backward, or none.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> differentiable_all_reduce(ThreadWorld(2), np.array([[1.0], [2.0]]))
    array([[3.],
           [3.]])
    >>> differentiable_all_reduce.vjp(np.array([[1.0], [10.0]]), ThreadWorld(2), np.array([[1.0], [2.0]]))
    (array([[11.],
           [11.]]),)
    """
    check_adjoint("differentiable_all_reduce", adjoint)
    return _sum(x, comm=comm, adjoint=adjoint, algorithm=algorithm)


def _forward(x, *, comm, adjoint, algorithm):
    return all_reduce(comm, x, algorithm=algorithm), ()


def _vjp(g, out, saved, needs, x, *, comm, adjoint, algorithm):
    return (g if adjoint == "one_loss" else _sum(g, comm=comm, adjoint=adjoint, algorithm=algorithm),)


_sum = custom("all_reduce", _forward, _vjp, differentiable=True, labels=("x",))
