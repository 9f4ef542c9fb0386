"""Laws and mutants of the ring all-reduce."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import OPS, cuts, folded, of, sizes, world_space
from ref.spec import law, mutant

ID = "distributed.ring_all_reduce"
space = world_space(ID, op=OPS)
sums = space.where(op="sum")


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "short", "uneven"),
    kills=["remainder_dropped", "one_step", "off_by_one_chunk", "always_sums"],
)  # fmt: skip
def is_the_exact_reduction(impl, c, expect):
    "Small integers, as floats and as int64: the sum, product, maximum, minimum over ranks in Python's integers."
    common.check_exact(impl, c, expect)


@law(
    ID, "L2", given=space.reach("uneven", "many"),
    kills=["folds_from_its_own_rank", "sums_in_half_the_bits", "drops_nan", "integers_through_floats"],
)  # fmt: skip
def folds_around_the_ring(impl, c, expect):
    "Chunk j is x_j op x_{j+1} op .. around the ring, to the bit, the same on every rank."
    cut = cuts(c.L, c.n)
    wanted = np.empty(c.L, c.x.dtype)
    for j in range(c.n):
        part = slice(cut[j], cut[j + 1])
        wanted[part] = folded(c.op, [c.x[(j + q) % c.n][part] for q in range(c.n)])
    expect.same(impl(c), np.broadcast_to(wanted, c.x.shape))


@law(
    ID, "L3", closed_form=True, given=sums.reach("alone", "empty", "short", "uneven"),
    kills=["empty_chunks_skipped", "folds_from_its_own_rank"], passes_null=["wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "Rank r sends 2 S - c_{r+1} - c_{r+2} bytes in 2 (n - 1) messages; one rank alone sends none."
    size, n = sizes(c), c.n
    sent = lambda r: 2 * sum(size) - size[(r + 1) % n] - size[(r + 2) % n] if n > 1 else 0  # noqa: E731
    common.check_traffic(impl, c, expect, sent, lambda r: 2 * (n - 1))


@law(
    ID, "L4", closed_form=True, given=sums.reach("many"), kills=["wrong_operand_order"],
)  # fmt: skip
def lowest_rank_stands_left(impl, c, expect):
    "With op(l, r) = l the result is the array of rank 0."
    out = impl(c.replace(op=common.leftmost))
    expect.same(out, np.broadcast_to(c.x[0], out.shape), "the array of rank 0")


@law(
    ID, "L5", needs=("plan",), given=space.reach("uneven"), kills=["combines_by_itself"],
    
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def ring(comm, x, op, *, cut=cuts, steps=None, first=1):
    """The two phases in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    y = comm.empty(x, x.size)
    comm.copy(x, y)
    at = cut(y.size, n)
    chunk = [y[at[i] : at[i + 1]] for i in range(n)]
    for k in range(min(steps or n, n - 1)):
        mine = chunk[(r - k - 1) % n]
        got = comm.empty(y, mine.size)
        comm.sendrecv(chunk[(r - k) % n], (r + 1) % n, got, (r - 1) % n)
        comm.combine(op, *((got, mine) if r else (mine, got)), mine)
    for k in range(min(steps or n, n - 1)):
        comm.sendrecv(chunk[(r + first - k) % n], (r + 1) % n, chunk[(r + first - 1 - k) % n], (r - 1) % n)
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def remainder_dropped(comm, x, *, op="sum", out=None):
    "Chunks of L // n elements: the last L mod n stay each rank's own."
    return ring(comm, x, op, cut=common.equal_cuts)


@mutant(ID, default_case=of(2, 4))
@collective
def one_step(comm, x, *, op="sum", out=None):
    "One step a phase, enough for two ranks."
    return ring(comm, x, op, steps=1)


@mutant(ID, default_case=of(2, 4))
@collective
def off_by_one_chunk(comm, x, *, op="sum", out=None):
    "The all-gather starts with chunk r - 1, not r + 1: the same for two ranks."
    return ring(comm, x, op, first=-1)


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
def folds_from_its_own_rank(comm, x, *, op="sum", out=None):
    "Every rank gathers all arrays and folds them from its own on: close, but not the same bits."
    n, r = comm.size, comm.rank
    arrays = [comm.empty(x, x.size) for _ in range(n)]
    comm.copy(x, arrays[r])
    for k in range(1, n):
        comm.sendrecv(arrays[r], (r + k) % n, arrays[(r - k) % n], (r - k) % n)
    for k in range(1, n):
        comm.combine(op, arrays[r], arrays[(r + k) % n], arrays[r])
    return arrays[0] if callable(op) else arrays[r]


@mutant(ID, default_case=of(2, 4))
@collective
def sums_in_half_the_bits(comm, x, *, op="sum", out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(ring, comm, x, op=op)


@mutant(ID, default_case=of(2, 4))
@collective
def drops_nan(comm, x, *, op="sum", out=None):
    "fmax and fmin: a number wins over NaN."
    return ring(comm, x, {"max": np.fmax, "min": np.fmin}.get(op, op))


@mutant(ID, default_case=of(2, 4))
@collective
def integers_through_floats(comm, x, *, op="sum", out=None):
    "float64 on the wire: exact up to 2^53."
    return ring(comm, x.astype(np.float64), op).astype(x.dtype) if x.dtype.kind == "i" else ring(comm, x, op)
