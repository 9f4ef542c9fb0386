"""SwiGLU's gate.

Source: Shazeer 2020 (2002.05202) Eq. 6, without its projections; the LLaMA form W2 (silu(W1 x) * W3 x).

    y = silu(a) b,   silu(a) = a s,   s = 1 / (1 + e^{-a})
    dy / db = a s,   dy / da = b s (1 + a (1 - s))

Notation
    a -> gate[*B F], b -> up[*B F].

Conventions
    C1  The gate is the first argument, and it alone passes the nonlinearity.
    C2  silu has slope 1 inside the sigmoid (Swish with beta = 1); quick GELU's 1.702 is another function.
    C3  s is formed from e^{-|a|}: nothing overflows at either end.

Laws
    L1 a_gate_of_log_odds                   L2 a_closed_gate_is_zero
    L3 opposite_gates_differ_by_the_product L4 linear_in_the_ungated_half
    L5 far_gates_are_open_or_shut           L6 gradient_is_the_closed_form
    L7 gradient_at_a_closed_gate
"""

from __future__ import annotations

from autodiff import fusable
from autodiff.ops import sigmoid
from ref.spec import bind, spec

SIGNATURE = "gate[*B F], up[*B F] -> [*B F]"


@spec("nn.swiglu", SIGNATURE, grads=("gate", "up"))
@fusable("nn.swiglu", tensors=("gate", "up"))
def swiglu(gate, up):
    """silu(gate) * up.

    Parameters
    ----------
    gate, up : float[*B F]

    Returns
    -------
    float[*B F]

    Raises
    ------
    ValueError
        The shapes differ.
    TypeError
        An array is not float, or the dtypes or backends differ.

    Complexity: B F exponentials.

    >>> import numpy as np
    >>> swiglu(np.array([0.0, np.log(3.0)]), np.array([5.0, 4.0])).round(4)
    array([0.    , 3.2958])
    """
    bind("swiglu", SIGNATURE, gate=gate, up=up)
    return gate * sigmoid(gate) * up
