"""Merge: attention over two parts of the keys, joined.

Source: Milakov & Gimelshein 2018 (1805.02867) sec. 3.1 (Eq. 4), with the weighted sum of the values carried
along as in Dao et al. 2022 (2205.14135) sec. 3.1; split-KV decoding (Flash-Decoding, Dao et al. 2023) is this.

A part of the keys j is summed up for a row as m (a maximum), l and o, the sums taken against it:

    m = max_j s_j,   l = sum_j e^{s_j - m},   o = sum_j e^{s_j - m} v_j

    merge:   m = max(m_1, m_2),   l = l_1 e^{m_1 - m} + l_2 e^{m_2 - m},   o = o_1 e^{m_1 - m} + o_2 e^{m_2 - m}
    finish:  out = o / l,   lse = m + log l

It is associative and commutative, with the identity (-inf, 0, 0): parts may be joined in any order and by
anyone. `flash` joins a running state with one tile after another; split-KV decoding joins finished parts,
which are states again, (lse, 1, out).

Notation
    m_A, l_A, O_A -> m1[*B], l1[*B], o1[*B e]; one row of queries an entry of *B.

Conventions
    C1  o is not normalised (FlashAttention-2); in FlashAttention-1 it is, and the factors carry l too.
    C2  A part whose m is -inf has seen nothing. It is taken out by selection, so its o may hold anything (a
        buffer that no one wrote), and two of them give the identity again, not (-inf) - (-inf).
    C3  Logs are natural; kernels that work in base 2 convert m and lse at the border.

Laws
    L1 nothing_is_the_identity          L2 equal_maxima_add
    L3 sums_of_exponentials_add         L4 order_is_immaterial
    L5 grouping_is_immaterial           L6 any_partition_gives_the_whole
    L7 junk_of_an_empty_part_is_invisible
    L8 a_far_part_vanishes              L9 gradient_is_the_closed_form
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import namespace
from ref.attention.safe_softmax import finite
from ref.spec import bind, spec

PARTS = "m1[*B], l1[*B], o1[*B e], m2[*B], l2[*B], o2[*B e]"


class State(NamedTuple):
    """What is known of a row after some of its keys: maximum, sum, weighted sum of values."""

    m: Any
    l: Any  # noqa: E741  the paper's letter
    o: Any


@spec("attention.merge", f"{PARTS} -> m[*B], l[*B], o[*B e]", grads=("m1", "l1", "o1", "m2", "l2", "o2"), infinite=True)
def merge(m1, l1, o1, m2, l2, o2):
    """The state of two parts of the keys together: `merge(*a, *b)`.

    Parameters
    ----------
    m1, l1, o1 : float[*B], float[*B], float[*B e]
        One part: maximum of its logits, sum of weights, weighted sum of values (not normalised).
    m2, l2, o2 : float[*B], float[*B], float[*B e]
        The other.

    Returns
    -------
    State
        (m, l, o), of the same shapes.

    Raises
    ------
    ValueError
        Axes disagree.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 2 B exponentials, 3 B e multiply-adds.

    >>> import numpy as np
    >>> a = State(np.array([0.0]), np.array([1.0]), np.array([[6.0]]))
    >>> b = State(np.array([0.0]), np.array([2.0]), np.array([[3.0]]))
    >>> o, lse = finish(np, merge(*a, *b))
    >>> o
    array([[3.]])
    """
    bind("merge", PARTS, m1=m1, l1=l1, o1=o1, m2=m2, l2=l2, o2=o2)
    xp = namespace(m1, l1, o1, m2, l2, o2)
    m = xp.maximum(m1, m2)
    (l1, o1), (l2, o2) = _moved(xp, m1, l1, o1, m), _moved(xp, m2, l2, o2, m)
    return State(m, xp.add(l1, l2), xp.add(o1, o2))


def _moved(xp, m1, l1, o1, m):
    """The sums l1 and o1 of a part, taken against the maximum m."""
    w = xp.exp(xp.subtract(m1, finite(xp, m)))
    o1 = xp.where((m1 == -math.inf)[..., None], 0.0, o1)
    return xp.multiply(l1, w), xp.multiply(o1, w[..., None])


def nothing(xp, shape, e, like):
    """The identity, for rows of the given shape, in the dtype and on the device of `like`."""
    kind = {"dtype": like.dtype, "device": like.device}
    return State(xp.full(shape, -math.inf, **kind), xp.zeros(shape, **kind), xp.zeros((*shape, e), **kind))


def finish(xp, state):
    """(o / l, m + log l), and (0, -inf) for a row that saw nothing."""
    m, l, o = state  # noqa: E741
    l = xp.where(l == 0, 1.0, l)  # noqa: E741
    return o / l[..., None], m + xp.log(l)
