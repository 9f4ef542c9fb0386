"""Laws and mutants of Rabenseifner's all-reduce."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import EXACT, OPS, cuts, of, sizes, tree, world_space
from ref.spec import law, mutant

ID = "distributed.halving_doubling_all_reduce"
space = world_space(ID, op=OPS)
sums = space.where(op="sum")


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "odd", "uneven"),
    kills=["remainder_dropped", "powers_of_two_alone", "never_given_back", "always_sums"],
)  # fmt: skip
def is_the_exact_reduction(impl, c, expect):
    "Small integers, as floats and as int64: the sum, product, maximum, minimum over ranks in Python's integers."
    common.check_exact(impl, c, expect)


@law(ID, "L2", given=space.reach("odd"), kills=["far_ones_first", "sums_in_half_the_bits"])
def is_the_balanced_tree(impl, c, expect):
    "The first 2 e arrays in pairs, then the balanced tree over the p in rank order, to the bit, on every rank."
    expect.same(impl(c), np.broadcast_to(tree(c.op, list(c.x)), c.x.shape))


@law(
    ID, "L3", closed_form=True, given=sums.reach("alone", "empty", "odd", "uneven"),
    kills=["whole_arrays", "empty_chunks_skipped"], passes_null=["wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    """All ranks send 2 (n - 1) S bytes; a place sends S less its own chunk, then the ranges that grow from its chunk to
    half, in 2 log2 p messages; a rank that is folded sends S, its neighbour S more."""
    p, whole = 1 << (c.n.bit_length() - 1), c.L * c.x.dtype.itemsize
    extra, log = c.n - p, p.bit_length() - 1
    size = sizes(c, p)

    def place_sends(v):
        own = int(f"{v:0{log}b}"[::-1], 2) if log else 0  # halving by the low bits first: the bits reversed
        held = [sum(size[own >> k << k : (own >> k << k) + (1 << k)]) for k in range(log)]
        return whole - size[own] + sum(held)

    def sent(r):
        if r < 2 * extra:
            return whole if r % 2 == 0 else place_sends(r // 2) + whole
        return place_sends(r - extra)

    messages = lambda r: (1 if r % 2 == 0 else 2 * log + 1) if r < 2 * extra else 2 * log  # noqa: E731
    expect.same(sum(sent(r) for r in range(c.n)), 2 * (c.n - 1) * whole, "bytes of all ranks")
    common.check_traffic(impl, c, expect, sent, messages)


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=sums.reach("odd"), kills=["own_on_the_left", "far_ones_first"],
)  # fmt: skip
def order_of_ranks_is_kept(impl, c, expect):
    "An op that does not commute: writing one number after the other, rank r holding the digit r + 1, gives 12..n."
    common.check_order(impl, c, expect)


@law(
    ID, "L5", needs=("plan",), given=space, kills=["combines_by_itself"],
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def halving(comm, x, op, *, cut=cuts, fold=True, back=True, near_first=True, whole=False):
    """Both phases in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    y, buffer = comm.empty(x, x.size), comm.empty(x, x.size)
    comm.copy(x, y)
    p = 1 << (n.bit_length() - 1)
    extra = n - p
    if r < 2 * extra:
        if r % 2 == 0:
            if fold:
                comm.send(y, r + 1)
            if back:
                comm.recv(y, r + 1)
            return y
        if fold:
            comm.recv(buffer, r - 1)
            comm.combine(op, buffer, y, y)
    v = r // 2 if r < 2 * extra else r - extra
    at = cut(y.size, p)
    low, high, trail = 0, p, []
    distances = [1 << i for i in range(p.bit_length() - 1)]
    for d in distances if near_first else distances[::-1]:
        w = v ^ d
        peer, half = 2 * w + 1 if w < extra else w + extra, (low + high) // 2
        kept, given = ((half, high), (low, half)) if v & d else ((low, half), (half, high))
        mine, got = y[at[kept[0]] : at[kept[1]]], buffer[: at[kept[1]] - at[kept[0]]]
        if whole:
            comm.sendrecv(y, peer, buffer, peer)
            got = buffer[at[kept[0]] : at[kept[1]]]
        else:
            comm.sendrecv(y[at[given[0]] : at[given[1]]], peer, got, peer)
        comm.combine(op, *((got, mine) if peer < r else (mine, got)), mine)
        (low, high), trail = kept, [(peer, given), *trail]
    for peer, given in trail:
        comm.sendrecv(y[at[low] : at[high]], peer, y[at[given[0]] : at[given[1]]], peer)
        low, high = min(low, given[0]), max(high, given[1])
    if r < 2 * extra and back:
        comm.send(y, r - 1)
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def remainder_dropped(comm, x, *, op="sum", out=None):
    "Chunks of L // p elements: the last L mod p stay each rank's own."
    return halving(comm, x, op, cut=common.equal_cuts)


@mutant(ID, default_case=of(2, 4))
@collective
def powers_of_two_alone(comm, x, *, op="sum", out=None):
    "The ranks beyond a power of two get the sum of the others."
    return halving(comm, x, op, fold=False)


@mutant(ID, default_case=of(2, 4))
@collective
def never_given_back(comm, x, *, op="sum", out=None):
    "The ranks beyond a power of two give and do not get."
    return halving(comm, x, op, back=False)


@mutant(ID, default_case=of(2, 4))
@collective
def far_ones_first(comm, x, *, op="sum", out=None):
    "Distance p/2 first: ranks are combined that do not follow each other."
    return halving(comm, x, op, near_first=False)


@mutant(ID, default_case=of(2, 4))
@collective
def whole_arrays(comm, x, *, op="sum", out=None):
    "The halving exchanges whole arrays and uses half."
    return halving(comm, x, op, whole=True)


@mutant(ID, default_case=of(2, 4))
@collective
def own_on_the_left(comm, x, *, op="sum", out=None):
    "Each of a pair has its own operand on the left."

    def combine(op, left, right, out):
        comm.combine(op, *((right, left) if right is out else (left, right)), out)

    return halving(common.Edited(comm, combine=combine), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def always_sums(comm, x, *, op="sum", out=None):
    "Any named op is a sum."
    return halving(common.always_sums(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def empty_chunks_skipped(comm, x, *, op="sum", out=None):
    "Ranges without elements are not sent."
    return halving(common.quiet(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def combines_by_itself(comm, x, *, op="sum", out=None):
    "mine = got + mine without the communicator."
    return halving(common.by_itself(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def sums_in_half_the_bits(comm, x, *, op="sum", out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(halving, comm, x, op=op)
