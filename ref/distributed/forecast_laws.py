"""Laws and mutants of the forecast."""

from __future__ import annotations

import importlib

import numpy as np

from backends.communicators.simulator import Model, Nodes, Phantom, Torus, record, simulate
from ref.distributed.common_laws import EXACT
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "distributed.forecast"
NAMES = (
    "ring_all_reduce", "recursive_doubling_all_reduce", "halving_doubling_all_reduce", "canonical_all_reduce",
    "ring_reduce_scatter", "canonical_reduce_scatter", "ring_all_gather", "bruck_all_gather", "binomial_broadcast",
    "scatter_gather_broadcast", "binomial_reduce", "pairwise_all_to_all", "dissemination_barrier",
)  # fmt: skip


def _int(values):
    return lambda draw, c: np.array(draw(choose(*values(c))))


def _length(draw, c):
    n = int(c.ranks)
    return np.array(draw(choose(0, n, 24 * n) if c.name == "pairwise_all_to_all" else choose(0, 5, 16, 24 * n)))


def _slow(draw, c):
    """None, or factors in halves."""
    return 1 + rng(draw).integers(0, 5, int(c.ranks)) / 2 if draw(choose(True, True, False)) else None


def _topology(draw, c):
    return draw(choose(None, None, Nodes(2, 0.25, 0.125), Torus((2, 4), 0.5)))


space = cases(
    ID, name=choose(*NAMES), ranks=_int(lambda c: range(1, 9)), n=lambda draw, c: int(c.ranks), length=_length,
    rates=lambda draw, c: np.array([draw(choose(1.0, 8.0)), draw(choose(0.0, 0.5)), draw(choose(0.0, 0.25))]), three=3,
    itemsize=choose(4, 8), slow=_slow, topology=_topology, memory="C",
    flags={
        "stragglers": Flag(lambda c: c.slow is not None and c.n > 2 and len(set(c.slow)) > 1,
                           {"ranks": _int(lambda c: (3, 4, 6, 8))}),
        "odd": Flag(lambda c: c.n & (c.n - 1) > 0, {"ranks": _int(lambda c: (3, 5, 6, 7))}),
    },
)  # fmt: skip
even = space.where(slow=None, topology=None)
RING = "ring_all_gather"


def near(c, value):
    return bounds.rounding(40, np.max(value, initial=0.0), c.dtype)


def rates(c):
    return (float(x) for x in c.rates)


@law(
    ID, "L1", closed_form=True,
    given=even.where(name=choose("ring_all_reduce", "binomial_broadcast", "ring_all_gather", "bruck_all_gather"),
                     length=lambda draw, c: np.array(24 * int(c.ranks))).reach("odd"),
    kills=["one_round_less", "nobody_waits", "combining_free"],
)  # fmt: skip
def no_straggler_is_the_textbook(impl, c, expect):
    """Every rank ends a ring at once: after 2 (n - 1) alpha + 2 (n - 1)/n S beta + (n - 1)/n S gamma, an all-gather
    after (n - 1) or ceil(log2 n) alpha + (n - 1)/n S beta; a broadcast's last rank after ceil(log2 n) (alpha + S beta).
    """
    alpha, beta, gamma = rates(c)
    n, S, m = c.n, int(c.length) * c.itemsize, (c.n - 1).bit_length()
    q = (n - 1) / n * S
    found = np.asarray(impl(c), np.float64)
    if c.name == "binomial_broadcast":
        wanted = m * (alpha + S * beta)
        expect(found.max(initial=0.0), wanted, near(c, wanted), "the last rank")
        return
    wanted = {
        "ring_all_reduce": 2 * (n - 1) * alpha + 2 * q * beta + q * gamma,
        "ring_all_gather": (n - 1) * alpha + q * beta, "bruck_all_gather": m * alpha + q * beta,
    }[c.name]  # fmt: skip
    expect(found, np.full(n, wanted), near(c, wanted))


def program(c):
    """The algorithm itself, on phantoms."""
    n, L, dtype = c.n, int(c.length), np.dtype(f"f{c.itemsize}")
    function = getattr(importlib.import_module(f"ref.distributed.{c.name}"), c.name)

    def run(comm):
        if c.name == "dissemination_barrier":
            return function(comm, 0.0)
        if "all_gather" in c.name:
            rows = L * (comm.rank + 1) // n - L * comm.rank // n
            return function(comm, Phantom(rows, dtype), length=L)
        return function(comm, Phantom(L, dtype))

    return run


@law(
    ID, "L2", dtypes=EXACT, given=space.reach("stragglers", "odd"),
    kills=["nobody_waits", "slow_sender_alone", "one_round_less", "combining_free"],
)  # fmt: skip
def is_the_event_queue_on_the_real_program(impl, c, expect):
    "Every rank's end is that of the real algorithm, recorded and run through an event queue: the same bits."
    model = Model(*rates(c), topology=c.topology, slow=c.slow)
    expect.same(impl(c), simulate(c.n, program(c), model).seconds)


@law(
    ID, "L3", closed_form=True,
    given=even.where(name=RING, ranks=_int(lambda c: range(3, 9)), length=lambda draw, c: np.array(24 * int(c.ranks)),
                     slow=lambda draw, c: np.where(np.arange(c.n) == draw(choose(*range(c.n))), 3.0, 1.0)),
    kills=["slow_sender_alone", "nobody_waits", "all_as_slow"],
)  # fmt: skip
def one_straggler_in_a_ring(impl, c, expect):
    """K steps of c seconds, one rank with factor f: it and its two neighbours end after K f c, a rank d hops from them
    after (K - d) f c + d c: the delay travels one hop a step."""
    alpha, beta, _ = rates(c)
    n, K, f = c.n, c.n - 1, 3.0
    one, s = alpha + beta * 24 * c.itemsize, int(np.argmax(c.slow))
    hops = [max(0, min((r - s) % n, (s - r) % n) - 1) for r in range(n)]
    wanted = np.array([(K - d) * f * one + d * one for d in hops])
    expect(impl(c), wanted, near(c, wanted))


