"""Laws and mutants of ZeRO, on losses whose gradients are closed forms."""

from __future__ import annotations

import math

import numpy as np

from backends.communicators import ThreadWorld, on_ranks
from ref.distributed.canonical_all_reduce import canonical_all_reduce
from ref.distributed.common_laws import EXACT, traffic, world
from ref.distributed.ring_reduce_scatter import ring_reduce_scatter
from ref.distributed.zero import Zero, run
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.zero"


def lines(params, batch):
    """Sum over kept rows i and the route's parameters of x_i . w; its gradient does not depend on w."""
    x, y, keep, route = batch
    out = None
    for name in route:
        part = (params[name] * x).sum(axis=-1)
        out = part if out is None else out + part
    return (0.0 if out is None else (out * keep).sum()), float(keep.sum())


def chain(params, batch):
    """Sum over kept rows i of (x_i . (w_j * w_k * ..) - y_i)^2, elementwise along the route."""
    x, y, keep, route = batch
    h = None
    for name in route:
        h = params[name] * x if h is None else h * params[name]
    if h is None:
        return float(np.sum((y * keep) ** 2)), float(keep.sum())
    residual = (h.sum(axis=-1) - y) * keep
    return (residual * residual).sum(), float(keep.sum())


def _numbers(draw, c, shape):
    g = rng(draw)
    return g.integers(-2, 3, shape).astype(np.float64) if c.kind == "whole" else g.standard_normal(shape)


def _params(draw, c):
    """w0, w2: d numbers; w1: one. Ranks begin with other values than rank 0."""
    first = {f"w{k}": _numbers(draw, c, 1 if k == 1 else c.d) for k in range(c.K)}
    return [{name: a + r for name, a in first.items()} for r in range(c.n)]


def _units(draw, c):
    names, cut = [f"w{k}" for k in range(c.K)], draw(choose(1, 2, 3))
    return draw(choose(None, *[[u for u in (names[:cut], names[cut:]) if u]] * 2, [[name] for name in names]))


def _batches(draw, c):
    """A batch a rank and step; the step's route is everybody's."""
    names, found = [f"w{k}" for k in range(c.K)], [[] for _ in range(c.n)]
    for _ in range(c.T):
        route = tuple(k for k in names if c.routes == "all" or rng(draw).random() < 0.6)
        for r, mine in enumerate(found):
            rows = max(draw(choose(2, 1, 0, 3)), int(r == 0))
            keep = (rng(draw).random(rows) < 0.7).astype(np.float64)
            keep[: r == 0] = 1.0
            mine.append((_numbers(draw, c, (rows, c.d)), _numbers(draw, c, rows), keep, route))
    return found


space = cases(
    ID, n=choose(2, 1, 3, 2, 4), comm=world, K=dims(1, 3), d=dims(1, 4), T=dims(1, 3),
    kind=choose("whole", "wild"), routes=choose("all", "some"), stage=choose(0, 1, 2, 3), params=_params,
    batches=_batches, loss=lambda draw, c: chain, units=_units, block=choose(1, 2, 4), plain=choose((), ("w0",)),
    lr=choose(0.25, 2.0**-6), beta1=0.5, beta2=0.75, eps=choose(0.5, 2.0**-10), weight_decay=choose(0.5, 0.0),
    max_norm=choose(math.inf, 0.5, 2.0), offload=None,
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2, {"n": choose(3, 5, 8)}),
        "untouched": Flag(lambda c: any(len(b[3]) < c.K for b in c.batches[0]), {"K": 3, "routes": "some", "T": 3}),
        "weights": Flag(lambda c: c.stage == 3, {"stage": 3}),
        "state": Flag(lambda c: c.stage == 1, {"stage": 1}),
        "clipped": Flag(lambda c: c.max_norm == 0.5, {"max_norm": 0.5}),
    },
)  # fmt: skip
straight = space.where(kind="whole", loss=lambda draw, c: lines)


def results(out, c, expect, dtype=None):
    """[(losses, values, held) of rank 0, ..], once the result is seen to have that form."""
    expect.holds(isinstance(out, tuple) and len(out) == 3, "losses, parameters and bytes come back")
    losses, values, held = out
    losses = np.asarray(losses)
    expect.holds(losses.shape == (c.n, c.T) and losses.dtype == np.float64, "float64[T] of losses a rank")
    expect.holds(len(values) == len(held) == c.n, "one of each a rank")
    for mine in values:
        expect.holds(isinstance(mine, dict) and list(mine) == list(c.params[0]), "parameters by name")
        expect.holds(all(a.dtype == (dtype or c.dtype) for a in mine.values()), "parameters in their dtype")
    return list(zip(losses, values, held, strict=True))


