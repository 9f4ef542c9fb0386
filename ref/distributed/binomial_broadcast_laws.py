"""Laws and mutants of the binomial broadcast."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import of, root, world_space
from ref.spec import law, mutant

ID = "distributed.binomial_broadcast"
space = world_space(ID, root=root)


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "odd"),
    kills=["root_is_rank_0", "powers_of_two_alone", "sends_before_it_has", "in_half_the_bits"],
)  # fmt: skip
def everyone_has_the_array_of_the_root(impl, c, expect):
    "The bits of the root's array on every rank, in its dtype."
    out = impl(c)
    expect.holds(out.dtype == c.x.dtype, f"the result has x's dtype {c.x.dtype}, it has {out.dtype}")
    expect.same(out, np.broadcast_to(c.x[c.root], c.x.shape))


@law(
    ID, "L2", closed_form=True, given=space.reach("alone", "empty", "odd"), kills=["root_sends_to_all"],
    passes_null=["wrong_dtype"],
)  # fmt: skip
def messages_are_the_tree(impl, c, expect):
    "Place v sends S to v + m for every power of two m below its lowest set bit with v + m < n; n - 1 messages in all."

    def messages(r):
        v = (r - c.root) % c.n
        lowest = v & -v if v else c.n
        return sum(1 for k in range(4) if 1 << k < lowest and v + (1 << k) < c.n)

    expect.same(sum(messages(r) for r in range(c.n)), c.n - 1, "messages of all ranks")
    common.check_traffic(impl, c, expect, lambda r: messages(r) * c.L * c.x.dtype.itemsize, messages)


@law(
    ID, "L3", needs=("plan",), given=space.reach("many"), kills=["copies_by_itself"],
    
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def down(comm, x, root, *, last=None, early=False):
    """The tree in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    y = comm.empty(x, x.size)
    comm.copy(x, y)
    v, n = (r - root) % n, last or n
    if v >= n:
        return y
    bit = 1
    while bit < n and not v & bit:
        bit *= 2
    if v and not early:
        comm.recv(y, (r - bit) % comm.size)
    for m in [1 << k for k in range(8)][::-1]:
        if m < bit and v + m < n:
            comm.send(y, (r + m) % comm.size)
    if v and early:
        comm.recv(y, (r - bit) % comm.size)
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def root_is_rank_0(comm, x, *, root=0, out=None):
    "Rank 0 is the root, whoever was named."
    return down(comm, x, 0)


@mutant(ID, default_case=of(2, 4))
@collective
def powers_of_two_alone(comm, x, *, root=0, out=None):
    "The tree ends at the last power of two."
    return down(comm, x, root, last=1 << (comm.size.bit_length() - 1))


@mutant(ID, default_case=of(2, 4))
@collective
def sends_before_it_has(comm, x, *, root=0, out=None):
    "A rank in the middle of the tree sends on what it had: two ranks have no middle."
    return down(comm, x, root, early=True)


@mutant(ID, default_case=of(2, 4))
@collective
def root_sends_to_all(comm, x, *, root=0, out=None):
    "n - 1 messages, all of them the root's."
    y = comm.empty(x, x.size)
    comm.copy(x, y)
    if comm.rank == root:
        for r in range(comm.size):
            if r != root:
                comm.send(y, r)
    else:
        comm.recv(y, root)
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def copies_by_itself(comm, x, *, root=0, out=None):
    "y = x without the communicator: a plan sends what x held when it was made."
    return down(common.copies_itself(comm), x, root)


@mutant(ID, default_case=of(2, 4))
@collective
def in_half_the_bits(comm, x, *, root=0, out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(down, comm, x, root=root)
