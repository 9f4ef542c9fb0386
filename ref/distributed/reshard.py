"""Resharding: which rows of which saved shard a rank reads when the number of ranks has changed.

Source: the even cut of Rajbhandari et al. 2020 (1910.02054) sec. 5; reading pieces of shards rather than assembling the
whole: PyTorch's distributed checkpoint (torch.distributed.checkpoint, "load-time resharding").

    saved shard i of N holds rows  K i // N .. K (i + 1) // N;   rank r of M needs rows  K r // M .. K (r + 1) // M
    it reads from each i the intersection of the two, in the order of i

Notation
    K -> rows, N -> saved, M -> ranks, r -> rank.

Conventions
    C1  Rows are counted within a shard: (i, start, stop) is rows start .. stop of what shard i holds.
    C2  A shard of which nothing is needed is not named, so its file is not opened.

Laws
    L1 the_pieces_are_the_whole              L2 as_many_ranks_read_their_own
    L3 no_more_shards_than_needed
"""

from __future__ import annotations

import operator

from backends.communicators import bounds
from ref.spec import spec


@spec("distributed.reshard", "rows:int[], saved:int[], ranks:int[], rank:int[] -> pieces:tree", backends=("numpy",))
def reshard(rows, saved, ranks, rank):
    """[(shard, start, stop), ..] whose rows, one after the other, are those of this rank.

    Parameters
    ----------
    rows : int
        K, of all shards together.
    saved : int
        Shards that were saved.
    ranks, rank : int
        Who reads: rank `rank` of `ranks`.

    Returns
    -------
    list of (int, int, int)

    Raises
    ------
    ValueError
        rows < 0, saved or ranks < 1, or no such rank.
    TypeError
        Not integers.

    Complexity: linear in the number of shards.

    >>> reshard(10, 2, 3, 1)
    [(0, 3, 5), (1, 0, 1)]
    """
    rows, saved, ranks, rank = (operator.index(v) for v in (rows, saved, ranks, rank))
    if rows < 0 or saved < 1 or not 0 <= rank < ranks:
        raise ValueError(
            f"reshard: rows={rows}, saved={saved}, rank={rank} of {ranks}; needed rows >= 0, saved >= 1, rank < ranks"
        )
    low, high = bounds(rows, ranks)[rank : rank + 2]
    cut = bounds(rows, saved)
    pieces = [(i, max(low, a) - a, min(high, b) - a) for i, (a, b) in enumerate(zip(cut, cut[1:], strict=False))]
    return [(i, a, b) for i, a, b in pieces if a < b]
