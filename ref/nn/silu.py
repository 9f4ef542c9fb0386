"""SiLU, which is Swish at beta = 1.

Source: Elfwing, Uchibe & Doya 2017 (1702.03118) sec. 2; Ramachandran, Zoph & Le 2017 (1710.05941).

    y = x s,   s = 1 / (1 + e^{-x})
    dy / dx = s (1 + x (1 - s))

Conventions
    C1  The slope inside the sigmoid is 1; x sigma(1.702 x) is quick GELU.
    C2  At -inf, 0 times infinity is NaN, as in torch; the limit, 0, is not put in its place.
    C3  s is formed from e^{-|x|}: nothing overflows at either end.

Laws
    L1 log_odds_in_closed_form              L2 is_the_quotient
    L3 opposite_inputs_differ_by_x          L4 far_inputs_pass_or_vanish
    L5 least_value_is_lamberts              L6 gradient_is_the_closed_form
    L7 far_gradients_are_one_or_zero
"""

from __future__ import annotations

from autodiff import fusable
from autodiff.ops import sigmoid
from ref.spec import bind, spec


@spec("nn.silu", "x[*B] -> [*B]", grads=("x",))
@fusable("nn.silu", tensors=("x",))
def silu(x):
    """x times its logistic sigmoid.

    Parameters
    ----------
    x : float[*B]

    Returns
    -------
    float[*B]

    Raises
    ------
    TypeError
        `x` is not float.

    Complexity: B exponentials.

    >>> import numpy as np
    >>> silu(np.array([-np.log(3.0), 0.0, np.log(3.0)])).round(4)
    array([-0.2747,  0.    ,  0.824 ])
    """
    bind("silu", "x[*B]", x=x)
    return x * sigmoid(x)
