"""Laws and mutants of dynamic loss scaling."""

from __future__ import annotations

import numpy as np

from ref.optim.loss_scaler import ScalerState
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "optim.loss_scaler"
SHAPES = ((3,), (), (2, 2), (0,))


def _grads(draw, c):
    g = rng(draw)
    return [np.asarray(g.integers(-64, 65, s) / 16.0) for s in c.shapes]


space = cases(
    ID,
    interval=choose(3, 1, 2, 5),
    shapes=lambda draw, c: tuple(draw(choose(*SHAPES)) for _ in range(draw(choose(1, 2, 3)))) + ((2,),),
    grads=_grads,
    scale=choose(2.0**16, 1.0, 2.0**-3),
    good=lambda draw, c: draw(choose(0, 1, 2)) % c.interval,
    state=lambda draw, c: ScalerState(c.scale, c.good, draw(choose(0, 5))),
    growth=choose(2.0, 4.0),
    backoff=choose(0.5, 0.25),
    flow=lambda draw, c: rng(draw).random(12) < 0.7,  # whether each of twelve steps is good
    flags={"mixed": Flag(lambda c: 2 < np.sum(c.flow) < 11, {"flow": lambda draw, c: rng(draw).permutation(12) > 3})},
)


def triple(impl, c, expect):
    found = impl(c)
    right = isinstance(found, tuple) and len(found) == 3 and isinstance(found[2], ScalerState)
    expect.holds(right and isinstance(found[0], list) and len(found[0]) == len(c.grads), "(gradients, ok, state)")
    expect.holds(all(np.asarray(a).dtype == c.grads[0].dtype for a in found[0]), "the dtype is kept")
    return found


def spoiled(c, place=0, value=np.inf):
    """The case's gradients with one entry that is not finite."""
    grads = [g.copy() for g in c.grads]
    grads[-1].reshape(-1)[place] = value
    return grads


def walk(impl, c, expect, flow):
    """The states after each step of a flow of good (True) and overflowing steps."""
    found, state = [], c.state
    for good in flow:
        grads = c.grads if good else spoiled(c)
        _, ok, state = triple(impl, c.replace(grads=grads, state=state), expect)
        expect.holds(bool(ok) == bool(good), "ok exactly where all entries are finite")
        found.append(state)
    return found


def holds(expect, state, scale, good, taken, what):
    expect.same(float(state.scale), scale, f"scale {what}")
    expect.holds((int(state.good), int(state.taken)) == (good, taken), f"counts {what}: {state}, not {good}, {taken}")


@law(
    ID, "L1", closed_form=True, given=space.where(mixed=True),
    kills=["never_resets", "interval_plus_one", "backoff_ignored", "counts_skipped_steps", "grows_by_addition"],
)  # fmt: skip
def replay_of_the_state_machine(impl, c, expect):
    "Twelve steps, some overflowing: scale, good and taken are those of the rule replayed by hand."
    scale, good, taken = c.state
    for k, state in enumerate(walk(impl, c, expect, c.flow)):
        if c.flow[k]:
            good, taken = good + 1, taken + 1
            if good == c.interval:
                scale, good = scale * c.growth, 0
        else:
            scale, good = scale * c.backoff, 0
        holds(expect, state, scale, good, taken, f"after step {k + 1}")


