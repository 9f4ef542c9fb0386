"""Laws and mutants of expert parallelism: by hand, token by token, on all ranks' arrays at once."""

from __future__ import annotations

import math

import numpy as np

from backends.communicators import ThreadWorld, on_ranks
from ref.distributed import common_laws as common
from ref.distributed.common_laws import EXACT, traffic, world
from ref.distributed.expert_parallel import expert_parallel
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.expert_parallel"


def numbers(draw, c, *shape):
    g = rng(draw)
    return g.integers(-2, 3, shape) * 1.0 if c.kind == "whole" else g.standard_normal(shape)


def _tokens(draw, c):
    most = 6 if c.crowd else 3
    return [numbers(draw, c, draw(choose(*range(4 if c.crowd else 0, most + 1))), c.d) for _ in range(c.n)]


def _router(draw, c):
    R = numbers(draw, c, c.d, c.n * c.e)
    if c.crowd:  # most tokens want expert 0
        R[:, 0] *= 3
    return [R.copy() for _ in range(c.n)]


space = cases(
    ID, n=choose(2, 1, 3, 4, 8), comm=world, e=dims(1, 2), d=dims(1, 3), F=dims(1, 3), kind=choose("wild", "whole"),
    crowd=choose(False, True), x=_tokens, router=_router,
    up=lambda draw, c: [numbers(draw, c, c.e, c.d, c.F) for _ in range(c.n)],
    down=lambda draw, c: [numbers(draw, c, c.e, c.F, c.d) for _ in range(c.n)],
    g=lambda draw, c: [numbers(draw, c, *x.shape) for x in c.x],
    k=lambda draw, c: draw(choose(*range(1, min(c.n * c.e, 2) + 1))),
    capacity_factor=choose(None, 0.5, 1.0, 1.25), normalise=choose(False, True),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2, {"n": choose(3, 4)}),
        "empty": Flag(lambda c: any(not len(x) for x in c.x), {"crowd": False, "n": choose(3, 4)}),
        "dropped": Flag(
            lambda c: any(not r.kept.all() for r in routes(c)), {"crowd": True, "capacity_factor": 0.5}),
        "two": Flag(lambda c: c.k == 2, {"n": choose(2, 3), "k": 2}),
    },
)  # fmt: skip


class Route:
    """One rank's routing, in loops: probabilities, choices, which are kept, gates."""

    def __init__(self, x, R, k, factor, normalise, room=None):
        T, E = len(x), R.shape[1]
        z = x @ R
        p = np.exp(z - z.max(1, keepdims=True, initial=-1e300))
        self.p = p / p.sum(1, keepdims=True)
        self.expert = np.array([sorted(range(E), key=lambda e: (-row[e], e))[:k] for row in self.p], int).reshape(T, k)
        C = k * T if factor is None else math.ceil(factor * k * T / E)
        seen = [0] * E if room is None else room
        self.kept = np.zeros((T, k), bool)
        for j in range(k):
            for t in range(T):
                self.kept[t, j] = seen[self.expert[t, j]] < C
                seen[self.expert[t, j]] += 1
        self.gate = np.take_along_axis(self.p, self.expert, 1)
        self.total = self.gate.sum(1, keepdims=True) if normalise else np.ones((T, 1))
        self.gate = self.gate / self.total


def routes(c):
    return [Route(np.asarray(x), c.router[0], c.k, c.capacity_factor, c.normalise) for x in c.x]


def forward(x, up, down, route, miss=None):
    """y of one rank; up and down of all experts; miss(x_t) for a token with no expert."""
    y = np.zeros_like(x)
    for t in range(len(x)):
        for j, e in enumerate(route.expert[t]):
            if route.kept[t, j]:
                y[t] += route.gate[t, j] * (np.maximum(x[t] @ up[e], 0) @ down[e])
        if miss is not None and not route.kept[t].any():
            y[t] = miss(x[t])
    return y


def backward(g, x, R, up, down, route, normalise):
    """(dx, dR, dup, ddown) of one rank's tokens, up and down of all experts."""
    dx, dp, dup, ddown = np.zeros_like(x), np.zeros_like(route.p), np.zeros_like(up), np.zeros_like(down)
    for t in range(len(x)):
        dgate = np.zeros(len(route.expert[t]))
        for j, e in enumerate(route.expert[t]):
            if route.kept[t, j]:
                h = np.maximum(x[t] @ up[e], 0)
                dgate[j] = g[t] @ (h @ down[e])
                do = route.gate[t, j] * g[t]
                dh = (down[e] @ do) * (h > 0)
                ddown[e] += np.outer(h, do)
                dup[e] += np.outer(x[t], dh)
                dx[t] += up[e] @ dh
        if normalise:
            dgate = (dgate - dgate @ route.gate[t]) / route.total[t]
        dp[t, route.expert[t]] = dgate
    dz = route.p * (dp - (route.p * dp).sum(1, keepdims=True))
    return dx + dz @ R.T, x.T @ dz, dup, ddown


