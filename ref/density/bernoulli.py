"""Independent bits: the log-probability of binary data under a logit each.

Source: the exponential form of the Bernoulli distribution, Bishop 2006 Eq. 2.2 and 2.194-2.196.

    p(x) = prod_i p_i^x_i (1 - p_i)^(1 - x_i),   p_i = sigma(l_i)
    log p(x) = sum_i x_i l_i - log(1 + e^{l_i})
    d log p / d l_i = x_i - p_i

Notation
    x[*B n] of zeros and ones, l -> logits[*B n].

Conventions
    C1  Logits, not probabilities: log sigma(l) is -inf below -745 in float64 where this form is l.
    C2  The sum over the bits, in nats; never the mean.
    C3  x is float, so that it may stand in products; anything but 0 and 1 is an error.

Laws
    L1 all_bit_strings_sum_to_one           L2 a_fair_coin_costs_log_two
    L3 a_far_logit_costs_itself             L4 strings_joined_add_up
    L5 gradient_is_the_surprise
"""

from __future__ import annotations

from autodiff import namespace
from autodiff.special import softplus
from autodiff.tensor import raw
from ref.spec import bind, spec

SIGNATURE = "x[*B n], logits[*B n] -> [*B]"


@spec("density.bernoulli", SIGNATURE, grads=("logits",))
def bernoulli(x, logits):
    """Log-probability of bits that are independent given their logits.

    Parameters
    ----------
    x : float[*B n]
        Zeros and ones.
    logits : float[*B n]

    Returns
    -------
    float[*B]
        Nats.

    Raises
    ------
    ValueError
        x holds something else than 0 and 1, or the shapes differ.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 4 B n operations.

    >>> import numpy as np
    >>> bernoulli(np.array([1.0, 0.0]), np.zeros(2)).round(4)
    np.float64(-1.3863)
    """
    bind("bernoulli", SIGNATURE, x=x, logits=logits)
    check_binary("bernoulli", x)
    xp = namespace(x, logits)
    return xp.sum(xp.multiply(x, logits) - softplus(logits), axis=-1)


def check_binary(function, x):
    """ValueError unless x holds zeros and ones alone."""
    x = raw(x)
    xp = namespace(x)
    wrong = (x != 0) & (x != 1)
    if bool(xp.any(wrong)):
        first = float(xp.reshape(x, (-1,))[int(xp.argmax(xp.reshape(xp.astype(wrong, xp.int64), (-1,))))])
        raise ValueError(f"{function}: x holds {first:g}; needed 0 or 1")
