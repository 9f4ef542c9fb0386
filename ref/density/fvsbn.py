"""Fully visible sigmoid belief network: every bit a logistic regression on the bits before it.

Source: Frey, Hinton & Dayan 1996, "Does the wake-sleep algorithm produce good density estimators?", sec. 2; Neal 1992.

    l_i = b_i + sum_{j < i} W_ij x_j,   p(x_i = 1 | x_<i) = sigma(l_i)
    log p(x) = sum_i x_i l_i - log(1 + e^{l_i})
    d log p / d W_ij = (x_i - sigma(l_i)) x_j for j < i, else 0

Notation
    x[*B n] of zeros and ones, W -> weight[n n] (row i: what bit i reads), b -> bias[n], l -> logits.

Conventions
    C1  The order of the bits is that of the columns. Another order is another model: permute x.
    C2  W is square and read strictly below its diagonal; what stands on or above it may be anything.

Laws
    L1 all_bit_strings_sum_to_one           L2 logits_read_the_bits_before
    L3 later_bits_are_invisible             L4 what_is_above_the_diagonal_is_immaterial
    L5 no_weights_are_independent_bits      L6 gradient_is_the_closed_form
    L7 itself_and_later_bits_have_no_slope
"""

from __future__ import annotations

from autodiff import namespace
from ref.density.bernoulli import bernoulli, check_binary
from ref.spec import bind, spec

SIGNATURE = "x[*B n], weight[n n], bias[n] -> log_prob[*B], logits[*B n]"


@spec("density.fvsbn", SIGNATURE, grads=("x", "weight", "bias"))
def fvsbn(x, weight, bias):
    """Log-probability of bit strings, and the logit of each bit given those before it.

    Parameters
    ----------
    x : float[*B n]
        Zeros and ones.
    weight : float[n n]
    bias : float[n]

    Returns
    -------
    log_prob : float[*B]
        Nats.
    logits : float[*B n]

    Raises
    ------
    ValueError
        x is not binary, or axes disagree.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: B n^2 multiply-adds.

    >>> import numpy as np
    >>> fvsbn(np.array([1.0, 1.0]), np.array([[9.0, 9.0], [2.0, 9.0]]), np.array([0.0, -2.0]))[1]
    array([0., 0.])
    """
    bind("fvsbn", SIGNATURE, x=x, weight=weight, bias=bias)
    check_binary("fvsbn", x)
    xp = namespace(x, weight, bias)
    logits = xp.matmul(x, xp.matrix_transpose(xp.tril(weight, k=-1))) + bias
    return bernoulli(x, logits), logits
