"""Linear layer whose outputs are cut over the ranks.

Source: Shoeybi et al. 2019, Megatron-LM (1909.08053) sec. 3: GEMM A = [A_1, A_2] with the operator f in front.

    y_r = f(x) W_r^T + b_r                   rank r's columns of y = x W^T + b, W = (W_0; W_1; ..), cut along its rows
    f       identity forward, all-reduce backward
    dx = sum_r g_r W_r                       on every rank
    dW_r = sum over rows of g_r x^T,   db_r = sum over rows of g_r       of this rank alone

Notation
    n -> comm.size, r -> comm.rank, x[*B I], W_r -> weight[O_r I], b_r -> bias[O_r], g_r -> cotangent of y_r[*B O_r].

Conventions
    C1  The result stays cut: an elementwise function of it needs no message, and `row_parallel_linear` takes it.
        Between f here and g there nothing is sent.
    C2  Ranks pass the same x, which is not checked, and any numbers of outputs, none too: whoever cuts decides.
    C3  Weights are [out in]: Megatron's columns of A are rows here.

Laws
    L1 ranks_have_the_columns_of_one_layer  L2 gradients_are_those_of_one_layer
    L3 one_all_reduce_and_that_backward
"""

from __future__ import annotations

from ref.distributed.copy_to_ranks import copy_to_ranks
from ref.distributed.ranks import on_tensors
from ref.nn.linear import linear
from ref.spec import spec


@spec(
    "distributed.column_parallel_linear", "comm:tree, x[n M I], weight:tree, bias:tree -> :tree",
    grads=("x", "weight", "bias"), backends=("numpy",),
)  # fmt: skip
@on_tensors("x", "weight", "bias")
def column_parallel_linear(comm, x, weight, bias=None, *, algorithm=None):
    """This rank's outputs of a linear layer, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with x, weight and bias one a rank.
    x : float[*B I]
        The same on every rank.
    weight : float[O_r I]
        This rank's rows.
    bias : float[O_r], optional
        This rank's.
    algorithm : str, optional
        As of `all_reduce`, for the backward.

    Returns
    -------
    float[*B O_r]

    Raises
    ------
    ValueError
        `x` and `weight` disagree in I, or `weight` and `bias` in O_r; unknown algorithm, in the backward.
    TypeError
        An array is not float, or the dtypes differ.

    Complexity: B I O_r multiply-adds; nothing is sent forward, one all-reduce of B I numbers backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> x, weight = np.ones((2, 1, 2)), np.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    >>> column_parallel_linear(ThreadWorld(2), x, weight).tolist()
    [[[3.0]], [[7.0]]]
    >>> column_parallel_linear.vjp(np.ones((2, 1, 1)), ThreadWorld(2), x, weight)[0].tolist()
    [[[4.0, 6.0]], [[4.0, 6.0]]]
    """
    return linear(copy_to_ranks(comm, x, algorithm=algorithm), weight, bias)
