"""Sequence parallelism: a block whose norm and residual are cut along the tokens, its matrices along the features.

Source: Korthikanti et al. 2022, Reducing Activation Recomputation (2205.05198) sec. 4.2.2, fig. 5 and 6, eq. 7 to 12.

    n_r = LayerNorm(x_r) * gamma + beta                 on rank r's tokens alone
    n   = (n_0; n_1; ..)                                all-gather, backward a reduce-scatter
    p_s = GeLU(n A_s^T) B_s^T                           rank s's features of all tokens
    y_r = x_r + rows r of sum_s p_s                     reduce-scatter, backward an all-gather
    dgamma = sum_r dgamma_r,  dbeta = sum_r dbeta_r     each rank has seen its tokens alone

Notation
    n -> comm.size, x_r -> x[T_r *B d], gamma -> scale[d], beta -> shift[d], A_s -> up[F_s d], B_s -> down[d F_s].

Conventions
    C1  Rank r has tokens T r // n .. T (r + 1) // n of the first axis; T is `length` where n does not divide it.
    C2  An all-gather and a reduce-scatter send what one all-reduce does, so this costs no more than
        `column_parallel_linear` and `row_parallel_linear` with the norm on every rank, and keeps 1/n of that norm's
        activations.
    C3  The parts of y are different numbers of one loss, and so are their cotangents. gamma and beta are one variable
        that every rank holds (`copy_to_ranks`); A and B are the rank's own, and have seen all tokens.
    C4  No biases beside the matrices: one behind B would be added on the shard, after the sum.

Laws
    L1 tokens_are_those_of_one_rank         L2 gradients_are_those_of_one_rank
    L3 block_is_the_equations_written_out   L4 as_many_bytes_as_two_all_reduces
"""

from __future__ import annotations

from ref.distributed.copy_to_ranks import copy_to_ranks
from ref.distributed.differentiable_all_gather import differentiable_all_gather
from ref.distributed.differentiable_reduce_scatter import differentiable_reduce_scatter
from ref.distributed.ranks import on_tensors
from ref.nn.gelu import gelu
from ref.nn.layer_norm import layer_norm
from ref.nn.linear import linear
from ref.spec import spec


@spec(
    "distributed.sequence_parallel", "comm:tree, x:tree, scale[n d], shift[n d], up:tree, down:tree -> :tree",
    grads=("x", "scale", "shift", "up", "down"), backends=("numpy",),
)  # fmt: skip
@on_tensors("x", "scale", "shift", "up", "down")
def sequence_parallel(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    """This rank's tokens after a feed-forward block, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with all arrays one a rank.
    x : float[T_r *B d]
        This rank's tokens.
    scale, shift : float[d]
        Of the norm; the same on every rank.
    up, down : float[F_r d], float[d F_r]
        This rank's features.
    length : int, optional
        Tokens of all ranks, T; n T_r if not given.
    eps : float
        Added to the variance.
    algorithm : str, optional
        As of `all_reduce`, for the norm's gradients.

    Returns
    -------
    float[T_r *B d]

    Raises
    ------
    ValueError
        T_r is not this rank's share of the tokens, or the arrays disagree in d or F_r.
    TypeError
        An array is not float, or the dtypes differ.

    Complexity: 2 T B d F_r multiply-adds; an all-gather and a reduce-scatter of T B d numbers forward, the same
    backward with two all-reduces of d numbers.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> x, ones = np.array([[[1.0, -1.0]], [[-3.0, 3.0]]]), np.ones((2, 2))
    >>> up, down = np.full((2, 1, 2), 50.0), np.array([[[1.0], [0.0]], [[0.0], [2.0]]])
    >>> sequence_parallel(ThreadWorld(2), x, ones, ones, up, down, eps=0.0).tolist()
    [[[101.0, 199.0]], [[97.0, 203.0]]]
    """
    scale, shift = (copy_to_ranks(comm, a, algorithm=algorithm) for a in (scale, shift))
    n = differentiable_all_gather(comm, layer_norm(x, scale, shift, eps=eps), length=length)
    part = linear(gelu(linear(n, up)), down)
    return x + differentiable_reduce_scatter(comm, part)
