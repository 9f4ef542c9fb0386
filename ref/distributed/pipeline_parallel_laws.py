"""Laws and mutants of pipeline parallelism, on a chain of affine stages whose gradient is a closed form.

Stage 0 scales by the tied e, every stage takes h to h w + b, the last compares h e with a target; with `middle` the
stages between add e as well. With `bend` a tanh follows every stage.
"""

from __future__ import annotations

import weakref

import numpy as np

from autodiff import namespace, raw
from backends.communicators import ThreadWorld, on_ranks
from ref.distributed.common_laws import EXACT, traffic, world
from ref.distributed.pipeline_parallel import pipeline_parallel
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.pipeline_parallel"


class Chain:
    """The stage function; it notes how many of a rank's outputs are alive when one more is made."""

    def __init__(self, bend=False):
        self.bend, self.alive, self.most = bend, {}, {}

    def __call__(self, params, x, rank):
        h = params["e"] * x if "first" in params else x
        h = h * params["w"] + params["b"]
        if "e" in params and "first" not in params and "last" not in params:
            h = h + params["e"]
        if self.bend:
            h = namespace(h).tanh(h)
        mine = [ref for ref in self.alive.get(rank, []) if ref() is not None] + [weakref.ref(raw(h))]
        self.alive[rank] = mine
        self.most[rank] = max(self.most.get(rank, 0), len(mine))
        return h


def squares(params, y, batch):
    """Sum over kept rows of |y e - t|^2, and the number of kept rows."""
    _, target, keep = batch
    residual = (y * params["e"] - target) * keep[:, None]
    return (residual * residual).sum(), float(keep.sum())


def through(params, x, bend):
    """What goes into each stage, and what comes out of it."""
    h, last, inputs, outputs = x * params[0]["e"], len(params) - 1, [], []
    for r, own in enumerate(params):
        inputs.append(h)
        h = h * own["w"] + own["b"]
        h = h + own["e"] if 0 < r < last and "e" in own else h
        h = np.tanh(h) if bend else h
        outputs.append(h)
    return inputs, outputs


def by_hand(params, batch, bend, seen=None):
    """(sum, count, [{name: gradient} of each rank]) of one micro-batch, in plain NumPy; `seen` replaces the inputs of
    the stages that the gradients of w are taken at."""
    x, target, keep = batch
    p, last = len(params), len(params) - 1
    inputs, outputs = through(params, x, bend)
    h, inputs = outputs[-1], seen or inputs
    residual = (h * params[last]["e"] - target) * keep[:, None]
    g = 2 * residual * keep[:, None]
    grads = [{} for _ in range(p)]
    grads[last]["e"] = (g * h).sum(0)
    g = g * params[last]["e"]
    for r in reversed(range(p)):
        own = params[r]
        g = g * (1 - outputs[r] ** 2) if bend else g
        grads[r] |= {"w": (g * inputs[r]).sum(0), "b": g.sum(0)}
        if 0 < r < last and "e" in own:
            grads[r]["e"] = g.sum(0)
        g = g * own["w"]
    grads[0]["e"] = grads[0].get("e", 0) + (g * x).sum(0)
    return float((residual * residual).sum()), float(keep.sum()), grads


def _params(draw, c):
    g = rng(draw)
    make = (lambda *of: g.choice(of, c.d).astype(float)) if c.kind == "whole" else lambda *of: g.standard_normal(c.d)
    e, found = make(-1, 1, 2), []
    for r in range(c.n):
        own = {"w": make(-1, 1, 1, 2), "b": make(-1, 0, 1)}
        if r in (0, c.n - 1) or c.middle:
            own["e"] = e.copy()
        # Marks of the first and the last stage, which no loss reaches.
        own |= {"first": np.zeros(1)} if r == 0 else {}
        found.append(own | ({"last": np.zeros(1)} if r == c.n - 1 else {}))
    return found


def _batches(draw, c):
    g, found = rng(draw), []
    whole = c.kind == "whole"
    for _ in range(c.m):
        rows = draw(choose(2, 1, 3, 0))
        x, target = g.integers(-2, 3, (2, rows, c.d)) * 1.0 if whole else g.standard_normal((2, rows, c.d))
        found.append((x, target, (g.random(rows) < 0.7) * 1.0))
    if not sum(b[2].sum() for b in found):
        found[0] = (np.ones((1, c.d)), np.zeros((1, c.d)), np.ones(1))
    return [found] * c.n


