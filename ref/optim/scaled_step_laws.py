"""Laws and mutants of a step under a scaled loss."""

from __future__ import annotations

import math

import numpy as np

from ref.optim.loss_scaler import ScalerState
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "optim.scaled_step"


def _arrays(kind):
    def make(draw, c):
        g = rng(draw)
        return [np.asarray(g.integers(-32, 33, s) / 8.0 + (kind == "grads") * 0.0625) for s in c.shapes]

    return make


def descend(param, grad, state, t):
    """th - g / (8 t) and a state that counts: the rate falls with t."""
    return param - grad * (0.125 / t), state + 1


space = cases(
    ID,
    shapes=choose(((3,), (2, 2)), ((2,),), ((1,), (3,), (2,))),
    params=_arrays("params"),
    grads=_arrays("grads"),
    states=lambda draw, c: [0] * len(c.shapes),
    scale=choose(2.0**16, 1.0, 2.0**-3),
    scaler=lambda draw, c: ScalerState(c.scale, 0, draw(choose(0, 3))),
    step=lambda draw, c: descend,
    max_norm=choose(math.inf, 1.0, 0.25),
    interval=choose(3, 2, 2000),
    flow=lambda draw, c: rng(draw).permutation(6) > 1,
    flags={"clipped": Flag(lambda c: c.max_norm < norm_of(c.grads), {"max_norm": choose(1.0, 0.25)})},
)


def norm_of(grads):
    return math.sqrt(math.fsum(float(x) ** 2 for g in grads for x in np.ravel(g)))


def scaled(c, grads, scale, bad=False):
    """The gradients as the backward pass of a scaled loss gives them, one entry infinite where asked."""
    out = [(g * scale).astype(c.params[0].dtype) for g in grads]
    if bad:
        out[-1][(0,) * out[-1].ndim] = np.inf
    return out


def triple(impl, c, expect):
    found = impl(c)
    right = isinstance(found, tuple) and len(found) == 3 and isinstance(found[2], ScalerState)
    right = right and all(isinstance(x, list) and len(x) == len(c.params) for x in found[:2])
    expect.holds(right, "(params, states, scaler), one of each a parameter")
    expect.holds(all(a.dtype == c.params[0].dtype for a in found[0]), "the dtype is kept")
    return found


def train(impl, c, expect, flow):
    """(params, states, scaler) after a flow of good (True) and overflowing steps; the k-th good gradient
    is g (k - 2.5)."""
    params, states, scaler, k = c.params, c.states, c.scaler, 0
    for good in flow:
        grads = scaled(c, [g * (k - 2.5) for g in c.grads], float(scaler.scale), bad=not good)
        now = c.replace(params=params, grads=grads, states=states, scaler=scaler)
        params, states, scaler = triple(impl, now, expect)
        k += bool(good)
    return params, states, scaler


@law(
    ID, "L1", given=space, kills=["zero_step_when_skipped", "schedule_goes_on", "steps_anyway"],
    passes_null=["constant", "identity"],
)  # fmt: skip
def skipped_steps_never_happened(impl, c, expect):
    "A run with overflows between its steps ends in the bits of the run without them: parameters, states, t."
    params, states, scaler = train(impl, c, expect, c.flow)
    wanted, others, straight = train(impl, c, expect, [True] * int(np.sum(c.flow)))
    for i, (a, b) in enumerate(zip(params, wanted, strict=True)):
        expect.same(a, b, f"param {i}")
    expect.same(states, others, "states")
    expect.holds(int(scaler.taken) == int(straight.taken), "as many steps taken")


@law(
    ID, "L2", given=space.where(clipped=True), kills=["clips_before_unscaling", "unscales_twice"],
    passes_null=["zeros", "constant", "identity", "nan"],
)  # fmt: skip
def the_scale_is_invisible(impl, c, expect):
    "Any power of two as the scale gives the same bits, under clipping too."
    wanted = None
    for scale in (1.0, 2.0**10, 2.0**-7):
        now = c.replace(grads=scaled(c, c.grads, scale), scaler=ScalerState(scale, 0, 1))
        found, _, _ = triple(impl, now, expect)
        wanted = wanted or found
        for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
            expect.same(a, b, f"param {i} at scale {scale}")


@law(
    ID, "L3", closed_form=True, given=space.reach("clipped"),
    kills=["clips_before_unscaling", "not_clipped", "each_clipped_alone", "unscales_twice", "t_from_zero"],
)  # fmt: skip
def a_clipped_step_in_closed_form(impl, c, expect):
    "th' = th - g min(1, c / |g|) / (8 t), |g| over all parameters."
    t, factor = c.scaler.taken + 1, min(1.0, c.max_norm / norm_of(c.grads))
    out, states, _ = triple(impl, c.replace(grads=scaled(c, c.grads, c.scale)), expect)
    n = sum(g.size for g in c.grads) + 16
    for i, (a, p, g) in enumerate(zip(out, c.params, c.grads, strict=True)):
        p, g = np.asarray(p, np.float64), np.asarray(g, np.float64)
        limit = bounds.rounding(n, np.abs(g) * factor / 8 / t, c.params[0].dtype)
        limit = limit + bounds.rounding(2, np.abs(p) + np.abs(g) * factor, c.params[0].dtype)
        expect(a, p - g * factor / (8 * t), limit, f"param {i}", scale=np.max(np.abs(p)) + np.max(np.abs(g)))
    expect.same(states, [s + 1 for s in c.states], "states")


