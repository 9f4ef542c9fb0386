"""Targets of a packed row: the next token, but never the next sample's.

Source: the packing of Krell et al. 2021 (2107.02027) with the next-token targets of Radford et al. 2018; trl #3526 is
the story of what it leaks otherwise.

    target_t = token_{t+1},   kept unless t is the last token of its segment

A segment of n tokens has n - 1 targets. The mean over a packed row is sum n_i L_i / sum n_i over the kept targets n_i,
not the mean of the samples' means.

Notation
    tokens[N], cu int[n + 1] offsets of the segments.

Conventions
    C1  Dropped targets hold `fill` (-100 is torch's ignore_index). They are told by `keep`, not by their value.

Laws
    L1 the_next_token_of_the_same_segment   L2 a_segment_has_one_target_less
    L3 packed_loss_is_the_weighted_mean
"""

from __future__ import annotations

from autodiff import namespace
from ref.nn.segment_positions import offsets
from ref.spec import bind, spec

SIGNATURE = "tokens:int[N], cu:int[n1]"


@spec("losses.packed_targets", f"{SIGNATURE} -> targets:int[N], keep:bool[N]")
def packed_targets(tokens, cu, *, fill=-100):
    """Next-token targets of packed samples, and which of them count.

    Parameters
    ----------
    tokens : int[N]
    cu : int[n + 1]
        Offsets of the samples: 0 first, N last.
    fill : int
        Target where none is kept.

    Returns
    -------
    targets : int[N]
    keep : bool[N]

    Raises
    ------
    ValueError
        cu does not begin with 0, falls, or does not end with N.
    TypeError
        tokens or cu is not int.

    Complexity: N operations.

    >>> import numpy as np
    >>> packed_targets(np.array([5, 6, 7, 8]), np.array([0, 3, 4]))[0]
    array([   6,    7, -100, -100])
    """
    N = bind("packed_targets", SIGNATURE, tokens=tokens, cu=cu)["N"]
    last = offsets("packed_targets", "cu", cu)[-1]
    if last != N:
        raise ValueError(f"packed_targets: cu ends with {last}, tokens has N={N}; needed N last")
    xp = namespace(tokens, cu)
    at = xp.arange(1, N + 1, dtype=cu.dtype)
    ends = xp.searchsorted(cu, at, side="right") > xp.searchsorted(cu, at, side="left")
    return xp.where(ends, xp.asarray(fill, dtype=tokens.dtype), xp.roll(tokens, -1)), ~ends
