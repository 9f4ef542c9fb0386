"""Where to checkpoint a chain of layers.

Source: Chen et al. 2016 (1604.06174) sec. 4.1 for segments of sqrt(n); Griewank & Walther 2008, Evaluating
Derivatives, ch. 12, for lengths that fall.

    A chain of n unit layers is cut into segments of lengths l_1 .. l_K. The forward pass keeps the input of each
    segment, and all of the last; the backward pass runs each other segment again, last to first. While it is in
    segment j it holds the inputs of segments 1 .. j and the rest of segment j:

    peak(l) = max_j (j + l_j - 1)                    layers run again: n - l_K

    uniform:     K = round(sqrt n), as even as can be       peak 2 sqrt(n) - 1 at n = K^2
    decreasing:  l_j = P + 1 - j, less the slack            peak P, the least with P (P + 1) / 2 >= n: about sqrt(2 n)

Notation
    n -> n, l -> the result, K = len(l).

Conventions
    C1  A unit is what one layer saves: its input. The input of the chain counts (the first segment holds it), the
        output does not.
    C2  The last segment is not dropped: its values are needed first. Chen's count drops it too.
    C3  P is the least peak of all partitions, as l_j <= P + 1 - j. Among the partitions that reach it the fewest
        segments are taken, and the slack off the first ones: that leaves the longest last segment, so the fewest
        layers to run again.

Laws
    L1 segments_cover_the_chain              L2 decreasing_peak_is_the_triangular_root
    L3 uniform_squares_peak_at_two_roots     L4 no_partition_does_better
    L5 the_tape_holds_the_peak               L6 layers_run_again
"""

from __future__ import annotations

import math
import operator

from ref.spec import spec

KINDS = ("decreasing", "uniform")


@spec("training.checkpoint_segments", "n:int[] -> lengths:tree", backends=("numpy",))
def checkpoint_segments(n, *, kind="decreasing"):
    """Lengths of the segments of n unit layers, for `autodiff.checkpoint_sequential`.

    Parameters
    ----------
    n : int
        Layers, at least 1.
    kind : "decreasing" or "uniform"

    Returns
    -------
    list of int
        Positive, falling or level; they sum to n.

    Raises
    ------
    ValueError
        n < 1, or an unknown kind.
    TypeError
        n is no integer.

    Complexity: sqrt(n).

    >>> checkpoint_segments(16, kind="uniform"), checkpoint_segments(16)
    ([4, 4, 4, 4], [5, 4, 4, 3])
    """
    n = operator.index(n)
    if n < 1:
        raise ValueError(f"checkpoint_segments: n={n} layers; needed at least 1")
    if kind not in KINDS:
        raise ValueError(f"checkpoint_segments: kind={kind!r}; needed one of {KINDS}")
    if kind == "uniform":
        K = max(1, round(math.sqrt(n)))
        return [n // K + (j < n % K) for j in range(K)]

    P = (math.isqrt(8 * n - 7) + 1) // 2
    K = next(K for K in range(1, P + 1) if n <= K * P - K * (K - 1) // 2)
    slack = K * P - K * (K - 1) // 2 - n
    return [P - j - (j < slack) for j in range(K)]
