"""Positions of packed tokens: each segment counts from 0.

Source: Krell et al. 2021 (2107.02027) sec. 3.2.1; `cu_seqlens` as flash-attn and Hugging Face name the offsets.

    position of token t in segment n = t - cu_n,    cu_n <= t < cu_{n+1}

Notation
    cu_seqlens -> cu int[n + 1]: 0 first, the number of tokens last; a segment may be empty.

Conventions
    C1  Segments are made into positions, never positions into segments: a sequence that begins at position 5, or two
        segments of one token, would be misread.

Laws
    L1 each_segment_counts_from_zero        L2 steps_are_one_within_a_segment
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec


@spec("nn.segment_positions", "cu:int[n1] -> positions:tree")
def segment_positions(cu):
    """0, 1, 2, .. anew in each segment.

    Parameters
    ----------
    cu : int[n + 1]
        Offsets of n segments.

    Returns
    -------
    int[N]
        N the last offset.

    Raises
    ------
    ValueError
        cu does not begin with 0, or falls (the message says where).
    TypeError
        cu is not int.

    Complexity: N operations.

    >>> import numpy as np
    >>> segment_positions(np.array([0, 2, 2, 5]))
    array([0, 1, 0, 1, 2])
    """
    bind("segment_positions", "cu:int[n1]", cu=cu)
    starts = offsets("segment_positions", "cu", cu)
    xp = namespace(cu)
    at = xp.arange(starts[-1], dtype=cu.dtype)
    return at - xp.take(cu, segment_of(xp, cu, at)) if starts[-1] else at


def segment_of(xp, cu, at):
    """The segment in which each place lies; empty ones have none."""
    return xp.searchsorted(cu[1:], at, side="right")


def offsets(function, name, given):
    """Offsets of segments as a tuple of ints; refused unless they begin with 0 and never fall."""
    length = given.shape[0] if hasattr(given, "shape") else len(given)
    found = tuple(int(given[n]) for n in range(length))
    if not found or found[0] != 0:
        raise ValueError(f"{function}: {name} begins with {found[:1] or 'nothing'}; needed 0")
    for n, (a, b) in enumerate(zip(found[:-1], found[1:], strict=True)):
        if b < a:
            raise ValueError(f"{function}: {name} falls from {a} to {b} at segment {n}; needed offsets that never fall")
    return found
