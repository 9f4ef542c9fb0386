"""Laws and mutants of the segmented ring all-reduce."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import OPS, cuts, folded, of, sizes, world_space
from ref.spec import law, mutant
from ref.spec.cases import Flag, choose

ID = "distributed.segmented_ring_all_reduce"


def pieces(c):
    return max(1, -(-max(sizes(c)) // c.segment))


space = world_space(
    ID, op=OPS, segment=choose(8, 16, 24, 1 << 18),
    flags={"several": Flag(lambda c: c.n > 1 and pieces(c) > 1,
                           {"n": choose(2, 3, 4), "L": choose(13, 23), "segment": choose(16, 24)})},
)  # fmt: skip
sums = space.where(op="sum")


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "several"),
    kills=["remainder_dropped", "one_buffer", "sends_overwritten"],
)  # fmt: skip
def is_the_exact_reduction(impl, c, expect):
    "Small integers, as floats and as int64: the sum, product, maximum, minimum over ranks in Python's integers."
    common.check_exact(impl, c, expect)


@law(
    ID, "L2", given=space.reach("uneven", "several"), kills=["sums_in_half_the_bits", "one_buffer"],
)  # fmt: skip
def has_the_bits_of_the_ring(impl, c, expect):
    "Chunk j is x_j op x_{j+1} op .. around the ring, to the bit, whatever the segments."
    cut = cuts(c.L, c.n)
    wanted = np.empty(c.L, c.x.dtype)
    for j in range(c.n):
        part = slice(cut[j], cut[j + 1])
        wanted[part] = folded(c.op, [c.x[(j + q) % c.n][part] for q in range(c.n)])
    expect.same(impl(c), np.broadcast_to(wanted, c.x.shape))


@law(
    ID, "L3", closed_form=True, given=sums.reach("alone", "empty", "several"), kills=["segments_too_long"],
    passes_null=["wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "Rank r sends 2 S - c_{r+1} - c_{r+2} bytes in 2 (n - 1) m messages, m = ceil(max c / segment) or 1."
    size, n = sizes(c), c.n
    sent = lambda r: 2 * sum(size) - size[(r + 1) % n] - size[(r + 2) % n] if n > 1 else 0  # noqa: E731
    common.check_traffic(impl, c, expect, sent, lambda r: 2 * (n - 1) * pieces(c))


@law(
    ID, "L4", closed_form=True, given=sums.reach("many"), kills=["wrong_operand_order"],
)  # fmt: skip
def lowest_rank_stands_left(impl, c, expect):
    "With op(l, r) = l the result is the array of rank 0."
    out = impl(c.replace(op=common.leftmost))
    expect.same(out, np.broadcast_to(c.x[0], out.shape), "the array of rank 0")


@law(
    ID, "L5", needs=("plan",), given=space.reach("several"), kills=["combines_by_itself"],
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def ring(
    comm, x, op, segment, *, cut=cuts, careful=True, buffers=None, count=lambda most, segment: -(-most // segment)
):
    """The pipeline in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    y = comm.empty(x, x.size)
    comm.copy(x, y)
    if n == 1:
        return y
    at = cuts(y.size, n)
    most = max(b - a for a, b in zip(at, at[1:], strict=False))
    m = max(1, count(most * x.itemsize, segment))
    inner = [cut(b - a, m) for a, b in zip(at, at[1:], strict=False)]
    piece = [[y[a + i[j] : a + i[j + 1]] for j in range(m)] for a, i in zip(at, inner, strict=False)]
    buffer = [comm.empty(y, most) for _ in range(buffers or m)]

    def receive(k, j):
        if k < n - 1:
            return comm.irecv(buffer[j % len(buffer)][: piece[(r - k - 1) % n][j].size], (r - 1) % n)
        if careful:
            sent[k - n + 1][j].wait()
        return comm.irecv(piece[(r - k + n - 1) % n][j], (r - 1) % n)

    sent = [[comm.isend(piece[r][j], (r + 1) % n) for j in range(m)]]
    arriving = [receive(0, j) for j in range(m)]
    for k in range(2 * n - 2):
        sent.append([])
        for j in range(m):
            arriving[j].wait()
            mine = piece[(r - k - 1) % n][j]
            if k < n - 1:
                got = buffer[j % len(buffer)][: mine.size]
                comm.combine(op, *((got, mine) if r else (mine, got)), mine)
            if k < 2 * n - 3:
                arriving[j] = receive(k + 1, j)
                sent[-1].append(comm.isend(mine, (r + 1) % n))
    for step in sent:
        for request in step:
            request.wait()
    return y


@mutant(ID, default_case=of(2, 8))
@collective
def remainder_dropped(comm, x, *, op="sum", segment=1 << 18, out=None):
    "Segments of l // m elements: the last l mod m are never sent."
    return ring(comm, x, op, segment, cut=common.equal_cuts)


@mutant(ID, default_case=of(2, 8))
@collective
def one_buffer(comm, x, *, op="sum", segment=1 << 18, out=None):
    "One buffer for all segments under way."
    return ring(comm, x, op, segment, buffers=1)


@mutant(ID, default_case=of(2, 8))
@collective
def sends_overwritten(comm, x, *, op="sum", segment=1 << 18, out=None):
    "The all-gather receives into a chunk whose send may not have left."
    return ring(comm, x, op, segment, careful=False)


@mutant(ID, default_case=of(2, 8))
@collective
def segments_too_long(comm, x, *, op="sum", segment=1 << 18, out=None):
    "The number of segments rounded down."
    return ring(comm, x, op, segment, count=lambda most, segment: most // segment)


@mutant(ID, default_case=of(2, 8))
@collective
def wrong_operand_order(comm, x, *, op="sum", segment=1 << 18, out=None):
    "What comes stands right of what is there."
    return ring(common.swapped(comm), x, op, segment)


@mutant(ID, default_case=of(2, 8))
@collective
def combines_by_itself(comm, x, *, op="sum", segment=1 << 18, out=None):
    "mine = got + mine without the communicator."
    return ring(common.by_itself(comm), x, op, segment)


@mutant(ID, default_case=of(2, 8))
@collective
def sums_in_half_the_bits(comm, x, *, op="sum", segment=1 << 18, out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(ring, comm, x, op=op, segment=segment)
