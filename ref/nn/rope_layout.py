"""Projections of queries and keys, carried from one rotary layout to the other.

Source: `convert_llama_weights_to_hf.py` of Hugging Face (`permute`); the layouts are those of `rope`.

    interleaved -> half:  row h d + 2 i + j  ->  row h d + j d / 2 + i        i < d / 2, j = 0 or 1

A head's output channels change places so that a pair, which were neighbours, lie d / 2 apart. Scores stay as they
were, as queries and keys are permuted alike. W_v and W_o are left alone.

Notation
    W_q or W_k -> weight[O I], O = heads d output channels in the order of the heads.

Conventions
    C1  Rows are permuted within a head, (h, d/2, 2) -> (h, 2, d/2). W_k has as many heads as there are key heads.
    C2  weight is [out in]. A bias is a column: bias[:, None].

Laws
    L1 a_row_has_its_place                  L2 there_and_back
    L3 scores_are_those_of_the_other_layout L4 gradient_is_carried_back
"""

from __future__ import annotations

from autodiff import namespace
from ref.nn.rope import LAYOUTS
from ref.spec import bind, spec


@spec("nn.rope_layout", "weight[O I] -> [O I]", grads=("weight",))
def rope_layout(weight, *, heads, to="half"):
    """The weight whose outputs `rope` pairs as `to`, of one that was made for the other layout.

    Parameters
    ----------
    weight : float[O I]
        Projection to queries or keys.
    heads : int
        Heads of O / heads channels.
    to : {"half", "interleaved"}
        The layout wanted.

    Returns
    -------
    float[O I]

    Raises
    ------
    ValueError
        `heads` does not divide O into even shares, or an unknown layout.
    TypeError
        The weight is not float.

    Complexity: O I copies.

    >>> import numpy as np
    >>> rope_layout(np.array([[0.0], [1.0], [2.0], [3.0]]), heads=1)[:, 0]
    array([0., 2., 1., 3.])
    """
    O = bind("rope_layout", "weight[O I]", weight=weight)["O"]  # noqa: E741
    if heads < 1 or O % (2 * heads):
        raise ValueError(f"rope_layout: weight has O={O} rows; heads={heads} must divide them into even shares")
    if to not in LAYOUTS:
        raise ValueError(f"rope_layout: to={to!r}; needed one of {LAYOUTS}")
    xp = namespace(weight)
    pairs = O // (2 * heads)
    split = (heads, pairs, 2) if to == "half" else (heads, 2, pairs)
    order = xp.permute_dims(xp.reshape(xp.arange(O), split), (0, 2, 1))
    return xp.take(weight, xp.reshape(order, (O,)), axis=0)
