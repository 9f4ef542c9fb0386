"""NADE: a neural autoregressive distribution estimator, whose hidden units are shared by all conditionals.

Source: Larochelle & Murray 2011 (AISTATS), Eq. 9-10 and Algorithm 1; Uria et al. 2016 (1605.02226) Eq. 6-9.

    h_i = sigma(c + sum_{j < i} W_{.j} x_j)
    l_i = b_i + V_i. h_i,   p(x_i = 1 | x_<i) = sigma(l_i)
    a_1 = c,   a_{i+1} = a_i + W_{.i} x_i,   h_i = sigma(a_i):   O(n H), not O(n^2 H)

Notation
    x[*B n] of zeros and ones, W -> weight[H n], c -> hidden_bias[H], V -> output_weight[n H], b -> bias[n],
    l -> logits.

Conventions
    C1  The order of the bits is that of the columns. Another order is another model: permute x.
    C2  The running sum is one scan over the bits, so a step costs one column of W, and a_i of all i are kept for the
        backward: B n H numbers.
    C3  V and W are not tied.

Laws
    L1 all_bit_strings_sum_to_one           L2 each_conditional_from_its_own_sum
    L3 later_bits_are_invisible             L4 the_first_bit_reads_the_biases
    L5 no_hidden_units_are_independent_bits L6 the_last_column_is_immaterial
    L7 gradient_is_the_slope                L8 itself_and_later_bits_have_no_slope
"""

from __future__ import annotations

from autodiff import namespace
from autodiff.special import sigmoid
from ref.density.bernoulli import bernoulli, check_binary
from ref.spec import bind, spec

SIGNATURE = "x[*B n], weight[H n], hidden_bias[H], output_weight[n H], bias[n] -> log_prob[*B], logits[*B n]"


@spec("density.nade", SIGNATURE, grads=("x", "weight", "hidden_bias", "output_weight", "bias"))
def nade(x, weight, hidden_bias, output_weight, bias):
    """Log-probability of bit strings, and the logit of each bit given those before it.

    Parameters
    ----------
    x : float[*B n]
        Zeros and ones.
    weight : float[H n]
        Column j is added to the hidden units where bit j is 1.
    hidden_bias : float[H]
    output_weight : float[n H]
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

    Complexity: 2 B n H multiply-adds and B n H sigmoids.

    >>> import numpy as np
    >>> nade(np.array([1.0, 0.0]), np.array([[99.0, 0.0]]), np.zeros(1), np.array([[2.0], [2.0]]), np.zeros(2))[1]
    array([1., 2.])
    """
    bind("nade", SIGNATURE, x=x, weight=weight, hidden_bias=hidden_bias, output_weight=output_weight, bias=bias)
    check_binary("nade", x)
    xp = namespace(x, weight, hidden_bias, output_weight, bias)
    steps = xp.multiply(x[..., None], xp.matrix_transpose(weight))  # [*B n H]
    before = xp.cumulative_sum(steps, axis=-2, include_initial=True)[..., :-1, :]
    hidden = sigmoid(before + hidden_bias)
    logits = xp.sum(hidden * output_weight, axis=-1) + bias
    return bernoulli(x, logits), logits
