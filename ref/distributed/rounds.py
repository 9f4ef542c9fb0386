"""Rounds: who sends how much to whom in every round of a collective, for all ranks at once.

Source: those of the collectives; Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 4.

    a round is (to, size, combine): rank r sends size[r] bytes to to[r] (-1: it does not send), and combines combine[r]
    bytes when what was sent to it has come; no rank is sent two messages in a round

Notation
    n -> ranks, L -> length; bytes are length times itemsize. Chunks are elements L i // n .. L (i + 1) // n.

Conventions
    C1  These are tables beside the algorithms, for simulating 10^5 ranks; the laws hold them against what the
        algorithms themselves send, message by message.
    C2  Roots are rank 0. `length` is that of the array every rank passes; for all-gathers that of the result.
    C3  The segmented ring has no rounds: its messages overlap. `backends.communicators.simulator` runs it, event by
        event, as any program.

Laws
    L1 messages_are_those_of_the_algorithm  L2 bytes_of_all_ranks_are_the_formula
    L3 nobody_is_sent_two_in_a_round
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ref.spec import spec


class Round(NamedTuple):
    """One round: destination, bytes sent and bytes combined of each rank."""

    to: np.ndarray
    size: np.ndarray
    combine: np.ndarray


@spec("distributed.rounds", "ranks:int[], length:int[] -> :tree", backends=("numpy",))
def rounds(ranks, length, *, name, itemsize=4):
    """The rounds of a collective.

    Parameters
    ----------
    ranks : int
    length : int
        Elements.
    name : str
        A name of `ROUNDS`.
    itemsize : int
        Bytes of an element.

    Returns
    -------
    list of Round

    Raises
    ------
    ValueError
        Unknown name, ranks < 1 or length < 0.

    Complexity: n numbers a round.

    >>> [(r.to.tolist(), r.size.tolist()) for r in rounds(3, 4, name="binomial_broadcast")]
    [([2, -1, -1], [16, 0, 0]), ([1, -1, -1], [16, 0, 0])]
    """
    return list(walk(ranks, length, name=name, itemsize=itemsize))


def walk(ranks, length, *, name, itemsize=4):
    """The rounds one by one: a ring of 10^5 ranks has more of them than memory."""
    n, L = int(ranks), int(length)
    if name not in ROUNDS:
        raise ValueError(f"rounds: name {name!r}; needed one of {', '.join(ROUNDS)}")
    if n < 1 or L < 0:
        raise ValueError(f"rounds: {n} ranks, length {L}; needed ranks >= 1 and length >= 0")
    return ROUNDS[name](n, L, itemsize)


def _chunk_bytes(L, parts, itemsize):
    cut = np.arange(parts + 1, dtype=np.int64) * L // parts
    return (cut[1:] - cut[:-1]) * itemsize


def _around(n, size, steps, first, combining):
    """`steps` steps of a ring: rank r sends chunk r + first - k, and combines what comes, or not."""
    to, twice, none = (np.arange(n) + 1) % n, np.concatenate([size, size]), np.zeros(n, np.int64)
    for k in range(steps):
        start, came = (first - k) % n, (first - k - 1) % n
        yield Round(to, twice[start : start + n], twice[came : came + n] if combining else none)


def _ring_reduce_scatter(n, L, itemsize, first=-1):
    return _around(n, _chunk_bytes(L, n, itemsize), n - 1, first, True)


def _ring_all_gather(n, L, itemsize, first=0):
    return _around(n, _chunk_bytes(L, n, itemsize), n - 1, first, False)


def _ring_all_reduce(n, L, itemsize):
    yield from _ring_reduce_scatter(n, L, itemsize, 0)
    yield from _ring_all_gather(n, L, itemsize, 1)


def _pairwise_reduce_scatter(n, L, itemsize):
    ranks, size, none = np.arange(n), _chunk_bytes(L, n, itemsize), np.zeros(n, np.int64)
    for k in range(1, n):
        to = (ranks + k) % n
        yield Round(to, size[to], (n - 1) * size if k == n - 1 else none)


def _canonical_all_reduce(n, L, itemsize):
    yield from _pairwise_reduce_scatter(n, L, itemsize)
    yield from _ring_all_gather(n, L, itemsize)


def _pairwise_all_to_all(n, L, itemsize):
    ranks, none = np.arange(n), np.zeros(n, np.int64)
    for k in range(1, n):
        yield Round((ranks + k) % n, np.full(n, L // n * itemsize), none)


def _folded(n, S, back):
    """The ranks beyond a power of two give to their neighbours, or get back."""
    extra = n - (1 << (n.bit_length() - 1))
    if extra:
        to, size, combine = np.full(n, -1), np.zeros(n, np.int64), np.zeros(n, np.int64)
        even, odd = np.arange(0, 2 * extra, 2), np.arange(1, 2 * extra, 2)
        giving, taking = (odd, even) if back else (even, odd)
        to[giving], size[giving] = taking, S
        combine[taking] = 0 if back else S
        yield Round(to, size, combine)


def _places(n):
    """(p, rank of each place) once the ranks beyond a power of two are folded in."""
    p = 1 << (n.bit_length() - 1)
    v, extra = np.arange(p), n - p
    return p, np.where(v < extra, 2 * v + 1, v + extra)


def _of_places(n, rank, peer, size, combine):
    """A round in which place v sends to place peer[v]."""
    whole = Round(np.full(n, -1), np.zeros(n, np.int64), np.zeros(n, np.int64))
    whole.to[rank], whole.size[rank], whole.combine[rank] = rank[peer], size, combine
    return whole


def _recursive_doubling(n, L, itemsize):
    S, (p, rank) = L * itemsize, _places(n)
    yield from _folded(n, S, False)
    for k in range(p.bit_length() - 1):
        yield _of_places(n, rank, np.arange(p) ^ (1 << k), S, S)
    yield from _folded(n, S, True)


def _halving_doubling(n, L, itemsize):
    p, rank = _places(n)
    cut, v = np.arange(p + 1, dtype=np.int64) * L // p * itemsize, np.arange(p)
    low, high, trail = np.zeros(p, np.int64), np.full(p, p), []
    yield from _folded(n, L * itemsize, False)
    for k in range(p.bit_length() - 1):
        upper, middle = v >> k & 1 == 1, (low + high) // 2
        given = np.where(upper, low, middle), np.where(upper, middle, high)
        low, high = np.where(upper, middle, low), np.where(upper, high, middle)
        yield _of_places(n, rank, v ^ (1 << k), cut[given[1]] - cut[given[0]], cut[high] - cut[low])
        trail.append((k, given))
    for k, given in reversed(trail):
        yield _of_places(n, rank, v ^ (1 << k), cut[high] - cut[low], 0)
        low, high = np.minimum(low, given[0]), np.maximum(high, given[1])
    yield from _folded(n, L * itemsize, True)


def _tree(n, up, size_of):
    """Rounds of the binomial tree from rank 0 down, or up to it; `size_of(child, bit)` bytes an edge."""
    bits = [1 << k for k in range((n - 1).bit_length())]
    for bit in bits if up else bits[::-1]:
        child = np.arange(bit, n, 2 * bit)
        one = Round(np.full(n, -1), np.zeros(n, np.int64), np.zeros(n, np.int64))
        source, dest = (child, child - bit) if up else (child - bit, child)
        one.to[source], one.size[source] = dest, size_of(child, bit)
        if up:
            one.combine[dest] = one.size[source]
        yield one


def _binomial_broadcast(n, L, itemsize):
    return _tree(n, False, lambda child, bit: L * itemsize)


def _binomial_reduce(n, L, itemsize):
    return _tree(n, True, lambda child, bit: L * itemsize)


def _scatter_gather_broadcast(n, L, itemsize):
    cut = np.arange(n + 1, dtype=np.int64) * L // n * itemsize
    yield from _tree(n, False, lambda child, bit: cut[np.minimum(child + bit, n)] - cut[child])
    yield from _ring_all_gather(n, L, itemsize)


def _bruck_all_gather(n, L, itemsize):
    ranks, none = np.arange(n), np.zeros(n, np.int64)
    total = np.concatenate([[0], np.cumsum(np.tile(_chunk_bytes(L, n, itemsize), 2))])
    for k in range((n - 1).bit_length()):
        yield Round((ranks - (1 << k)) % n, total[ranks + min(1 << k, n - (1 << k))] - total[ranks], none)


def _dissemination_barrier(n, L, itemsize):
    for k in range((n - 1).bit_length()):
        yield Round((np.arange(n) + (1 << k)) % n, np.full(n, 8), np.full(n, 8))


ROUNDS = {
    "ring_all_reduce": _ring_all_reduce,
    "recursive_doubling_all_reduce": _recursive_doubling,
    "halving_doubling_all_reduce": _halving_doubling,
    "canonical_all_reduce": _canonical_all_reduce,
    "ring_reduce_scatter": _ring_reduce_scatter,
    "canonical_reduce_scatter": _pairwise_reduce_scatter,
    "ring_all_gather": _ring_all_gather,
    "bruck_all_gather": _bruck_all_gather,
    "binomial_broadcast": _binomial_broadcast,
    "scatter_gather_broadcast": _scatter_gather_broadcast,
    "binomial_reduce": _binomial_reduce,
    "pairwise_all_to_all": _pairwise_all_to_all,
    "dissemination_barrier": _dissemination_barrier,
}
