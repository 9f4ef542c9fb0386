"""Buckets of gradients: which parameters are reduced together, and in which order.

Source: Li et al. 2020, PyTorch Distributed (VLDB 13:12, 2006.15704) sec. 3.2.3 and 4.2; the limits are torch's.

    walk the parameters from the last registered to the first; put each into the open bucket of its kind;
    close the bucket as soon as it holds at least its limit: `first` bytes for the first bucket, `size` for the others

Backward finishes the last parameters first, so the first bucket is full early; it is small so that communication
begins early, the others large so that they pay the latency of few messages.

Notation
    sizes[i] -> bytes of parameter i in the order of registration, kinds[i] -> its dtype, or whatever must not mix.

Conventions
    C1  A bucket may exceed its limit by less than its last parameter; it is never cut. (torch does so; "close before it
        would exceed" gives other buckets.)
    C2  Buckets stand in the order in which they close, those that stay open last, as they were opened; the first
        bucket that closes is the one that had the limit `first`. With one kind the order is that of the walk.
    C3  A parameter without bytes goes with its neighbours.

Laws
    L1 equal_sizes_are_cut_by_count         L2 every_parameter_once_from_the_last
    L3 closed_at_the_limit_and_not_before   L4 kinds_do_not_mix
"""

from __future__ import annotations

import operator

from ref.spec import spec

MIB = 1 << 20


@spec("distributed.gradient_buckets", "sizes:int[P] -> buckets:tree", backends=("numpy",))
def gradient_buckets(sizes, *, kinds=None, first=MIB, size=25 * MIB):
    """Lists of parameter numbers, the bucket that is reduced first coming first.

    Parameters
    ----------
    sizes : int[P]
        Bytes of each parameter, in the order of registration.
    kinds : list, optional
        A hashable value a parameter; only equal ones share a bucket.
    first, size : int
        Limits in bytes, at least 1.

    Returns
    -------
    list of list of int

    Raises
    ------
    ValueError
        A negative size, a limit below 1, or another number of kinds than sizes.
    TypeError
        A size or limit is no integer.

    Complexity: one pass.

    >>> gradient_buckets([10, 10, 10, 10, 10], first=1, size=20)
    [[4], [3, 2], [1, 0]]
    """
    sizes = [operator.index(n) for n in sizes]
    kinds = [None] * len(sizes) if kinds is None else list(kinds)
    first, size = operator.index(first), operator.index(size)
    if min(sizes, default=0) < 0 or min(first, size) < 1 or len(kinds) != len(sizes):
        raise ValueError(
            f"gradient_buckets: {len(sizes)} sizes, least {min(sizes, default=0)}, {len(kinds)} kinds, first={first}, "
            f"size={size}; needed sizes >= 0, a kind each, limits >= 1"
        )
    closed, opened, held = [], {}, {}
    for i in reversed(range(len(sizes))):
        kind = kinds[i]
        opened.setdefault(kind, []).append(i)
        held[kind] = held.get(kind, 0) + sizes[i]
        if held[kind] >= (size if closed else first):
            closed.append(opened.pop(kind))
            del held[kind]
    return closed + list(opened.values())
