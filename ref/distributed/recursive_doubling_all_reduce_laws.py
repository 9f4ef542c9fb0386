"""Laws and mutants of the all-reduce by recursive doubling."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import EXACT, OPS, of, tree, world_space
from ref.spec import law, mutant

ID = "distributed.recursive_doubling_all_reduce"
space = world_space(ID, op=OPS)
sums = space.where(op="sum")


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "odd"),
    kills=["powers_of_two_alone", "never_given_back", "one_round", "disseminates", "always_sums"],
)  # fmt: skip
def is_the_exact_reduction(impl, c, expect):
    "Small integers, as floats and as int64: the sum, product, maximum, minimum over ranks in Python's integers."
    common.check_exact(impl, c, expect)


@law(
    ID, "L2", given=space.reach("odd"), kills=["last_ranks_folded", "sums_in_half_the_bits"],
)  # fmt: skip
def is_the_balanced_tree(impl, c, expect):
    "The first 2 e arrays in pairs, then the balanced tree over the p in rank order, to the bit, on every rank."
    expect.same(impl(c), np.broadcast_to(tree(c.op, list(c.x)), c.x.shape))


@law(
    ID, "L3", closed_form=True, given=sums.reach("alone", "empty", "odd"), kills=["disseminates"],
    passes_null=["wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "A place sends log2 p messages of S, an odd rank among the first 2 e one more, an even one of them one alone."
    p = 1 << (c.n.bit_length() - 1)
    messages = lambda r: (1 if r % 2 == 0 else p.bit_length()) if r < 2 * (c.n - p) else p.bit_length() - 1  # noqa: E731
    size = c.L * c.x.dtype.itemsize
    common.check_traffic(impl, c, expect, lambda r: messages(r) * size, messages)


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=sums.reach("odd"), kills=["own_on_the_left", "last_ranks_folded"],
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


def doubling(comm, x, op, *, fold=True, back=True, rounds=99, last=False):
    """The rounds in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    y, got = comm.empty(x, x.size), comm.empty(x, x.size)
    comm.copy(x, y)
    p = 1 << (n.bit_length() - 1)
    extra = n - p
    order = list(range(n))
    if last:  # rank p + i is folded into rank i
        order = [q for i in range(extra) for q in (p + i, i)] + list(range(extra, p))
    place = order.index(r)
    if place < 2 * extra:
        if place % 2 == 0:
            if fold:
                comm.send(y, order[place + 1])
            if back:
                comm.recv(y, order[place + 1])
            return y
        if fold:
            comm.recv(got, order[place - 1])
            comm.combine(op, got, y, y)
    v = place // 2 if place < 2 * extra else place - extra
    for d in [1 << i for i in range(min(p.bit_length() - 1, rounds))]:
        w = v ^ d
        peer = order[2 * w + 1 if w < extra else w + extra]
        comm.sendrecv(y, peer, got, peer)
        comm.combine(op, *((got, y) if peer < r else (y, got)), y)
    if place < 2 * extra and back:
        comm.send(y, order[place - 1])
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def powers_of_two_alone(comm, x, *, op="sum", out=None):
    "The ranks beyond a power of two get the sum of the others."
    return doubling(comm, x, op, fold=False)


@mutant(ID, default_case=of(2, 4))
@collective
def never_given_back(comm, x, *, op="sum", out=None):
    "The ranks beyond a power of two give and do not get."
    return doubling(comm, x, op, back=False)


@mutant(ID, default_case=of(2, 4))
@collective
def one_round(comm, x, *, op="sum", out=None):
    "One round, enough for two ranks."
    return doubling(comm, x, op, rounds=1)


@mutant(ID, default_case=of(2, 4))
@collective
def disseminates(comm, x, *, op="sum", out=None):
    "To r + d, from r - d: right for powers of two and idempotent ops, else arrays count twice."
    n, r, d = comm.size, comm.rank, 1
    y, got = comm.empty(x, x.size), comm.empty(x, x.size)
    comm.copy(x, y)
    while d < n:
        comm.sendrecv(y, (r + d) % n, got, (r - d) % n)
        comm.combine(op, got, y, y)
        d *= 2
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def last_ranks_folded(comm, x, *, op="sum", out=None):
    "Rank p + i is folded into rank i, not a rank into its neighbour: the order of ranks is lost."
    return doubling(comm, x, op, last=True)


@mutant(ID, default_case=of(2, 4))
@collective
def own_on_the_left(comm, x, *, op="sum", out=None):
    "Each of a pair has its own operand on the left."

    def combine(op, left, right, out):
        comm.combine(op, *((right, left) if right is out else (left, right)), out)

    return doubling(common.Edited(comm, combine=combine), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def always_sums(comm, x, *, op="sum", out=None):
    "Any named op is a sum."
    return doubling(common.always_sums(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def combines_by_itself(comm, x, *, op="sum", out=None):
    "mine = got + mine without the communicator."
    return doubling(common.by_itself(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def sums_in_half_the_bits(comm, x, *, op="sum", out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(doubling, comm, x, op=op)