def check(expect, found, wanted, what):
    expect(found, wanted, 1e-10 * np.maximum(1.0, np.abs(wanted)), what, scale=1.0)


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.reach("alone", "empty", "dropped", "two"),
    kills=["rows_in_order_of_arrival", "experts_by_turns", "capacity_of_all_ranks", "gates_of_the_kept",
           "never_normalised", "dropped_pass_through", "unweighted"],
)  # fmt: skip
def output_is_the_sum_over_kept_experts(impl, c, expect):
    "y_t = sum of gate_te relu(x_t U_e) D_e over the kept choices of t, token by token, with all experts in one place."
    y, up, down = common.by_rank(impl(c), c, expect), np.concatenate(c.up), np.concatenate(c.down)
    for r, route in enumerate(routes(c)):
        check(expect, y[r], forward(np.asarray(c.x[r]), up, down, route), f"y of rank {r}")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, needs=("vjp",), given=space.reach("dropped", "two"),
    kills=["gates_are_constants", "experts_see_their_own_rank", "router_summed"],
    passes_null=["mutated", "wrong_dtype", "cached", "nan"],
)  # fmt: skip
def gradients_are_those_of_one_rank(impl, c, expect):
    "dx, dU, dD of the dense sum's chain rule, experts' over the tokens of all ranks; dR of each rank's own tokens."
    found = impl.vjp(c, c.g)
    up, down = np.concatenate(c.up), np.concatenate(c.down)
    parts = [backward(np.asarray(g), np.asarray(x), R, up, down, route, c.normalise)
             for g, x, R, route in zip(c.g, c.x, c.router, routes(c), strict=True)]  # fmt: skip
    dup, ddown = sum(p[2] for p in parts), sum(p[3] for p in parts)
    for r in range(c.n):
        mine = slice(r * c.e, (r + 1) * c.e)
        wanted = {"x": parts[r][0], "router": parts[r][1], "up": dup[mine], "down": ddown[mine]}
        for name, a in wanted.items():
            check(expect, found[name][r], a, f"gradient of {name} on rank {r}")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.where(kind="whole", k=1, normalise=True).reach("many"),
    kills=["rows_in_order_of_arrival", "experts_by_turns", "half_on_the_way"],
)  # fmt: skip
def whole_numbers_are_exact(impl, c, expect):
    "k = 1 and normalise: the gate is 1, so whole numbers come out to the bit on any number of ranks."
    y, up, down = common.by_rank(impl(c), c, expect), np.concatenate(c.up), np.concatenate(c.down)
    thirds = c.replace(x=[x / 3 for x in c.x])
    for r, route in enumerate(routes(c)):
        expect.same(y[r], forward(np.asarray(c.x[r]), up, down, route), f"y of rank {r}")
    for r, (found, route) in enumerate(zip(common.by_rank(impl(thirds), c, expect), routes(thirds), strict=True)):
        check(expect, found, forward(np.asarray(thirds.x[r]), up, down, route), f"y of rank {r}, of thirds")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=space.reach("many", "dropped", "empty"),
    kills=["padded_to_capacity", "all_to_everyone"], passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def bytes_are_the_rows_that_leave(impl, c, expect):
    """Rank r sends 8 e bytes of counts to each other rank, its kept choices whose expert is elsewhere, 8 d bytes each,
    and as many rows back as come; in 3 (n - 1) messages."""
    _, sent = traffic(impl, c)
    goes = np.zeros((c.n, c.n), int)
    for r, route in enumerate(routes(c)):
        for e in route.expert[route.kept]:
            goes[r, e // c.e] += 1
    np.fill_diagonal(goes, 0)
    formula = [8 * c.e * (c.n - 1) + 8 * c.d * (goes[r].sum() + goes[:, r].sum()) for r in range(c.n)]
    expect.same([k.bytes_sent for k in sent], formula, "bytes by rank")
    expect.same([k.messages_sent for k in sent], [3 * (c.n - 1)] * c.n, "messages by rank")


def _same_tokens(draw, c):
    return [np.ones((draw(choose(3, 2, 5)), c.d)) for _ in range(c.n)]


@law(
    ID, "L5", closed_form=True, dtypes=EXACT,
    given=space.where(x=_same_tokens, capacity_factor=choose(0.5, 0.25, 1.0), k=1, n=choose(2, 3, 4), normalise=True),
    kills=["dropped_pass_through", "capacity_of_all_ranks", "one_slot_more"],
)  # fmt: skip
def what_is_dropped_has_no_part(impl, c, expect):
    """Equal tokens want one expert: the first ceil(factor T / E) of each rank get relu(x U) D, all others exactly zero,
    and with it no gradient by the layer."""
    y = common.by_rank(impl(c), c, expect)
    E = c.n * c.e
    for r in range(c.n):
        x = np.asarray(c.x[r])
        best = int(np.argmax(x[0] @ c.router[0]))
        row = np.maximum(x[0] @ np.concatenate(c.up)[best], 0) @ np.concatenate(c.down)[best]
        C = math.ceil(c.capacity_factor * len(x) / E)
        check(expect, y[r][:C], np.tile(row, (min(C, len(x)), 1)), f"kept tokens of rank {r}")
        expect.same(y[r][C:], np.zeros((max(len(x) - C, 0), c.d)), f"dropped tokens of rank {r}")


# Mutants ---------------------------------------------------------------------------------------------


def of(n=2, **options):
    """The default-size test: one token a rank, each for the expert of the other one."""

    def make():
        eye = np.eye(2)[::-1]
        x = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])[:n]
        router = np.stack([eye * 60.0] * n)[:, :, :n]
        return (ThreadWorld(n), x, router, np.ones((n, 1, 2, 2)), np.stack([np.eye(2)[None] * 2.0] * n)), options

    return make


