"""How what runs on many ranks is judged, and what the laws of collectives share.

A distributed algorithm is a function f(comm, *arrays, **options) of one rank. Under `@collective` or `@on_ranks` it
also takes a world in place of `comm`: then all ranks run it, rank r on arrays[r], and the results come stacked. That is
a function of arrays like any other: a law calls it as impl(c), with the world as the case's field `comm`.

    @spec(ID, "comm:tree, x:any[n L] -> :any[n L]", backends=("numpy",))      the signature is of the stacked arrays
    @collective
    def ring_all_reduce(comm, x, *, op="sum", out=None): ...                  the code is of one rank

    @mutant(ID, default_case=of(2, 4))
    @collective
    def sends_too_few(comm, x, *, op="sum", out=None): ...                    and so is a mutant's

    world_space(ID, L=lengths, ...)                                           draws n, the world and x

The world of a case is threads: buffered or not (then bytes move as late as MPI allows), in rank order or in a seeded
one. After a call it holds what each rank sent: `traffic(impl, c)`. `planned(c)` is the case run as a plan. Results that
differ in shape between ranks come as a list: the signature says `:tree`. Under mpiexec, tests/distributed runs the same
laws on an `MpiWorld`: each process calls impl(c) with the same case, runs its own rank, and gets all results. Somebody
else's function is judged the same way: `closedform check distributed.ring_all_reduce mine:all_reduce`, where
all_reduce(comm, x, *, op="sum") uses comm.rank, comm.size, comm.send, comm.recv, comm.sendrecv and NumPy.

For data parallelism and what follows: positional arguments are one a rank (batches, shards), keyword arguments the same
for all (configuration, the seed of the parameters); the result is what a rank ends with. A law compares it with one
rank, bit by bit on dyadic data, and reads `traffic` beside the formula. Where gradients are judged, `@on_tensors`
(ref.distributed.ranks) gives the function a vjp that runs backward on all ranks at once.

For tensor parallelism arrays are cut (`pieces`) or on every rank (`everywhere`); a cotangent of what every rank has is
that of one loss, the same on every rank. A law puts the ranks' parts together and compares with one layer.
"""

from __future__ import annotations

import math

import numpy as np

from backends.communicators import ThreadWorld
from ref.distributed.ranks import on_tensors
from ref.spec import mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

RANKS = dims(1, 8)
PRIMES = (2, 3, 5, 7, 11, 13, 23)
EXACT = ("float64",)
UFUNCS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
PYTHON = {"sum": sum, "prod": math.prod, "max": max, "min": min}
OPS = choose("sum", "prod", "max", "min")
NUMBERS = ("zeros", "constant", "identity")  # the nulls that a comparison of an implementation with itself passes
SPOILT = ("zeros", "constant", "nan")  # those that do the work, and spoil it after: of a `:tree`


def world(draw, c):
    """A world of threads with c.n ranks."""
    return ThreadWorld(c.n, buffered=draw(choose(True, False)), order=draw(choose(None, None, 3)))


def lengths(draw, c):
    """Lengths around the number of ranks, and primes."""
    return draw(choose(0, 1, c.n - 1, c.n, c.n + 1, *PRIMES))


KINDS = ("integers", "int64", "wild", "special")


def numbers(axes="n L", kinds=KINDS):
    """A field: integers as floats, integers too long for a float, floats whose sums round, NaN and infinities."""

    def make(draw, c):
        shape = tuple(int(a) if a.isdigit() else c[a] for a in axes.split())
        return drawn(draw, shape, draw(choose(*kinds)))

    return make


def drawn(draw, shape, kind):
    """An array of a kind of `KINDS`."""
    g = rng(draw)
    if kind == "int64":
        return g.integers(-(2**60), 2**60, shape)
    if kind == "integers":
        return g.integers(-3, 4, shape).astype(np.float64)
    x = g.standard_normal(shape) * 2.0 ** g.integers(-8, 9, shape)
    if kind == "special":
        x = np.where(g.random(shape) < 0.3, g.choice([np.nan, np.nan, np.inf, -np.inf, 0.0, -0.0], shape), x)
    return x


def _short(draw, c):
    return draw(choose(*range(1, c.n)))


def world_space(id, *, L=lengths, x=None, flags=None, n=RANKS, **fields):
    """The input space of a collective: n ranks, a world, x[n L], and the fields given."""
    edges = {
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "empty": Flag(lambda c: c.L == 0, {"L": 0}),
        "short": Flag(lambda c: 0 < c.L < c.n, {"n": dims(2, 8), "L": _short}),
        "uneven": Flag(lambda c: c.L % c.n > 0, {"n": dims(2, 7), "L": choose(*PRIMES[3:])}),
        "odd": Flag(lambda c: c.n & (c.n - 1) > 0, {"n": choose(3, 5, 6, 7)}),
        "many": Flag(lambda c: c.n > 2, {"n": dims(3, 8)}),
    }
    x = numbers() if x is None else x
    return cases(id, n=n, comm=world, L=L, **fields, x=x, flags={**edges, **(flags or {})})


