"""Samples over ranks: which examples of an epoch each rank takes, and in which order.

Source: torch's DistributedSampler (torch/utils/data/distributed.py) for `seed`, `epoch` and the two ways with the tail;
Li et al. 2020, PyTorch Distributed (VLDB 13:12, 2006.15704) sec. 3.2 for the equal shards that collectives need.

    order = a permutation of 0 .. N - 1 by (seed, epoch), or 0 .. N - 1        the same on every rank, nothing is sent
    rank r takes order[r], order[r + n], order[r + 2 n], ..

    tail = "repeat"   ceil(N/n) each: the order is filled up with its own last samples; nothing is left out
    tail = "drop"     floor(N/n) each: the last N mod n of the order are left out; nothing comes twice

Notation
    N -> length, n -> ranks, r -> rank.

Conventions
    C1  Ranks take turns, so step j of all ranks together is order[n j .. n j + n - 1], whatever n: a global batch does
        not depend on the number of ranks that it is spread over.
    C2  "repeat" fills up with the last samples, in their order; torch's with the first ones. With fewer examples
        than entries to fill the order is gone round, backwards from its end.
    C3  An epoch's order is that of numpy.random.default_rng((seed, epoch)); seed None does not shuffle.
    C4  skip leaves out what this rank has had of the epoch, so that a run goes on from any step.

Laws
    L1 in_order_ranks_take_turns            L2 shards_cover_or_are_disjoint
    L3 an_epoch_is_one_permutation          L4 a_resumed_epoch_goes_on
"""

from __future__ import annotations

import operator

import numpy as np

from ref.spec import spec

TAILS = ("repeat", "drop")


@spec("distributed.shard_samples", "length:int[], ranks:int[], rank:int[] -> samples:tree", backends=("numpy",))
def shard_samples(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    """Numbers of the examples that a rank takes in an epoch.

    Parameters
    ----------
    length : int
        Examples in all, at least 0.
    ranks, rank : int
        0 <= rank < ranks.
    seed : int, optional
        At least 0; None keeps the order of the examples.
    epoch : int
        At least 0; another one, another permutation.
    tail : str
        "repeat" or "drop", where ranks do not divide the examples.
    skip : int
        Examples of the epoch that this rank has had.

    Returns
    -------
    int64[k]

    Raises
    ------
    ValueError
        A number out of its range, or another tail.
    TypeError
        A number that is no integer.

    Complexity: O(N) time and memory on every rank.

    >>> [shard_samples(5, 2, r).tolist() for r in range(2)]
    [[0, 2, 4], [1, 3, 4]]
    >>> [shard_samples(5, 2, r, tail="drop").tolist() for r in range(2)]
    [[0, 2], [1, 3]]
    """
    N, n, r, epoch, skip = (operator.index(v) for v in (length, ranks, rank, epoch, skip))
    seed = seed if seed is None else operator.index(seed)
    if N < 0 or not 0 <= r < n or min(epoch, skip, seed or 0) < 0 or tail not in TAILS:
        raise ValueError(
            f"shard_samples: length={N}, ranks={n}, rank={r}, seed={seed}, epoch={epoch}, skip={skip}, tail={tail!r}; "
            f"needed numbers of at least 0, rank < ranks and a tail of {', '.join(TAILS)}"
        )
    order = np.arange(N) if seed is None else np.random.default_rng((seed, epoch)).permutation(N)
    if tail == "drop":
        order = order[: N - N % n]
    elif missing := -N % n if N else 0:
        order = np.concatenate([order, order[N - 1 - np.arange(missing)[::-1] % N]])
    return order[r::n][skip:].astype(np.int64)
