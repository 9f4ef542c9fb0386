"""A whole policy step, from a batch to gradients: however it is cut over ranks and micro-batches, padded or packed.

Source: the seams where the bugs sit: transformers #34191, #34242 (accumulation and ranks), torchtitan #2206, verl
#593, trl #3067 (packing); each loss is right in them and the step is not.

    the smallest policy that can show them, with uniform causal attention over the tokens of a sample:
    logits_t = (1 / (t + 1)) sum_{s <= t} W[x_s],   log pi(x_t | x_<t) = log softmax(logits_{t-1})[x_t]
    loss = reduction over the batch of the clipped surrogate of the tokens that count,   gradient by W

    sum over ranks and micro-batches of (part of the loss under the whole batch's count) = the loss of the batch

Notation
    W -> weight[V V], x -> tokens[B T] of which the first lengths[i] are the sample's, A -> advantages[B].
    plan = ranks, each a list of micro-batches, each a list of row numbers; together every row once.

Conventions
    C1  Ranks' gradients are added, not averaged: each part is divided by the count of the whole batch. (A framework
        that averages multiplies by the number of ranks first.)
    C2  packed=True lays the samples of a micro-batch end to end in one row: attention, positions and targets know where
        one ends, and a reduction over responses still has its responses.
    C3  Padding may hold any token. Empty micro-batches and ranks add nothing.
    C4  `check` judges another implementation of this step: its model is the two lines above.

Laws
    L1 the_batch_in_one_piece               L2 any_plan_is_the_batch
    L3 packed_samples_do_not_see_each_other L4 a_rank_of_one_token_weighs_one_token
    L5 padding_is_invisible                 L6 empty_parts_add_nothing
"""

from __future__ import annotations

from autodiff import namespace, value_and_grad
from ref.nn.pad import pad
from ref.nn.unpad import unpad
from ref.rl.clipped_surrogate import clipped_surrogate
from ref.rl.reduce import row_weights
from ref.rl.token_log_probs import token_log_probs
from ref.spec import bind, spec

SIGNATURE = "weight[V V], tokens:int[B T], lengths:int[B], mask:bool[B T], old_log_probs[B T], advantages[B]"


@spec("rl.policy_step", f"{SIGNATURE} -> loss[], gradient[V V]")
def policy_step(
    weight, tokens, lengths, mask, old_log_probs, advantages, *, plan=None, packed=False, reduction, length=None,
    eps=0.2
):  # fmt: skip
    """Loss and gradient of a batch, computed part by part.

    Parameters
    ----------
    weight : float[V V]
    tokens : int[B T]
    lengths : int[B]
        Tokens of each sample; the rest is padding.
    mask : bool[B T]
        The tokens that count; never the first of a sample, nor padding.
    old_log_probs : float[B T]
    advantages : float[B]
    plan : tuple of tuples of tuples of int, optional
        Row numbers of each micro-batch of each rank; one part unless given.
    packed : bool
        Micro-batches as one packed row each (C2).
    reduction, length
        As `reduce` takes them.
    eps : float
        The clip range is 1 - eps .. 1 + eps.

    Returns
    -------
    loss : float[]
    gradient : float[V V]

    Raises
    ------
    ValueError
        Shapes that differ, a plan that does not name every row once, a mask that counts padding or a first token, or
        what `clipped_surrogate` and `reduce` refuse.
    TypeError
        An array is not of its kind, or dtypes or backends differ.

    Complexity: B T^2 V operations.

    >>> import numpy as np
    >>> batch = (np.zeros((2, 2)), np.array([[0, 1]]), np.array([2]), np.array([[False, True]]), np.log([[1.0, 0.5]]))
    >>> loss, gradient = policy_step(*batch, np.array([1.0]), reduction="token-mean")
    >>> float(loss), gradient
    (-1.0, array([[ 0.5, -0.5],
           [ 0. ,  0. ]]))
    """
    arrays = {"weight": weight, "tokens": tokens, "lengths": lengths, "mask": mask, "old_log_probs": old_log_probs}
    B = bind("policy_step", SIGNATURE, **arrays, advantages=advantages)["B"]
    plan = ((tuple(range(B)),),) if plan is None else plan
    named = sorted(row for rank in plan for rows in rank for row in rows)
    if named != list(range(B)):
        raise ValueError(f"policy_step: plan names rows {named}; needed each of 0..{B - 1} once")
    xp = namespace(*arrays.values(), advantages)
    valid = xp.arange(tokens.shape[1], dtype=lengths.dtype)[None, :] < lengths[:, None]
    if bool(xp.any(mask & ~valid)):
        raise ValueError("policy_step: the mask counts padding")
    row_weights("policy_step", mask, weight.dtype, reduction=reduction, length=length)  # what `reduce` refuses
    count = int(xp.count_nonzero(mask)) if reduction == "token-mean" else B
    how = {"reduction": reduction, "count": count, "length": length}
    loss, gradient = xp.zeros((), dtype=weight.dtype), xp.zeros_like(weight)
    for rank in plan:
        for rows in rank:
            if rows:
                at = xp.asarray(list(rows))
                part = [xp.take(x, at, axis=0) for x in (tokens, valid, mask, old_log_probs, advantages)]
                value, grad = value_and_grad(lambda w, part=part: _loss(w, *part, packed, eps, how))(weight)
                loss, gradient = loss + value, gradient + grad
    return loss, gradient


def _loss(weight, tokens, valid, mask, old_log_probs, advantages, packed, eps, how):
    """The part of the loss that a micro-batch contributes."""
    xp = namespace(weight, tokens)
    log_probs = (_packed if packed else _padded)(xp, weight, xp.where(valid, tokens, 0), valid, mask)
    weights = row_weights("policy_step", mask, weight.dtype, **how)
    return clipped_surrogate(log_probs, old_log_probs, advantages[:, None], mask, weights, eps_low=eps, eps_high=eps)


def _padded(xp, weight, tokens, valid, mask):
    return token_log_probs(_logits(xp, weight, tokens, xp.zeros_like(tokens)), tokens, mask)


def _packed(xp, weight, tokens, valid, mask):
    b, T = tokens.shape
    rows = unpad(xp.stack([tokens, xp.broadcast_to(xp.arange(b, dtype=tokens.dtype)[:, None], (b, T))], axis=-1), valid)
    row, segments = rows.rows[None, :, 0], rows.rows[None, :, 1]
    counted = unpad(mask, valid).rows[None, :]
    found = token_log_probs(_logits(xp, weight, row, segments), row, counted, segments=segments)
    return pad(found[0, :, None], rows.indices, batch=b, length=T)[:, :, 0]


def _logits(xp, weight, tokens, segments):
    """The mean of the rows of W of the tokens so far, of the same sample."""
    n = tokens.shape[1]
    seen = (segments[:, :, None] == segments[:, None, :]) & (xp.arange(n)[:, None] >= xp.arange(n)[None, :])
    seen = xp.astype(seen, weight.dtype)
    values = xp.reshape(xp.take(weight, xp.reshape(tokens, (-1,)), axis=0), (*tokens.shape, weight.shape[1]))
    return xp.matmul(seen / xp.sum(seen, axis=-1, keepdims=True), values)
