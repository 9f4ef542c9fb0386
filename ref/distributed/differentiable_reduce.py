"""Reduce with a gradient.

Source: Griewank & Walther 2008, Evaluating Derivatives, sec. 3.2.

    y_root = sum_r x_r,  y_r = 0 elsewhere
    dx_r = g_root                          a broadcast: the adjoint

Notation
    n -> comm.size, x_r and y_r -> input and output of rank r, g_r -> cotangent of y_r, dx_r -> of x_r.

Conventions
    C1  The other ranks get zeros, which keep the map linear and every rank's tape whole; their g does not count.

Laws
    L1 the_root_has_the_sum                 L2 adjoint_is_the_broadcast
"""

from __future__ import annotations

import numpy as np

from autodiff import custom
from ref.distributed.binomial_reduce import binomial_reduce
from ref.distributed.differentiable_broadcast import differentiable_broadcast
from ref.distributed.ranks import on_tensors
from ref.spec import spec


@spec("distributed.differentiable_reduce", "comm:tree, x[n L] -> [n L]", grads=("x",), backends=("numpy",))
@on_tensors("x")
def differentiable_reduce(comm, x, *, root=0):
    """The sum of every rank's x on the root, zeros elsewhere, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : float array or Tensor
        The same shape and dtype on every rank.
    root : int

    Returns
    -------
    float array or Tensor
        Of the shape of x.

    Raises
    ------
    ValueError
        No such root.

    Complexity: one reduce forward, one broadcast backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> differentiable_reduce.vjp(np.array([[1.0], [10.0]]), ThreadWorld(2), np.array([[3.0], [4.0]]), root=1)
    (array([[10.],
           [10.]]),)
    """
    return _reduce(x, comm=comm, root=root)


def _forward(x, *, comm, root):
    found = binomial_reduce(comm, x, root=root)
    return (np.zeros_like(x) if found is None else found), ()


def _vjp(g, out, saved, needs, x, *, comm, root):
    return (differentiable_broadcast(comm, g, root=root),)


_reduce = custom("reduce", _forward, _vjp, differentiable=True, labels=("x",))
