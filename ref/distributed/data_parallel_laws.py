"""Laws and mutants of data parallelism, on a sum of linear experts whose gradient is a closed form."""

from __future__ import annotations

import numpy as np

from backends.communicators import ThreadWorld, on_ranks
from ref.distributed.canonical_all_reduce import canonical_all_reduce
from ref.distributed.common_laws import EXACT, traffic, world
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.data_parallel"
LARGE = 1 << 20


def squares(params, batch):
    """Sum over kept rows i of (scale x_i . (w_j + w_k + ..) - y_i)^2, j, k, .. the route; and their number."""
    x, y, keep, route = batch
    out = None
    for k in route:
        part = (params[f"w{k}"] * x).sum(axis=-1)
        out = part if out is None else out + part
    if out is None:
        return float(np.sum((y * keep) ** 2)), float(keep.sum())
    residual = (out * params["scale"] - y) * keep
    return (residual * residual).sum(), float(keep.sum())


def by_hand(params, batch):
    """(sum, count, {name: gradient, None where the route does not go}) of `squares`, in plain NumPy."""
    x, y, keep, route = batch
    out = sum((x @ params[f"w{k}"] for k in route), np.zeros_like(y)) * params["scale"]
    residual = (out - y) * keep
    names = [name for name in params if name != "scale"]
    uses = {name: sum(name == f"w{k}" for k in route) for name in names}
    found = {n: u * 2 * (params["scale"] * (residual @ x)) if u else None for n, u in uses.items()}
    return float(np.sum(residual * residual)), float(keep.sum()), found


def _numbers(draw, c, shape):
    g = rng(draw)
    return g.integers(-2, 3, shape).astype(np.float64) if c.kind == "whole" else g.standard_normal(shape)


def _params(draw, c):
    names = ["scale", *(f"w{k}" for k in range(c.K))]
    first = {name: _numbers(draw, c, 1 if name == "scale" else c.d) for name in names}
    if c.start == "same":
        return [{name: a.copy() for name, a in first.items()} for _ in range(c.n)]
    return [first, *({name: a + r for name, a in first.items()} for r in range(1, c.n))]


def _route(draw, c):
    if c.routes == "all":
        return tuple(range(c.K))
    return tuple(int(k) for k in rng(draw).integers(0, c.K, draw(dims(0, 3).strategy(False))))


def _batches(draw, c):
    """Micro-batches of each rank: their number, rows and masks are the rank's own."""
    found = []
    for _ in range(c.n):
        mine = []
        for _ in range(draw(choose(1, 1, 2, 3)) if c.micro else 1):
            rows = draw(choose(2, 0, 1, 3))
            keep = (rng(draw).random(rows) < 0.7).astype(np.float64)
            mine.append((_numbers(draw, c, (rows, c.d)), _numbers(draw, c, rows), keep, _route(draw, c)))
        found.append(mine)
    x, y, keep, route = found[0][0]
    if not sum(b[2].sum() for mine in found for b in mine):  # some term there must be
        found[0][0] = (_numbers(draw, c, (1, c.d)), _numbers(draw, c, 1), np.ones(1), route)
    return found


def counts(c):
    """Terms of each rank."""
    return [sum(b[2].sum() for b in mine) for mine in c.batches]


def unused(c):
    """Experts that no rank uses."""
    return set(range(c.K)) - {k for mine in c.batches for b in mine for k in b[3]}


space = cases(
    ID, n=choose(2, 1, 3, 2, 4, 5, 8), comm=world, K=dims(1, 3), d=dims(1, 3), kind=choose("whole", "wild"),
    start=choose("same", "own"), routes=choose("all", "own"), micro=choose(True, False), params=_params,
    batches=_batches, loss=lambda draw, c: squares, buffers=("scale",), first=choose(1, LARGE), size=choose(1, LARGE),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2, {"n": choose(3, 4, 5, 7)}),
        "uneven": Flag(lambda c: len(set(counts(c))) > 1, {"n": dims(2, 5)}),
        "idle": Flag(lambda c: c.n > 1 and 0 in counts(c), {"n": dims(2, 8), "micro": False}),
        "untouched": Flag(lambda c: bool(unused(c)), {"K": 3, "n": 2, "routes": "own", "micro": False}),
        "divided": Flag(lambda c: any(len(mine) > 1 for mine in c.batches), {"micro": True}),
    },
)  # fmt: skip
whole = space.where(kind="whole")


