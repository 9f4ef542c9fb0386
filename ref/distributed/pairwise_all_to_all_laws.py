"""Laws and mutants of the pairwise all-to-all."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import SPOILT, drawn, world_space
from ref.spec import law, mutant
from ref.spec.cases import Flag, choose, dims, rng

ID = "distributed.pairwise_all_to_all"


def _counts(draw, c):
    """Rows from rank i to rank j, some of them none; None: all equal."""
    if not c.counted:
        return None
    return rng(draw).integers(0, 4, (c.n, c.n)).tolist()


def _x(draw, c):
    kind = draw(choose(*common.KINDS))
    rows = [c.n * c.L] * c.n if c.send is None else [sum(row) for row in c.send]
    return [drawn(draw, (k, 2) if c.wide else (k,), kind) for k in rows]


def _received(draw, c):
    return None if c.send is None else [list(column) for column in zip(*c.send, strict=True)]


space = world_space(
    ID, L=dims(0, 4), counted=choose(False, True), wide=choose(False, True), send=_counts, receive=_received, x=_x,
    flags={
        "counts": Flag(lambda c: c.counted and c.n > 2 and c.send != c.receive,
                       {"counted": True, "n": dims(3, 6)}),
        "blocks": Flag(lambda c: not c.counted and c.n > 2 and c.L > 0,
                       {"counted": False, "n": dims(3, 6), "L": dims(1, 4)}),
    },
)  # fmt: skip
equal = space.where(counted=False)


def transposed(c):
    """The result by rank: block i of rank j is block j of rank i, in plain loops."""
    block = lambda i, j: c.L if c.send is None else c.send[i][j]  # noqa: E731
    start = lambda i, j: sum(block(i, q) for q in range(j))  # noqa: E731
    take = lambda i, j: c.x[i][start(i, j) : start(i, j) + block(i, j)]  # noqa: E731
    return [np.concatenate([take(i, j) for i in range(c.n)]) for j in range(c.n)]


def check(c, out, expect):
    out = common.by_rank(out, c, expect)
    for r, wanted in enumerate(transposed(c)):
        expect.same(out[r], wanted, f"the result of rank {r}")
        expect.holds(out[r].dtype == wanted.dtype, f"the result has x's dtype {wanted.dtype}, it has {out[r].dtype}")


@law(
    ID, "L1", closed_form=True, given=equal.reach("alone", "empty", "blocks"),
    kills=["blocks_not_turned", "powers_of_two_alone", "in_half_the_bits"],
)  # fmt: skip
def transposes_the_blocks(impl, c, expect):
    "Block i of rank j's result is block j of rank i's x, bit by bit."
    check(c, impl(c), expect)


@law(
    ID, "L2", given=equal.reach("blocks"), kills=["blocks_not_turned"],
)  # fmt: skip
def twice_is_the_identity(impl, c, expect):
    "The all-to-all of the all-to-all of x is x."
    once = common.by_rank(impl(c), c, expect)
    back = common.by_rank(impl(c.replace(x=[np.asarray(a) for a in once])), c, expect)
    for r in range(c.n):
        expect.same(back[r], c.x[r], f"x of rank {r}")


@law(
    ID, "L3", closed_form=True, given=space.reach("alone", "counts"),
    kills=["own_block_sent", "gathers_all"], passes_null=[*SPOILT, "wrong_dtype"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "Rank r sends its x but block r, in n - 1 messages, empty ones too."
    row = c.x[0].dtype.itemsize * (2 if c.wide else 1)
    own = lambda r: c.L if c.send is None else c.send[r][r]  # noqa: E731
    common.check_traffic(impl, c, expect, lambda r: c.x[r].nbytes - row * own(r), lambda r: c.n - 1)


@law(ID, "L4", closed_form=True, given=space.where(counts=True), kills=["counts_of_the_sender"])
def counts_are_followed(impl, c, expect):
    "Rows i -> j as counted, some of them none, and no symmetry: the rows for rank j of rank 0, then of rank 1, .."
    check(c, impl(c), expect)


@law(
    ID, "L5", needs=("plan",), given=space.reach("counts"), kills=["copies_by_itself"], passes_null=SPOILT,
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan_by_rank(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def of(n, rows):
    """The default-size test: blocks of equal size on n ranks."""
    return lambda: ((common.ThreadWorld(n), np.arange(n * n * rows, dtype=float).reshape(n, n * rows)), {})


def exchange(comm, x, send, receive, *, own=False, turn=1, reach=None):
    """The steps, whose parts an edit replaces."""
    n, r = comm.size, comm.rank
    send = [x.shape[0] // n] * n if send is None else [int(k) for k in send]
    receive = [x.shape[0] // n] * n if receive is None else [int(k) for k in receive]
    given, taken = np.cumsum([0, *send]), np.cumsum([0, *receive])
    y, source = np.zeros((int(taken[-1]), *x.shape[1:]), x.dtype), x
    if not x.flags.c_contiguous:
        source = np.empty(x.shape, x.dtype)
        comm.copy(x, source)
    if own:
        comm.sendrecv(source[given[r] : given[r + 1]], r, y[taken[r] : taken[r + 1]], r)
    else:
        comm.copy(source[given[r] : given[r + 1]], y[taken[r] : taken[r + 1]])
    for k in range(1, reach or n):
        to, from_ = (r + k) % n, (r - k) % n
        block = (r + turn * k) % n
        comm.sendrecv(source[given[block] : given[block + 1]], to, y[taken[from_] : taken[from_ + 1]], from_)
    return y


@mutant(ID, default_case=of(2, 3))
@collective(ragged=True)
def blocks_not_turned(comm, x, send=None, receive=None, *, out=None):
    "Block r - k goes to rank r + k: the same for two ranks."
    return exchange(comm, x, send, receive, turn=1 if send is not None else -1)


@mutant(ID, default_case=of(4, 3))
@collective(ragged=True)
def powers_of_two_alone(comm, x, send=None, receive=None, *, out=None):
    "As many steps as the last power of two has."
    return exchange(comm, x, send, receive, reach=1 << (comm.size.bit_length() - 1))


@mutant(ID, default_case=of(2, 3))
@collective(ragged=True)
def own_block_sent(comm, x, send=None, receive=None, *, out=None):
    "A rank sends its own block to itself."
    return exchange(comm, x, send, receive, own=True)


@mutant(ID, default_case=of(2, 3))
@collective(ragged=True)
def gathers_all(comm, x, send=None, receive=None, *, out=None):
    "Everybody's whole x, of which the own blocks are kept."
    if send is not None:
        return exchange(comm, x, send, receive)
    n, r, k = comm.size, comm.rank, x.shape[0] // comm.size
    arrays = [np.zeros(x.shape, x.dtype) for _ in range(n)]
    comm.copy(x, arrays[r])
    for s in range(1, n):
        comm.sendrecv(arrays[r], (r + s) % n, arrays[(r - s) % n], (r - s) % n)
    return np.concatenate([a[r * k : (r + 1) * k] for a in arrays])


@mutant(ID, default_case=of(2, 3))
@collective(ragged=True)
def counts_of_the_sender(comm, x, send=None, receive=None, *, out=None):
    "The result laid out by what was sent, as many rows as come fit: the same when counts are symmetric."
    y = exchange(comm, x, send, receive)
    if send is None:
        return y
    z, starts = np.zeros_like(y), np.cumsum([0, *map(int, send)])
    taken = np.cumsum([0, *map(int, receive)])
    for i in range(comm.size):
        block = y[taken[i] : taken[i + 1]][: max(0, len(z) - starts[i])]
        z[starts[i] : starts[i] + len(block)] = block
    return z


@mutant(ID, default_case=of(2, 3))
@collective(ragged=True)
def copies_by_itself(comm, x, send=None, receive=None, *, out=None):
    "The own block copied without the communicator: a plan keeps what was there when it was made."
    return exchange(common.copies_itself(comm), x, send, receive)


@mutant(ID, default_case=of(2, 3))
@collective(ragged=True)
def in_half_the_bits(comm, x, send=None, receive=None, *, out=None):
    "Half the bytes on the wire: exact for small integers."
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:
        return exchange(comm, x, send, receive)
    return exchange(comm, x.astype(f"f{x.dtype.itemsize // 2}"), send, receive).astype(x.dtype)
