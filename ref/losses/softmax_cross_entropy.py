"""Cross entropy of a softmax, a position at a time.

Source: Bridle 1990 (softmax with log-likelihood); the z-loss: PaLM (2204.02311) sec. 5, Chameleon (2405.09818).

    log Z = log sum_j e^{x_j}
    loss  = log Z - x_t + lambda (log Z)^2
    dloss / dx_j = p_j (1 + 2 lambda log Z) - [j = t],   p = softmax(x)

Notation
    x -> logits[*B V], t -> targets[*B], lambda -> z_loss.

Conventions
    C1  No reduction: one loss a position. Means under gradient accumulation are `losses.token_mean`, which
        divides once.
    C2  A position whose target is ignore_index has loss 0 and gradient exactly 0, by selection: its logits may
        hold anything, NaN too. There is no default ignore_index (torch's is -100).
    C3  The z-loss is added with its own weight and is not divided by V. PaLM's lambda is 1e-4, Chameleon's 1e-5.
    C4  A logit of -inf is a class that is not there.

Laws
    L1 uniform_logits_give_log_v            L2 two_logits_are_a_softplus
    L3 a_shift_is_invisible_or_pays_z       L4 the_best_shift_is_minus_log_z
    L5 probabilities_add_to_one             L6 large_logits_stay_finite
    L7 a_class_at_minus_infinity_is_absent  L8 ignored_positions_cost_nothing
    L9 gradient_is_softmax_minus_one_hot    L10 gradient_sums_to_the_z_part
    L11 ignored_junk_has_no_gradient
"""

from __future__ import annotations

from autodiff import fusable, namespace
from autodiff.ops import logsumexp
from ref.spec import bind, spec

SIGNATURE = "logits[*B V], targets:int[*B] -> [*B]"


@spec("losses.softmax_cross_entropy", SIGNATURE, grads=("logits",))
@fusable("losses.softmax_cross_entropy", tensors=("logits",))
def softmax_cross_entropy(logits, targets, *, z_loss=0.0, ignore_index=None):
    """-log softmax(logits)[target] of every position.

    Parameters
    ----------
    logits : float[*B V]
    targets : int[*B]
        0..V - 1, or `ignore_index`.
    z_loss : float
        Weight of (log Z)^2.
    ignore_index : int, optional
        The target of positions that do not count.

    Returns
    -------
    float[*B]
        In nats.

    Raises
    ------
    ValueError
        The shapes disagree, or a target is out of range.
    TypeError
        The logits are not float or the targets not int.

    Complexity: B V exponentials.

    >>> import numpy as np
    >>> softmax_cross_entropy(np.zeros((2, 4)), np.array([3, -1]), ignore_index=-1).round(4)
    array([1.3863, 0.    ])
    """
    V = bind("softmax_cross_entropy", SIGNATURE, logits=logits, targets=targets)["V"]
    xp = namespace(logits, targets)
    kept = xp.ones(targets.shape, dtype=xp.bool) if ignore_index is None else targets != ignore_index
    targets = xp.where(kept, targets, 0)
    _check_range(xp, targets, kept, V, ignore_index)
    if V == 0:
        return xp.sum(logits, axis=-1)

    x = xp.where(kept[..., None], logits, 0.0)
    log_z = logsumexp(x, axis=-1)
    loss = log_z - xp.take_along_axis(x, targets[..., None], axis=-1)[..., 0]
    if z_loss:
        loss = loss + log_z * log_z * z_loss
    return xp.where(kept, loss, 0.0)


def _check_range(xp, targets, kept, V, ignore_index):
    odd = kept & ((targets < 0) | (targets >= V))
    if xp.any(odd):
        first = int(xp.reshape(targets, (-1,))[int(xp.argmax(xp.astype(xp.reshape(odd, (-1,)), xp.int8)))])
        ignored = "" if ignore_index is None else f" or ignore_index={ignore_index}"
        raise ValueError(
            f"softmax_cross_entropy: a target is {first}, logits have V={V} classes; needs 0..{V - 1}{ignored}"
        )
