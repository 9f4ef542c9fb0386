"""Laws and mutants of the broadcast by scatter and all-gather."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import cuts, of, root, sizes, world_space
from ref.spec import law, mutant

ID = "distributed.scatter_gather_broadcast"
space = world_space(ID, root=root)


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "short", "uneven"),
    kills=["root_is_rank_0", "remainder_dropped", "off_by_one_chunk", "in_half_the_bits"],
)  # fmt: skip
def everyone_has_the_array_of_the_root(impl, c, expect):
    "The bits of the root's array on every rank, in its dtype."
    out = impl(c)
    expect.holds(out.dtype == c.x.dtype, f"the result has x's dtype {c.x.dtype}, it has {out.dtype}")
    expect.same(out, np.broadcast_to(c.x[c.root], c.x.shape))


@law(
    ID, "L2", closed_form=True, given=space.reach("alone", "empty", "short", "uneven"),
    kills=["whole_array_down_the_tree", "empty_chunks_skipped"], passes_null=["wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    """Place v sends the chunks of places v + m .. v + 2 m - 1 for its children v + m, and all chunks but v + 1 around
    the ring."""
    size = sizes(c)

    def children(r):
        v = (r - c.root) % c.n
        lowest = v & -v if v else c.n
        return [(v + (1 << k), v + (2 << k)) for k in range(4) if 1 << k < lowest and v + (1 << k) < c.n]

    def sent(r):
        around = sum(size) - size[(r - c.root + 1) % c.n] if c.n > 1 else 0
        return around + sum(sum(size[a:b]) for a, b in children(r))

    common.check_traffic(impl, c, expect, sent, lambda r: c.n - 1 + len(children(r)))


@law(
    ID, "L3", needs=("plan",), given=space.reach("many"), kills=["copies_by_itself"],
    
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def broadcast(comm, x, root, *, cut=cuts, first=0, whole=False):
    """Both phases in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    y = comm.empty(x, x.size)
    comm.copy(x, y)
    v, bit, at = (r - root) % n, 1, cut(y.size, n)
    part = lambda a, b: y if whole else y[at[a] : at[min(b, n)]]  # noqa: E731
    while bit < n and not v & bit:
        bit *= 2
    if v:
        comm.recv(part(v, v + bit), (r - bit) % n)
    while bit > 1:
        bit //= 2
        if v + bit < n:
            comm.send(part(v + bit, v + 2 * bit), (r + bit) % n)
    for k in range(n - 1):
        a, b = (v + first - k) % n, (v + first - k - 1) % n
        comm.sendrecv(y[at[a] : at[a + 1]], (r + 1) % n, y[at[b] : at[b + 1]], (r - 1) % n)
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def root_is_rank_0(comm, x, *, root=0, out=None):
    "Rank 0 is the root, whoever was named."
    return broadcast(comm, x, 0)


@mutant(ID, default_case=of(2, 4))
@collective
def remainder_dropped(comm, x, *, root=0, out=None):
    "Chunks of L // n elements: the last L mod n stay each rank's own."
    return broadcast(comm, x, root, cut=common.equal_cuts)


@mutant(ID, default_case=of(2, 4))
@collective
def off_by_one_chunk(comm, x, *, root=0, out=None):
    "The ring starts with chunk v + 2: the same for two ranks."
    return broadcast(comm, x, root, first=2)


@mutant(ID, default_case=of(2, 4))
@collective
def whole_array_down_the_tree(comm, x, *, root=0, out=None):
    "The tree carries the whole array, and the ring after it nothing new."
    return broadcast(comm, x, root, whole=True)


@mutant(ID, default_case=of(2, 4))
@collective
def empty_chunks_skipped(comm, x, *, root=0, out=None):
    "Chunks without elements are not sent around the ring."
    return broadcast(common.quiet(comm), x, root)


@mutant(ID, default_case=of(2, 4))
@collective
def copies_by_itself(comm, x, *, root=0, out=None):
    "y = x without the communicator: a plan sends what x held when it was made."
    return broadcast(common.copies_itself(comm), x, root)


@mutant(ID, default_case=of(2, 4))
@collective
def in_half_the_bits(comm, x, *, root=0, out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(broadcast, comm, x, root=root)