@law(
    ID, "L2", closed_form=True, given=space.where(good=0), kills=["interval_plus_one", "grows_by_addition"],
)  # fmt: skip
def growth_every_interval(impl, c, expect):
    "n good steps from n = 0: scale = s growth^(n div interval), good = n mod interval."
    for n, state in enumerate(walk(impl, c, expect, [True] * 11), 1):
        holds(expect, state, c.scale * c.growth ** (n // c.interval), n % c.interval, c.state.taken + n, f"after {n}")


@law(
    ID, "L3", closed_form=True, given=space, kills=["backoff_ignored", "never_resets", "counts_skipped_steps"],
)  # fmt: skip
def overflows_halve_the_scale(impl, c, expect):
    "k overflows in a row: scale = s backoff^k, good = 0, taken as it was."
    for k, state in enumerate(walk(impl, c, expect, [False] * 5), 1):
        holds(expect, state, c.scale * c.backoff**k, 0, c.state.taken, f"after {k}")


@law(
    ID, "L4", closed_form=True, given=space, kills=["scaled_again", "not_unscaled", "unscaled_by_the_new_scale"],
)  # fmt: skip
def unscaling_is_a_division(impl, c, expect):
    "For a scale that is a power of two, every gradient over the scale that it came with, to the bit."
    out, _, _ = triple(impl, c, expect)
    for i, (a, g) in enumerate(zip(out, c.grads, strict=True)):
        expect.same(a, g / c.grads[0].dtype.type(c.scale), f"gradient {i}")


@law(ID, "L5", closed_form=True, given=space, kills=["nan_alone", "first_gradient_alone", "by_the_sum"])
def one_bad_entry_skips_the_step(impl, c, expect):
    "One NaN, infinity or two opposite infinities, anywhere: not ok, and the scale falls; without them ok."
    expect.holds(bool(triple(impl, c, expect)[1]), "finite gradients are ok")
    both = spoiled(c)
    both[-1].reshape(-1)[1] = -np.inf
    for grads in (spoiled(c), spoiled(c, 1, -np.inf), spoiled(c, 0, np.nan), both, spoiled(c)[::-1]):
        _, ok, state = triple(impl, c.replace(grads=grads), expect)
        expect.holds(not ok, "a bad entry is not ok")
        holds(expect, state, c.scale * c.backoff, 0, c.state.taken, "after a bad entry")


@law(ID, "L6", closed_form=True, given=space, kills=["grows_every_thousand", "grows_to_infinity"])
def the_usual_interval(impl, c, expect):
    "interval 2000: the 1000th good step changes nothing, the 2000th doubles 2^16; a scale of 2^1023 stays."
    usual = {"growth": 2.0, "backoff": 0.5, "interval": 2000}
    for scale, good, wanted, left in ((2.0**16, 999, 2.0**16, 1000), (2.0**16, 1999, 2.0**17, 0)):
        _, _, state = triple(impl, c.replace(state=ScalerState(scale, good, good), **usual), expect)
        holds(expect, state, wanted, left, good + 1, f"after {good + 1}")
    _, _, state = triple(impl, c.replace(state=ScalerState(2.0**1023, 1999, 1999), **usual), expect)
    holds(expect, state, 2.0**1023, 0, 2000, "at the top")


# Mutants ---------------------------------------------------------------------------------------------


def good(scale=2.0**16, n=3, **options):
    """The default-size test: one good step in the middle of an interval."""
    return lambda: (([np.array([1.0, -2.0]), np.ones(3)], ScalerState(scale, n, n)), options)


def machine(grads, state, *, growth=2.0, backoff=0.5, interval=2000, **edit):
    """The rule in plain NumPy, whose parts an edit replaces."""
    ok = edit.get("ok", lambda grads: all(np.isfinite(g).all() for g in grads))(grads)
    n = state.good + 1 if ok else state.good * bool(edit.get("keep"))
    scale = state.scale if ok else edit.get("back", lambda s, b: s * b)(state.scale, backoff)
    if ok and edit.get("due", lambda n, i: n >= i)(n, interval):
        raised = edit.get("grow", lambda s, g: s * g)(scale, growth)
        scale, n = (raised if np.isfinite(raised) or edit.get("endless") else scale), 0
    out = edit.get("out", lambda g, s, new: g / s)
    grads = [np.asarray(out(g, state.scale, scale)).astype(g.dtype) for g in grads]
    return grads, bool(ok), ScalerState(scale, n, state.taken + bool(edit.get("always", ok)))


@mutant(ID, default_case=good())
def never_resets(*args, **options):
    "An overflow does not restart the count."
    return machine(*args, keep=True, **options)


@mutant(ID, default_case=good())
def interval_plus_one(*args, **options):
    "Grows after interval + 1."
    return machine(*args, due=lambda n, i: n > i, **options)


@mutant(ID, default_case=good())
def grows_every_thousand(*args, **options):
    "Half the interval at most a thousand."
    return machine(*args, due=lambda n, i: n >= min(i, 1000), **options)


@mutant(ID, default_case=good())
def grows_by_addition(*args, **options):
    "s + growth."
    return machine(*args, grow=lambda s, g: s + g, **options)


@mutant(ID, default_case=good())
def grows_to_infinity(*args, **options):
    "No care at the top."
    return machine(*args, endless=True, **options)


@mutant(ID, default_case=good())
def backoff_ignored(*args, **options):
    "Always by 1/2, and never below 1."
    return machine(*args, back=lambda s, b: max(s / 2, 1.0), **options)


@mutant(ID, default_case=good())
def counts_skipped_steps(*args, **options):
    "A skipped step counts as taken: the schedule goes on."
    return machine(*args, always=True, **options)


@mutant(ID, default_case=good(scale=1.0))
def scaled_again(*args, **options):
    "Multiplied by the scale."
    return machine(*args, out=lambda g, s, new: g * s, **options)


@mutant(ID, default_case=good(scale=1.0))
def not_unscaled(*args, **options):
    "Given back as they came."
    return machine(*args, out=lambda g, s, new: g * 1.0, **options)


@mutant(ID, default_case=good())
def unscaled_by_the_new_scale(*args, **options):
    "Divided by the scale after it grew."
    return machine(*args, out=lambda g, s, new: g / new, **options)


@mutant(ID, default_case=good())
def nan_alone(*args, **options):
    "Looks for NaN and not for infinities."
    return machine(*args, ok=lambda grads: not any(np.isnan(g).any() for g in grads), **options)


@mutant(ID, default_case=good())
def first_gradient_alone(*args, **options):
    "Looks at the first gradient."
    return machine(*args, ok=lambda grads: np.isfinite(grads[0]).all(), **options)


@mutant(ID, default_case=good())
def by_the_sum(*args, **options):
    "isinf of the sum: NaN, and inf - inf, pass."
    return machine(*args, ok=lambda grads: not np.isinf(sum(np.sum(g) for g in grads)), **options)
