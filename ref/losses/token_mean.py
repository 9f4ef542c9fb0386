"""Mean loss over tokens, divided once.

Source: the gradient-accumulation fix of 2024 (transformers #34191, #34283); the mean itself is that of Bengio et
al. 2003 (JMLR 3) Eq. 1, over all positions of the corpus.

    L = (1 / N) sum_{kept} loss_i,   N = number of kept positions, of the whole batch
    dL / dloss_i = [i kept] / N

A batch cut into micro-batches keeps its loss and gradient when every part divides by the same N and the parts
are added: pass `count`. The mean of the parts' means weights the tokens of short parts more.

Conventions
    C1  Masks are True = keep; what is dropped may hold anything, NaN too.
    C2  Without `count` an empty selection is an error, not NaN and not 0. With it, it is 0: other parts have tokens.
    C3  Half-precision losses are added in float32 and the mean cast back: a sum above 65504 is infinite in float16.

Laws
    L1 equal_losses_are_their_mean          L2 mean_of_the_kept_in_fractions
    L3 any_cut_adds_up                      L4 dropping_is_deleting
    L5 dropped_junk_is_invisible            L6 gradient_is_one_share_a_token
    L7 half_precision_does_not_overflow
"""

from __future__ import annotations

from autodiff import namespace
from ref.nn.rms_norm import widened
from ref.spec import bind, spec

SIGNATURE = "loss[*B], mask:bool[*B] -> []"


@spec("losses.token_mean", SIGNATURE, grads=("loss",))
def token_mean(loss, mask, *, count=None):
    """Sum of the kept losses over the number of kept positions.

    Parameters
    ----------
    loss : float[*B]
    mask : bool[*B]
        True keeps.
    count : int, optional
        Kept positions of the whole batch, where `loss` is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        The shapes differ, nothing is kept and no count was given, or `count` < 1.
    TypeError
        `loss` is not float or `mask` not bool.

    Complexity: B additions.

    >>> import numpy as np
    >>> float(token_mean(np.array([1.0, 2.0, 6.0]), np.array([True, True, False])))
    1.5
    """
    bind("token_mean", SIGNATURE, loss=loss, mask=mask)
    xp = namespace(loss, mask)
    if count is None:
        count = int(xp.sum(xp.astype(mask, xp.int64)))
        if count == 0:
            raise ValueError(f"token_mean: no position of {tuple(mask.shape)} is kept; needs one, or count=")
    elif not count >= 1:
        raise ValueError(f"token_mean: count={count}; needed at least 1")
    return xp.astype(xp.sum(widened(xp, xp.where(mask, loss, 0.0))) / count, loss.dtype)