def root(draw, c):
    """One of the ranks."""
    return draw(choose(*range(c.n)))


def traffic(impl, c):
    """(result, [Count of rank 0, ..]) of one call."""
    c.comm.traffic = ()
    out = impl(c)
    return out, c.comm.traffic


def planned(c):
    """The case on a world that makes a plan of the collective, on other numbers, and runs it on these."""
    return c.replace(comm=c.comm.with_plans())


def cuts(length, parts):
    """Where chunks begin and end, said again."""
    return [length * i // parts for i in range(parts + 1)]


def sizes(c, parts=None):
    """Bytes of each chunk of an x of c.L elements."""
    cut = cuts(c.L, parts or c.n)
    return [(b - a) * c.x.dtype.itemsize for a, b in zip(cut, cut[1:], strict=False)]


def whole_case(c):
    """The case on small integers, whatever was drawn."""
    x = np.nan_to_num(np.asarray(c.x, np.float64)) % 5 - 2  # from -2 to 2
    return c.replace(x=np.floor(x).astype(c.x.dtype))


def exactly(c):
    """The reduction over ranks of integer values, in Python's integers, as an array of x's dtype."""
    columns = np.asarray(c.x).reshape(c.n, -1).T
    return np.array([PYTHON[c.op](int(v) for v in column) for column in columns], c.x.dtype)


def folded(op, arrays):
    """((a_0 op a_1) op a_2) ..., one operation after the other."""
    acc = np.array(arrays[0], copy=True)
    for a in arrays[1:]:
        acc = UFUNCS[op](acc, a)
    return acc


def tree(op, arrays):
    """The balanced tree over arrays in order, once the first 2 e are folded in pairs, e = n - 2^floor(log2 n)."""
    extra = len(arrays) - (1 << (len(arrays).bit_length() - 1))
    row = [folded(op, arrays[2 * i : 2 * i + 2]) for i in range(extra)] + list(arrays[2 * extra :])
    while len(row) > 1:
        row = [folded(op, row[i : i + 2]) for i in range(0, len(row), 2)]
    return row[0]


def leftmost(left, right, *, out):
    """An op of one's own: associative, and it shows who stands on the left."""
    out[...] = left


def written_after(left, right, *, out):
    """An op of one's own, associative: the decimal digits of the left, then those of the right (none of them 0)."""
    digits = np.searchsorted(10 ** np.arange(1, 10), right, side="right") + 1
    out[...] = left * 10**digits + right


# What many laws check; each has its own `@law` with its own statement ------------------------------------


def check_exact(impl, c, expect):
    """Small integers: the reduction in Python's integers, on every rank, in x's dtype."""
    c = whole_case(c)
    out = impl(c)
    expect.holds(out.dtype == c.x.dtype, f"the result has x's dtype {c.x.dtype}, it has {out.dtype}")
    expect.same(out, np.broadcast_to(exactly(c), out.shape), c.op)


def check_traffic(impl, c, expect, sent, messages):
    """Every rank sends `sent(r)` bytes in `messages(r)` messages, and what is sent is received."""
    _, counts = traffic(impl, c)
    expect.same([k.bytes_sent for k in counts], [sent(r) for r in range(c.n)], "bytes sent by rank")
    expect.same([k.messages_sent for k in counts], [messages(r) for r in range(c.n)], "messages sent by rank")
    got = [sum(k.bytes_received for k in counts), sum(k.messages_received for k in counts)]
    expect.same(got, [sum(k.bytes_sent for k in counts), sum(k.messages_sent for k in counts)], "received by all")


def check_order(impl, c, expect):
    """With `written_after`, and rank r holding the digit r + 1: 12..n."""
    x = np.broadcast_to(np.arange(1, c.n + 1)[:, None], c.x.shape).astype(c.x.dtype)
    out = impl(c.replace(x=x, op=written_after))
    expect.same(out, np.full(out.shape, int("12345678"[: c.n])), "the digits of the ranks")


def check_plan(impl, c, expect):
    """A plan made on other numbers gives the bits of the call."""
    found, wanted = impl(planned(c)), impl(c)
    _same_kind(found, c, expect)
    expect.same(found, wanted, "what the plan gives")


def _same_kind(found, c, expect):
    dtype = np.asarray(c.arrival if "arrival" in c else c.x[0]).dtype
    expect.holds(np.asarray(found).dtype == dtype, f"the plan keeps the dtype {dtype}")


def whole(x):
    """Small integers, whatever was drawn: sums are exact in any order."""
    return [np.clip(np.round(np.asarray(a, np.float64)), -3, 3).astype(a.dtype) for a in x]


def check_adjoint(impl, c, expect, y, dx):
    """sum_r <g_r, y_r> = sum_r <dx_r, x_r>, exactly."""

    def inner(a, b, what):
        total = 0.0
        for p, q in zip(a, b, strict=True):
            p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
            expect.holds(p.shape == q.shape, f"{what} has shape {q.shape}, wanted {p.shape}")
            total += float(np.sum(p * q))
        return total

    expect.same(inner(c.g, y, "C x"), inner(c.x, dx, "C^T g"), "sum of <g, C x> = sum of <C^T g, x>")


def exact(c):
    """The case with whole numbers for x and g."""
    x, g = whole(c.x), whole(c.g)
    stack = lambda old, new: np.stack(new) if isinstance(old, np.ndarray) else new  # noqa: E731
    return c.replace(x=stack(c.x, x), g=stack(c.g, g))


def by_rank(out, c, expect):
    """The results of the ranks as a list, once there is one of each."""
    many = isinstance(out, list | tuple) or (isinstance(out, np.ndarray) and out.ndim > 0)
    expect.holds(many and len(out) == c.n, f"{c.n} results, {len(out) if many else 'none'} came")
    return list(out)


def check_plan_by_rank(impl, c, expect):
    """`check_plan` where the ranks' results have shapes of their own."""
    found, wanted = (by_rank(impl(case), c, expect) for case in (planned(c), c))
    for r in range(c.n):
        if found[r] is not None:
            _same_kind(found[r], c, expect)
        expect.same(found[r], wanted[r], f"what the plan gives rank {r}")


def rows_of(draw, c, length, kind=None):
    """[rows of rank 0, ..]: chunk r of `length` elements."""
    whole = drawn(draw, (length,), kind or draw(choose(*KINDS)))
    cut = cuts(length, c.n)
    return [whole[a:b].copy() for a, b in zip(cut, cut[1:], strict=False)]


# Tensor parallelism: arrays cut along an axis, arrays that every rank has ------------------------------------


def pieces(whole, n, axis=0):
    """[chunk of rank 0, ..] of an array along an axis, as copies."""
    cut = cuts(whole.shape[axis], n)
    return [np.take(whole, range(a, b), axis) for a, b in zip(cut, cut[1:], strict=False)]


def everywhere(a, n):
    """The same array on n ranks."""
    return np.broadcast_to(a, (n, *a.shape)).copy()


def whole_numbers(draw, *shape, most=3):
    """Small integers as floats: their products and sums are exact in any order."""
    return rng(draw).integers(-most, most + 1, shape).astype(np.float64)


def around(draw, c):
    """A size that the ranks share: fewer than they are, as many, more, a prime."""
    return draw(choose(1, max(c.n - 1, 1), c.n, c.n + 1, 2 * c.n, 7))


def bytes_of_all(impl, c, g=None):
    """Bytes that all ranks send in one call; with g in a forward and backward."""
    c.comm.traffic = ()
    if g is None:
        impl(c)
    else:
        impl.vjp(c, g)
    return sum(k.bytes_sent for k in c.comm.traffic)


def wrong_on_ranks(id, *names, default_case):
    """Decorator of a mutant that is what one rank does, of Tensors, with gradients of the names."""

    def decorate(function):
        call = on_tensors(*names)(function)
        return mutant(id, default_case=default_case, vjp=call.vjp)(call)

    return decorate


# Mutants ---------------------------------------------------------------------------------------------


def of(n, L, dtype=np.float64, **options):
    """The default-size test of a mutant: small integers on n ranks."""
    x = (np.arange(n * L) % 5 + 1).reshape(n, L).astype(dtype)
    return lambda: ((ThreadWorld(n), x), options)


class Edited:
    """A communicator some of whose methods a mutant replaces."""

    def __init__(self, comm, **methods):
        self._comm = comm
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(self._comm, name)


def by_itself(comm):
    """Combines with NumPy, not through the communicator: a plan does it once, on what was there before."""
    return Edited(comm, combine=lambda op, left, right, out: (op if callable(op) else UFUNCS[op])(left, right, out=out))


def copies_itself(comm):
    """Copies with NumPy, not through the communicator."""

    def copy(source, out):
        out[...] = source

    return Edited(comm, copy=copy)


def swapped(comm):
    """The operands in the other order."""
    return Edited(comm, combine=lambda op, left, right, out: comm.combine(op, right, left, out))


def always_sums(comm):
    """Any named op is a sum."""
    return Edited(
        comm, combine=lambda op, left, right, out: comm.combine(op if callable(op) else "sum", left, right, out)
    )


def quiet(comm):
    """Sends no empty message."""

    def sendrecv(x, dest, out, source):
        waits = [comm.irecv(out, source)] if out.size else []
        waits += [comm.isend(x, dest)] if x.size else []
        for request in waits:
            request.wait()

    return Edited(comm, sendrecv=sendrecv)


def equal_cuts(length, parts):
    """Chunks of L // n elements: the last L mod n elements belong to none."""
    return [i * (length // parts) for i in range(parts + 1)]


def narrowed(function, comm, x, **options):
    """The function on half the bytes a number: exact for small integers."""
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:
        return function(comm, x, **options)
    found = function(comm, x.astype(np.float16 if x.dtype.itemsize == 4 else np.float32), **options)
    return found if found is None else found.astype(x.dtype)