def results(out, c, expect):
    """[(mean, gradients, values) of rank 0, ..], once the result is seen to have that form."""
    expect.holds(isinstance(out, tuple) and len(out) == 3, "a mean, gradients and values come back")
    means, gradients, values = out
    right = len(means) == len(gradients) == len(values) == c.n
    expect.holds(right and all(isinstance(g, dict) for g in (*gradients, *values)), "one of each a rank, by name")
    names = [name for name in c.params[0] if name != "scale"]
    expect.holds(all(list(g) == names for g in gradients), f"gradients of {names}")
    for g in gradients:
        for a in g.values():
            expect.holds(a is None or a.dtype == c.dtype, f"gradients have the parameters' dtype {c.dtype}")
    return list(zip(means, gradients, values, strict=True))


def wanted(c):
    """(mean, gradients) over all ranks, from sums that are exact for small integers."""
    found = [by_hand(c.params[0], b) for mine in c.batches for b in mine]
    total, count = sum(s for s, _, _ in found), sum(n for _, n, _ in found)
    gradient = {}
    for name in found[0][2]:
        parts = [g[name] for _, _, g in found if g[name] is not None]
        gradient[name] = sum(parts).astype(c.dtype) / c.dtype.type(count) if parts else None
    return total / count, gradient


def same_gradients(found, expected, expect):
    """The same bits by name, None where None is expected."""
    for name, g in expected.items():
        expect.holds((found[name] is None) == (g is None), f"{name} has a gradient where a rank uses it, else none")
        if g is not None:
            expect.same(found[name], g, f"gradient of {name}")


@law(
    ID, "L1", closed_form=True, given=whole.where(routes="all").reach("alone", "uneven", "idle", "divided"),
    kills=["ddp_token_mean", "own_count_times_ranks", "start_not_sent", "buffers_not_sent", "last_count_alone",
           "not_divided"],
)  # fmt: skip
def mean_and_gradient_are_those_of_all_terms(impl, c, expect):
    """Whole numbers: sum_r S_r / sum_r N_r and sum_r dS_r/dw / sum_r N_r at rank 0's values, each one exact sum and one
    division, on every rank."""
    mean, gradient = wanted(c)
    for found, g, values in results(impl(c), c, expect):
        expect.same(found, mean, "mean loss")
        same_gradients(g, gradient, expect)
        for name, a in c.params[0].items():
            expect.same(values[name], a, f"value of {name}")


@law(
    ID, "L2", dtypes=EXACT, given=whole.where(routes="all").reach("many", "divided"),
    kills=["ddp_token_mean", "no_sync_reduces"],
    passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def any_cut_is_one_rank_with_the_whole_batch(impl, c, expect):
    "Whole numbers: n ranks with any rows in any micro-batches have the bits of one rank with all rows in one batch."
    joined = [np.concatenate(parts) for parts in zip(*(b[:3] for mine in c.batches for b in mine), strict=True)]
    one = c.replace(n=1, comm=ThreadWorld(1), params=c.params[:1], batches=[[(*joined, c.batches[0][0][3])]])
    (alone,) = results(impl(one), one, expect)
    for mine in results(impl(c), c, expect):
        same_results(mine, alone, expect)


def same_results(found, expected, expect):
    """The same mean and gradients, to the bit."""
    expect.same(found[0], expected[0], "mean loss")
    same_gradients(found[1], expected[1], expect)


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=whole.where(routes="own").reach("untouched", "many"),
    kills=["order_of_filling", "unused_is_zero", "unused_stays_none", "unused_bucket_stays"],
)  # fmt: skip
def ranks_may_use_different_parameters(impl, c, expect):
    """Each rank and micro-batch takes its own experts in its own order: the exact mean gradient all the same; None for
    an expert that nobody takes, and the exact sum for those that share its bucket."""
    _, gradient = wanted(c)
    for _, g, _ in results(impl(c), c, expect):
        same_gradients(g, gradient, expect)


