"""Laws and mutants of the binomial reduce."""

from __future__ import annotations

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import OPS, SPOILT, exactly, folded, of, root, whole_case, world_space
from ref.spec import law, mutant

ID = "distributed.binomial_reduce"
space = world_space(ID, op=OPS, root=root)
sums = space.where(op="sum")


def of_the_root(out, c, expect):
    """The result of the root, once the others are seen to have none."""
    out = common.by_rank(out, c, expect)
    having = [r for r in range(c.n) if out[r] is not None]
    expect.holds(having == [c.root], f"rank {c.root} alone has a result, {having} have one")
    return out[c.root]


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "odd"),
    kills=["root_is_rank_0", "powers_of_two_alone", "everyone_returns", "always_sums"],
)  # fmt: skip
def the_root_has_the_exact_reduction(impl, c, expect):
    "Small integers, as floats and as int64: the root has the reduction in Python's integers, the others None."
    c = whole_case(c)
    found = of_the_root(impl(c), c, expect)
    expect.holds(found.dtype == c.x.dtype, f"the result has x's dtype {c.x.dtype}, it has {found.dtype}")
    expect.same(found, exactly(c), c.op)


@law(
    ID, "L2", given=space.reach("odd"), kills=["root_receives_all", "in_half_the_bits"],
)  # fmt: skip
def is_the_binomial_tree(impl, c, expect):
    "To the bit: for m = 1, 2, 4, .. every place that is a multiple of 2 m takes in place v + m."
    row = [c.x[(c.root + v) % c.n] for v in range(c.n)]
    while len(row) > 1:
        row = [folded(c.op, row[i : i + 2]) for i in range(0, len(row), 2)]
    expect.same(of_the_root(impl(c), c, expect), row[0])


@law(
    ID, "L3", closed_form=True, given=sums.reach("alone", "empty"),
    kills=["sends_to_itself"], passes_null=[*SPOILT, "wrong_dtype"],
)  # fmt: skip
def messages_are_the_tree(impl, c, expect):
    "Every rank but the root sends S once; the root receives from the places 1, 2, 4, .. below n."
    size = c.L * c.x.dtype.itemsize
    common.check_traffic(impl, c, expect, lambda r: size * (r != c.root), lambda r: int(r != c.root))
    _, counts = common.traffic(impl, c)
    expect.same(counts[c.root].messages_received, (c.n - 1).bit_length(), "messages that the root receives")


@law(ID, "L4", closed_form=True, given=sums.reach("many"), kills=["wrong_operand_order", "own_on_the_left"])
def lowest_rank_stands_left(impl, c, expect):
    "With op(l, r) = l the result is the array of rank 0, whoever is the root."
    found = of_the_root(impl(c.replace(op=common.leftmost)), c, expect)
    expect.holds(found.dtype == c.x.dtype, f"the result has x's dtype {c.x.dtype}, it has {found.dtype}")
    expect.same(found, c.x[0], "the array of rank 0")


@law(
    ID, "L5", needs=("plan",), given=space, kills=["combines_by_itself"], passes_null=SPOILT,
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan_by_rank(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def up(comm, x, op, root, *, last=None, order=None):
    """The tree in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    y, got = comm.empty(x, x.size), comm.empty(x, x.size)
    comm.copy(x, y)
    v, n = (r - root) % n, last or n
    if v >= n:
        return None
    lowest = lambda v, m: 0 if (v + root) % comm.size + min(m, n - v) > comm.size else (v + root) % comm.size  # noqa: E731
    m = 1
    while m < n and not v & m:
        if v + m < n:
            comm.recv(got, (r + m) % comm.size)
            left = lowest(v + m, m) < lowest(v, m) if order is None else order
            comm.combine(op, *((got, y) if left else (y, got)), y)
        m *= 2
    if v:
        comm.send(y, (r - m) % comm.size)
        return None
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def root_is_rank_0(comm, x, *, op="sum", root=0, out=None):
    "Rank 0 has the result, whoever was named."
    return up(comm, x, op, 0)


@mutant(ID, default_case=of(2, 4))
@collective
def powers_of_two_alone(comm, x, *, op="sum", root=0, out=None):
    "The tree ends at the last power of two."
    return up(comm, x, op, root, last=1 << (comm.size.bit_length() - 1))


@mutant(ID, default_case=of(1, 4))
@collective
def everyone_returns(comm, x, *, op="sum", root=0, out=None):
    "A rank other than the root returns its own array."
    found = up(comm, x, op, root)
    return x.copy() if found is None else found


@mutant(ID, default_case=of(2, 4))
@collective
def always_sums(comm, x, *, op="sum", root=0, out=None):
    "Any named op is a sum."
    return up(common.always_sums(comm), x, op, root)


@mutant(ID, default_case=of(2, 4))
@collective
def root_receives_all(comm, x, *, op="sum", root=0, out=None):
    "The root takes in one rank after the other."
    if comm.rank != root:
        comm.send(x.copy(), root)
        return None
    y, got = comm.empty(x, x.size), comm.empty(x, x.size)
    comm.copy(x, y)
    for k in range(1, comm.size):
        comm.recv(got, (root + k) % comm.size)
        comm.combine(op, y, got, y)
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def sends_to_itself(comm, x, *, op="sum", root=0, out=None):
    "The root sends its result to itself."
    found = up(comm, x, op, root)
    if found is None:
        return None
    y = comm.empty(x, x.size)
    comm.sendrecv(found, comm.rank, y, comm.rank)
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def wrong_operand_order(comm, x, *, op="sum", root=0, out=None):
    "The operands swapped."
    return up(common.swapped(comm), x, op, root)


@mutant(ID, default_case=of(2, 4))
@collective
def own_on_the_left(comm, x, *, op="sum", root=0, out=None):
    "The lower place stands left, not the lowest rank: the same from root 0."
    return up(comm, x, op, root, order=False)


@mutant(ID, default_case=of(2, 4))
@collective
def combines_by_itself(comm, x, *, op="sum", root=0, out=None):
    "mine = got + mine without the communicator."
    return up(common.by_itself(comm), x, op, root)


@mutant(ID, default_case=of(2, 4))
@collective
def in_half_the_bits(comm, x, *, op="sum", root=0, out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(up, comm, x, op=op, root=root)
