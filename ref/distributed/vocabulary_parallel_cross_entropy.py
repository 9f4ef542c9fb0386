"""Cross entropy of a softmax whose classes are cut over the ranks.

Source: Shoeybi et al. 2019, Megatron-LM (1909.08053) sec. 3, the parallel cross entropy: B numbers in place of B V.

    M = max_r max_j x_rj                             one all-reduce of maxima
    Z = sum_r sum_j e^{x_rj - M}                     one all-reduce of sums, of Z and X together
    X = sum_r (x_r,t-a_r where a_r <= t < a_{r+1}, else 0)
    loss = log Z + M - X                             on every rank
    dloss / dx_rj = e^{x_rj - M} / Z - [a_r + j = t]         nothing is sent backward

Notation
    n -> comm.size, r -> comm.rank, x_r -> logits[*B V_r], t -> targets[*B], V -> vocabulary; a_r = V r // n.

Conventions
    C1  No reduction, and one loss that all ranks share: the cotangent is the same on every rank and counts once.
    C2  M is the maximum over all ranks, subtracted on every rank; it is a constant for the gradient, since a shift
        of all logits changes nothing. With a rank's own maximum its sum would be of another scale.
    C3  A position whose target is ignore_index has loss 0 and gradient exactly 0, by selection, as in
        `losses.softmax_cross_entropy`: its logits may hold NaN. There is no default ignore_index.
    C4  A logit of -inf is a class that is not there. n need not divide V; a rank may have no class at all.
    C5  Megatron reduces X and Z one after the other; here they go together, the same numbers.

Laws
    L1 uniform_logits_give_log_v            L2 two_classes_are_a_softplus
    L3 loss_is_that_of_one_rank             L4 gradient_is_softmax_minus_one_hot
    L5 ignored_positions_cost_nothing       L6 a_large_logit_on_any_rank_is_subtracted
    L7 three_numbers_a_position_are_sent
"""

from __future__ import annotations

import math

import numpy as np

from autodiff import namespace, raw
from ref.distributed.all_reduce import all_reduce
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.distributed.ranks import on_tensors, own_range
from ref.distributed.vocabulary_parallel_embedding import check_ids
from ref.spec import bind, spec


@spec(
    "distributed.vocabulary_parallel_cross_entropy", "comm:tree, logits:tree, targets:int[n M] -> [n M]",
    grads=("logits",), backends=("numpy",),
)  # fmt: skip
@on_tensors("logits")
def vocabulary_parallel_cross_entropy(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    """-log softmax(logits of all ranks)[target] of every position, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with logits and targets one a rank.
    logits : float[*B V_r]
        Of this rank's classes, V r // n .. V (r + 1) // n.
    targets : int[*B]
        Classes 0 .. V - 1 or `ignore_index`, the same on every rank.
    vocabulary : int, optional
        V; n V_r if not given.
    ignore_index : int, optional
        The target of positions that do not count.
    algorithm : str, optional
        As of `all_reduce`.

    Returns
    -------
    float[*B]
        In nats; the same bits on every rank.

    Raises
    ------
    ValueError
        The shapes disagree, a target is out of range, V_r is not this rank's share of the vocabulary, there is no
        class, unknown algorithm.
    TypeError
        The logits are not float or the targets not int.

    Complexity: B V_r exponentials; all-reduces of B and 2 B numbers forward, nothing is sent backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> logits = [np.log([[1.0]]), np.log([[2.0, 4.0]])]
    >>> targets = np.array([[2], [2]])
    >>> np.exp(-vocabulary_parallel_cross_entropy(ThreadWorld(2), logits, targets, vocabulary=3)).round(4)
    array([[0.5714],
           [0.5714]])
    """
    function = "vocabulary_parallel_cross_entropy"
    own = bind(function, "logits[*B V_r], targets:int[*B]", logits=logits, targets=targets)["V_r"]
    first, end = own_range(comm, function, own, vocabulary, names=("V_r", "vocabulary"))
    xp = namespace(logits)
    kept = np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
    V = own * comm.size if vocabulary is None else vocabulary
    if V < 1:
        raise ValueError(f"{function}: a vocabulary of {V} classes; needed at least 1")
    check_ids(function, "targets", targets[kept], V, "" if ignore_index is None else f" or ignore_index={ignore_index}")

    x = xp.where(kept[..., None], logits, 0.0)
    top = all_reduce(comm, np.max(raw(x), axis=-1, initial=-math.inf), op="max", algorithm=algorithm)
    top = np.where(top == -math.inf, top.dtype.type(0), top)
    mine = kept & (targets >= first) & (targets < end)
    z = xp.sum(xp.exp(x - top[..., None]), axis=-1)
    label = xp.where(mine, _at(xp, x, np.where(mine, targets - first, 0)), 0.0)
    both = differentiable_all_reduce(comm, xp.stack((z, label)), adjoint="one_loss", algorithm=algorithm)
    return xp.where(kept, xp.log(both[0]) + top - both[1], 0.0)


def _at(xp, x, j):
    """x[..., j] of each position; the sum of nothing where there are no classes."""
    if not x.shape[-1]:
        return xp.sum(x, axis=-1)
    return xp.take_along_axis(x, j[..., None], axis=-1)[..., 0]