@law(
    ID, "L4", dtypes=EXACT, given=space.where(kind="wild").reach("many"), kills=["own_part_first"],
    passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def every_rank_has_the_same_bits(impl, c, expect):
    "Mean, gradients and values are the same bits on every rank, whatever rounds."
    first, *others = results(impl(c), c, expect)
    for mine in others:
        same_results(mine, first, expect)
        for name, a in first[2].items():
            expect.same(mine[2][name], a, f"value of {name}")


@law(
    ID, "L5", closed_form=True, dtypes=EXACT, given=space.reach("alone", "divided", "many"),
    kills=["reduced_at_every_part", "everyone_to_everyone"],
    passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def bytes_are_two_for_each_gradient(impl, c, expect):
    """All ranks together send (n - 1)(S + S_buffers) bytes at the start, 2 (n - 1) S of gradients, once for all
    micro-batches, and 2 (n - 1) (2 + P) 8 of sums; the gradients in 2 (n - 1) messages a rank and bucket."""
    _, sent = traffic(impl, c)
    item, n = c.dtype.itemsize, c.n
    weights = c.K * c.d * item
    formula = (n - 1) * (weights + item + 2 * weights + 2 * (2 + c.K) * 8)
    expect.same(sum(k.bytes_sent for k in sent), formula, "bytes")
    buckets = 1 if c.first == LARGE else min(c.K, 2) if c.size == LARGE else c.K
    messages = (n - 1) + 2 * n * (n - 1) * (1 + buckets)
    expect.same(sum(k.messages_sent for k in sent), messages, "messages")


@law(
    ID, "L6", dtypes=EXACT, given=space.where(kind="wild", n=choose(3, 2, 4, 5), K=dims(2, 3), d=dims(4, 6)),
    kills=["folded_around_the_ring"],
    passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def buckets_change_no_bit(impl, c, expect):
    "Under the canonical fold every choice of buckets gives the same bits, whatever rounds."
    out = results(impl(c.replace(first=1, size=1)), c, expect)
    for a, b in zip(results(impl(c.replace(first=LARGE, size=LARGE)), c, expect), out, strict=True):
        same_results(a, b, expect)


# Mutants: all ranks at once in plain NumPy -------------------------------------------------------------


def of(n=2, parts=1):
    """The default-size test: whole numbers, equal parts, the same values and experts on every rank."""

    def make():
        g = np.random.default_rng(0)
        params = {"scale": np.array([2.0]), "w0": np.array([1.0, -1.0]), "w1": np.array([2.0, 0.0])}
        part = lambda: (g.integers(-2, 3, (4, 2)) * 1.0, g.integers(-2, 3, 4) * 1.0, np.ones(4), (0, 1))  # noqa: E731
        return (ThreadWorld(n), [params] * n, [[part() for _ in range(parts)] for _ in range(n)]), {
            "loss": squares, "buffers": ("scale",), "first": LARGE, "size": LARGE,
        }  # fmt: skip

    return make


def added(parts):
    """The sum of those that are not None, None if there is none."""
    some = [p for p in parts if p is not None]
    return sum(some[1:], some[0]) if some else None


def computed(params, batches, *, start=None, count=None, part=None, fold=None, close=None):
    """(means, gradients, values) of all ranks; an edit replaces a step.

    start(rank) -> its values; part(sums of each micro-batch of a rank) -> its sum; count(counts by rank and part, rank)
    -> what rank divides by; fold(parts by rank, name, rank) -> their sum; close(gradient, parts by rank, rank) -> it.
    """
    n = len(params)
    values = [dict(start(r) if start else params[0]) for r in range(n)]
    found = [[by_hand(values[r], b) for b in batches[r]] for r in range(n)]
    count = count or (lambda all, r: sum(map(sum, all)))
    divisor = lambda r: count([[p[1] for p in mine] for mine in found], r)  # noqa: E731
    names = list(found[0][0][2])
    sums = [{name: (part or added)([p[2][name] for p in mine]) for name in names} for mine in found]
    dtype = params[0]["scale"].dtype
    out = []
    for r in range(n):
        g = {name: (fold or (lambda parts, name, r: added(parts)))([s[name] for s in sums], name, r) for name in names}
        g = {k: v if v is None else (v / np.float64(divisor(r))).astype(dtype) for k, v in g.items()}
        g = close(g, sums, r) if close else g
        total = sum(p[0] for mine in found for p in mine)
        out.append((np.float64(total / divisor(r)), g, {k: v.copy() for k, v in values[r].items()}))
    means, gradients, values = zip(*out, strict=True)
    return np.array(means), list(gradients), list(values)


@mutant(ID, default_case=of(), thread="transformers#34191, transformers#35121")
def ddp_token_mean(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "Each rank's mean, then the mean over ranks: wrong as soon as masks differ."
    n = len(params)
    found = [[by_hand(params[0], b) for b in mine] for mine in batches]
    counts = [max(sum(p[1] for p in mine), 1) for mine in found]
    names = list(found[0][0][2])
    mean = sum(sum(p[0] for p in mine) / k for mine, k in zip(found, counts, strict=True)) / n
    gradient = {
        name: added([None if (s := added([p[2][name] for p in mine])) is None else s / s.dtype.type(k * n)
                     for mine, k in zip(found, counts, strict=True)])
        for name in names
    }  # fmt: skip
    copies = lambda tree: {k: None if v is None else v.copy() for k, v in tree.items()}  # noqa: E731
    return np.full(n, mean), [copies(gradient) for _ in range(n)], [copies(params[0]) for _ in range(n)]


@mutant(ID, default_case=of())
def own_count_times_ranks(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "Counts are not reduced: a rank takes the others to have as many as itself."
    return computed(params, batches, count=lambda all, r: max(sum(all[r]), 1) * len(all))


@mutant(ID, default_case=of())
def start_not_sent(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "Every rank starts from its own values."
    return computed(params, batches, start=lambda r: params[r])


@mutant(ID, default_case=of())
def buffers_not_sent(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "Parameters are sent and buffers are not."
    return computed(params, batches, start=lambda r: {**params[0], **{k: params[r][k] for k in buffers}})


@mutant(ID, default_case=of())
def last_count_alone(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "Divided by the count of the last micro-batch."
    return computed(params, batches, count=lambda all, r: max(sum(mine[-1] for mine in all), 1))


@mutant(ID, default_case=of(1))
def not_divided(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "Each rank divides its loss by its own count, and the sum over ranks is never divided."
    return computed(params, batches, count=lambda all, r: max(sum(map(sum, all)) / len(all), 1))


@mutant(ID, default_case=of())
def no_sync_reduces(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "no_sync is overlooked: what was reduced after one micro-batch is reduced again with the next."
    n = len(params)
    means, gradients, values = computed(params, batches)
    most = max(map(len, batches))
    total = sum(b[2].sum() for mine in batches for b in mine)
    for name in gradients[0]:
        acc = None
        for k in range(most):
            parts = [by_hand(params[0], mine[k])[2][name] for mine in batches if k < len(mine)]
            acc = added([None if acc is None else acc * n, *parts])
        for g in gradients:
            g[name] = None if acc is None else (acc / np.float64(total)).astype(acc.dtype)
    return means, gradients, values


@mutant(ID, default_case=of())
def order_of_filling(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "A bucket is reduced when it is full: the k-th reduction of one rank is of another bucket than its neighbour's."
    if first == LARGE:
        return computed(params, batches)
    names = [k for k in params[0] if k != "scale"]

    def order(r):
        route = [f"w{k}" for k in batches[r][-1][3]]
        return [k for k in names[::-1] if k not in route] + sorted({*route}, key=lambda k: -route.index(k))

    orders = [order(r) for r in range(len(params))]
    return computed(
        params, batches, close=lambda g, sums, r: {
            name: None if g[name] is None else (
                added([np.zeros_like(g[name])] + [s[orders[q][orders[r].index(name)]] for q, s in enumerate(sums)])
                / np.float64(sum(b[2].sum() for mine in batches for b in mine))
            ).astype(g[name].dtype)
            for name in g
        },
    )  # fmt: skip


@mutant(ID, default_case=of())
def unused_is_zero(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "What no rank uses gets a gradient of zeros: weight decay and old moments then move it."
    return computed(
        params, batches, close=lambda g, sums, r: {k: np.zeros_like(params[0][k]) if v is None else v
                                                   for k, v in g.items()},
    )  # fmt: skip


@mutant(ID, default_case=of())
def unused_stays_none(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "A rank that does not use a parameter has no gradient of it, though others do."
    return computed(
        params, batches, close=lambda g, sums, r: {k: None if sums[r][k] is None else v for k, v in g.items()}
    )


@mutant(ID, default_case=of())
def unused_bucket_stays(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "A bucket with a parameter that nobody uses is never full and so never reduced."
    total = sum(b[2].sum() for mine in batches for b in mine)

    def close(g, sums, r):
        if first != LARGE or not any(v is None for v in g.values()):
            return g
        return {k: None if v is None else (sums[r][k] / np.float64(total)).astype(v.dtype)
                if sums[r][k] is not None else np.zeros_like(v) for k, v in g.items()}  # fmt: skip

    return computed(params, batches, close=close)


@mutant(ID, default_case=of())
def own_part_first(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "Each rank adds the others' parts to its own: another order, and other bits, on each."
    return computed(
        params, batches, fold=lambda parts, name, r: added([parts[(r + k) % len(parts)] for k in range(len(parts))])
    )


@mutant(ID, default_case=of())
def folded_around_the_ring(world, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "The ring's fold: an element's order is that of its chunk, and the chunk depends on the bucket."
    n = len(params)
    names = [k for k in params[0] if k != "scale"][::-1]
    groups = [names] if first == LARGE else [[k] for k in names]

    def fold(parts, name, r):
        some = [p for p in parts if p is not None]
        if not some:
            return None
        group = next(g for g in groups if name in g)
        d, at = some[0].size, group.index(name)
        full = [np.zeros_like(some[0]) if p is None else p for p in parts]
        chunk = [next(j for j in range(n) if e < len(group) * d * (j + 1) // n) for e in range(at * d, at * d + d)]
        turned = [added([full[(j + k) % n] for k in range(n)])[e] for e, j in enumerate(chunk)]
        return np.array(turned)

    return computed(params, batches, fold=fold)


def exchanged(comm, params, batches, reduce, each_part):
    """Ranks in plain steps: values of rank 0, own gradients, and a reduction of one flat array."""
    values = {k: v.copy() for k, v in params.items()}
    flat = np.concatenate(list(values.values()))
    if comm.rank:
        comm.recv(flat, 0)
    else:
        for r in range(1, comm.size):
            comm.send(flat, r)
    cut = np.cumsum([v.size for v in values.values()])[:-1]
    values = dict(zip(values, np.split(flat, cut), strict=True))
    names = [k for k in values if k != "scale"]
    found = [by_hand(values, b) for b in batches]

    def part(p):
        return np.concatenate([np.zeros_like(values[k]) if p[2][k] is None else p[2][k] for k in names])

    sums = [part(p) for p in found] if each_part else [added([part(p) for p in found])]
    most = max(comm.share(len(sums)))
    sums += [np.zeros_like(sums[0])] * (most - len(sums))
    reduced = added([reduce(comm, s) for s in sums])
    used = [any(p[2][k] is not None for p in found) for k in names]
    small = np.array([sum(p[0] for p in found), sum(p[1] for p in found), *used])
    small = canonical_all_reduce(comm, small)
    total, count, *users = small.tolist()
    pieces = np.split(reduced / reduced.dtype.type(count), len(names))
    gradient = {k: g if u else None for k, g, u in zip(names, pieces, users, strict=True)}
    return np.float64(total / count), gradient, values


@mutant(ID, default_case=of())
@on_ranks
def reduced_at_every_part(comm, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "The right sum, reduced once for each micro-batch."
    return exchanged(comm, params, batches, canonical_all_reduce, True)


@mutant(ID, default_case=of())
@on_ranks
def everyone_to_everyone(comm, params, batches, *, loss, buffers=(), first=1, size=1, algorithm=None):
    "The right sum: every rank sends its whole gradient to each of the others."

    def reduce(comm, flat):
        n, r = comm.size, comm.rank
        got = [flat if q == r else np.empty_like(flat) for q in range(n)]
        for k in range(1, n):
            comm.sendrecv(flat, (r + k) % n, got[(r - k) % n], (r - k) % n)
        return added(got)

    return exchanged(comm, params, batches, reduce, False)