@law(
    ID, "L4", closed_form=True,
    given=even.where(name=choose("ring_all_gather", "pairwise_all_to_all"), ranks=_int(lambda c: (4, 6, 8)),
                     length=lambda draw, c: np.array(24 * int(c.ranks)), topology=choose(Nodes(2, 0.25, 0.125))),
    kills=["one_kind_of_link"],
)  # fmt: skip
def links_of_two_speeds(impl, c, expect):
    """Machines of two ranks. A ring: half of the links are slow, and after the first step every rank waits for one in
    each, so K - 1 steps and the first at its own pace. Pairwise: a step with one slow link a rank is slow for all."""
    alpha, beta, _ = rates(c)
    n, m = c.n, 24 * c.itemsize
    slow, fast = alpha + beta * m, 0.25 + 0.125 * m
    found = np.asarray(impl(c), np.float64)
    if c.name == "pairwise_all_to_all":
        wanted = np.full(n, (n - 1) * slow if slow >= fast else np.nan)
    else:
        wanted = np.full(n, (n - 1) * max(slow, fast))
    good = np.isfinite(wanted)
    expect(found[good], wanted[good], near(c, wanted[good]) if good.any() else 1.0)


@law(ID, "L5", given=space.reach("stragglers"), kills=["latency_floor"])
def time_scales_with_the_rates(impl, c, expect):
    "Rates 4 times as great: 4 times the seconds, to the bit, topology apart."
    c = c.replace(topology=None)
    expect.same(impl(c.replace(rates=4 * c.rates)), 4 * np.asarray(impl(c)))


# Mutants ---------------------------------------------------------------------------------------------


def of(name="ring_all_gather", n=1, L=8):
    return lambda: ((np.array(n), np.array(L), np.array([1.0, 0.5, 0.25])), {"name": name})


def recursion(ranks, length, rates, *, name, itemsize=4, slow=None, topology=None, dies=None, progress=None, **edit):
    """The max-plus recursion over what the algorithm itself sends, in plain loops, whose parts an edit replaces."""
    n = int(ranks)
    fields = {"n": n, "length": length, "itemsize": itemsize, "name": name}
    model = Model(*(float(x) for x in rates), topology=edit.get("topology", topology), slow=slow)
    f = edit.get("factors", lambda f: f)(model.factors(n))
    steps = [record(n, program(type("C", (), fields)), r)[0] for r in range(n)]
    queue = {r: [s for s in steps[r] if s.kind in ("send", "recv", "combine")] for r in range(n)}
    if edit.get("less"):
        queue = {r: q[: -edit["less"]] for r, q in queue.items()}
    now, moved = np.zeros(n), True
    while moved:
        moved = False
        for r in range(n):
            while queue[r] and queue[r][0].kind == "combine":
                now[r] += queue[r].pop(0).size * model.gamma * f[r] * edit.get("combining", 1.0)
        ends = dict.fromkeys(range(n), 0.0)
        heads = {r: queue[r][:2] for r in range(n)}
        pairs = [
            (r, s.peer, s.size) for r in range(n) for s in heads[r] if s.kind == "send"
            and any(t.kind == "recv" and t.peer == r for t in heads[s.peer])
            and (len(heads[r]) < 2 or heads[r][0].kind == "send" or heads[r][0].kind == "recv" and any(
                t.kind == "send" and t.peer == r for t in heads[heads[r][0].peer]))
        ]  # fmt: skip
        for a, b, size in pairs:
            alpha, beta = model.links(a, b)
            factor = f[a] if edit.get("sender") else max(f[a], f[b])
            start = now[a] if edit.get("eager") else max(now[a], now[b])
            end = start + max(float(alpha + size * beta) * factor, edit.get("floor", 0.0))
            ends[a], ends[b] = max(ends[a], end), max(ends[b], end)
        for a, b, _ in pairs:
            for r, kind, peer in ((a, "send", b), (b, "recv", a)):
                at = next(i for i, s in enumerate(queue[r]) if s.kind == kind and s.peer == peer)
                queue[r].pop(at)
            moved = True
        for r in range(n):
            now[r] = max(now[r], ends[r])
    return now.astype(np.asarray(rates).dtype)


@mutant(ID, default_case=of())
def nobody_waits(*args, **options):
    "A transfer begins when its sender is ready."
    return recursion(*args, **options, eager=True)


@mutant(ID, default_case=of())
def slow_sender_alone(*args, **options):
    "The receiver's factor does not count."
    return recursion(*args, **options, sender=True)


@mutant(ID, default_case=of())
def one_round_less(*args, **options):
    "Everybody leaves before the last step."
    return recursion(*args, **options, less=2)


@mutant(ID, default_case=of())
def combining_free(*args, **options):
    "gamma is forgotten."
    return recursion(*args, **options, combining=0.0)


@mutant(ID, default_case=of())
def all_as_slow(*args, **options):
    "All ranks go at the straggler's pace."
    return recursion(*args, **options, factors=lambda f: np.full(len(f), f.max(initial=1.0)))


@mutant(ID, default_case=of())
def one_kind_of_link(ranks, length, rates, *, topology=None, **options):
    "The topology is not looked at."
    return recursion(ranks, length, rates, **options)


@mutant(ID, default_case=of())
def latency_floor(*args, **options):
    "No message takes less than two seconds."
    return recursion(*args, **options, floor=2.0)
