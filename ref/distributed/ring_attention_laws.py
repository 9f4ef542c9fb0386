"""Laws and mutants of ring attention."""

from __future__ import annotations

import math

import numpy as np

from autodiff import custom
from backends.communicators import ThreadWorld, wait_all
from ref.attention.merge import State, finish, merge, nothing
from ref.distributed import common_laws as common
from ref.distributed.common_laws import EXACT, RANKS, around, world, wrong_on_ranks
from ref.distributed.ring_attention import _block, _block_vjp, _handed_on, _parts, _positions, _seen, _size
from ref.spec import bounds, law
from ref.spec.cases import VALUES, Flag, cases, choose, dims, none_or, rng

ID = "distributed.ring_attention"


def places(c, r):
    """Positions of rank r's tokens, said again."""
    low, high = c.T * r // c.n, c.T * (r + 1) // c.n
    return [t for t in range(c.T) if (t % c.n == r if c.striped else low <= t < high)]


def cut(whole, c):
    """[this rank's tokens of whole[H T d], ..]."""
    return [np.ascontiguousarray(whole[:, places(c, r)]) for r in range(c.n)]


def joined(parts, c):
    """whole[H T d] from the ranks' tokens."""
    whole = np.zeros((parts[0].shape[0], c.T, parts[0].shape[2]))
    for r, part in enumerate(parts):
        whole[:, places(c, r)] = part
    return whole


def _field(heads, channels):
    return lambda draw, c: cut(VALUES[c.kind](rng(draw), (c[heads], c.T, c[channels])), c)


space = cases(
    ID, n=RANKS, comm=world, T=around, G=dims(1, 2), R=dims(1, 2), H=lambda draw, c: c.G * c.R, d=dims(1, 4),
    e=dims(1, 3), kind=choose("dyadic", "normal"), causal=choose(True, False), striped=choose(False, True),
    q=_field("H", "d"), k=_field("G", "d"), v=_field("G", "e"), g=_field("H", "e"), scale=none_or(0.25),
    length=lambda draw, c: c.T,
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2 and c.n < c.T, {"n": dims(3, 8), "T": choose(9, 11)}),
        "even": Flag(lambda c: c.n > 1 and c.T % c.n == 0, {"n": dims(2, 4), "T": lambda draw, c: 2 * c.n}),
        "idle": Flag(lambda c: c.n > c.T, {"n": dims(3, 8), "T": 2}),
        "grouped": Flag(lambda c: c.G > 1 and c.R > 1 and c.n > 1 and c.n < c.T,
                        {"G": 2, "R": 2, "n": dims(2, 3), "T": choose(5, 7)}),
        "blocks": Flag(lambda c: c.causal and not c.striped and c.n > 1 and c.n < c.T,
                       {"causal": True, "striped": False, "n": dims(2, 5), "T": choose(7, 11)}),
        "stripes": Flag(lambda c: c.causal and c.striped and c.n > 1 and c.n < c.T,
                        {"causal": True, "striped": True, "n": dims(2, 5), "T": choose(7, 11)}),
    },
)  # fmt: skip


def whole(c):
    """(q, k, v) of one rank in float64, keys and values repeated to the query heads; the weights [H T T]; scale."""
    q, k, v = (joined(c[name], c) for name in "qkv")
    k, v = (np.repeat(x, c.R, 0) for x in (k, v))
    scale = 1 / math.sqrt(c.d) if c.scale is None else c.scale
    P = np.zeros((c.H, c.T, c.T))
    for h in range(c.H):
        for i in range(c.T):
            seen = range(i + 1) if c.causal else range(c.T)
            s = np.array([scale * math.fsum(q[h, i] * k[h, j]) for j in seen])
            w = np.exp(s - s.max())
            P[h, i, list(seen)] = w / math.fsum(w)
    return q, k, v, P, scale


def logit_error(c):
    q, k, _, _, scale = whole(c)
    size = scale * np.max(np.abs(q) @ np.swapaxes(np.abs(k), 1, 2), initial=0.0)
    return bounds.rounding(c.d + 2, size, c.q[0].dtype)


def off(c):
    """A softmax average; each merged part adds an exponential, two products and a sum to numerator and denominator."""
    most = max(np.max(np.abs(x), initial=0.0) for x in c.v)
    dtype = c.q[0].dtype
    return bounds.softmax_average(logit_error(c), c.T, most, dtype) + bounds.rounding(24 * c.n, most, dtype), most


