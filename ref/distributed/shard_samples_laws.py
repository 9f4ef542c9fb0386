"""Laws and mutants of the samples over ranks."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ref.distributed.common_laws import EXACT
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "distributed.shard_samples"


def _int(of):
    return lambda draw, c: np.array(draw(choose(*of(c))))


space = cases(
    ID, length=_int(lambda c: (5, 0, 1, 2, 3, 7, 8, 12, 13, 16, 30)), ranks=_int(lambda c: range(1, 9)),
    rank=_int(lambda c: range(int(c.ranks))), seed=choose(None, 0, 3), epoch=choose(0, 1, 2),
    tail=choose("repeat", "drop"), skip=0,
    flags={
        "short": Flag(lambda c: 0 < c.length < c.ranks, {"length": _int(lambda c: (1, 2, 3)),
                                                         "ranks": _int(lambda c: (5, 7, 8))}),
        "even": Flag(lambda c: c.length % c.ranks == 0 and c.length > 0, {"length": _int(lambda c: (8, 16)),
                                                                          "ranks": _int(lambda c: (2, 4, 8))}),
        "shuffled": Flag(lambda c: c.seed is not None and c.length > 2, {"seed": choose(0, 3),
                                                                         "length": _int(lambda c: (7, 8, 13))}),
    },
)  # fmt: skip


def shards(impl, c, expect, **fields):
    """The samples of every rank, once they are seen to be integers."""
    found = [np.asarray(impl(c.replace(rank=np.array(r), **fields))) for r in range(int(c.ranks))]
    for f in found:
        expect.holds(f.ndim == 1 and f.dtype == np.int64, f"a row of int64, got {f.dtype}{list(f.shape)}")
    return found


def per_rank(c):
    N, n = int(c.length), int(c.ranks)
    return N // n if c.tail == "drop" else (N + n - 1) // n


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.where(seed=None).reach("short", "even"),
    kills=["blocks_instead_of_turns", "filled_up_from_the_front", "last_one_repeated"],
)  # fmt: skip
def in_order_ranks_take_turns(impl, c, expect):
    """Unshuffled: entry j of rank r is n j + r; under "repeat" with N >= n the m entries that are missing are N - m ..
    N - 1, with N < n the order counted back from its end, round and round."""
    N, n = int(c.length), int(c.ranks)
    missing = per_rank(c) * n - N
    for r, found in enumerate(shards(impl, c, expect)):
        wanted = [n * j + r for j in range(per_rank(c))]
        # The k-th from the end of what is filled up is the k-th from the end of the order, counted round.
        wanted = [v if v < N else N - 1 - (missing - 1 - (v - N)) % N for v in wanted]
        expect.same(found, np.array(wanted, np.int64), f"samples of rank {r}")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.reach("short", "even", "shuffled"),
    kills=["tail_left_short", "each_rank_shuffles_for_itself", "one_too_many_dropped"],
)  # fmt: skip
def shards_cover_or_are_disjoint(impl, c, expect):
    """All shards have ceil(N/n) samples and cover all examples ("repeat", none oftener than ceil(n ceil(N/n) / N)), or
    have floor(N/n) and no example twice ("drop"); both where n divides N."""
    N, n, k = int(c.length), int(c.ranks), per_rank(c)
    found = shards(impl, c, expect)
    expect.same([len(f) for f in found], [k] * n, "samples by rank")
    times = Counter(int(v) for f in found for v in f)
    expect.holds(set(times) <= set(range(N)), f"examples 0 .. {N - 1}")
    if c.tail == "repeat":
        expect.same(len(times), N, "examples that come")
        expect.at_most(max(times.values(), default=0), -(-n * k // N) if N else 0, "how often one comes")
    if c.tail == "drop" or N % n == 0:
        expect.at_most(max(times.values(), default=0), 1, "how often one comes")


def mixed(c):
    """The order of the epoch, as numpy's generator says."""
    N = int(c.length)
    return np.arange(N) if c.seed is None else np.random.default_rng((c.seed, c.epoch)).permutation(N)


@law(
    ID, "L3", dtypes=EXACT, given=space.where(shuffled=True).reach("even"),
    kills=["epoch_ignored", "each_rank_shuffles_for_itself", "shuffled_within_the_shard", "epoch_added_to_the_seed"],
)  # fmt: skip
def an_epoch_is_one_permutation(impl, c, expect):
    """Step j of all ranks is entries n j .. n j + n - 1 of one permutation, that of (seed, epoch), the same for any
    number of ranks; seed s in epoch 1 is not seed s + 1 in epoch 0."""
    order = mixed(c)
    found = shards(impl, c, expect)
    expect.holds(len({len(f) for f in found}) == 1, "shards of one length")
    found = np.array(found).T.reshape(-1)
    whole = min(len(found), len(order))
    expect.same(found[:whole], order[:whole], "the ranks' samples by turns")
    one = impl(c.replace(ranks=np.array(1), rank=np.array(0)))
    expect.same(one, order, "the samples of one rank alone")
    first, second = (impl(c.replace(ranks=np.array(1), rank=np.array(0), length=np.array(30), seed=s, epoch=e))
                     for s, e in ((c.seed, 1), (c.seed + 1, 0)))  # fmt: skip
    expect.holds(not np.array_equal(first, second), "epochs of one seed are not those of the next")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=space.where(length=_int(lambda c: (7, 12, 13, 30))),
    kills=["skips_in_the_whole_order", "skip_ignored"], passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def a_resumed_epoch_goes_on(impl, c, expect):
    "With skip = s come the samples after the first s of the rank; none after all of them."
    whole = np.asarray(impl(c))
    expect.holds(whole.ndim == 1 and whole.dtype == np.int64, "a row of int64")
    for s in (1, 2, len(whole), len(whole) + 3):
        expect.same(impl(c.replace(skip=s)), whole[s:], f"samples after {s}")


