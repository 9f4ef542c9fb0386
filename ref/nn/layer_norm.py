"""Layer normalisation.

Source: Ba, Kiros & Hinton 2016 (1607.06450) Eq. 4, over the last axis.

    m = mean_j x_j,   v = mean_j (x_j - m)^2,   u = (x - m) / sqrt(v + eps)
    y = u w + b
    dx = (g w - mean(g w) - u mean(g w u)) / sqrt(v + eps),   dw = sum over rows of g u,   db = sum over rows of g

Notation
    x[*B d], w -> weight[d], b -> bias[d]; every row of d channels has its own m and v.

Conventions
    C1  The variance divides by d, not by d - 1 (torch.std's default).
    C2  eps inside the root, added to the variance.
    C3  The variance is that of the differences: mean x^2 - m^2 loses every digit of a row far from 0.
    C4  Weight and bias may each be absent (None).
    C5  Half-precision rows are normalised in float32 and cast back, as in `nn.rms_norm`.

Laws
    L1 two_channels                         L2 rows_are_standardised
    L3 a_shift_is_invisible                 L4 a_scale_leaves_only_its_sign
    L5 weight_and_bias_come_last            L6 a_constant_row_is_the_bias
    L7 a_row_is_its_own                     L8 gradient_is_the_closed_form
    L9 gradient_is_orthogonal_to_ones_and_row
    L10 half_precision_does_not_overflow
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.nn.rms_norm import check_eps, mean, widened
from ref.spec import bind, spec

SIGNATURE = "x[*B d], weight[d], bias[d] -> [*B d]"


@spec("nn.layer_norm", SIGNATURE, grads=("x", "weight", "bias"))
@fusable("nn.layer_norm", tensors=("x", "weight", "bias"))
def layer_norm(x, weight=None, bias=None, *, eps=1e-5):
    """Each row brought to mean 0 and variance 1, then scaled and shifted a channel at a time.

    Parameters
    ----------
    x : float[*B d]
    weight, bias : float[d], optional
    eps : float
        Added to the variance.

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        `weight` or `bias` has another number of channels, or eps < 0.
    TypeError
        An array is not float, or the dtypes or backends differ.

    Complexity: 7 B d operations.

    >>> import numpy as np
    >>> layer_norm(np.array([1.0, 5.0]), np.array([1.0, 2.0]), np.array([0.0, 0.5]), eps=0.0)
    array([-1. ,  2.5])
    """
    bind("layer_norm", SIGNATURE, x=x, weight=weight, bias=bias)
    check_eps("layer_norm", eps)
    xp = namespace(x, weight, bias)
    wide = widened(xp, x)
    centred = wide - mean(xp, wide)
    y = xp.astype(centred / xp.sqrt(mean(xp, centred * centred) + eps), x.dtype)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