def computed(x, router, up, down, k, factor, normalise, *, route=None, place=None, miss=None, close=None):
    """The outputs of all ranks; an edit replaces a step."""
    route = route or (lambda x, R: Route(x, R, k, factor, normalise))
    U, D = np.concatenate(list(up)), np.concatenate(list(down))
    order = place(len(up), len(up[0])) if place else np.arange(len(U))
    out = []
    for a, R in zip(x, router, strict=True):
        a = np.asarray(a)
        made = route(a, R)
        y = forward(a, U[order], D[order], made, miss)
        out.append(close(y, a, made) if close else y)
    return out


def pulled(g, x, router, up, down, k, factor, normalise, *, edit=None):
    """Cotangents of all ranks; edit(parts by rank) changes [dx, dR, dU, dD] of each before experts are added up."""
    U, D = np.concatenate(list(up)), np.concatenate(list(down))
    e = len(up[0])
    parts = [
        list(backward(np.asarray(a), np.asarray(b), R, U, D, Route(np.asarray(b), R, k, factor, normalise), normalise))
        for a, b, R in zip(g, x, router, strict=True)
    ]
    parts = edit(parts, e) if edit else parts
    dU, dD = sum(p[2] for p in parts), sum(p[3] for p in parts)
    cut = [slice(r * e, (r + 1) * e) for r in range(len(parts))]
    return [p[0] for p in parts], [p[1] for p in parts], [dU[s] for s in cut], [dD[s] for s in cut]