def slopes(c, t):
    """{name: clipped gradient of the mean of `lines` at step t}, only of those used, and the largest entry before."""
    parts = [mine[t] for mine in c.batches]
    count = sum(b[2].sum() for b in parts)
    total = sum((b[2].astype(np.float64) @ b[0] for b in parts), np.zeros(c.d)) / count
    g = {name: np.array([total.sum()]) if c.params[0][name].size == 1 and c.d > 1 else total for name in parts[0][3]}
    norm = math.sqrt(sum(float(v @ v) for v in g.values()))
    factor = min(1.0, c.max_norm / norm) if norm else 1.0
    return {name: v * factor for name, v in g.items()}, max([1.0, *(np.max(np.abs(v)) for v in g.values())])


def stepped(c, steps):
    """({name: value after some steps by the rule, in float64 loops}, a bound on the rounding)."""
    p = {name: a.astype(np.float64) for name, a in c.params[0].items()}
    m, v = ({name: np.zeros_like(a) for name, a in p.items()} for _ in range(2))
    size = max(1.0, *(np.max(np.abs(a)) for a in p.values()))
    for t in range(steps):
        g, top = slopes(c, t)
        for name, grad in g.items():
            m[name] = c.beta1 * m[name] + (1 - c.beta1) * grad
            v[name] = c.beta2 * v[name] + (1 - c.beta2) * grad**2
            first, root = m[name] / (1 - c.beta1 ** (t + 1)), np.sqrt(v[name] / (1 - c.beta2 ** (t + 1)))
            decay = 0.0 if name in c.plain else c.weight_decay
            p[name] = p[name] * (1 - c.lr * decay) - c.lr * first / (root + c.eps)
        # The gradient is off by a few u of its largest sum (its own sum may cancel), a step by that over eps, or by
        # a few u of itself, which is at most 4 lr here.
        size += c.lr * (4 + top / c.eps)
    return p, bounds.rounding(24 * steps, size, c.dtype)


@law(
    ID, "L1", closed_form=True, given=straight.where(T=1).reach("alone", "many", "weights", "state", "clipped"),
    kills=["start_not_sent", "mean_of_means", "plain_ignored", "clipped_before_division", "norm_of_own_rows",
           "units_clipped_apart"],
)  # fmt: skip
def first_step_in_closed_form(impl, c, expect):
    """A linear loss, g = sum_r sum_i x_i / sum_r N_r, g' = g min(1, c / |g|) with |g| over everything: the first step
    gives w (1 - lr wd) - lr g' / (|g'| + eps) on every rank, and the mean loss is sum_r S_r / sum_r N_r."""
    g, _ = slopes(c, 0)
    _, bound = stepped(c, 1)
    value = sum(lines(c.params[0], b)[0] for b in (mine[0] for mine in c.batches))
    mean = float(value) / float(sum(mine[0][2].sum() for mine in c.batches))
    for losses, values, _ in results(impl(c), c, expect):
        expect.same(losses[0], mean, "mean loss")
        for name, w in c.params[0].items():
            step, decay = g.get(name), 0.0 if name in c.plain else c.weight_decay
            new = w if step is None else w * (1 - c.lr * decay) - c.lr * step / (np.abs(step) + c.eps)
            expect(values[name], new, bound, name, scale=1.0)


