"""Embedding whose table is cut over the ranks along the vocabulary.

Source: Shoeybi et al. 2019, Megatron-LM (1909.08053) sec. 3: E = [E_1, E_2], g behind the input embedding.

    part_r = E_r[id - a_r] where a_r <= id < a_{r+1}, else 0          rank r has the rows a_r = V r // n ..
    y = g(part_r) = sum_r part_r                                      one term of the sum is not 0
    dE_r,v = sum over the positions with id = a_r + v of g            of this rank alone

Notation
    n -> comm.size, r -> comm.rank, E_r -> weight[V_r d], id -> ids[*B], V -> vocabulary; the cotangent of y is g too.

Conventions
    C1  All ranks go on with the same y to the same loss, as behind `row_parallel_linear`.
    C2  Rank r has rows V r // n .. V (r + 1) // n of V, of which n need not be a divisor. Megatron pads V.
    C3  What another rank's id reads here leaves by selection, so a row that holds NaN is seen by its own ids alone.

Laws
    L1 every_position_has_its_row           L2 gradient_is_that_of_one_table
    L3 one_all_reduce_and_that_forward      L4 another_row_is_invisible
"""

from __future__ import annotations

from autodiff import namespace
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.distributed.ranks import on_tensors, own_range
from ref.nn.embedding import embedding
from ref.spec import bind, spec


@spec(
    "distributed.vocabulary_parallel_embedding", "comm:tree, weight:tree, ids:int[n M] -> [n M d]",
    grads=("weight",), backends=("numpy",),
)  # fmt: skip
@on_tensors("weight")
def vocabulary_parallel_embedding(comm, weight, ids, *, vocabulary=None, algorithm=None):
    """The rows that `ids` name of a table that lies on all ranks, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with weight and ids one a rank.
    weight : float[V_r d]
        This rank's rows.
    ids : int[*B]
        The same on every rank.
    vocabulary : int, optional
        Rows of all ranks; n V_r if not given.
    algorithm : str, optional
        As of `all_reduce`.

    Returns
    -------
    float[*B d]
        The same bits on every rank.

    Raises
    ------
    ValueError
        An id is out of range, V_r is not this rank's share of the vocabulary, unknown algorithm.
    TypeError
        `weight` is not float or `ids` not int.

    Complexity: B d copies and one all-reduce of B d numbers forward; nothing is sent backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> table = [np.array([[0.0, 1.0]]), np.array([[2.0, 3.0], [4.0, 5.0]])]
    >>> vocabulary_parallel_embedding(ThreadWorld(2), table, np.array([[2, 0], [2, 0]]), vocabulary=3)[1]
    array([[4., 5.],
           [0., 1.]])
    """
    function = "vocabulary_parallel_embedding"
    dims = bind(function, "weight[V_r d], ids:int[*B]", weight=weight, ids=ids)
    first, end = own_range(comm, function, dims["V_r"], vocabulary, names=("V_r", "vocabulary"))
    check_ids(function, "ids", ids, dims["V_r"] * comm.size if vocabulary is None else vocabulary)
    xp = namespace(weight)
    mine = (ids >= first) & (ids < end)
    if dims["V_r"]:
        part = xp.where(mine[..., None], embedding(weight, xp.where(mine, ids - first, 0)), 0.0)
    else:
        part = xp.broadcast_to(xp.sum(weight, axis=0), (*ids.shape, dims["d"]))
    return differentiable_all_reduce(comm, part, adjoint="one_loss", algorithm=algorithm)


def check_ids(function, what, ids, vocabulary, also=""):
    """Raise unless all ids are 0 .. vocabulary - 1."""
    if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary:
        bad = ids.min() if ids.min() < 0 else ids.max()
        needed = f"0..{vocabulary - 1}{also}"
        raise ValueError(f"{function}: {what} hold {bad}, the vocabulary has {vocabulary}; needed {needed}")
