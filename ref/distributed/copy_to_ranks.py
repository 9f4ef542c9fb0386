"""Copy to ranks: one variable that every rank holds, Megatron's f.

Source: Shoeybi et al. 2019, Megatron-LM (1909.08053) sec. 3, operator f.

    y_r = x            x the same on every rank
    dx = sum_r g_r     on every rank

Notation
    n -> comm.size, x_r and y_r -> input and output of rank r, g_r -> cotangent of y_r, dx_r -> of x_r.

Conventions
    C1  It does nothing forward, and is no identity: without it each rank ends with its own part of dx. The other half
        is `differentiable_all_reduce` with adjoint="one_loss" (g): f, column-parallel, row-parallel, g.
    C2  Ranks pass the same x; that is not checked.

Laws
    L1 nothing_changes_forward              L2 gradient_is_that_of_one_variable
"""

from __future__ import annotations

from autodiff import custom
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.distributed.ranks import on_tensors
from ref.spec import spec


@spec("distributed.copy_to_ranks", "comm:tree, x[n L] -> [n L]", grads=("x",), backends=("numpy",))
@on_tensors("x")
def copy_to_ranks(comm, x, *, algorithm=None):
    """x itself, whose gradient is the sum of what the ranks make of it.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : float array or Tensor
        The same on every rank.
    algorithm : str, optional
        As of `all_reduce`, for the backward.

    Returns
    -------
    float array or Tensor
        Of the shape of x.

    Raises
    ------
    ValueError
        Unknown algorithm, in the backward.

    Complexity: nothing forward, one all-reduce backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> copy_to_ranks.vjp(np.array([[1.0], [10.0]]), ThreadWorld(2), np.array([[3.0], [3.0]]))
    (array([[11.],
           [11.]]),)
    """
    return _copy(x, comm=comm, algorithm=algorithm)


def _forward(x, *, comm, algorithm):
    return x.copy(), ()


def _vjp(g, out, saved, needs, x, *, comm, algorithm):
    return (differentiable_all_reduce(comm, g, adjoint="one_loss", algorithm=algorithm),)


_copy = custom("copy_to_ranks", _forward, _vjp, differentiable=True, labels=("x",))