# Mutants ---------------------------------------------------------------------------------------------


def of(length=8, ranks=2, rank=0):
    """The default-size test: ranks that divide the examples, no shuffle, first epoch."""
    return lambda: ((np.array(length), np.array(ranks), np.array(rank)), {})


def dealt(length, ranks, rank, seed, epoch, tail, skip, *, order=None, fill=None, take=None, cut=None, late=None):
    """The samples of a rank; an edit replaces a step."""
    N, n, r = int(length), int(ranks), int(rank)
    mix = order or (lambda N, r: np.random.default_rng((seed, epoch)).permutation(N))
    row = [int(v) for v in (mix(N, r) if seed is not None else range(N))]
    missing = -N % n if N else 0
    if tail == "drop":
        row = (cut or (lambda row: row[: N - N % n]))(row)
    else:
        row = row + (fill or (lambda row, m: [row[-1 - i % N] for i in range(m)][::-1]))(row, missing)
    found = (take or (lambda row, r: row[r::n]))(row, r)
    return np.array((late or (lambda found, s: found[s:]))(found, skip), np.int64)


@mutant(ID, default_case=of(2, 2))
def blocks_instead_of_turns(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "Rank r takes the r-th stretch of the order."
    take = lambda row, r: row[r * (len(row) // int(ranks)) : (r + 1) * (len(row) // int(ranks))]  # noqa: E731
    return dealt(length, ranks, rank, seed, epoch, tail, skip, take=take)


@mutant(ID, default_case=of(), thread="torch's DistributedSampler")
def filled_up_from_the_front(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "torch's way: filled up with the first samples."
    fill = lambda row, m: [row[i % len(row)] for i in range(m)]  # noqa: E731
    return dealt(length, ranks, rank, seed, epoch, tail, skip, fill=fill)


@mutant(ID, default_case=of())
def last_one_repeated(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "Filled up with the very last sample."
    return dealt(length, ranks, rank, seed, epoch, tail, skip, fill=lambda row, m: row[-1:] * m)


@mutant(ID, default_case=of())
def tail_left_short(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "Not filled up: some ranks make one step less, and the others wait for them for ever."
    return dealt(length, ranks, rank, seed, epoch, tail, skip, fill=lambda row, m: [])


@mutant(ID, default_case=of())
def one_too_many_dropped(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "With a tail to drop, a whole step goes with it."
    n = int(ranks)
    cut = lambda row: row[: max(len(row) - len(row) % n - (n if len(row) % n else 0), 0)]  # noqa: E731
    return dealt(length, ranks, rank, seed, epoch, tail, skip, cut=cut)


@mutant(ID, default_case=of())
def each_rank_shuffles_for_itself(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "The rank is a part of the seed: examples come twice, others not at all."
    order = lambda N, r: np.random.default_rng((seed + r, epoch)).permutation(N)  # noqa: E731
    return dealt(length, ranks, rank, seed, epoch, tail, skip, order=order)


@mutant(ID, default_case=of(), thread="DistributedSampler without set_epoch")
def epoch_ignored(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "Every epoch in the order of the first."
    return dealt(length, ranks, rank, seed, 0, tail, skip)


@mutant(ID, default_case=of(), thread="torch's DistributedSampler: seed + epoch")
def epoch_added_to_the_seed(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "seed + epoch: the second epoch of one run is the first of the next."
    return dealt(length, ranks, rank, seed if seed is None else seed + epoch, 0, tail, skip)


@mutant(ID, default_case=of())
def shuffled_within_the_shard(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "Ranks keep their examples for ever, and shuffle those."
    take = lambda row, r: [sorted(row)[r :: int(ranks)][i] for i in np.argsort(row[r :: int(ranks)])]  # noqa: E731
    return dealt(length, ranks, rank, seed, epoch, tail, skip, take=take if seed is not None else None)


@mutant(ID, default_case=of())
def skips_in_the_whole_order(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "skip counts samples of all ranks."
    return dealt(length, ranks, rank, seed, epoch, tail, skip, late=lambda found, s: found[s // int(ranks) :])


@mutant(ID, default_case=of())
def skip_ignored(length, ranks, rank, *, seed=None, epoch=0, tail="repeat", skip=0):
    "A resumed epoch starts over."
    return dealt(length, ranks, rank, seed, epoch, tail, 0)
