"""Rules of who sees whom, and of what is added to a logit, as functions of (row, column).

Source: Vaswani et al. 2017 (1706.03762) sec. 3.2.3; Beltagy et al. 2020 (2004.05150) sec. 3; the two causal
alignments: FlashAttention 2.1 release notes (bottom right), torch `is_causal` (top left); a bias by distance: Shaw et
al. 2018 (1803.02155) sec. 3.2, Raffel et al. 2020 (1910.10683) sec. 2.1. `alibi` has a file of its own.

A rule is a mask or a bias that was never materialised: `sdpa` asks it for all rows and columns, a tiled
kernel for one tile at a time, for the columns that some row of a band can see, so that the other tiles
are skipped, and for those that all of them see, whose tiles need no mask. Masks are True = keep; `&` composes them,
`+` adds biases.

Conventions
    C1  bottom_right: row i of T sees columns j <= i + (S - T), so the last row sees all keys (decoding
        with a cache). top_left: j <= i. They agree when T = S, which hides a mix-up from a default test.
    C2  A window is inclusive on both sides and aligned bottom right: i + (S - T) - left <= j <= i +
        (S - T) + right. Hugging Face's W is left + 1.
    C3  Segments are explicit: their offsets, never read off position ids that restart. A rule `inside` counts rows
        and columns from the segment's own start, and aligns to its own T and S.
    C4  A rule's T and S may be arrays [rows 1]: every row of a packed sequence has those of its segment.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from ref.nn.segment_positions import offsets, segment_of

ALIGNMENTS = ("bottom_right", "top_left")


class _Mask:
    """What a rule of a mask answers, for T rows and S columns:

    tile(xp, rows, cols, T, S)          bool[rows cols], True where the row sees the column
    columns(start, stop, T, S)          (low, high): the columns that rows start..stop - 1 can see
    full_columns(start, stop, T, S)     (low, high): the columns that every one of them sees

    and, if it is a band whatever T and S are,

    band(T, S)                          (low, high): row i sees columns i + low .. i + high; None is no limit
    edges()                             (low, high, align): the band before its alignment moves both by S - T or 0
    """

    kind = "mask"

    def __and__(self, other):
        return _All((self, other))


class Bias:
    """What a rule of a bias is made from: `tile(xp, rows, cols, T, S)` gives float[... rows cols]."""

    kind = "bias"

    def __add__(self, other):
        return _Sum((self, other))

    def columns(self, start, stop, T, S):
        return 0, S  # a bias hides nothing


@dataclass(frozen=True)
class _Causal(_Mask):
    align: str

    def __repr__(self):
        return f"causal({self.align!r})"

    def _shift(self, T, S):
        return S - T if self.align == "bottom_right" else 0

    def band(self, T, S):
        return None, self._shift(T, S)

    def edges(self):
        return None, 0, self.align

    def tile(self, xp, rows, cols, T, S):
        return cols[None, :] <= rows[:, None] + self._shift(T, S)

    def columns(self, start, stop, T, S):
        return 0, min(max(stop + self._shift(T, S), 0), S)

    def full_columns(self, start, stop, T, S):
        return 0, min(max(start + 1 + self._shift(T, S), 0), S)


@dataclass(frozen=True)
class _Window(_Mask):
    left: int
    right: int

    def __repr__(self):
        return f"window({self.left}, {self.right})"

    def band(self, T, S):
        return S - T - self.left, S - T + self.right

    def edges(self):
        return -self.left, self.right, "bottom_right"

    def tile(self, xp, rows, cols, T, S):
        offset = cols[None, :] - (rows[:, None] + (S - T))
        return (offset >= -self.left) & (offset <= self.right)

    def columns(self, start, stop, T, S):
        low = min(max(start + (S - T) - self.left, 0), S)
        return low, min(max(stop + (S - T) + self.right, low), S)

    def full_columns(self, start, stop, T, S):
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
        return None if None in bands else _narrowest(bands)

    def edges(self):
        """(low, high, align) if every rule is a band, all aligned alike, else None."""
        found = [rule.edges() if hasattr(rule, "edges") else None for rule in self.rules]
        if None in found or len({align for *_, align in found}) > 1:
            return None
        return *_narrowest([(low, high) for low, high, _ in found]), found[0][2]

    def tile(self, xp, rows, cols, T, S):
        first, second = (rule.tile(xp, rows, cols, T, S) for rule in self.rules)
        return first & second

    def columns(self, start, stop, T, S):
        return _overlap(rule.columns(start, stop, T, S) for rule in self.rules)

    def full_columns(self, start, stop, T, S):
        return _overlap(rule.full_columns(start, stop, T, S) for rule in self.rules)


@dataclass(frozen=True)
class _Sum(Bias):
    rules: tuple

    def __repr__(self):
        return " + ".join(map(repr, self.rules))

    def tile(self, xp, rows, cols, T, S):
        first, second = (rule.tile(xp, rows, cols, T, S) for rule in self.rules)
        return first + second


@dataclass(frozen=True)
class _Relative(Bias):
    values: tuple
    left: int

    def __repr__(self):
        return f"relative({list(self.values)}, {self.left})"

    def tile(self, xp, rows, cols, T, S):
        distance = cols[None, :] - (rows[:, None] + (S - T))
        place = xp.clip(distance + self.left, 0, len(self.values) - 1)
        return xp.reshape(xp.take(xp.asarray(self.values), xp.reshape(place, (-1,))), place.shape)


@dataclass(frozen=True)
class _Segments(_Mask):
    rows: tuple
    cols: tuple
    inside: object

    def __repr__(self):
        inside = "" if self.inside is None else f", inside={self.inside!r}"
        return f"segments({list(self.rows)}, {list(self.cols)}{inside})"

    def tile(self, xp, rows, cols, T, S):
        self._check(T, S)
        (i, row), (j, col) = _local(xp, self.rows, rows), _local(xp, self.cols, cols)
        same = i[:, None] == j[None, :]
        if self.inside is None:
            return same
        starts = [xp.asarray(x, dtype=rows.dtype) for x in (self.rows, self.cols)]
        own_T, own_S = (xp.take(x[1:] - x[:-1], i)[:, None] for x in starts)
        return same & self.inside.tile(xp, row, col, own_T, own_S)

    def columns(self, start, stop, T, S):
        self._check(T, S)
        first, last = (bisect_right(self.rows, row) - 1 for row in (start, stop - 1))
        low, high = self.cols[first], self.cols[last + 1]
        if self.inside is not None:
            low = low + self._inside("columns", first, start, stop)[0]
            high = self.cols[last] + self._inside("columns", last, start, stop)[1]
        return min(low, high), high

    def full_columns(self, start, stop, T, S):
        self._check(T, S)
        first, last = (bisect_right(self.rows, row) - 1 for row in (start, stop - 1))
        at, end = self.cols[first], self.cols[first + 1]
        if first != last:
            return at, at
        if self.inside is None:
            return at, end
        low, high = self._inside("full_columns", first, start, stop)
        return at + low, at + high

    def _inside(self, question, segment, start, stop):
        """What the rule inside says of the rows start..stop - 1 that lie in a segment."""
        at, end = self.rows[segment], self.rows[segment + 1]
        S = self.cols[segment + 1] - self.cols[segment]
        return getattr(self.inside, question)(max(start, at) - at, min(stop, end) - at, end - at, S)

    def _check(self, T, S):
        if (self.rows[-1], self.cols[-1]) != (T, S):
            raise ValueError(f"segments: they end at {self.rows[-1]} rows and {self.cols[-1]} columns; T={T}, S={S}")


def _narrowest(bands):
    """The band within all of these."""
    lows, highs = zip(*bands, strict=True)
    return max((x for x in lows if x is not None), default=None), min((x for x in highs if x is not None), default=None)


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


def segments(rows, cols=None, *, inside=None):
    """Each row sees the columns of its own segment alone (C3): attention over packed sequences.

    Parameters
    ----------
    rows : sequence of int
        Offsets of the segments, 0 first, T last: segment n is rows[n] to rows[n + 1] - 1. It may be empty.
    cols : sequence of int, optional
        Offsets of their keys, as many; those of the rows if not given.
    inside : Rule, optional
        A mask within each segment, in its own rows and columns.

    Raises
    ------
    ValueError
        Offsets that do not begin with 0 or that fall, or another number of segments.
    TypeError
        `inside` is no mask rule.

    >>> import numpy as np
    >>> segments([0, 1, 3], inside=causal()).tile(np, np.arange(3), np.arange(3), 3, 3).astype(int)
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 1, 1]])
    """
    rows = offsets("segments", "rows", rows)
    cols = rows if cols is None else offsets("segments", "cols", cols)
    if len(rows) != len(cols):
        raise ValueError(f"segments: rows has {len(rows) - 1} segments, cols {len(cols) - 1}; needed as many")
    if inside is not None and getattr(inside, "kind", None) != "mask":
        raise TypeError(f"segments: inside={inside!r}; needed a mask rule, as causal()")
    return _Segments(rows, cols, inside)


def relative(values, left=0):
    """A bias by distance: row i (aligned bottom right) adds values[left + j - i] to column j, the ends beyond them.

    Raises
    ------
    ValueError
        No values, or `left` is no place among them.
    """
    if not 0 <= left < len(values):
        raise ValueError(f"relative: left={left}, {len(values)} values; needed 0 <= left < their number")
    return _Relative(tuple(map(float, values)), int(left))


def _local(xp, starts, places):
    """(segment, place in it) of each place."""
    starts = xp.asarray(starts, dtype=places.dtype)
    segment = segment_of(xp, starts, places)
    return segment, places - xp.take(starts, segment)


def is_rule(x):
    """Whether `x` is a rule rather than an array."""
    return hasattr(x, "tile") and hasattr(x, "columns")


def materialise(rule_or_array, xp, T, S, dtype=None):
    """A rule, or an array that broadcasts, as an array over all rows and columns: [... T S], a bias in `dtype`."""
    if not is_rule(rule_or_array):
        return xp.broadcast_to(rule_or_array, (*rule_or_array.shape[:-2], T, S))
    tile = rule_or_array.tile(xp, xp.arange(T), xp.arange(S), T, S)
    return tile if dtype is None else xp.astype(tile, dtype)
