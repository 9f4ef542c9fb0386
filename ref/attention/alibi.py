"""ALiBi: a bias that falls with the distance, a slope a head.

Source: Press et al. 2022 (2108.12409) sec. 3; other numbers of heads: `get_slopes` of the authors' code, `gen_slopes`
of MPT (MosaicML).

    bias_hij = - m_h |i - j|,     m_h = 2^{-8 h / n}, h = 1 .. n, for n a power of two

Notation
    m -> slopes, float[n]; n -> heads; i, j -> rows int[T], columns int[S], as positions.

Conventions
    C1  For other n the rule is named. closest_power (the authors' code): the slopes of p = 2^{floor log2 n}, then the
        first of every other one of 2 p. MPT takes the even ones of 2 p, then the odd: the same numbers. geometric: the
        formula for any n.
    C2  As a rule of attention, row i stands at i + (S - T): aligned bottom right. The paper is causal; without a mask
        the bias falls to both sides, as in flash-attn.
    C3  The paper leaves the scale 1 / sqrt(d) on the products alone: the bias is not scaled.

Laws
    L1 a_power_of_two_is_a_geometric_row    L2 other_numbers_follow_the_named_rule
    L3 the_bias_is_a_slope_times_a_distance L4 a_shift_of_both_is_invisible
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autodiff import namespace
from ref.attention.rules import Bias
from ref.spec import bind, spec

RULES = ("closest_power", "geometric")


@spec("attention.alibi", "rows:int[T], columns:int[S] -> [heads T S]")
def alibi_bias(rows, columns, *, heads, rule="closest_power"):
    """What is added to the logits of every head, for rows and columns at the given positions.

    Parameters
    ----------
    rows, columns : int[T], int[S]
        Positions of queries and keys.
    heads : int
    rule : {"closest_power", "geometric"}
        Slopes where `heads` is no power of two (C1).

    Returns
    -------
    float64[heads T S]

    Raises
    ------
    ValueError
        heads < 1 or an unknown rule.
    TypeError
        Positions are not int.

    Complexity: heads T S multiplications.

    >>> import numpy as np
    >>> alibi_bias(np.array([1]), np.arange(2), heads=2) + 0.0
    array([[[-0.0625    ,  0.        ]],
    <BLANKLINE>
           [[-0.00390625,  0.        ]]])
    """
    bind("alibi_bias", "rows:int[T], columns:int[S]", rows=rows, columns=columns)
    xp = namespace(rows, columns)
    return _falling(xp, slopes(heads, rule), rows, columns)


def alibi(heads, rule="closest_power"):
    """The same as a rule: `bias=alibi(H)` of `sdpa` and `flash`, aligned bottom right (C2).

    >>> alibi(8).slopes[0]
    0.5
    """
    return _Alibi(slopes(heads, rule))


@dataclass(frozen=True)
class _Alibi(Bias):
    slopes: tuple

    def distance_slopes(self, H):
        """The slopes of H heads, for kernels that form the distances themselves."""
        return self.slopes

    def tile(self, xp, rows, cols, T, S):
        """float64[heads rows cols]."""
        shift = S - T if isinstance(T, int) else xp.reshape(S - T, (-1,))
        return _falling(xp, self.slopes, rows + shift, cols)


def _falling(xp, slopes, rows, columns):
    distance = xp.astype(xp.abs(rows[:, None] - columns[None, :]), xp.float64)
    return xp.asarray(slopes, dtype=xp.float64)[:, None, None] * -distance


def slopes(heads, rule="closest_power"):
    """m_1 .. m_n.

    Raises
    ------
    ValueError
        heads < 1 or an unknown rule.

    >>> slopes(3)
    (0.0625, 0.00390625, 0.25)
    """
    if heads < 1:
        raise ValueError(f"alibi: heads={heads}; needed at least 1")
    if rule not in RULES:
        raise ValueError(f"alibi: rule={rule!r}; needed one of {RULES}")
    power = 2 ** math.floor(math.log2(heads))
    if rule == "geometric" or power == heads:
        return _row(heads)
    return _row(power) + _row(2 * power)[::2][: heads - power]


def _row(n):
    return tuple(2.0 ** (-8 * h / n) for h in range(1, n + 1))