@law(
    ID, "L1", closed_form=True, given=space.where(kind="dyadic").reach("alone", "blocks", "stripes", "idle"),
    kills=["causal_by_own_index", "averaged_parts", "positions_of_the_next"],
)  # fmt: skip
def equal_keys_average_what_is_seen(impl, c, expect):
    "k = 0: o_i is the mean of v_0 .. v_i if causal, of all v if not, whatever q is."
    case = c.replace(k=[np.zeros_like(x) for x in c.k])
    v = np.repeat(joined(c.v, c), c.R, 0)
    count = np.arange(1, c.T + 1)[:, None] if c.causal else np.full((c.T, 1), c.T)
    mean = np.cumsum(v, 1)[:, count[:, 0] - 1] / count
    most = max(1.0, np.max(np.abs(v)))
    found = common.by_rank(impl(case), c, expect)
    for r, part in enumerate(cut(mean, c)):
        expect(found[r], part, bounds.rounding(c.T + 24 * c.n, most, c.q[0].dtype), f"o of rank {r}", scale=most)


@law(
    ID, "L2", closed_form=True, given=space.reach("alone", "many", "grouped", "stripes"),
    kills=["not_rescaled", "last_block_missing", "heads_dealt_out"],
)  # fmt: skip
def attention_of_one_rank(impl, c, expect):
    "o = softmax(scale q k^T) v over the keys of all ranks, row by row in float64."
    _, _, v, P, _ = whole(c)
    bound, most = off(c)
    found = common.by_rank(impl(c), c, expect)
    for r, part in enumerate(cut(P @ v, c)):
        expect(found[r], part, bound, f"o of rank {r}", scale=most)


@law(
    ID, "L3", closed_form=True, needs=("vjp",), dtypes=EXACT,
    given=space.where(causal=choose(True, True, False)).reach("blocks", "even", "grouped"),
    kills=["left_on_the_neighbour", "own_lse_backward", "own_keys_backward", "first_head_of_a_group"],
)  # fmt: skip
def gradient_is_that_of_one_rank(impl, c, expect):
    """dv = P^T g, ds = P * (g v^T - rowsum(g * o)), dq = scale ds k, dk = scale ds^T q, summed over the heads of a
    group, each on its token's rank. Roundings: those of o, once more through ds, times what they multiply."""
    q, k, v, P, scale = whole(c)
    g, found = joined(c.g, c), impl.vjp(c, c.g)
    dP = g @ np.swapaxes(v, 1, 2)
    dS = P * (dP - np.sum(g * (P @ v), -1, keepdims=True)) * scale
    grouped = lambda x: x.reshape(c.G, c.R, c.T, -1).sum(1)  # noqa: E731
    wanted = {"q": dS @ k, "k": grouped(np.swapaxes(dS, 1, 2) @ q), "v": grouped(np.swapaxes(P, 1, 2) @ g)}
    # P is off by relative w; dP - D by that of its sums; every product adds T, d or e roundings.
    w = 2 * logit_error(c) + bounds.rounding(24 * c.n + 3 * c.T + c.d + c.e + 16, 1.0, np.float64)
    size = np.abs(g) @ np.swapaxes(np.abs(v), 1, 2)
    big = P * (size + np.sum(size * P, -1, keepdims=True)) * scale * 4
    limits = {"q": big @ np.abs(k), "k": grouped(np.swapaxes(big, 1, 2) @ np.abs(q)),
              "v": grouped(np.swapaxes(P, 1, 2) @ np.abs(g))}  # fmt: skip
    for name, value in wanted.items():
        for r, (part, limit) in enumerate(zip(cut(value, c), cut(limits[name], c), strict=True)):
            expect(found[name][r], part, w * limit, f"d{name} of rank {r}", scale=max(np.max(limits[name]), 1e-300))