@law(
    ID, "L4", closed_form=True, given=space, kills=["zero_step_when_skipped", "steps_anyway", "scale_kept"],
)  # fmt: skip
def a_skipped_step_changes_no_bit(impl, c, expect):
    "An infinity anywhere: parameters and states keep their bits, the scale is halved, taken stays."
    out, states, scaler = triple(impl, c.replace(grads=scaled(c, c.grads, c.scale, bad=True)), expect)
    for i, (a, p) in enumerate(zip(out, c.params, strict=True)):
        expect.same(a, p, f"param {i}")
    expect.same(states, c.states, "states")
    expect.same([float(scaler.scale), int(scaler.taken)], [c.scale / 2, c.scaler.taken], "scale and steps taken")


@law(ID, "L5", closed_form=True, given=space.where(max_norm=math.inf), kills=["t_from_zero", "schedule_goes_on"])
def t_counts_the_steps_taken(impl, c, expect):
    "Steps of the gradient 1 at rate 1 / (8 t), overflows between: th_k = th_0 - (1 / t_1 + .. + 1 / t_k) / 8."
    params, states, scaler = c.params, c.states, c.scaler
    for good in c.flow:
        grads = scaled(c, [np.ones_like(g) for g in c.grads], float(scaler.scale), bad=not good)
        now = c.replace(params=params, grads=grads, states=states, scaler=scaler)
        params, states, scaler = triple(impl, now, expect)
    k, first = int(np.sum(c.flow)), c.scaler.taken
    walked = sum(1 / (8 * t) for t in range(first + 1, first + k + 1))
    for i, (a, p) in enumerate(zip(params, c.params, strict=True)):
        limit = bounds.rounding(4 * k, np.abs(p) + walked, c.params[0].dtype)
        expect(a, np.asarray(p, np.float64) - walked, limit, f"param {i}", scale=np.max(np.abs(p)) + walked)
    expect.holds(int(scaler.taken) == first + k, "taken counts them")


# Mutants ---------------------------------------------------------------------------------------------


def plain(scale=1.0, taken=0, **options):
    """The default-size test: one good step of one parameter, nothing clipped."""
    args = [np.ones(3)], [np.full(3, 0.5)], [0], ScalerState(scale, 0, taken)
    return lambda: (args, {"step": descend, "max_norm": 100.0, **options})


def stepped(
    params, grads, states, scaler, *, step, max_norm=math.inf, growth=2.0, backoff=0.5, interval=2000, **edit
):  # fmt: skip
    """The step in plain NumPy, whose parts an edit replaces."""

    def clip(grads, c):
        return [(g * min(1.0, c / max(norm_of(grads), 1e-300))).astype(g.dtype) for g in grads]

    ok = all(np.isfinite(g).all() for g in grads)
    good = scaler.good + 1 if ok else 0
    scale = scaler.scale if ok else scaler.scale * backoff
    if good >= interval:
        scale, good = scale * growth, 0
    taken = scaler.taken + bool(edit.get("always", ok))
    after = ScalerState(scale, good, taken)
    if not ok:
        skip = edit.get("skip", lambda p, s, t: (p.copy(), s))
        moved = [skip(p, s, taken) for p, s in zip(params, states, strict=True)]
    else:
        order = edit.get("order", lambda gs, s, c, clip: clip([g / g.dtype.type(s) for g in gs], c))
        clipped = order(grads, scaler.scale, max_norm, edit.get("clip", clip))
        t = edit.get("t", lambda taken: taken)(taken)
        moved = [step(p, g, s, t) for p, g, s in zip(params, clipped, states, strict=True)]
    return [p.astype(q.dtype) for (p, _), q in zip(moved, params, strict=True)], [s for _, s in moved], after


@mutant(ID, default_case=plain())
def clips_before_unscaling(*args, **options):
    "Clips the scaled gradients, then divides."
    return stepped(*args, order=lambda gs, s, c, clip: [g / g.dtype.type(s) for g in clip(gs, c)], **options)


@mutant(ID, default_case=plain())
def unscales_twice(*args, **options):
    "Divides by the scale before and after clipping."
    return stepped(
        *args, order=lambda gs, s, c, clip: [g / g.dtype.type(s) for g in clip([g / g.dtype.type(s) for g in gs], c)],
        **options,
    )  # fmt: skip


@mutant(ID, default_case=plain())
def not_clipped(*args, **options):
    "max_norm is accepted and dropped."
    return stepped(*args, clip=lambda grads, c: grads, **options)


@mutant(ID, default_case=plain())
def each_clipped_alone(*args, **options):
    "Each parameter's own norm: the same for one parameter."

    def clip(grads, c):
        return [(g * min(1.0, c / max(norm_of([g]), 1e-300))).astype(g.dtype) for g in grads]

    return stepped(*args, clip=clip, **options)


@mutant(ID, default_case=plain())
def zero_step_when_skipped(*args, step, **options):
    "An overflow becomes a step of the gradient 0: states count it."
    return stepped(*args, step=step, skip=lambda p, s, t: step(p, np.zeros_like(p), s, max(t, 1)), **options)


@mutant(ID, default_case=plain())
def steps_anyway(*args, step, **options):
    "Bad entries become 1, and the step is taken."
    return stepped(*args, step=step, skip=lambda p, s, t: step(p, np.ones_like(p), s, max(t, 1)), **options)


@mutant(ID, default_case=plain())
def schedule_goes_on(*args, **options):
    "A skipped step counts as taken."
    return stepped(*args, always=True, **options)


@mutant(ID, default_case=plain())
def scale_kept(*args, **options):
    "An overflow leaves the scale: the next step overflows again."
    return stepped(*args, **{**options, "backoff": 1.0})


@mutant(ID, default_case=plain(taken=10**6))
def t_from_zero(*args, **options):
    "t is the number of steps before this one."
    return stepped(*args, t=lambda taken: max(taken - 1, 0.5), **options)
