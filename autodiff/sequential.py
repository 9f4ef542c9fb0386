"""A chain of layers in checkpointed segments.

C1  The last segment is not dropped: its values are needed first.
C2  With unit layers and segments of lengths l_1..l_K the tape holds at most
    max_j (j + l_j - 1) values: the inputs of segments 1..j, and the rest of segment j.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autodiff.checkpoint import checkpoint

__all__ = ["checkpoint_sequential", "segment_lengths"]


def checkpoint_sequential(
    fs: Sequence[Callable],
    x: Any,
    segments: int | Sequence[int] | None = None,
    rng: np.random.Generator | None = None,
) -> Any:
    """``fs[-1](...fs[0](x))`` with every segment but the last checkpointed.

    Parameters
    ----------
    fs : sequence of callables
        Layers, each from one value to one.
    x : tree
    segments : int or sequence of int, optional
        Number of segments, or their lengths. By default sqrt(n) of them: 2 sqrt(n) - 1 values live.
    rng : numpy.random.Generator, optional
        As for `checkpoint`.

    Returns
    -------
    what the last layer returns
    """
    start = 0
    lengths = segment_lengths(len(fs), segments)
    for k, length in enumerate(lengths):
        run = _chain(fs[start : start + length])
        x = run(x) if k == len(lengths) - 1 else checkpoint(run, x, rng=rng)
        start += length
    return x


def _chain(layers: Sequence[Callable]) -> Callable:
    def segment(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return segment


def segment_lengths(n: int, segments: int | Sequence[int] | None = None) -> list[int]:
    """Lengths of the segments of n layers: as even as can be, the longer ones first.

    Examples
    --------
    >>> segment_lengths(10, 4), segment_lengths(9)
    ([3, 3, 2, 2], [3, 3, 3])
    """
    if segments is None:
        segments = max(1, round(math.sqrt(n)))
    if isinstance(segments, int):
        if not 1 <= segments <= max(n, 1):
            raise ValueError(f"checkpoint_sequential: {segments} segments for {n} layers")
        return [n // segments + (k < n % segments) for k in range(segments)]
    lengths = list(segments)
    if sum(lengths) != n or any(k < 1 for k in lengths):
        raise ValueError(
            f"checkpoint_sequential: segment lengths {lengths} must be positive and sum to {n}"
        )
    return lengths
