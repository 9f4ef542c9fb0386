"""Reduce-scatter with a gradient.

Source: Griewank & Walther 2008, Evaluating Derivatives, sec. 3.2; Korthikanti et al. 2022 (2205.05198) sec. 4.2.2.

    y_r = rows r of sum_s x_s, rows L r // n .. L (r + 1) // n
    dx_r = (g_0; g_1; ..; g_{n-1})     an all-gather: the adjoint, the same on every rank

Notation
    n -> comm.size, x_r and y_r -> input and output of rank r, g_r -> cotangent of y_r, dx_r -> of x_r.

Conventions
    C1  The parts of y are different numbers, so the loss is what all of them make: there is one adjoint.
    C2  canonical=True folds in rank order (`canonical_reduce_scatter`): bits that do not depend on the cut.

Laws
    L1 rank_r_has_its_rows_of_the_sum       L2 adjoint_is_the_all_gather
"""

from __future__ import annotations

from autodiff import custom
from ref.distributed.canonical_reduce_scatter import canonical_reduce_scatter
from ref.distributed.differentiable_all_gather import differentiable_all_gather
from ref.distributed.ranks import on_tensors
from ref.distributed.ring_reduce_scatter import ring_reduce_scatter
from ref.spec import spec


@spec("distributed.differentiable_reduce_scatter", "comm:tree, x[n L] -> :tree", grads=("x",), backends=("numpy",))
@on_tensors("x")
def differentiable_reduce_scatter(comm, x, *, canonical=False):
    """This rank's rows of the sum of every rank's x, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with one x a rank.
    x : float array or Tensor
        The same shape and dtype on every rank; cut along axis 0.
    canonical : bool
        Fold in rank order.

    Returns
    -------
    float array or Tensor
        Rows L r // n .. L (r + 1) // n of the sum.

    Raises
    ------
    ValueError
        x has no axis.

    Complexity: one reduce-scatter forward, one all-gather backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> x = np.array([[1.0, 2.0], [10.0, 20.0]])
    >>> differentiable_reduce_scatter(ThreadWorld(2), x)
    array([[11.],
           [22.]])
    >>> differentiable_reduce_scatter.vjp(np.array([[3.0], [4.0]]), ThreadWorld(2), x)
    (array([[3., 4.],
           [3., 4.]]),)
    """
    return _scatter(x, comm=comm, canonical=canonical)


def _forward(x, *, comm, canonical):
    return (canonical_reduce_scatter if canonical else ring_reduce_scatter)(comm, x), ()


def _vjp(g, out, saved, needs, x, *, comm, canonical):
    return (differentiable_all_gather(comm, g, length=x.shape[0]),)


_scatter = custom("reduce_scatter", _forward, _vjp, differentiable=True, labels=("x",))