@law(
    ID, "L4", closed_form=True, given=space.where(causal=True).reach("blocks", "stripes"),
    kills=["not_causal"], passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def later_tokens_are_invisible(impl, c, expect):
    "Causal: other keys and values from position t on change no bit of the rows before t."
    t = c.T // 2
    late = [np.array([p >= t for p in places(c, r)], bool)[:, None] for r in range(c.n)]
    other = {name: [np.where(m, 1 - x, x) for m, x in zip(late, c[name], strict=True)] for name in "kv"}
    pairs = zip(common.by_rank(impl(c.replace(**other)), c, expect), common.by_rank(impl(c), c, expect), strict=True)
    for r, (changed, plain) in enumerate(pairs):
        early = ~late[r][:, 0]
        expect.same(changed[:, early], plain[:, early], f"early rows of rank {r}")


@law(
    ID, "L5", closed_form=True, given=space.where(causal=False, scale=0.25).reach("many", "grouped"),
    kills=["no_maximum"], passes_null=["wrong_dtype"],
)  # fmt: skip
def large_logits_pick_the_largest(impl, c, expect):
    "Key j is 2^12 (j * 3 mod T' + 1), T' > T a prime, q = 1: the row of the largest alone, to the bit."
    prime = 13 if c.T > 7 else 7 if c.T < 7 else 11
    order = np.array([(j * 3) % prime for j in range(c.T)])
    k = np.broadcast_to(2.0**12 * (order + 1.0)[None, :, None], (c.G, c.T, c.d))
    ones = np.ones((c.H, c.T, c.d))
    dtype = c.q[0].dtype
    case = c.replace(q=[x.astype(dtype) for x in cut(ones, c)], k=[x.astype(dtype) for x in cut(k, c)])
    v = np.repeat(joined(c.v, c), c.R, 0)
    wanted = np.broadcast_to(v[:, [int(np.argmax(order))]], v.shape)
    for r, (o, part) in enumerate(zip(common.by_rank(impl(case), c, expect), cut(wanted, c), strict=True)):
        expect.same(o, part, f"o of rank {r}")


@law(
    ID, "L6", closed_form=True, needs=("vjp",), dtypes=EXACT, given=space.reach("even", "grouped", "idle"),
    kills=["heads_travel_repeated", "once_around_too_far"],
    passes_null=["zeros", "constant", "nan", "identity", "cached", "wrong_dtype"],
)  # fmt: skip
def bytes_are_the_formula(impl, c, expect):
    """Rank r sends the keys and values of all ranks but r + 1 forward, G heads of d + e numbers a token; backward those
    once more, and their cotangents of all ranks. One rank sends nothing."""
    token = c.G * (c.d + c.e) * np.dtype(c.q[0].dtype).itemsize
    around = [token * (c.T - len(places(c, (r + 1) % c.n))) for r in range(c.n)]
    _, counts = common.traffic(impl, c)
    expect.same([k.bytes_sent for k in counts], around, "forward, by rank")
    c.comm.traffic = ()
    impl.vjp(c, c.g)
    home = token * c.T if c.n > 1 else 0
    expect.same([k.bytes_sent for k in c.comm.traffic], [2 * a + home for a in around], "and backward, by rank")


# Mutants -----------------------------------------------------------------------------------------------


def two_alike(n=2):
    """Two ranks, one head, no mask; all tokens alike."""
    ones = np.ones((n, 1, 2, 2))
    return (ThreadWorld(n), ones, ones * 0.5, ones * 3), {}


wrong = wrong_on_ranks(ID, "q", "k", "v", default_case=two_alike)


def again(
    comm, q, k, v, causal, striped, scale, length, *, seen=None, block=_block, join=merge, steps=None, source=None,
    repeat=None, back=_block_vjp, keep_keys=False, home=True, group=None, lse_of=None, wide=False,
):  # fmt: skip
    """The algorithm, with edits."""
    n, r, R = comm.size, comm.rank, q.shape[-3] // k.shape[-3]
    T = q.shape[-2] * n if length is None else length
    at = [_positions(T, n, s, striped) for s in range(n)]
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    repeat = repeat or (lambda x: np.repeat(x, R, -3))
    group = group or (lambda x, G: x.reshape(*x.shape[:-3], G, R, *x.shape[-2:]).sum(-3))
    hops = n - 1 if steps is None else steps(n)
    mask = seen or _seen

    def around(k, v):
        flat = np.concatenate((k.reshape(-1), v.reshape(-1)))
        flat = np.repeat(flat, R) if wide else flat  # as many numbers as H heads have
        for step in range(n):
            s, under_way = (r - step) % n, []
            if step < hops:
                after = comm.empty(flat, _size(k, v, at[(s - 1) % n]) * (R if wide else 1))
                under_way = [comm.irecv(after, (r - 1) % n), comm.isend(flat, (r + 1) % n)]
            if step <= hops:
                yield s, *_parts(flat[:: R if wide else 1], k, v, at[s])
            wait_all(under_way)
            flat = after if under_way else None

    def blocks(q, k, v):
        for s, K, V in around(k, v):
            keep = mask(at[r], at[source(s, n) if source else s], causal)
            if np.ndim(keep) == 2 and keep.shape != (q.shape[-2], K.shape[-2]):
                keep = None
            yield s, K, V, keep

    def forward(q, k, v):
        state = nothing(np, q.shape[:-1], v.shape[-1], like=q)
        for _, K, V, keep in blocks(q, k, v):
            if keep is not False and K.shape[-2]:
                state = join(*state, *block(q, repeat(K), repeat(V), keep, scale))
        return finish(np, state), ()

    def vjp(g, out, saved, needs, q, k, v):
        dO, flat = g[0], None
        D, dq = np.sum(dO * out[0], -1, keepdims=True), np.zeros_like(q)
        for s, K, V, keep in blocks(q, k, v):
            size = _size(k, v, at[s])
            flat = np.zeros(size, k.dtype) if flat is None else _handed_on(comm, flat, size)
            if keep is False or not len(at[s]):
                continue
            K, V = (k, v) if keep_keys and K.shape == k.shape else (K, V)
            lse = lse_of(q, repeat(K), keep, scale) if lse_of else out[1]
            part = back(q, repeat(K), repeat(V), keep, scale, dO, lse, D)
            for total, x in zip((dq, *_parts(flat, k, v, at[s])), part, strict=True):
                total += x if total is dq else group(x, k.shape[-3])
        mine = _size(k, v, at[r])
        if n > 1 and (home or T % n):
            flat = _handed_on(comm, flat, mine)
        return dq, *_parts(flat, k, v, at[r])

    o, _ = custom("a mutant", forward, vjp, labels=("q", "k", "v"))(q, k, v)
    return o


@wrong
def causal_by_own_index(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "The mask compares indices within the blocks."
    def seen(rows, cols, causal):
        return np.arange(len(cols)) <= np.arange(len(rows))[:, None] if causal and len(rows) and len(cols) else None

    return again(comm, q, k, v, causal, striped, scale, length, seen=seen)


@wrong
def not_causal(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "The mask is left out within the own block: half of the others is skipped, this one looks ahead."
    def seen(rows, cols, causal):
        keep = _seen(rows, cols, causal)
        return None if np.ndim(keep) == 2 else keep

    return again(comm, q, k, v, causal, striped, scale, length, seen=seen)


@wrong
def averaged_parts(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "Finished parts are averaged, each block with the same weight."
    def block(*args):
        m, l, o = _block(*args)  # noqa: E741
        none = m == -np.inf
        return State(np.where(none, m, 0.0), np.where(none, 0.0, 1.0), o / np.where(l == 0, 1.0, l)[..., None])

    return again(comm, q, k, v, causal, striped, scale, length, block=block)


@wrong
def not_rescaled(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "Sums taken against different maxima are added as they are."
    def join(m1, l1, o1, m2, l2, o2):
        return State(np.maximum(m1, m2), l1 + l2, o1 + o2)

    return again(comm, q, k, v, causal, striped, scale, length, join=join)


@wrong
def no_maximum(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "Nothing is subtracted before the exponential."
    def block(q, K, V, keep, scale):
        S = np.matmul(q, np.swapaxes(K, -1, -2)) * scale
        P = np.exp(np.minimum(S, 80.0)) if keep is None else np.where(keep, np.exp(np.minimum(S, 80.0)), 0.0)
        none = ~np.any(P > 0, -1)
        return State(np.where(none, -np.inf, 0.0).astype(q.dtype), np.sum(P, -1), np.matmul(P, V))

    return again(comm, q, k, v, causal, striped, scale, length, block=block)


@wrong
def last_block_missing(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "From three ranks on, n - 2 hops."
    return again(comm, q, k, v, causal, striped, scale, length, steps=lambda n: n - 1 if n < 3 else n - 2)


@wrong
def once_around_too_far(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "The keys and values go home too: n hops."
    return again(comm, q, k, v, causal, striped, scale, length, steps=lambda n: n if n > 1 else 0)


@wrong
def positions_of_the_next(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "The block that came is taken for that of rank r + step."
    return again(comm, q, k, v, causal, striped, scale, length, source=lambda s, n: (2 * comm.rank - s) % n)


@wrong
def heads_dealt_out(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "Query head h reads key head h mod G."
    R = q.shape[-3] // k.shape[-3]
    return again(comm, q, k, v, causal, striped, scale, length, repeat=lambda x: np.concatenate([x] * R, -3))


@wrong
def heads_travel_repeated(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "All H heads of keys and values travel."
    return again(comm, q, k, v, causal, striped, scale, length, wide=True)


@wrong
def left_on_the_neighbour(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "dK and dV make n - 1 hops, where shares are equal: each rank ends with those of the next."
    return again(comm, q, k, v, causal, striped, scale, length, home=False)


@wrong
def own_keys_backward(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "The backward reads the rank's own keys and values in place of those that came."
    return again(comm, q, k, v, causal, striped, scale, length, keep_keys=True)


@wrong
def own_lse_backward(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "The weights of the backward are normalised within the block."
    def lse_of(q, K, keep, scale):
        m, l, _ = _block(q, K, K, keep, scale)  # noqa: E741
        return np.where(l == 0, 0.0, m + np.log(np.where(l == 0, 1.0, l)))

    return again(comm, q, k, v, causal, striped, scale, length, lse_of=lse_of)


@wrong
def first_head_of_a_group(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    "dK and dV of one query head a group."
    R = q.shape[-3] // k.shape[-3]
    return again(comm, q, k, v, causal, striped, scale, length, group=lambda x, G: x[..., ::R, :, :])
