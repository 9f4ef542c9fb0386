"""GELU, exact and by tanh.

Source: Hendrycks & Gimpel 2016 (1606.08415) sec. 2; the tanh form is given there as an approximation.

    exact   y = x Phi(x),  Phi(x) = (1 + erf(x / sqrt 2)) / 2        dy/dx = Phi(x) + x phi(x)
    tanh    y = x (1 + tanh h) / 2,  h = sqrt(2 / pi) (x + 0.044715 x^3)
            dy/dx = (1 + tanh h) / 2 + x (1 - tanh^2 h) h' / 2,  h' = sqrt(2 / pi) (1 + 3 0.044715 x^2)

Conventions
    C1  Two forms, both named, apart by up to 4.8e-4: approximate=None is the exact one (BERT, torch's default),
        "tanh" that of GPT-2, of JAX's default and of MoonViT.
    C2  Quick GELU, x sigma(1.702 x), is a third function and not this one.
    C3  In the left tail 1 + erf and 1 + tanh cancel: the error is u |x|, absolute. A form by erfc is better
        there, and no law asks for it.
    C4  |x| > 10 counts as 10 inside the tanh, which is 1 there to the last bit: x^3 does not overflow. Below -10
        the gate is 0 to the last bit, and so is y, at -inf too.

Laws
    L1 exact_form_is_the_normal_cdf         L2 tanh_form_is_the_tanh
    L3 opposite_inputs_differ_by_x          L4 far_inputs_pass_or_vanish
    L5 the_forms_differ_by_little           L6 gradient_is_the_closed_form
    L7 far_gradients_are_one_or_zero        L8 tail_lies_between_two_densities
"""

from __future__ import annotations

import math

from autodiff import fusable, namespace
from ref.spec import bind, spec

FORMS = (None, "tanh")
SATURATED = 10.0


@spec("nn.gelu", "x[*B] -> [*B]", grads=("x",))
@fusable("nn.gelu", tensors=("x",))
def gelu(x, *, approximate=None):
    """x times the normal cumulative distribution at x.

    Parameters
    ----------
    x : float[*B]
    approximate : None or "tanh"
        Exact, or the approximation by tanh.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Another `approximate`.
    TypeError
        `x` is not float.

    Complexity: B error functions or hyperbolic tangents.

    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    bind("gelu", "x[*B]", x=x)
    if approximate not in FORMS:
        raise ValueError(f"gelu: approximate={approximate!r}; needed one of {FORMS}")
    xp = namespace(x)
    kept = xp.clip(x, -SATURATED, None)  # below it the gate is 0, and -inf times 0 is NaN
    if approximate is None:
        return kept * ((xp.erf(x * math.sqrt(0.5)) + 1.0) * 0.5)
    z = xp.clip(x, -SATURATED, SATURATED)
    h = (z + z * z * z * 0.044715) * math.sqrt(2 / math.pi)
    return kept * ((xp.tanh(h) + 1.0) * 0.5)
