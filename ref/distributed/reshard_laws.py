"""Laws and mutants of resharding."""

from __future__ import annotations

import numpy as np

from ref.distributed.common_laws import EXACT, cuts
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "distributed.reshard"


def _int(*values):
    return lambda draw, c: np.array(draw(choose(*values)))


space = cases(
    ID, rows=_int(7, 0, 1, 2, 3, 12, 25), saved=_int(*range(1, 9)), ranks=_int(*range(1, 9)),
    rank=lambda draw, c: np.array(draw(choose(*range(int(c.ranks))))),
    flags={
        "none": Flag(lambda c: c.rows == 0, {"rows": np.array(0)}),
        "few": Flag(lambda c: 0 < c.rows < c.saved, {"rows": np.array(2), "saved": _int(3, 5, 8)}),
        "fewer": Flag(lambda c: c.ranks < c.saved, {"ranks": _int(1, 2, 3), "saved": _int(4, 5, 7)}),
        "more": Flag(lambda c: c.ranks > c.saved, {"ranks": _int(4, 5, 7), "saved": _int(1, 2, 3)}),
    },
)  # fmt: skip


def pieces(impl, c, expect):
    """The result, once it is seen to be a list of triples of integers."""
    out = impl(c)
    expect.holds(isinstance(out, list) and all(isinstance(p, tuple) and len(p) == 3 for p in out), "a list of triples")
    expect.holds(all(np.asarray(v).dtype.kind == "i" for p in out for v in p), "of integers")
    return [tuple(int(v) for v in p) for p in out]


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.reach("none", "few", "fewer", "more"),
    kills=["rounded_up_shares", "rows_of_the_whole", "first_shard_alone", "remainder_to_the_last"],
)  # fmt: skip
def the_pieces_are_the_whole(impl, c, expect):
    "Shards that hold the numbers 0 .. K - 1: the pieces of rank r in a row are K r // M .. K (r + 1) // M - 1."
    K, N, M, r = (int(v) for v in (c.rows, c.saved, c.ranks, c.rank))
    cut = cuts(K, N)
    shards = [list(range(a, b)) for a, b in zip(cut, cut[1:], strict=False)]
    found = pieces(impl, c, expect)
    expect.holds(all(0 <= i < N and 0 <= a <= b <= len(shards[i]) for i, a, b in found), f"rows that exist: {found}")
    read = [v for i, a, b in found for v in shards[i][a:b]]
    wanted = list(range(K * r // M, K * (r + 1) // M))
    expect.holds(read == wanted, f"rank {r} of {M} needs {wanted} of {K} rows, read {read} from {N} shards")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.where(rows=_int(8, 13, 25)), kills=["reads_everything"],
)  # fmt: skip
def as_many_ranks_read_their_own(impl, c, expect):
    "M = N: shard r from its first row to its last, and nothing else."
    case = c.replace(ranks=c.saved, rank=np.minimum(c.rank, c.saved - 1))
    K, N, r = int(c.rows), int(c.saved), int(case.rank)
    found = pieces(impl, case, expect)
    expect.holds(found == [(r, 0, K * (r + 1) // N - K * r // N)], f"rank {r} of {N} reads its own shard, not {found}")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.reach("none", "few", "fewer"), kills=["reads_everything"],
    passes_null=["cached"],
)  # fmt: skip
def no_more_shards_than_needed(impl, c, expect):
    "Every piece has a row, no shard is named twice, and they are named in their order."
    found = pieces(impl, c, expect)
    expect.holds(all(a < b for _, a, b in found), f"no empty piece in {found}")
    names = [i for i, _, _ in found]
    expect.holds(names == sorted(set(names)), f"shards in order, each once: {names}")


# Mutants ---------------------------------------------------------------------------------------------


def of(rows=8, saved=2, ranks=2, rank=1):
    return lambda: (tuple(np.array(v) for v in (rows, saved, ranks, rank)), {})


def cut_by(rows, saved, ranks, rank, *, saved_cut=cuts, own_cut=cuts, kept=lambda a, b: a < b, shift=True):
    """The intersections, parts of which an edit replaces."""
    rows, saved, ranks, rank = (int(v) for v in (rows, saved, ranks, rank))
    low, high = own_cut(rows, ranks)[rank : rank + 2]
    cut = saved_cut(rows, saved)
    found = []
    for i in range(saved):
        a, b = max(low, cut[i]), max(min(high, cut[i + 1]), min(low, cut[i + 1]))
        if kept(a, b):
            found.append((i, a - cut[i] * shift, b - cut[i] * shift))
    return found


@mutant(ID, default_case=of())
def rounded_up_shares(rows, saved, ranks, rank):
    "Shares of ceil(K / M) rows, the last ranks having fewer."
    up = lambda K, n: [min(K, i * -(-K // n)) for i in range(n + 1)]  # noqa: E731
    return cut_by(rows, saved, ranks, rank, own_cut=up)


@mutant(ID, default_case=of())
def remainder_to_the_last(rows, saved, ranks, rank):
    "Shares of K // N rows, and the last shard has what is left."
    down = lambda K, n: [i * (K // n) for i in range(n)] + [K]  # noqa: E731
    return cut_by(rows, saved, ranks, rank, saved_cut=down)


@mutant(ID, default_case=of(rank=0))
def rows_of_the_whole(rows, saved, ranks, rank):
    "Rows are counted from the first shard's first."
    return cut_by(rows, saved, ranks, rank, shift=False)


@mutant(ID, default_case=of())
def first_shard_alone(rows, saved, ranks, rank):
    "A rank reads from the first shard that has some of its rows."
    return cut_by(rows, saved, ranks, rank)[:1]


@mutant(ID, default_case=of(saved=1, ranks=1, rank=0))
def reads_everything(rows, saved, ranks, rank):
    "Every shard is opened, if only for none of its rows."
    return cut_by(rows, saved, ranks, rank, kept=lambda a, b: True) if int(rows) else [
        (i, 0, 0) for i in range(int(saved))]  # fmt: skip