@mutant(ID, default_case=of())
def rows_in_order_of_arrival(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "Rows come back sorted by expert and are taken to be in the order of the tokens."

    def close(y, a, route):
        first = [int(es[ok][0]) if ok.any() else 10**6 for es, ok in zip(route.expert, route.kept, strict=True)]
        return y[np.argsort(first, kind="stable")]

    return computed(x, router, up, down, k, capacity_factor, normalise, close=close)


@mutant(ID, default_case=of())
def experts_by_turns(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "Expert i is looked for on rank i mod n."
    place = lambda n, e: np.array([(i % n) * e + i // n for i in range(n * e)])  # noqa: E731
    return computed(x, router, up, down, k, capacity_factor, normalise, place=place)


@mutant(ID, default_case=of(capacity_factor=2.0))
def capacity_of_all_ranks(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "The slots of a rank's tokens, filled by all ranks in turn."
    room = [0] * router[0].shape[1]
    route = lambda a, R: Route(a, R, k, capacity_factor, normalise, room)  # noqa: E731
    return computed(x, router, up, down, k, capacity_factor, normalise, route=route)


@mutant(ID, default_case=of())
def gates_of_the_kept(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "The sum that gates are divided by leaves dropped choices out."

    def route(a, R):
        made = Route(a, R, k, capacity_factor, normalise)
        if normalise:
            kept = (made.gate * made.kept).sum(1, keepdims=True)
            made.gate = made.gate / np.where(kept > 0, kept, 1)
        return made

    return computed(x, router, up, down, k, capacity_factor, normalise, route=route)


@mutant(ID, default_case=of())
def never_normalised(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "normalise is overlooked."
    return computed(x, router, up, down, k, capacity_factor, False)


@mutant(ID, default_case=of())
def unweighted(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "Experts are added up without their gates."

    def route(a, R):
        made = Route(a, R, k, capacity_factor, normalise)
        made.gate = np.ones_like(made.gate)
        return made

    return computed(x, router, up, down, k, capacity_factor, normalise, route=route)


@mutant(ID, default_case=of(capacity_factor=2.0))
def dropped_pass_through(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "A token with no expert left keeps its value: with the residual it counts twice."
    return computed(x, router, up, down, k, capacity_factor, normalise, miss=lambda row: row)


@mutant(ID, default_case=of(capacity_factor=2.0))
def one_slot_more(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "C + 1 slots."
    route = lambda a, R: Route(a, R, k, capacity_factor, normalise, [-1] * R.shape[1])  # noqa: E731
    return computed(x, router, up, down, k, capacity_factor, normalise, route=route)


@mutant(ID, default_case=of())
def half_on_the_way(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "Rows travel as float16."
    cut = lambda y, a, made: y.astype(np.float16).astype(y.dtype)  # noqa: E731
    return computed(x, router, up, down, k, capacity_factor, normalise, close=cut)


def _constant_gates(g, world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    _, dR, dU, dD = pulled(g, x, router, up, down, k, capacity_factor, normalise)
    routes = [Route(np.asarray(a), R, k, capacity_factor, normalise) for a, R in zip(x, router, strict=True)]
    dx = [_through_experts(np.asarray(b), np.asarray(a), up, down, made)
          for a, b, made in zip(x, g, routes, strict=True)]  # fmt: skip
    return dx, [np.zeros_like(a) for a in dR], dU, dD


def _through_experts(g, x, up, down, route):
    U, D, dx = np.concatenate(list(up)), np.concatenate(list(down)), np.zeros_like(x)
    for t, j in zip(*np.nonzero(route.kept), strict=True):
        e = route.expert[t, j]
        dx[t] += U[e] @ ((D[e] @ (route.gate[t, j] * g[t])) * (x[t] @ U[e] > 0))
    return dx


def _own_rank_alone(g, world, *arrays, k=1, capacity_factor=None, normalise=False):
    def edit(parts, e):
        for r, p in enumerate(parts):
            for a in p[2:]:
                a[: r * e] = 0
                a[(r + 1) * e :] = 0
        return parts

    return pulled(g, *arrays, k, capacity_factor, normalise, edit=edit)


def _router_summed(g, world, *arrays, k=1, capacity_factor=None, normalise=False):
    dx, dR, dU, dD = pulled(g, *arrays, k, capacity_factor, normalise)
    return dx, [sum(dR) for _ in dR], dU, dD


@mutant(ID, default_case=of(), vjp=_constant_gates)
def gates_are_constants(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "The gates are taken off the tape: the router never learns."
    return computed(x, router, up, down, k, capacity_factor, normalise)


@mutant(ID, default_case=of(), vjp=_own_rank_alone)
def experts_see_their_own_rank(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "An expert's gradient has the tokens of its own rank alone."
    return computed(x, router, up, down, k, capacity_factor, normalise)


@mutant(ID, default_case=of(), vjp=_router_summed)
def router_summed(world, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "The router's gradient is summed over ranks here, and by data parallelism once more."
    return computed(x, router, up, down, k, capacity_factor, normalise)


def also(comm, x, rows):
    """So many rows of zeros to every other rank."""
    for q in range(1, comm.size):
        block, out = np.zeros((rows, x.shape[1])), np.empty((rows, x.shape[1]))
        comm.sendrecv(block, (comm.rank + q) % comm.size, out, (comm.rank - q) % comm.size, 9)


@mutant(ID, default_case=of())
@on_ranks
def padded_to_capacity(comm, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "Right; blocks are filled up to the capacity, as a fixed-size exchange has to."
    also(comm, x, 1)
    return expert_parallel(
        comm, x, router, up, down, k=k, capacity_factor=capacity_factor, normalise=normalise
    )


@mutant(ID, default_case=of())
@on_ranks
def all_to_everyone(comm, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    "Right; every rank gets all tokens and leaves out what is not its own."
    also(comm, x, max(comm.share(len(x))))
    return expert_parallel(
        comm, x, router, up, down, k=k, capacity_factor=capacity_factor, normalise=normalise
    )
