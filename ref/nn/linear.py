"""Linear layer.

Source: Rosenblatt 1958 (the weighted sum and its threshold); torch.nn.functional.linear for the layout.

    y = x W^T + b
    dx = g W,   dW = sum over rows of g x^T,   db = sum over rows of g

Notation
    x[*B I], W -> weight[O I], b -> bias[O].

Conventions
    C1  weight is [out in], as torch keeps it; Keras and Flax keep [in out].
    C2  The bias may be absent (None).

Laws
    L1 a_unit_vector_reads_a_column         L2 every_output_is_a_dot_product
    L3 affine_along_a_line                  L4 no_bias_is_a_bias_of_zero
    L5 gradient_is_the_closed_form          L6 gradient_of_one_output
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.spec import bind, spec

SIGNATURE = "x[*B I], weight[O I], bias[O] -> [*B O]"


@spec("nn.linear", SIGNATURE, grads=("x", "weight", "bias"))
@fusable("nn.linear", tensors=("x", "weight", "bias"))
def linear(x, weight, bias=None):
    """x weight^T + bias.

    Parameters
    ----------
    x : float[*B I]
    weight : float[O I]
    bias : float[O], optional

    Returns
    -------
    float[*B O]

    Raises
    ------
    ValueError
        `x` and `weight` disagree in I, or `weight` and `bias` in O.
    TypeError
        An array is not float, or the dtypes or backends differ.

    Complexity: B I O multiply-adds.

    >>> import numpy as np
    >>> linear(np.array([1.0, 2.0]), np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0.0, 0.5]))
    array([1. , 3.5])
    """
    bind("linear", SIGNATURE, x=x, weight=weight, bias=bias)
    xp = namespace(x, weight, bias)
    y = xp.matmul(x, xp.matrix_transpose(weight))
    return y if bias is None else y + bias
