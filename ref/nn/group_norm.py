"""Group normalisation.

Source: Wu & He 2018 (1803.08494) Eq. 1, 6 and 7.

    u = (x - m_g) / sqrt(v_g + eps)        mean and variance over the channels of group g and all places, an image each
    y_c = u_c w_c + b_c
    group of channel c: floor(c / (C / G))

Notation
    x[*B C Y X], w -> weight[C], b -> bias[C], G -> groups.

Conventions
    C1  Neighbouring channels share a group, as in torch; interleaved ones (c mod G) are another layer.
    C2  Weight and bias are per channel, not per group. Each may be absent (None).
    C3  The variance divides by the number of entries, eps stands inside the root. One group is `nn.layer_norm` over
        (C, Y, X) at once, G = C is instance normalisation.
    C4  No image sees another: no batch statistics, nothing to keep for inference.
    C5  Half-precision groups are normalised in float32 and cast back.

Laws
    L1 two_entries                          L2 groups_are_standardised
    L3 a_group_is_its_own                   L4 a_shift_of_a_group_is_invisible
    L5 one_channel_a_group_is_instance_norm L6 weight_and_bias_come_last
    L7 equations_by_loops                   L8 gradient_is_the_closed_form
    L9 half_precision_does_not_overflow
"""

from __future__ import annotations

from autodiff import namespace
from ref.nn.layer_norm import layer_norm
from ref.spec import bind, spec

SIGNATURE = "x[*B C Y X], weight[C], bias[C] -> [*B C Y X]"


@spec("nn.group_norm", SIGNATURE, grads=("x", "weight", "bias"))
def group_norm(x, weight=None, bias=None, *, groups, eps=1e-5):
    """Each group of channels of an image brought to mean 0 and variance 1, then scaled and shifted a channel at a time.

    Parameters
    ----------
    x : float[*B C Y X]
    weight, bias : float[C], optional
    groups : int
        Divides C.
    eps : float
        Added to the variance.

    Returns
    -------
    float[*B C Y X]

    Raises
    ------
    ValueError
        groups does not divide C, `weight` or `bias` has another number of channels, or eps < 0.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 7 B C Y X operations.

    >>> import numpy as np
    >>> group_norm(np.array([1.0, 5.0, 0.0, 2.0]).reshape(4, 1, 1), groups=2, eps=0.0).reshape(-1)
    array([-1.,  1., -1.,  1.])
    """
    dims = bind("group_norm", SIGNATURE, x=x, weight=weight, bias=bias)
    C = dims["C"]
    if groups < 1 or C % groups:
        raise ValueError(f"group_norm: groups={groups}, x has C={C} channels; groups must divide C")
    xp = namespace(x, weight, bias)
    together = xp.reshape(x, (*dims["B"], groups, C // groups * dims["Y"] * dims["X"]))
    y = xp.reshape(layer_norm(together, eps=eps), x.shape)
    y = y if weight is None else y * weight[:, None, None]
    return y if bias is None else y + bias[:, None, None]
