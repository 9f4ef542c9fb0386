"""Rules of who sees whom, as functions of (row, column).

Source: Vaswani et al. 2017 (1706.03762) sec. 3.2.3; Beltagy et al. 2020 (2004.05150) sec. 3; the two causal
alignments: FlashAttention 2.1 release notes (bottom right), torch `is_causal` (top left).

A rule is a mask or a bias that was never materialised: `sdpa` asks it for all rows and columns, a tiled
kernel for one tile at a time, for the columns that some row of a band can see, so that the other tiles
are skipped, and for those that all of them see, whose tiles need no mask. Masks are True = keep; `&` composes them.

Conventions
    C1  bottom_right: row i of T sees columns j <= i + (S - T), so the last row sees all keys (decoding
        with a cache). top_left: j <= i. They agree when T = S, which hides a mix-up from a default test.
    C2  A window is inclusive on both sides and aligned bottom right: i + (S - T) - left <= j <= i +
        (S - T) + right. Hugging Face's W is left + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

ALIGNMENTS = ("bottom_right", "top_left")


class _Mask:
    kind = "mask"

    def __and__(self, other):
        return _All((self, other))


@dataclass(frozen=True)
class _Causal(_Mask):
    align: str

    def __repr__(self):
        return f"causal({self.align!r})"

    def _shift(self, T, S):
        return S - T if self.align == "bottom_right" else 0

    def band(self, T, S):
        """(low, high): row i sees columns i + low .. i + high; None is no limit."""
        return None, self._shift(T, S)

    def tile(self, xp, rows, cols, T, S):
        """bool[rows cols], True where the row sees the column."""
        return cols[None, :] <= rows[:, None] + self._shift(T, S)

    def columns(self, start, stop, T, S):
        """(low, high): the columns that rows start..stop - 1 can see."""
        return 0, min(max(stop + self._shift(T, S), 0), S)

    def full_columns(self, start, stop, T, S):
        """(low, high): the columns that every one of rows start..stop - 1 sees."""
        return 0, min(max(start + 1 + self._shift(T, S), 0), S)


@dataclass(frozen=True)
class _Window(_Mask):
    left: int
    right: int

    def __repr__(self):
        return f"window({self.left}, {self.right})"

    def band(self, T, S):
        """(low, high): row i sees columns i + low .. i + high."""
        return S - T - self.left, S - T + self.right

    def tile(self, xp, rows, cols, T, S):
        """bool[rows cols], True where the row sees the column."""
        offset = cols[None, :] - (rows[:, None] + (S - T))
        return (offset >= -self.left) & (offset <= self.right)

    def columns(self, start, stop, T, S):
        """(low, high): the columns that rows start..stop - 1 can see."""
        low = min(max(start + (S - T) - self.left, 0), S)
        return low, min(max(stop + (S - T) + self.right, low), S)

    def full_columns(self, start, stop, T, S):
        """(low, high): the columns that every one of rows start..stop - 1 sees."""
        low = min(max(stop - 1 + (S - T) - self.left, 0), S)
        return low, max(low, min(start + 1 + (S - T) + self.right, S))


@dataclass(frozen=True)
class _All(_Mask):
    rules: tuple

    def __repr__(self):
        return " & ".join(map(repr, self.rules))

    def band(self, T, S):
        """(low, high) if every rule is a band, else None."""
        bands = [rule.band(T, S) if hasattr(rule, "band") else None for rule in self.rules]
        if None in bands:
            return None
        lows, highs = zip(*bands, strict=True)
        return (
            max((x for x in lows if x is not None), default=None),
            min((x for x in highs if x is not None), default=None),
        )

    def tile(self, xp, rows, cols, T, S):
        """bool[rows cols], True where every rule keeps the column."""
        first, second = (rule.tile(xp, rows, cols, T, S) for rule in self.rules)
        return first & second

    def columns(self, start, stop, T, S):
        """(low, high): the columns that rows start..stop - 1 can see."""
        return _overlap(rule.columns(start, stop, T, S) for rule in self.rules)

    def full_columns(self, start, stop, T, S):
        """(low, high): the columns that every one of rows start..stop - 1 sees."""
        return _overlap(rule.full_columns(start, stop, T, S) for rule in self.rules)


def _overlap(spans):
    lows, highs = zip(*spans, strict=True)
    return max(lows), max(max(lows), min(highs))


def causal(align="bottom_right"):
    """The causal mask under a named alignment (C1).

    Parameters
    ----------
    align : {"bottom_right", "top_left"}

    Raises
    ------
    ValueError
        Another alignment.

    >>> import numpy as np
    >>> causal().tile(np, np.arange(1), np.arange(3), 1, 3)
    array([[ True,  True,  True]])
    >>> causal("top_left").tile(np, np.arange(1), np.arange(3), 1, 3)
    array([[ True, False, False]])
    """
    if align not in ALIGNMENTS:
        raise ValueError(f"causal: align={align!r}; needed one of {ALIGNMENTS}")
    return _Causal(align)


def window(left, right=0):
    """A sliding window of `left` keys before and `right` keys after a row's own position (C2).

    Raises
    ------
    ValueError
        A negative side.
    """
    if left < 0 or right < 0:
        raise ValueError(f"window: left={left}, right={right}; both must be >= 0")
    return _Window(int(left), int(right))


def is_rule(x):
    """Whether `x` is a rule rather than an array."""
    return hasattr(x, "tile") and hasattr(x, "columns")


def materialise(rule_or_array, xp, T, S):
    """A rule, or an array that broadcasts, as an array over all rows and columns: [... T S]."""
    if not is_rule(rule_or_array):
        return xp.broadcast_to(rule_or_array, (*rule_or_array.shape[:-2], T, S))
    return rule_or_array.tile(xp, xp.arange(T), xp.arange(S), T, S)
