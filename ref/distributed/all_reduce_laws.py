"""Laws and mutants of the all-reduce that selects."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import OPS, cuts, folded, of, tree, world_space
from ref.distributed.select import measured
from ref.spec import law, mutant
from ref.spec.cases import choose

ID = "distributed.all_reduce"
NAMES = ("ring", "segmented_ring", "recursive_doubling", "halving_doubling", "canonical")
space = world_space(ID, op=OPS, algorithm=choose(None, *NAMES))
named = space.where(algorithm=choose(*NAMES))
picking = space.where(algorithm=None, op="sum")


def pick(c):
    """The algorithm of the case: named, or the fastest of the measured row that is nearest by ratio."""
    if c.algorithm is not None:
        return c.algorithm

    def nearest(values, v):
        best, *rest = sorted(values)
        for b in rest:
            best = b if v * v > best * b else best
        return best

    row = measured()[nearest(measured(), c.n)]
    times = row[nearest(row, max(c.L * c.x.dtype.itemsize, 1))]
    return min(times, key=times.get)


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "uneven"),
    kills=["always_sums"],
)  # fmt: skip
def is_the_exact_reduction(impl, c, expect):
    "Small integers, as floats and as int64: the sum, product, maximum, minimum over ranks in Python's integers."
    common.check_exact(impl, c, expect)


@law(ID, "L2", given=named.reach("many"), kills=["name_ignored"])
def has_the_bits_of_the_algorithm(impl, c, expect):
    "Rings fold chunk j from rank j on, doubling the balanced tree, canonical in rank order; to the bit, on every rank."
    name, cut = pick(c), cuts(c.L, c.n)
    if name == "canonical":
        wanted = folded(c.op, list(c.x))
    elif "doubling" in name:
        wanted = tree(c.op, list(c.x))
    else:
        wanted = np.empty(c.L, c.x.dtype)
        for j in range(c.n):
            part = slice(cut[j], cut[j + 1])
            wanted[part] = folded(c.op, [c.x[(j + q) % c.n][part] for q in range(c.n)])
    expect.same(impl(c), np.broadcast_to(wanted, c.x.shape), name)


@law(
    ID, "L3", closed_form=True, given=picking.where(L=choose(1, 8, 20, 300, 2000)).reach("many"),
    kills=["always_a_ring", "always_doubles"], passes_null=["wrong_dtype"],
)  # fmt: skip
def messages_are_those_of_the_algorithm(impl, c, expect):
    "Picked by the table: rank n - 1, which none folds, sends 2 (n - 1), log2 p or 2 log2 p messages."
    log = c.n.bit_length() - 1
    messages = {"ring": 2 * (c.n - 1), "segmented_ring": 2 * (c.n - 1), "recursive_doubling": log,
                "halving_doubling": 2 * log}  # fmt: skip
    _, counts = common.traffic(impl, c)
    expect.holds(len(counts) == c.n, "every rank took part")
    expect.same(counts[-1].messages_sent, messages[pick(c)], f"messages of the last rank in {pick(c)}")


@law(ID, "L4", needs=("plan",), given=space, kills=["combines_by_itself"])
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def reduce_by(comm, x, op, algorithm):
    """A plain fold of each kind: a ring, or whole arrays from everybody, folded in an order."""
    n, r = comm.size, comm.rank
    if algorithm is None or "ring" in algorithm:
        y = comm.empty(x, x.size)
        comm.copy(x, y)
        at = cuts(y.size, n)
        for phase in (0, 1):
            for k in range(n - 1):
                a, b = (r - k + phase) % n, (r - k - 1 + phase) % n
                got = comm.empty(y, at[b + 1] - at[b])
                comm.sendrecv(y[at[a] : at[a + 1]], (r + 1) % n, got, (r - 1) % n)
                mine = y[at[b] : at[b + 1]]
                if phase:
                    comm.copy(got, mine)
                else:
                    comm.combine(op, *((got, mine) if r else (mine, got)), mine)
        return y
    arrays = [comm.empty(x, x.size) for _ in range(n)]
    comm.copy(x, arrays[r])
    for k in range(1, n):
        comm.sendrecv(arrays[r], (r + k) % n, arrays[(r - k) % n], (r - k) % n)
    if "doubling" in algorithm:
        extra = n - (1 << (n.bit_length() - 1))
        for i in range(extra):
            comm.combine(op, arrays[2 * i], arrays[2 * i + 1], arrays[2 * i])
        arrays = [arrays[2 * i] for i in range(extra)] + arrays[2 * extra :]
        while len(arrays) > 1:
            for a, b in zip(arrays[::2], arrays[1::2], strict=True):
                comm.combine(op, a, b, a)
            arrays = arrays[::2]
    for a in arrays[1:]:
        comm.combine(op, arrays[0], a, arrays[0])
    return arrays[0]


@mutant(ID, default_case=of(2, 4))
@collective
def always_sums(comm, x, *, op="sum", algorithm=None, out=None):
    "Any named op is a sum."
    return reduce_by(common.always_sums(comm), x, op, algorithm)


@mutant(ID, default_case=of(2, 4))
@collective
def name_ignored(comm, x, *, op="sum", algorithm=None, out=None):
    "A ring, whatever was named."
    return reduce_by(comm, x, op, "ring")


@mutant(ID, default_case=of(2, 4))
@collective
def always_a_ring(comm, x, *, op="sum", algorithm=None, out=None):
    "A ring, whatever the table says."
    return reduce_by(comm, x, op, algorithm)


@mutant(ID, default_case=of(2, 4))
@collective
def always_doubles(comm, x, *, op="sum", algorithm=None, out=None):
    "Recursive doubling, which is right for short arrays."
    return reduce_by(comm, x, op, algorithm or "recursive_doubling")


@mutant(ID, default_case=of(2, 4))
@collective
def combines_by_itself(comm, x, *, op="sum", algorithm=None, out=None):
    "mine = got + mine without the communicator."
    return reduce_by(common.by_itself(comm), x, op, algorithm)
