"""Laws and mutants of the canonical all-reduce."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import EXACT, OPS, cuts, folded, of, sizes, world_space
from ref.spec import law, mutant

ID = "distributed.canonical_all_reduce"
space = world_space(ID, op=OPS)
sums = space.where(op="sum")


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "short", "uneven"),
    kills=["remainder_dropped", "one_step", "always_sums"],
)  # fmt: skip
def is_the_exact_reduction(impl, c, expect):
    "Small integers, as floats and as int64: the sum, product, maximum, minimum over ranks in Python's integers."
    common.check_exact(impl, c, expect)


@law(
    ID, "L2", given=space.reach("uneven", "many"),
    kills=["folds_around_the_ring", "folds_from_the_last", "folds_a_tree", "sums_in_more_bits",
           "sums_in_half_the_bits"],
)  # fmt: skip
def is_the_fold_in_rank_order(impl, c, expect):
    "((x_0 op x_1) op x_2) op .., to the bit, on every rank."
    expect.same(impl(c), np.broadcast_to(folded(c.op, list(c.x)), c.x.shape), "the fold")


@law(
    ID, "L3", closed_form=True, given=sums.reach("alone", "empty", "short", "uneven"), kills=["whole_arrays"],
    passes_null=["wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "Rank r sends 2 S - c_r - c_{r+1} bytes in 2 (n - 1) messages; one rank alone sends none."
    size, n = sizes(c), c.n
    sent = lambda r: 2 * sum(size) - size[r] - size[(r + 1) % n] if n > 1 else 0  # noqa: E731
    common.check_traffic(impl, c, expect, sent, lambda r: 2 * (n - 1))


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=sums.reach("many"),
    kills=["folds_around_the_ring", "folds_from_the_last"],
)  # fmt: skip
def parts_have_the_bits_of_the_whole(impl, c, expect):
    """x cut in two, each part for itself: the bits of one piece, though every element has another chunk. And an op that
    does not commute, writing one number after the other, gives the ranks in order: 12..n."""
    at = c.L // 3
    whole = impl(c)
    for part in (slice(None, at), slice(at, None)):
        piece = c.replace(x=c.x[:, part].copy(), L=len(range(c.L)[part]))
        expect.same(impl(piece), whole[:, part], "the part's fold")
    common.check_order(impl, c, expect)


@law(ID, "L5", needs=("plan",), given=space, kills=["combines_by_itself"])
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def fold(comm, x, op, *, cut=cuts, steps=None, order=None, whole=False, add=None):
    """Exchange, fold and all-gather in plain steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    y = comm.empty(x, x.size)
    comm.copy(x, y)
    at = cut(y.size, n)
    mine = slice(at[r], at[r + 1])
    part = [comm.empty(y, y.size if whole else at[r + 1] - at[r]) for _ in range(n)]
    comm.copy(y if whole else y[mine], part[r])
    for k in range(1, min(steps or n, n - 1) + 1):
        to, from_ = (r + k) % n, (r - k) % n
        comm.sendrecv(y if whole else y[at[to] : at[to + 1]], to, part[from_], from_)
    part = [p[mine] for p in part] if whole else part
    part = [part[i] for i in (order(r, n) if order else range(n))]
    own = comm.empty(y, part[0].size)
    comm.copy(part[0], own)
    if add:
        comm.copy(add(part, own), own)
    for p in () if add else part[1:]:
        comm.combine(op, own, p, own)
    comm.copy(own, y[mine])
    at = cuts(y.size, n)
    for k in range(n - 1):
        a, b = (r - k) % n, (r - k - 1) % n
        comm.sendrecv(y[at[a] : at[a + 1]], (r + 1) % n, y[at[b] : at[b + 1]], (r - 1) % n)
    return y


@mutant(ID, default_case=of(2, 4))
@collective
def remainder_dropped(comm, x, *, op="sum", out=None):
    "Chunks of L // n elements."
    return fold(comm, x, op, cut=common.equal_cuts)


@mutant(ID, default_case=of(2, 4))
@collective
def one_step(comm, x, *, op="sum", out=None):
    "Own chunk and that of one neighbour: all there is of two ranks."
    near = lambda r, n: sorted({r, (r - 1) % n})  # noqa: E731
    return fold(comm, x, op, order=near)


@mutant(ID, default_case=of(2, 4))
@collective
def always_sums(comm, x, *, op="sum", out=None):
    "Any named op is a sum."
    return fold(common.always_sums(comm), x, op)


@mutant(ID, default_case=of(2, 4))
@collective
def folds_around_the_ring(comm, x, *, op="sum", out=None):
    "The fold starts behind the chunk's own rank, as the ring's does."
    return fold(comm, x, op, order=lambda r, n: [(r + 1 + k) % n for k in range(n)])


@mutant(ID, default_case=of(2, 4))
@collective
def folds_from_the_last(comm, x, *, op="sum", out=None):
    "The fold starts with the last rank."
    return fold(comm, x, op, order=lambda r, n: range(n)[::-1])


@mutant(ID, default_case=of(2, 4))
@collective
def folds_a_tree(comm, x, *, op="sum", out=None):
    "Neighbours first, then pairs of pairs."

    def add(part, own):
        while len(part) > 1:
            for a, b in zip(part[::2], part[1::2], strict=False):
                comm.combine(op, a, b, a)
            part = part[::2]
        comm.copy(part[0], own)
        return own

    return fold(comm, x, op, add=add)


@mutant(ID, default_case=of(2, 4))
@collective
def sums_in_more_bits(comm, x, *, op="sum", out=None):
    "Folded in long double, rounded once: better, and not the fold."
    if callable(op) or x.dtype.kind != "f":
        return fold(comm, x, op)
    wide = lambda part, own: folded(op, [p.astype(np.longdouble) for p in part]).astype(x.dtype)  # noqa: E731
    return fold(comm, x, op, add=wide)


@mutant(ID, default_case=of(2, 4))
@collective
def sums_in_half_the_bits(comm, x, *, op="sum", out=None):
    "Half the bytes on the wire: exact for small integers."
    return common.narrowed(fold, comm, x, op=op)


@mutant(ID, default_case=of(2, 4))
@collective
def whole_arrays(comm, x, *, op="sum", out=None):
    "Whole arrays are exchanged, and chunk r folded."
    return fold(comm, x, op, whole=True)


@mutant(ID, default_case=of(2, 4))
@collective
def combines_by_itself(comm, x, *, op="sum", out=None):
    "own = own + part without the communicator."
    return fold(common.by_itself(comm), x, op)
