"""All-gather with a gradient.

Source: Griewank & Walther 2008, Evaluating Derivatives, sec. 3.2; Korthikanti et al. 2022 (2205.05198) sec. 4.2.2.

    y_r = (x_0; x_1; ..; x_{n-1})        along axis 0
    sum_of_losses    dx_r = rows r of sum_s g_s    a reduce-scatter: the map's own adjoint
    one_loss         dx_r = rows r of g_r          every rank computes the same loss, which counts once

Notation
    n -> comm.size, x_r and y_r -> input and output of rank r, g_r -> cotangent of y_r, dx_r -> of x_r.

Conventions
    C1  Sequence parallelism gathers, then each rank goes on with weights of its own: the first. Where all ranks go on
        alike (Megatron's gather of a column-parallel output), the second.
    C2  `length` is that of `ring_all_gather`: rows that n does not divide.

Laws
    L1 every_rank_has_all_rows              L2 adjoint_of_the_sum_of_losses
    L3 one_loss_counts_once
"""

from __future__ import annotations

from autodiff import custom
from backends.communicators import bounds
from ref.distributed.ranks import check_adjoint, on_tensors
from ref.distributed.ring_all_gather import ring_all_gather
from ref.spec import spec


@spec("distributed.differentiable_all_gather", "comm:tree, x:tree -> [n M]", grads=("x",), backends=("numpy",))
@on_tensors("x")
def differentiable_all_gather(comm, x, *, length=None, adjoint="sum_of_losses"):
    """Every rank's rows, on every rank, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : float array or Tensor
        This rank's rows.
    length : int, optional
        Rows of the result, when n does not divide them.
    adjoint : "sum_of_losses" or "one_loss"
        What the cotangents are of.

    Returns
    -------
    float array or Tensor
        The rows of rank 0, then those of rank 1, ..

    Raises
    ------
    ValueError
        Unknown adjoint, or as `ring_all_gather`.

    Complexity: one all-gather forward; one reduce-scatter backward, or none.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> differentiable_all_gather(ThreadWorld(2), np.array([[1.0], [2.0]]))
    array([[1., 2.],
           [1., 2.]])
    >>> differentiable_all_gather.vjp(np.array([[1.0, 2.0], [10.0, 20.0]]), ThreadWorld(2), np.array([[1.0], [2.0]]))
    (array([[11.],
           [22.]]),)
    """
    check_adjoint("differentiable_all_gather", adjoint)
    return _gather(x, comm=comm, length=length, adjoint=adjoint)


def _forward(x, *, comm, length, adjoint):
    return ring_all_gather(comm, x, length=length), ()


def _vjp(g, out, saved, needs, x, *, comm, length, adjoint):
    if adjoint == "one_loss":
        cut = bounds(g.shape[0], comm.size)
        return (g[cut[comm.rank] : cut[comm.rank + 1]],)
    from ref.distributed.differentiable_reduce_scatter import differentiable_reduce_scatter

    return (differentiable_reduce_scatter(comm, g),)


_gather = custom("all_gather", _forward, _vjp, differentiable=True, labels=("x",))
