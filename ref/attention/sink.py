"""Attention sink: a logit a head that takes weight and gives nothing.

Source: Xiao et al. 2024 (2309.17453) sec. 3.3 and Miller 2023 ("Attention is off by one", a sink of 0); a learned one a
head: gpt-oss (2508.10925) sec. 2.

    p_ij = e^{s_ij} / (e^{b_h} + sum_j e^{s_ij}),   o_i = sum_j p_ij v_j

It needs no more of attention than its output and its log-sum-exp:

    L' = log(e^L + e^b),    O' = O e^{L - L'} = O sigma(L - b)

Notation
    O, L -> o[*B H T e], lse[*B H T], as `flash` returns them; b -> sink[H].

Conventions
    C1  A row that sees no key gives zeros, its L' is b. A sink of -inf changes no bit.
    C2  b is a logit after the scale; it is not scaled, not capped and has no bias.

Laws
    L1 one_key_is_a_logistic                L2 a_sink_is_a_key_of_value_zero
    L3 a_sink_of_minus_infinity_is_none     L4 a_row_without_keys_falls_into_the_sink
    L5 gradient_is_the_closed_form
"""

from __future__ import annotations

from autodiff import namespace
from ref.attention.safe_softmax import finite
from ref.spec import bind, spec

SIGNATURE = "o[*B H T e], lse[*B H T], sink[H]"


@spec("attention.sink", f"{SIGNATURE} -> out[*B H T e], whole[*B H T]", grads=("o", "lse", "sink"), infinite=True)
def sink(o, lse, sink):
    """Output and log-sum-exp of attention with a sink, from those without.

    Parameters
    ----------
    o : float[*B H T e]
    lse : float[*B H T]
        Natural log-sum-exp of each row of logits; -inf for a row that sees no key.
    sink : float[H]
        The sink's logit.

    Returns
    -------
    out : float[*B H T e]
    whole : float[*B H T]

    Raises
    ------
    ValueError
        Axes disagree.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: B H T (e + 6) operations.

    >>> import numpy as np
    >>> sink(np.array([[[4.0]]]), np.array([[0.0]]), np.array([0.0]))[0]
    array([[[2.]]])
    """
    bind("sink", SIGNATURE, o=o, lse=lse, sink=sink)
    xp = namespace(o, lse, sink)
    whole = xp.logaddexp(lse, xp.broadcast_to(sink[:, None], lse.shape))
    return xp.multiply(o, xp.exp(xp.subtract(lse, finite(xp, whole)))[..., None]), whole