space = cases(
    ID, n=choose(2, 1, 3, 4, 5, 8), comm=world, m=dims(1, 6), d=dims(1, 3), kind=choose("whole", "wild"),
    middle=choose(False, True), bend=False, params=_params, batches=_batches,
    stage=lambda draw, c: Chain(c.bend), loss=lambda draw, c: squares, shape=None, schedule=choose("1f1b", "gpipe"),
    tied=("e",),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2, {"n": choose(3, 4, 5)}),
        "short": Flag(lambda c: c.m < c.n, {"n": choose(4, 5, 8), "m": dims(1, 3)}),
        "long": Flag(lambda c: c.m > c.n, {"n": choose(2, 3), "m": dims(4, 6)}),
        "uneven": Flag(lambda c: len({len(b[0]) for b in c.batches[0]}) > 1, {"m": dims(4, 6)}),
    },
)  # fmt: skip
whole = space.where(kind="whole")


def results(out, c, expect):
    """[(mean, gradients, peak) of rank 0, ..], once the result is seen to have that form."""
    expect.holds(isinstance(out, tuple) and len(out) == 3, "a mean, gradients and a peak come back")
    means, grads, peaks = out
    expect.holds(len(means) == len(grads) == len(peaks) == c.n, "one of each a rank")
    for mine, own in zip(grads, c.params, strict=True):
        expect.holds(isinstance(mine, dict) and list(mine) == list(own), f"gradients of {list(own)}")
        for name, a in mine.items():
            expect.holds((a is None) == (name in ("first", "last")), f"{name} has a gradient if the loss reaches it")
            expect.holds(a is None or a.dtype == c.dtype, f"gradients have the parameters' dtype {c.dtype}")
    return list(zip(means, grads, peaks, strict=True))


def wanted(c):
    """(mean, gradients of each rank): sums over all micro-batches and, for e, over ranks, divided once."""
    found = [by_hand(c.params, b, c.bend) for b in c.batches[0]]
    count, grads = sum(n for _, n, _ in found), []
    sums = [{k: sum(f[2][r][k] for f in found) for k in found[0][2][r]} for r in range(c.n)]
    e = sum(s["e"] for s in sums if "e" in s)
    for s in sums:
        grads.append({k: (e if k == "e" else v) / count for k, v in s.items()})
    return sum(s for s, _, _ in found) / count, grads


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=whole.reach("alone", "short", "long", "uneven"),
    kills=["mean_of_means", "micro_batch_off_by_one", "tied_apart", "tied_averaged", "last_micro_batch_alone",
           "divided_on_the_last_rank", "stages_turned", "latest_activation"],
)  # fmt: skip
def mean_and_gradients_are_those_of_one_rank(impl, c, expect):
    """Whole numbers: sum_k S_k / sum_k N_k on every rank; dL/dw_r = sum 2 (y e - t) e w_{p-1} .. w_{r+1} h_{r-1},
    dL/db_r without h_{r-1}, and dL/de summed over its ranks, each an exact sum and one division."""
    mean, grads = wanted(c)
    for r, (found, g, _) in enumerate(results(impl(c), c, expect)):
        expect.same(found, mean, f"mean loss on rank {r}")
        for name, a in grads[r].items():
            expect.same(g[name], a, f"gradient of {name} on rank {r}")


@law(
    ID, "L2", dtypes=EXACT, given=space.where(kind="wild", bend=True, n=choose(3, 2, 1, 4)).reach("uneven"),
    kills=["latest_activation"],
)  # fmt: skip
def curved_stages_are_one_chain_rule(impl, c, expect):
    "With a tanh in every stage: the mean and the gradients of the chain rule on all of it, within 1e-10."
    mean, grads = wanted(c)
    for r, (found, g, _) in enumerate(results(impl(c), c, expect)):
        expect(found, mean, 1e-10 * max(1.0, abs(mean)), "mean loss", scale=1.0)
        for name, a in grads[r].items():
            expect(g[name], a, 1e-10 * np.maximum(1.0, np.abs(a)), f"gradient of {name} on rank {r}", scale=1.0)


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.reach("alone", "short", "long"),
    kills=["warm_up_one_more", "keeps_every_activation", "always_gpipe"], passes_null=["wrong_dtype"],
)  # fmt: skip
def no_more_in_flight_than_the_schedule_has(impl, c, expect):
    """The peak that rank r tells is m under gpipe and min(p - r, m) under 1f1b, and when a stage has made one more
    output no more of its outputs than that are alive."""
    stage = Chain(c.bend)
    out = impl(c.replace(stage=stage))
    expect.holds(isinstance(out, tuple) and len(out) == 3 and len(out[2]) == c.n, "a peak a rank comes back")
    for r in range(c.n):
        peak = c.m if c.schedule == "gpipe" else min(c.n - r, c.m)
        expect.same(out[2][r], peak, f"peak of rank {r}")
        expect.at_most(stage.most.get(r, 0), peak, f"outputs of rank {r} alive at a time")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=space.where(middle=False, n=choose(3, 2, 1, 4, 5)).reach("uneven"),
    kills=["whole_batch_to_the_next", "tied_gathered"], passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def bytes_are_an_activation_each_way(impl, c, expect):
    """All ranks together send 2 (p - 1) sum_k S_k bytes of activations and cotangents in 2 (p - 1) m messages,
    16 (p - 1) of sums in p - 1, and for the weight tied between two ranks 2 of its size in 4 messages."""
    _, sent = traffic(impl, c)
    size, p = 8 * c.d, c.n
    activations = sum(len(b[0]) for b in c.batches[0]) * size
    formula = 2 * (p - 1) * activations + 16 * (p - 1) + (2 * size if p > 1 else 0)
    expect.same(sum(k.bytes_sent for k in sent), formula, "bytes")
    expect.same(sum(k.messages_sent for k in sent), 2 * (p - 1) * c.m + (p - 1) + (4 if p > 1 else 0), "messages")


