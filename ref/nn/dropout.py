"""Dropout, inverted.

Source: Srivastava et al. 2014 (JMLR 15) sec. 4, with the scale moved to training (its sec. 10).

    y_j = x_j / (1 - rate) where kept, 0 where dropped;     dx_j = g_j / (1 - rate) where kept, 0 where dropped

so that E[y] = x over masks. The mask is an argument, or the counter rule `nn.keep_mask` of (seed, position): the
function is pure, and a recomputation in the backward pass drops the same elements.

Conventions
    C1  rate is the probability of being dropped (torch); TensorFlow 1 took the probability of being kept.
    C2  The scale is 1 / (1 - rate), whatever share of this mask happens to be kept.
    C3  Dropped elements are taken out by selection: NaN in them is gone.
    C4  With a seed, an element's position is its row-major index in x. Evaluation is rate = 0, or no call.

Laws
    L1 kept_are_scaled_and_dropped_are_zero L2 mean_over_all_masks_is_the_input
    L3 rate_zero_is_the_identity            L4 a_seed_is_its_mask
    L5 same_key_same_bits                   L6 dropped_junk_is_gone
    L7 gradient_has_the_same_mask
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.nn.keep_mask import keep_mask
from ref.spec import bind, spec

SIGNATURE = "x[*B], keep:bool[*B] -> [*B]"


@spec("nn.dropout", SIGNATURE, grads=("x",))
def dropout(x, keep=None, *, rate, seed=None):
    """Elements dropped at random, the others scaled to keep the mean.

    Parameters
    ----------
    x : float[*B]
    keep : bool[*B], optional
        True keeps. Either this or `seed`.
    rate : float
        Probability of being dropped, 0 <= rate < 1.
    seed : int, optional
        Key of the counter rule, 0 .. 2^64 - 1.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        `rate` or `seed` out of range, `keep` of another shape, or not exactly one of `keep` and `seed`.
    TypeError
        `x` is not float or `keep` not bool.

    Complexity: B operations, and about 100 B more where the mask is drawn.

    >>> import numpy as np
    >>> dropout(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]), rate=0.5)
    array([2., 0., 6.])
    """
    bind("dropout", SIGNATURE, x=x, keep=keep)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate={rate}; needed 0 <= rate < 1")
    if (keep is None) == (seed is None):
        given = "neither" if keep is None else "both"
        raise ValueError(f"dropout: {given} of keep and seed arrived; needed exactly one")
    xp = namespace(x, keep)
    if keep is None:
        positions = xp.reshape(xp.arange(math.prod(x.shape)), x.shape)
        keep = keep_mask(positions, seed=seed, rate=rate)
    return xp.where(keep, x * (1 / (1 - rate)), 0.0)
