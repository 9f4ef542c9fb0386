"""Linear layer whose inputs are cut over the ranks.

Source: Shoeybi et al. 2019, Megatron-LM (1909.08053) sec. 3: GEMM B = [B_1; B_2] with the operator g behind.

    y = g(x_r W_r^T) + b = sum_r x_r W_r^T + b      x = (x_0, x_1, ..) along its channels, W_r these columns of W
    g       all-reduce forward, identity backward
    dx_r = g W_r,   dW_r = sum over rows of g x_r^T       of this rank alone
    db = sum over rows of g                               the same on every rank

Notation
    n -> comm.size, r -> comm.rank, x_r -> x[*B I_r], W_r -> weight[O I_r], b -> bias[O]; the cotangent of y is g too.

Conventions
    C1  All ranks go on with the same y to the same loss, which counts once: every rank's cotangent is that loss's own.
    C2  The bias is added after the sum, once. Added before it would count n times.
    C3  x is what `column_parallel_linear` leaves on the rank: any numbers of channels, none too.

Laws
    L1 every_rank_has_the_whole_layer       L2 gradients_are_those_of_one_layer
    L3 one_all_reduce_and_that_forward
"""

from __future__ import annotations

from autodiff import namespace
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.distributed.ranks import on_tensors
from ref.nn.linear import linear
from ref.spec import bind, spec


@spec(
    "distributed.row_parallel_linear", "comm:tree, x:tree, weight:tree, bias[n O] -> [n M O]",
    grads=("x", "weight", "bias"), backends=("numpy",),
)  # fmt: skip
@on_tensors("x", "weight", "bias")
def row_parallel_linear(comm, x, weight, bias=None, *, algorithm=None):
    """A linear layer of the inputs of all ranks, on every rank, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with x, weight and bias one a rank.
    x : float[*B I_r]
        This rank's channels.
    weight : float[O I_r]
        This rank's columns.
    bias : float[O], optional
        The same on every rank.
    algorithm : str, optional
        As of `all_reduce`.

    Returns
    -------
    float[*B O]
        The same bits on every rank.

    Raises
    ------
    ValueError
        `x` and `weight` disagree in I_r, or `bias` in O; unknown algorithm.
    TypeError
        An array is not float, or the dtypes differ.

    Complexity: B I_r O multiply-adds; one all-reduce of B O numbers forward, nothing is sent backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> x, weight = np.array([[[1.0]], [[2.0]]]), np.array([[[10.0]], [[100.0]]])
    >>> row_parallel_linear(ThreadWorld(2), x, weight, np.ones((2, 1))).tolist()
    [[[211.0]], [[211.0]]]
    """
    bind("row_parallel_linear", "x[*B I], weight[O I], bias[O]", x=x, weight=weight, bias=bias)
    y = differentiable_all_reduce(comm, linear(x, weight), adjoint="one_loss", algorithm=algorithm)
    return y if bias is None else namespace(y, bias).add(y, bias)
