"""Fewer key heads by mean pooling: the start of uptraining to grouped queries.

Source: Ainslie et al. 2023 (2305.13245) sec. 2.1.

    W'_g = (1 / R) sum of W_h over the R heads h = g R .. (g + 1) R - 1 of group g

For W_k and W_v; W_q and W_o stay. Where the heads of a group are equal the layer's output is unchanged.

Notation
    weight[Hd I] of H heads of d channels -> [Gd I]; H -> heads, G -> groups, R = H / G.

Conventions
    C1  A group is R neighbouring heads, as `gqa` reads them.

Laws
    L1 a_group_is_the_mean_of_its_heads     L2 equal_heads_are_kept
    L3 gradient_is_shared
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec


@spec("attention.mean_pool_heads", "weight[Hd I] -> [Gd I]", grads=("weight",))
def mean_pool_heads(weight, *, heads, groups):
    """The weight of `groups` key heads, from one of `heads`.

    Parameters
    ----------
    weight : float[Hd I]
        W_k or W_v.
    heads, groups : int
        groups divides heads.

    Returns
    -------
    float[Gd I]

    Raises
    ------
    ValueError
        groups does not divide heads, or heads the rows.
    TypeError
        The weight is not float.

    Complexity: Hd I additions.

    >>> import numpy as np
    >>> mean_pool_heads(np.array([[1.0], [3.0]]), heads=2, groups=1)
    array([[2.]])
    """
    rows = bind("mean_pool_heads", "weight[Hd I]", weight=weight)["Hd"]
    if groups < 1 or heads < 1 or heads % groups:
        raise ValueError(f"mean_pool_heads: heads={heads}, groups={groups}; groups must divide heads")
    if rows % heads:
        raise ValueError(f"mean_pool_heads: weight has Hd={rows} rows; heads={heads} must divide them")
    xp = namespace(weight)
    R, d = heads // groups, rows // heads
    parted = xp.reshape(weight, (groups, R, d, weight.shape[1]))
    return xp.reshape(xp.sum(parted, axis=1) / R, (groups * d, weight.shape[1]))
