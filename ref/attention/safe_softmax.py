"""Safe softmax: three passes over a row.

Source: Milakov & Gimelshein 2018 (1805.02867) Alg. 2.

    m   = max_j x_j                    first pass
    d   = sum_j exp(x_j - m)           second pass
    y_j = exp(x_j - m) / d             third pass
    dx  = y (g - <g, y>)

The first of four steps to flash attention: here, `online_softmax` (two passes), `merge` (parts of a row in
any order), `flash` (one pass, with the values).

Notation
    V, the row's length -> n; x -> x[*B n]; m_V -> m; d_V -> d.

Conventions
    C1  exp(x) / sum exp(x) overflows from x = 88 in float32; with the maximum subtracted no exponent is
        positive and d >= 1.
    C2  An entry of -inf has weight zero. A row of nothing else gives zeros and zero gradients, as a row of
        attention that sees no key does; torch and scipy give NaN there.
    C3  A row with +inf or NaN gives NaN, as in torch.

Laws
    L1 weights_are_fractions_of_their_sum    L2 two_numbers_are_a_logistic
    L3 a_row_sums_to_one                     L4 a_shift_is_invisible
    L5 large_numbers_pick_the_largest        L6 minus_infinity_is_absence
    L7 a_row_of_nothing_is_zero              L8 gradient_is_the_closed_form
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "x[*B n] -> [*B n]"


@spec("attention.safe_softmax", SIGNATURE, grads=("x",))
def safe_softmax(x):
    """Softmax over the last axis.

    Parameters
    ----------
    x : float[*B n]
        Logits; -inf is a logit that is not there.

    Returns
    -------
    float[*B n]
        Non-negative; each row sums to 1, or is zero where all of it is -inf.

    Raises
    ------
    TypeError
        `x` is not a float array.
    ValueError
        `x` has no axis.

    Complexity: each number is read three times, 2 B n exponentials.

    >>> import numpy as np
    >>> safe_softmax(np.array([1000.0, 1000.0, -math.inf]))
    array([0.5, 0.5, 0. ])
    """
    n = bind("safe_softmax", SIGNATURE, x=x)["n"]
    xp = namespace(x)
    if n == 0:
        return xp.exp(x)
    m = finite(xp, xp.max(x, axis=-1, keepdims=True))
    d = xp.sum(xp.exp(x - m), axis=-1, keepdims=True)
    return xp.exp(x - m) / xp.where(d == 0, 1.0, d)


def finite(xp, m):
    """A maximum to subtract: 0 for the -inf of a row of nothing, since (-inf) - (-inf) is NaN."""
    return xp.where(m == -math.inf, 0.0, m)