@law(
    ID, "L2", dtypes=EXACT,
    given=space.where(kind="wild", n=choose(3, 2, 4, 5), d=dims(16, 32), T=2, stage=choose(1, 2, 3), eps=0.5,
                      max_norm=0.5).reach("many", "weights", "state"),
    kills=["folded_around_the_ring", "norm_of_shards", "weights_not_renewed"],
    passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def all_stages_have_the_same_bits(impl, c, expect):
    """Losses and parameters of stages 1, 2 and 3 are those of stage 0 to the bit, on every rank,
    whatever rounds and however much is clipped; and where nothing is clipped, on other units too."""
    unclipped = {"max_norm": math.inf} if c.plain else {}
    plain = c.replace(stage=0, **unclipped)
    other = {"units": None} if c.plain else {}
    found = impl(c.replace(**unclipped, **other))
    (losses, values, _), *_ = results(impl(plain), plain, expect)
    for mine in results(found, c, expect):
        expect.same(mine[0], losses, "losses")
        for name in c.params[0]:
            expect.same(mine[1][name], values[name], name)


@law(
    ID, "L3", dtypes=EXACT, given=straight.reach("many", "weights"), kills=["mean_of_means", "norm_of_own_rows"],
    passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def any_cut_is_one_rank(impl, c, expect):
    "Whole numbers and a linear loss: the parameters of n ranks are to the bit those of one rank with all rows."
    steps = []
    for t in range(c.T):
        parts = [mine[t] for mine in c.batches]
        steps.append((*(np.concatenate([b[i] for b in parts]) for i in range(3)), parts[0][3]))
    one = c.replace(n=1, comm=ThreadWorld(1), params=c.params[:1], batches=[steps])
    ((_, alone, _),) = results(impl(one), one, expect)
    for _, mine, _ in results(impl(c), c, expect):
        for name in c.params[0]:
            expect.same(mine[name], alone[name], name)


def rows_of(c, item_of):
    """Rows of each unit, in bytes of one of them."""
    units = c.units or [list(c.params[0])]
    return [-(-sum(c.params[0][name].size for name in unit) // c.block) for unit in units], c.block * item_of


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=space.where(T=1).reach("weights", "state", "many"),
    kills=["state_on_every_rank", "gradients_kept_whole", "weights_kept_whole"],
)  # fmt: skip
def bytes_held_are_the_formula(impl, c, expect):
    """Rank r holds all K rows of a unit or K (r + 1) // N - K r // N of them: of weights and gradients at their own
    width, of m and v at the same, of float16 three times 4 bytes. In float16, N blocks | P: 16 P, 4 P + 12 P/N,
    2 P + 14 P/N, 16 P/N."""
    dtype, width = (np.float16, 12) if c.plain else (np.float64, 16)
    case = c.replace(params=[{k: v.astype(dtype) for k, v in p.items()} for p in c.params])
    rows, line = rows_of(c, 1)
    item = np.dtype(dtype).itemsize
    for r, (_, _, held) in enumerate(results(impl(case), case, expect, dtype)):
        own = sum(k * (r + 1) // c.n - k * r // c.n for k in rows)
        wanted = [item * (own if c.stage >= 3 else sum(rows)), item * (own if c.stage >= 2 else sum(rows)),
                  width * (own if c.stage >= 1 else sum(rows))]  # fmt: skip
        expect.same(held, np.array(wanted) * line, f"bytes on rank {r} with {np.dtype(dtype)}")
    P, N = 2 * c.n * c.block, c.n
    even = [(np.ones((1, P), np.float16), np.ones(1, np.float16), np.ones(1, np.float16), ("w",))]
    params = [{"w": np.ones(P, np.float16)}] * N
    case = c.replace(params=params, batches=[even] * N, units=None, plain=(), loss=lines)
    formula = [16 * P, 4 * P + 12 * P // N, 2 * P + 14 * P // N, 16 * P // N][c.stage]
    for _, _, held in results(impl(case), case, expect, np.float16):
        expect.same(np.sum(held), formula, "bytes of all three")


@law(
    ID, "L5", closed_form=True, dtypes=EXACT,
    given=space.where(routes="all").reach("alone", "weights", "state", "many"),
    kills=["all_reduced_then_cut", "gathered_again_at_the_turn"],
    passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def bytes_sent_are_the_formula(impl, c, expect):
    """All ranks together send a step, S bytes of gradients being R rows: 2 (N - 1) S in stages 0, 1, 2; in stage 3
    (N - 1) (S + S_u for each time that unit u is gathered: once in the forward, once in the backward unless it is the
    last, or needs no weights there). And 2 (N - 1) (8 (2 + names) + 16 R) for sums and norm, (N - 1) S at the start,
    and at the end once more in stage 3."""
    _, sent = traffic(impl, c)
    item, n = c.dtype.itemsize, c.n
    rows, line = rows_of(c, item)
    units = c.units or [list(c.params[0])]
    again = [1 if u < len(units) - 1 and (u > 0 or len(unit) > 1) else 0 for u, unit in enumerate(units)]
    weights = sum(a.size for a in c.params[0].values()) * item
    S = sum(rows) * line
    step = 2 * S if c.stage < 3 else S + sum(k * line * (1 + a) for k, a in zip(rows, again, strict=True))
    small = 2 * (8 * (2 + c.K) + (16 * sum(rows) if c.stage else 0))
    formula = (n - 1) * (weights + c.T * (step + small) + (S if c.stage == 3 else 0))
    expect.same(sum(k.bytes_sent for k in sent), formula, "bytes")


@law(
    ID, "L6", given=straight.where(T=dims(2, 3), routes="some").reach("untouched", "weights", "many", "clipped"),
    kills=["moments_forgotten", "unused_decay", "weights_not_renewed"],
)  # fmt: skip
def later_steps_are_adamw(impl, c, expect):
    """Two or three steps of a linear loss: AdamW by its rule in plain loops, a parameter that no rank uses in a step
    left alone in it."""
    wanted, bound = stepped(c, c.T)
    for _, values, _ in results(impl(c), c, expect):
        for name, w in wanted.items():
            expect(values[name], w, bound, name, scale=1.0)


@law(
    ID, "L7", closed_form=True, dtypes=EXACT,
    given=straight.where(n=choose(2, 1, 3), K=1, T=3, lr=2.0**-13, eps=0.0, weight_decay=0.0, max_norm=math.inf,
                         routes="all"),
    kills=["no_masters"],
)  # fmt: skip
def masters_add_small_steps_up(impl, c, expect):
    """float16 weights 1 and a constant gradient: three steps of 2^-13, each below half the gap of 2^-11, come to
    float16(1 - 3 2^-13) = 1 - 2^-11."""
    one = [(np.ones((1, c.d), np.float16), np.ones(1, np.float16), np.ones(1, np.float16), ("w0",))] * 3
    case = c.replace(params=[{"w0": np.ones(c.d, np.float16)}] * c.n, batches=[one] * c.n)
    for _, values, _ in results(impl(case), case, expect, np.float16):
        expect.same(values["w0"], np.full(c.d, 1 - 2.0**-11), "w0")


# Mutants: one method of the thing itself, edited ---------------------------------------------------------


def of(n=2, **options):
    """The default-size test: whole numbers, the same values everywhere, everything used."""

    def make():
        g = np.random.default_rng(0)
        params = [{"w0": np.array([1.0, -1.0]), "w1": np.array([2.0])} for _ in range(n)]
        numbers = lambda *shape: g.integers(-2, 3, shape) * 1.0  # noqa: E731
        batches = [[(numbers(3, 2), numbers(3), np.ones(3), ("w0", "w1"))] for _ in range(n)]
        return (ThreadWorld(n), params, batches), {"stage": 0, "loss": chain, "block": 2, **options}

    return make


def edited(kind):
    """The function of an edited class."""

    @on_ranks
    def function(
        comm, params, batches, *, stage, loss, units=None, block=1024, plain=(), offload=None, lr=1e-3, beta1=0.9,
        beta2=0.999, eps=1e-8, weight_decay=0.01, max_norm=math.inf,
    ):  # fmt: skip
        layout = dict(stage=stage, units=units, block=block, plain=plain, offload=offload)
        rates = dict(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, max_norm=max_norm)
        return run(kind, comm, params, batches, loss, layout, rates)

    function.__name__, function.__doc__ = kind.__name__, kind.__doc__
    return function


def wrong(**default):
    """Decorator of an edited class: a mutant whose default-size test has these options."""
    return lambda kind: mutant(ID, default_case=of(**default))(edited(kind))


@wrong()
class start_not_sent(Zero):  # noqa: N801
    "Every rank goes on from its own values."

    def __init__(self, comm, params, **layout):
        super().__init__(comm, params, **layout)
        for unit in self.units:
            mine = np.zeros((unit.rows, unit.block), unit.weights.dtype)
            for name in unit.names:
                unit.view(mine, name)[...] = params[name]
            unit.weights[...] = mine[unit.own] if self.stage >= 3 else mine


@wrong()
class mean_of_means(Zero):  # noqa: N801
    "ddp-token-mean: each rank's mean, then the mean over ranks."

    def step(self, loss, batch, **rates):
        def averaged(params, batch):
            value, count = loss(params, batch)
            return value * (1.0 / max(count, 1.0)), 1.0

        return super().step(averaged, batch, **rates)


@wrong()
class plain_ignored(Zero):  # noqa: N801
    "Decay for everything."

    def __init__(self, comm, params, **layout):
        super().__init__(comm, params, **{**layout, "plain": ()})


@wrong()
class clipped_before_division(Zero):  # noqa: N801
    "grad-norm-placement: the norm of the sum, not of the mean."

    def _divide(self, count):
        self.count = count

    def _clip(self, max_norm):
        super()._clip(max_norm)
        super()._divide(self.count)


@wrong()
class norm_of_own_rows(Zero):  # noqa: N801
    "grad-norm-placement: each rank clips by the norm of its own rows."

    def norm(self):
        return math.sqrt(sum(float(np.sum(np.float64(self._reduced(u)) ** 2)) for u in self.units))


@wrong(max_norm=1e3)
class units_clipped_apart(Zero):  # noqa: N801
    "Each unit by its own norm."

    def _clip(self, max_norm):
        units = self.units
        for unit in units:
            self.units = [unit]
            super()._clip(max_norm)
        self.units = units


@wrong()
class norm_of_shards(Zero):  # noqa: N801
    "The sum over ranks of each shard's sum of squares: right up to rounding."

    def norm(self):
        mine = np.array([sum(np.sum(np.float64(self._reduced(u)) ** 2) for u in self.units)])
        return math.sqrt(float((canonical_all_reduce(self.comm, mine) if self.stage else mine)[0]))


@wrong()
class folded_around_the_ring(Zero):  # noqa: N801
    "The ring's reduce-scatter: right up to rounding."

    def _reduce(self, k):
        if self.stage == 0:
            return super()._reduce(k)
        unit = self.order[k]
        whole = unit.partial if self.stage >= 2 else unit.gradients
        self._reduced(unit)[...] = ring_reduce_scatter(self.comm, whole)
        unit.partial = None


@wrong()
class all_reduced_then_cut(Zero):  # noqa: N801
    "An all-reduce of which the rank keeps its rows: right, and half as much again on the wire."

    def _reduce(self, k):
        if self.stage == 0:
            return super()._reduce(k)
        unit = self.order[k]
        whole = canonical_all_reduce(self.comm, unit.partial if self.stage >= 2 else unit.gradients)
        self._reduced(unit)[...] = whole[unit.own]
        unit.partial = None


@wrong()
class gathered_again_at_the_turn(Zero):  # noqa: N801
    "The last unit is let go of between forward and backward."

    def step(self, loss, batch, **rates):
        def turned(params, batch):
            out = loss(params, batch)
            if self.elsewhere:
                self.elsewhere.take(None)
            return out

        return super().step(turned, batch, **rates)


@wrong()
class weights_not_renewed(Zero):  # noqa: N801
    "Stages 1 and 2 go on without the others' rows."

    def _renew_weights(self):
        stage, self.stage = self.stage, 0 if self.stage in (1, 2) and not self.low else self.stage
        super()._renew_weights()
        self.stage = stage


@wrong()
class state_on_every_rank(Zero):  # noqa: N801
    "m and v of everything are allocated on every rank."

    def held(self):
        found = super().held()
        if self.stage >= 1:
            whole = [np.zeros((u.rows, u.block), u.m.dtype) for u in self.units]
            found["optimizer"] = whole * (2 + self.low)
        return found


@wrong()
class gradients_kept_whole(Zero):  # noqa: N801
    "Stages 2 and 3 do not free a unit's gradients once they are reduced."

    def _reduce(self, k):
        unit = self.order[k]
        unit.kept = [] if unit.partial is None else [unit.partial]
        super()._reduce(k)

    def held(self):
        found = super().held()
        found["gradients"] += [a for u in self.units for a in u.kept]
        return found


@wrong()
class weights_kept_whole(Zero):  # noqa: N801
    "Stage 3 keeps the unit that it gathered last."

    def step(self, loss, batch, **rates):
        mean = super().step(loss, batch, **rates)
        self.kept = [self.gather(self.units[0])] if self.stage == 3 else []
        return mean

    def held(self):
        found = super().held()
        found["weights"] += self.kept
        return found


@wrong()
class moments_forgotten(Zero):  # noqa: N801
    "The state is made anew at each step."

    def step(self, loss, batch, **rates):
        for unit in self.units:
            unit.m[...] = 0
            unit.v[...] = 0
        self.steps = 0
        return super().step(loss, batch, **rates)


@wrong()
class unused_decay(Zero):  # noqa: N801
    "A parameter that no rank uses gets a gradient of zeros and a step."

    def _gradients(self, loss, batch):
        mean, _ = super()._gradients(loss, batch)
        return mean, set(self.params)


@wrong()
class no_masters(Zero):  # noqa: N801
    "Masters are read from the float16 weights before each step."

    def _update(self, names, **rates):
        for unit in self.units if self.low else ():
            unit.master[...] = unit.weights if self.stage >= 3 else unit.weights[self._held(unit, 1)]
        super()._update(names, **rates)