@law(
    ID, "L5", dtypes=EXACT, given=space.where(kind="wild", middle=True, n=choose(3, 4, 5)),
    kills=["own_part_first"], passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def owners_of_a_tied_weight_have_the_same_bits(impl, c, expect):
    "A weight on three ranks and more: its gradient has the same bits on each, whatever rounds; so has the mean."
    (mean, grads, _), *others = results(impl(c), c, expect)
    for found, g, _ in others:
        expect.same(found, mean, "mean loss")
        if g.get("e") is not None:
            expect.same(g["e"], grads["e"], "gradient of e")


# Mutants: all ranks at once in plain NumPy -------------------------------------------------------------


def of(p=2, m=2, middle=False):
    """The default-size test: whole numbers, micro-batches of one size, stages alike."""

    def make():
        g = np.random.default_rng(0)
        own = lambda r: {  # noqa: E731
            "w": np.array([2.0, -1.0]), "b": np.array([1.0, 0.0]), "e": np.array([1.0, 2.0]),
            **({"first": np.zeros(1)} if r == 0 else {}), **({"last": np.zeros(1)} if r == p - 1 else {}),
        }  # fmt: skip
        batches = [(g.integers(-2, 3, (2, 2)) * 1.0, g.integers(-2, 3, (2, 2)) * 1.0, np.ones(2)) for _ in range(m)]
        return (ThreadWorld(p), [own(r) for r in range(p)], [batches] * p), {
            "stage": Chain(), "loss": squares, "tied": ("e",),
        }  # fmt: skip

    return make


def added(parts):
    return sum(parts[1:], parts[0])


def computed(params, batches, stage, schedule, *, part=by_hand, count=sum, total=added, fold=None, peak=None):
    """(means, gradients, peaks) of all ranks; an edit replaces a step.

    part(params, batch, bend) -> sums of one micro-batch; count(counts) -> the divisor, of rank r where it takes one;
    total(parts) -> their sum; fold(parts of e by rank, rank) -> its gradient; peak(p, m, r, schedule) -> in flight.
    """
    p, micro = len(params), batches[0]
    found = [part(params, b, stage.bend) for b in micro]
    N = count([f[1] for f in found])
    sums = [{k: total([f[2][r][k] for f in found]) for k in found[0][2][r]} for r in range(p)]
    parts = {r: s["e"] for r, s in enumerate(sums) if "e" in s}
    fold = fold or (lambda parts, r: added(list(parts.values())))
    grads = []
    for r in range(p):
        s = {k: (fold(parts, r) if k == "e" else v) / N for k, v in sums[r].items()}
        grads.append({k: s[k].copy() if k in s else None for k in params[r]})
    peak = peak or (lambda p, m, r, s: m if s == "gpipe" else min(p - r, m))
    mean = total([f[0] for f in found]) / N
    return np.full(p, mean), grads, np.array([peak(p, len(micro), r, schedule) for r in range(p)])


@mutant(ID, default_case=of(), thread="transformers#34191")
def mean_of_means(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "Each micro-batch's loss is a mean, and so is what comes of them."

    def part(params, batch, bend):
        s, n, grads = by_hand(params, batch, bend)
        n = max(n, 1)
        return s / n, 1.0, [{k: v / n for k, v in g.items()} for g in grads]

    return computed(params, batches, stage, schedule, part=part)


@mutant(ID, default_case=of(m=1))
def micro_batch_off_by_one(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "The last rank takes the targets of the micro-batch after, where they fit."
    micro = batches[0]

    def later(k):
        other = micro[(k + 1) % len(micro)]
        return other[1:] if other[1].shape == micro[k][1].shape else micro[k][1:]

    shifted = [(b[0], *later(k)) for k, b in enumerate(micro)]
    return computed(params, [shifted], stage, schedule, count=lambda counts: max(sum(counts), 1.0))


@mutant(ID, default_case=of(p=1))
def tied_apart(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "Each rank keeps its own part of the tied weight's gradient: the copies drift apart."
    return computed(params, batches, stage, schedule, fold=lambda parts, r: parts[r])


@mutant(ID, default_case=of(p=1))
def tied_averaged(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "The tied weight's gradient is the mean over its ranks, as between data-parallel copies."
    return computed(
        params, batches, stage, schedule, fold=lambda parts, r: added(list(parts.values())) / len(parts)
    )


@mutant(ID, default_case=of(m=1))
def last_micro_batch_alone(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "Gradients are written, not added: those of the last micro-batch are left, over the count of all."
    means, grads, peaks = computed(params, batches, stage, schedule)
    _, last, _ = computed(params, batches, stage, schedule, total=lambda parts: parts[-1])
    return means, last, peaks


@mutant(ID, default_case=of(p=1))
def divided_on_the_last_rank(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "Only the rank that has the count divides by it; the others by the number of micro-batches."
    means, grads, peaks = computed(params, batches, stage, schedule)
    N, m = sum(b[2].sum() for b in batches[0]), len(batches[0])
    scaled = [{k: None if v is None else v * N / m for k, v in g.items()} for g in grads[:-1]]
    return means, [*scaled, grads[-1]], peaks


@mutant(ID, default_case=of(p=1))
def stages_turned(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "The stages stand in the other order."
    turned = [{**params[r], "w": q["w"], "b": q["b"]} for r, q in enumerate(params[::-1])]
    means, grads, peaks = computed(turned, batches, stage, schedule)
    back = [{**g, "w": q["w"], "b": q["b"]} for g, q in zip(grads, grads[::-1], strict=True)]
    return means, [{k: None if v is None else v.copy() for k, v in g.items()} for g in back], peaks


@mutant(ID, default_case=of(m=1))
def latest_activation(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "One buffer for activations: every backward takes the last micro-batch's input of its stage."
    last = batches[0][-1][0]

    def part(params, batch, bend):
        return by_hand(params, batch, bend, through(params, last, bend)[0] if len(last) == len(batch[0]) else None)

    return computed(params, batches, stage, schedule, part=part)


@mutant(ID, default_case=of(p=2, m=1))
def warm_up_one_more(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "p - r forwards before the first backward."
    return computed(
        params, batches, stage, schedule, peak=lambda p, m, r, s: m if s == "gpipe" else min(p - r + 1, m)
    )


@mutant(ID, default_case=of(p=1, m=1))
def always_gpipe(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "1f1b is asked for, gpipe runs."
    return computed(params, batches, stage, schedule, peak=lambda p, m, r, s: m)


@mutant(ID, default_case=of())
@on_ranks
def keeps_every_activation(comm, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "Right, and tells the right peak; but every output lives until the step ends."
    kept = []

    def hoarding(params, x, rank):
        kept.append(stage(params, x, rank))
        return kept[-1]

    return pipeline_parallel(
        comm, params, batches, stage=hoarding, loss=loss, shape=shape, schedule=schedule, tied=tied
    )


@mutant(ID, default_case=of())
@on_ranks
def whole_batch_to_the_next(comm, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "Right; every rank passes the inputs of the whole batch on as well."
    for batch in batches:
        if comm.rank < comm.size - 1:
            comm.send(np.ascontiguousarray(batch[0]), comm.rank + 1, 7)
        if comm.rank:
            comm.recv(np.empty(batch[0].shape), comm.rank - 1, 7)
    return pipeline_parallel(comm, params, batches, stage=stage, loss=loss, shape=shape, schedule=schedule, tied=tied)


@mutant(ID, default_case=of())
@on_ranks
def tied_gathered(comm, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "Right; every rank sends the tied weight to all others, whether they have it or not."
    mean, grads, peak = pipeline_parallel(
        comm, params, batches, stage=stage, loss=loss, shape=shape, schedule=schedule, tied=tied
    )
    for k in range(1, comm.size):
        mine, out = grads.get("e", np.zeros(1)), np.empty_like(params["w"])
        comm.sendrecv(np.resize(mine, out.shape), (comm.rank + k) % comm.size, out, (comm.rank - k) % comm.size, 8)
    return mean, grads, peak


@mutant(ID, default_case=of())
def own_part_first(world, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    "Each owner adds the others' parts to its own: another order, and other bits, on each."

    def fold(parts, r):
        own = list(parts.values())
        at = list(parts).index(r)
        return added(own[at:] + own[:at])

    return computed(params, batches, stage, schedule, fold=fold)
