"""Laws and mutants of the ring reduce-scatter."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import OPS, SPOILT, cuts, exactly, folded, of, sizes, whole_case, world_space
from ref.spec import law, mutant

ID = "distributed.ring_reduce_scatter"
space = world_space(ID, op=OPS)
sums = space.where(op="sum")


def chunks_of(c, whole, out, expect, what):
    """Rank r's result is chunk r of `whole`, in its dtype."""
    out, cut = common.by_rank(out, c, expect), cuts(c.L, c.n)
    for r in range(c.n):
        expect.same(out[r], whole[cut[r] : cut[r + 1]], f"{what} of rank {r}")
        expect.holds(out[r].dtype == c.x.dtype, f"the result has x's dtype {c.x.dtype}, it has {out[r].dtype}")


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "short", "uneven"),
    kills=["remainder_dropped", "one_step", "chunk_of_the_neighbour", "always_sums"],
)  # fmt: skip
def is_the_exact_chunk(impl, c, expect):
    "Small integers, as floats and as int64: rank r has chunk r of the reduction in Python's integers."
    c = whole_case(c)
    chunks_of(c, exactly(c), impl(c), expect, c.op)


@law(
    ID, "L2", given=space.reach("uneven", "many"), kills=["folds_from_its_own_rank", "sums_in_half_the_bits"],
)  # fmt: skip
def folds_around_the_ring(impl, c, expect):
    "Chunk j is x_{j+1} op x_{j+2} op .. op x_j around the ring, to the bit."
    cut, whole = cuts(c.L, c.n), np.empty(c.L, c.x.dtype)
    for j in range(c.n):
        part = slice(cut[j], cut[j + 1])
        whole[part] = folded(c.op, [c.x[(j + 1 + q) % c.n][part] for q in range(c.n)])
    chunks_of(c, whole, impl(c), expect, "the fold")


@law(
    ID, "L3", closed_form=True, given=sums.reach("alone", "empty", "short", "uneven"),
    kills=["all_reduces_first", "empty_chunks_skipped"], passes_null=[*SPOILT, "wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "Rank r sends S - c_r bytes in n - 1 messages."
    size = sizes(c)
    common.check_traffic(impl, c, expect, lambda r: sum(size) - size[r], lambda r: c.n - 1)


@law(ID, "L4", closed_form=True, given=sums.reach("many"), kills=["wrong_operand_order"])
def lowest_rank_stands_left(impl, c, expect):
    "With op(l, r) = l rank r has chunk r of the array of rank 0."
    chunks_of(c, c.x[0], impl(c.replace(op=common.leftmost)), expect, "the array of rank 0")


@law(
    ID,
    "L5",
    needs=("plan",),
    given=space,
    kills=["combines_by_itself"],
    passes_null=SPOILT,
)
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan_by_rank(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def ring(comm, x, op, *, cut=cuts, steps=None, last=0):
    """The steps, whose parts an edit replaces; rank r ends with chunk r + last."""
    n, r = comm.size, comm.rank
    y = comm.empty(x, x.size)
    comm.copy(x, y)
    at = cut(y.size, n)
    chunk = [y[at[i] : at[i + 1]] for i in range(n)]
    for k in range(min(steps or n, n - 1)):
        mine = chunk[(r + last - k - 2) % n]
        got = comm.empty(y, mine.size)
        comm.sendrecv(chunk[(r + last - k - 1) % n], (r + 1) % n, got, (r - 1) % n)
        comm.combine(op, *((got, mine) if r else (mine, got)), mine)
    own = comm.empty(y, chunk[(r + last) % n].size)
    comm.copy(chunk[(r + last) % n], own)
    return own


@mutant(ID, default_case=of(2, 4))
@collective
def remainder_dropped(comm, x, *, op="sum", out=None):
    "Chunks of L // n elements."
    return ring(comm, x, op, cut=common.equal_cuts)


@mutant(ID, default_case=of(2, 4))
@collective
def one_step(comm, x, *, op="sum", out=None):
    "One step, enough for two ranks."
    return ring(comm, x, op, steps=1)


@mutant(ID, default_case=of(1, 4))
@collective
def chunk_of_the_neighbour(comm, x, *, op="sum", out=None):
    "Rank r ends with chunk r + 1, as inside the all-reduce."
    return ring(comm, x, op, last=1)


@mutant(ID, default_case=of(2, 4))
@collective
def always_sums(comm, x, *, op="sum", out=None):
    "Any named op is a sum."
    return ring(common.always_sums(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def wrong_operand_order(comm, x, *, op="sum", out=None):
    "What comes stands right of what is there."
    return ring(common.swapped(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def combines_by_itself(comm, x, *, op="sum", out=None):
    "mine = got + mine without the communicator."
    return ring(common.by_itself(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def empty_chunks_skipped(comm, x, *, op="sum", out=None):
    "Chunks without elements are not sent."
    return ring(common.quiet(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def sums_in_half_the_bits(comm, x, *, op="sum", out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(ring, comm, x, op=op)


@mutant(ID, default_case=of(2, 4))
@collective
def folds_from_its_own_rank(comm, x, *, op="sum", out=None):
    "The chunks come straight from their ranks and are folded from the own one on."
    n, r = comm.size, comm.rank
    y = comm.empty(x, x.size)
    comm.copy(x, y)
    at = cuts(y.size, n)
    own, got = (comm.empty(y, at[r + 1] - at[r]) for _ in range(2))
    comm.copy(y[at[r] : at[r + 1]], own)
    for k in range(1, n):
        to = (r + k) % n
        comm.sendrecv(y[at[to] : at[to + 1]], to, got, (r - k) % n)
        comm.combine(op, own, got, own)
    return own


@mutant(ID, default_case=of(2, 4))
@collective
def all_reduces_first(comm, x, *, op="sum", out=None):
    "Everything to everyone, and the own chunk kept."
    n, r = comm.size, comm.rank
    arrays = [comm.empty(x, x.size) for _ in range(n)]
    comm.copy(x, arrays[r])
    for k in range(1, n):
        comm.sendrecv(arrays[r], (r + k) % n, arrays[(r - k) % n], (r - k) % n)
    total, at = arrays[(r + 1) % n], cuts(x.size, n)
    for k in range(2, n + 1):
        comm.combine(op, total, arrays[(r + k) % n], total)
    return total[at[r] : at[r + 1]].copy()
