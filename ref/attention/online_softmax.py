"""Online softmax: maximum and sum in one pass, the weights in a second.

Source: Milakov & Gimelshein 2018 (1805.02867) Alg. 3.

    m_0 = -inf,  d_0 = 0
    m_i = max(m_{i-1}, x_i)
    d_i = d_{i-1} exp(m_{i-1} - m_i) + exp(x_i - m_i)      first pass, so that d_i = sum_{j<=i} exp(x_j - m_i)
    y_j = exp(x_j - m_n) / d_n                             second pass

The sum so far was taken against the maximum so far; one factor moves it to the new maximum. That factor is
all that flash attention adds to plain attention. Here a step takes one number; `merge` takes a whole part
of the row, and `flash` a tile of it.

Notation
    V, the row's length -> n; x -> x[*B n]; m_i, d_i -> m, d, for all rows at once.

Conventions
    C1  While a row has shown only -inf its m is -inf, and (-inf) - (-inf) is NaN: the maximum that is
        subtracted is then 0 (d stays 0).
    C2  -inf, +inf and NaN mean what they mean in `safe_softmax`.

Laws
    L1 weights_are_fractions_of_their_sum    L2 two_numbers_are_a_logistic
    L3 a_row_sums_to_one                     L4 a_shift_is_invisible
    L5 large_numbers_pick_the_largest        L6 minus_infinity_is_absence
    L7 a_row_of_nothing_is_zero              L8 gradient_is_the_closed_form
    L9 the_order_of_a_row_is_immaterial
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.attention.safe_softmax import finite
from ref.spec import bind, spec

SIGNATURE = "x[*B n] -> [*B n]"


@spec("attention.online_softmax", SIGNATURE, grads=("x",))
def online_softmax(x):
    """Softmax over the last axis, a number at a time.

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

    Complexity: each number is read twice, 3 B n exponentials.

    >>> import numpy as np
    >>> online_softmax(np.array([-1000.0, 1000.0, 1000.0]))
    array([0. , 0.5, 0.5])
    """
    n = bind("online_softmax", SIGNATURE, x=x)["n"]
    xp = namespace(x)
    m = xp.full(x.shape[:-1], -math.inf, dtype=x.dtype, device=x.device)
    d = xp.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
    for i in range(n):
        m, d = _step(xp, m, d, x[..., i])
    return xp.exp(x - finite(xp, m)[..., None]) / xp.where(d == 0, 1.0, d)[..., None]


def _step(xp, m, d, x_i):
    """(m_{i-1}, d_{i-1}) -> (m_i, d_i)."""
    new = xp.maximum(m, x_i)
    top = finite(xp, new)
    return new, xp.multiply(d, xp.exp(xp.subtract(m, top))) + xp.exp(x_i - top)
