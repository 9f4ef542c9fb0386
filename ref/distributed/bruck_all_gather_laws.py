"""Laws and mutants of Bruck's all-gather."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import cuts, rows_of, world_space
from ref.spec import law, mutant
from ref.spec.cases import Flag, choose

ID = "distributed.bruck_all_gather"
space = world_space(
    ID, x=lambda draw, c: rows_of(draw, c, c.L), length=lambda draw, c: c.L, M=lambda draw, c: c.L,
    flags={"equal": Flag(lambda c: c.n > 1 and c.L % c.n == 0, {"n": choose(2, 3, 5), "L": choose(30, 60)})},
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "short", "uneven"),
    kills=["never_turned", "rounds_rounded_down", "in_half_the_bits"],
)  # fmt: skip
def the_blocks_in_rank_order(impl, c, expect):
    "The rows of rank 0, then of rank 1, .., bit by bit on every rank; `length` may be left out when all are equal."
    wanted = np.concatenate(c.x)
    for length in (c.L, None) if c.L % c.n == 0 else (c.L,):
        out = impl(c.replace(length=length))
        expect.holds(out.dtype == wanted.dtype, f"the result has x's dtype {wanted.dtype}, it has {out.dtype}")
        expect.same(out, np.broadcast_to(wanted, (c.n, c.L)), f"length={length}")


@law(
    ID, "L2", closed_form=True, given=space.reach("alone", "empty", "short", "uneven"),
    kills=["last_round_in_full", "a_ring"], passes_null=["wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "At d = 1, 2, 4, .. rank r sends blocks r .. r + min(d, n - d) - 1; ceil(log2 n) messages."
    size, n = [a.nbytes for a in c.x], c.n
    rounds = [1 << k for k in range(4) if 1 << k < n]
    sent = lambda r: sum(size[(r + i) % n] for d in rounds for i in range(min(d, n - d)))  # noqa: E731
    common.check_traffic(impl, c, expect, sent, lambda r: len(rounds))


@law(
    ID, "L3", needs=("plan",), given=space.reach("many"), kills=["copies_by_itself"],
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def of(n, rows):
    """The default-size test: rows of one length on n ranks."""
    return lambda: ((common.ThreadWorld(n), [np.arange(rows) + 10.0 * r for r in range(n)]), {})


def gather(comm, x, length, *, turned=True, rounds=9, full=False):
    """The rounds in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    total = x.size * n if length is None else length
    at = cuts(total, n)
    size = [at[(r + i) % n + 1] - at[(r + i) % n] for i in range(n)] * 2
    row, y = comm.empty(x, 2 * total), comm.empty(x, total)
    comm.copy(x, row[: x.size])
    for d in [1 << k for k in range(8)][:rounds]:
        if d < n:
            count = d if full else min(d, n - d)
            start = sum(size[:d])
            got = row[start : start + sum(size[d : d + count])]
            comm.sendrecv(row[: sum(size[:count])], (r - d) % n, got, (r + d) % n)
    for i in range(n):
        start = sum(size[:i])
        place = at[(r + i) % n] if turned else start
        comm.copy(row[start : start + size[i]], y[place : place + size[i]])
    return y


@mutant(ID, default_case=of(1, 4))
@collective(ragged=True)
def never_turned(comm, x, *, length=None, out=None):
    "The own block comes first on every rank: right on rank 0."
    return gather(comm, x, length, turned=False)


@mutant(ID, default_case=of(4, 3))
@collective(ragged=True)
def rounds_rounded_down(comm, x, *, length=None, out=None):
    "floor(log2 n) rounds: enough for powers of two."
    return gather(comm, x, length, rounds=comm.size.bit_length() - 1)


@mutant(ID, default_case=of(4, 3))
@collective(ragged=True)
def last_round_in_full(comm, x, *, length=None, out=None):
    "d blocks in every round, some of them for the second time."
    return gather(comm, x, length, full=True)


@mutant(ID, default_case=of(2, 3))
@collective(ragged=True)
def a_ring(comm, x, *, length=None, out=None):
    "n - 1 messages, enough for two ranks."
    n, r = comm.size, comm.rank
    total = x.size * n if length is None else length
    y, at = comm.empty(x, total), cuts(total, n)
    comm.copy(x, y[at[r] : at[r + 1]])
    for k in range(n - 1):
        a, b = (r + k) % n, (r + k + 1) % n
        comm.sendrecv(y[at[a] : at[a + 1]], (r - 1) % n, y[at[b] : at[b + 1]], (r + 1) % n)
    return y


@mutant(ID, default_case=of(4, 3))
@collective(ragged=True)
def copies_by_itself(comm, x, *, length=None, out=None):
    "Copies without the communicator: a plan turns what was there when it was made."
    return gather(common.copies_itself(comm), x, length)


@mutant(ID, default_case=of(4, 3))
@collective(ragged=True)
def in_half_the_bits(comm, x, *, length=None, out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(gather, comm, x, length=length)
