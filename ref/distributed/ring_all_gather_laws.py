"""Laws and mutants of the ring all-gather."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import cuts, rows_of, world_space
from ref.spec import law, mutant
from ref.spec.cases import Flag, choose

ID = "distributed.ring_all_gather"
space = world_space(
    ID, x=lambda draw, c: rows_of(draw, c, c.L), length=lambda draw, c: c.L, M=lambda draw, c: c.L,
    flags={"equal": Flag(lambda c: c.n > 1 and c.L % c.n == 0, {"n": choose(2, 3, 5), "L": choose(30, 60)})},
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "short", "uneven"),
    kills=["one_step", "off_by_one_block", "remainder_dropped", "in_half_the_bits"],
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
    kills=["the_other_way", "all_at_once", "empty_blocks_skipped"], passes_null=["wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "Rank r sends all blocks but r + 1, in n - 1 messages."
    size, n = [a.nbytes for a in c.x], c.n
    sent = lambda r: sum(size) - size[(r + 1) % n] if n > 1 else 0  # noqa: E731
    common.check_traffic(impl, c, expect, sent, lambda r: n - 1)


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


def gather(comm, x, length, *, cut=cuts, steps=None, way=1, first=0):
    """The ring in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    total = x.size * n if length is None else length
    y, at = comm.empty(x, total), cuts(total, n)
    comm.copy(x, y[at[r] : at[r + 1]])
    at = cut(total, n)
    for k in range(min(steps or n, n - 1)):
        a, b = (r + way * (first - k)) % n, (r + way * (first - k - 1)) % n
        comm.sendrecv(y[at[a] : at[a + 1]], (r + way) % n, y[at[b] : at[b + 1]], (r - way) % n)
    return y


@mutant(ID, default_case=of(2, 4))
@collective(ragged=True)
def one_step(comm, x, *, length=None, out=None):
    "One step, enough for two ranks."
    return gather(comm, x, length, steps=1)


@mutant(ID, default_case=of(2, 4))
@collective(ragged=True)
def off_by_one_block(comm, x, *, length=None, out=None):
    "The ring starts with block r + 2: the same for two ranks."
    return gather(comm, x, length, first=2)


@mutant(ID, default_case=of(2, 4))
@collective(ragged=True)
def remainder_dropped(comm, x, *, length=None, out=None):
    "Blocks of length // n rows."
    return gather(comm, x, length, cut=common.equal_cuts)


@mutant(ID, default_case=of(2, 4))
@collective(ragged=True)
def the_other_way(comm, x, *, length=None, out=None):
    "To r - 1: the same blocks, other bytes when they are uneven."
    return gather(comm, x, length, way=-1)


@mutant(ID, default_case=of(2, 4))
@collective(ragged=True)
def all_at_once(comm, x, *, length=None, out=None):
    "Each rank sends its own block to every other."
    n, r = comm.size, comm.rank
    total = x.size * n if length is None else length
    y, at = comm.empty(x, total), cuts(total, n)
    mine = y[at[r] : at[r + 1]]
    comm.copy(x, mine)
    for k in range(1, n):
        a = (r - k) % n
        comm.sendrecv(mine, (r + k) % n, y[at[a] : at[a + 1]], a)
    return y


@mutant(ID, default_case=of(2, 4))
@collective(ragged=True)
def empty_blocks_skipped(comm, x, *, length=None, out=None):
    "Blocks without rows are not sent."
    return gather(common.quiet(comm), x, length)


@mutant(ID, default_case=of(2, 4))
@collective(ragged=True)
def copies_by_itself(comm, x, *, length=None, out=None):
    "The own block copied without the communicator: a plan sends what x held when it was made."
    return gather(common.copies_itself(comm), x, length)


@mutant(ID, default_case=of(2, 4))
@collective(ragged=True)
def in_half_the_bits(comm, x, *, length=None, out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(gather, comm, x, length=length)
