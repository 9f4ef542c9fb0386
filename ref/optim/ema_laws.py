"""Laws and mutants of the exponential moving average."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.optim.common_laws import f64, reread
from ref.optim.ema import EmaState
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, floats

ID = "optim.ema"


def _state(draw, c):
    return EmaState(floats("*n")(draw, c) if c.running else np.zeros(c.n), c.t)


space = cases(
    ID,
    n=lambda draw, c: (draw(dims(0, 6).strategy(False)),),
    running=choose(False, True),
    t=choose(0, 1, 7, 1000),
    state=_state,
    param=floats("*n"),
    decay=choose(0.5, 0.75, 0.999, 0.0),
    corrected=choose(True, False),
    flags={
        "some": Flag(lambda c: c.n[0] > 0, {"n": choose((1,), (3,), (6,))}),
        "none": Flag(lambda c: c.n[0] == 0, {"n": (0,)}),
    },
)
fresh = space.where(running=False, t=0)


def values(c, count):
    """Different parameters made of the case's one."""
    return [(np.roll(c.param, k) * (k - 1.5)).astype(c.dtype) for k in range(count)]


def walk(impl, c, params):
    """[(average, state)] after each."""
    found, state = [], c.state
    for x in params:
        found.append(impl(c.replace(param=x, state=state)))
        state = found[-1][1]
    return found


def near(c, t, size):
    """2 t + 4 roundings, and 1 - d^t is off by u / (1 - d^t) of itself."""
    return bounds.rounding(2 * t + 4 + 1 / (1 - c.decay**t), size, c.dtype)


def share(c, t):
    """1 - d^t without cancellation: (1 - d) (1 + d + .. + d^(t-1))."""
    return (1 - c.decay) * sum(c.decay**i for i in range(t))


@law(
    ID, "L1", closed_form=True, given=fresh.reach("none", "some"),
    kills=["never_corrected", "always_corrected", "corrects_by_one_step_less", "corrected_is_stored"],
)  # fmt: skip
def a_constant_is_its_own_average(impl, c, expect):
    "Constant x from nothing: a_t = x corrected, (1 - d^t) x uncorrected; the state is (1 - d^t) x in both."
    (x,) = f64(c.param)
    for t, (average, state) in enumerate(walk(impl, c, [c.param] * 4), 1):
        wanted = x * (1.0 if c.corrected else share(c, t))
        expect(average, wanted, near(c, t, x), f"average {t}", scale=np.max(np.abs(x), initial=0))
        expect(state[0], share(c, t) * x, near(c, t, x), f"state {t}", scale=np.max(np.abs(x), initial=0))
        expect.holds(int(state[1]) == t, "t counts what was seen")


@law(
    ID, "L2", closed_form=True, given=fresh.where(some=True, corrected=False, decay=choose(0.5, 0.75)),
    kills=["complement_swapped", "running_mean"],
)  # fmt: skip
def an_impulse_fades_geometrically(impl, c, expect):
    "x, then zeros: e_k = (1 - d) d^(k-1) x, exactly for dyadic d."
    zero = np.zeros(c.n, c.dtype)
    for k, (average, _) in enumerate(walk(impl, c, [c.param, zero, zero, zero]), 1):
        expect(average, (1 - c.decay) * c.decay ** (k - 1) * f64(c.param)[0], 0.0, f"average {k}")


@law(
    ID, "L3", closed_form=True, given=space.where(some=True, t=0, corrected=False),
    kills=["complement_swapped", "running_mean", "always_corrected", "state_ignored"],
)  # fmt: skip
def average_is_a_geometric_sum(impl, c, expect):
    "From e_0: e_t = d^t e_0 + (1 - d) sum d^(t-i) x_i, in exact fractions."
    params, d = values(c, 3), Fraction(c.decay)
    average, _ = walk(impl, c, params)[-1]
    wanted, size = [], []
    for j in range(c.n[0]):
        seen = [Fraction(float(x[j])) for x in params]
        weights = [(1 - d) * d ** (2 - i) for i in range(3)]
        start = d**3 * Fraction(float(c.state[0][j]))
        wanted.append(float(start + sum(w * x for w, x in zip(weights, seen, strict=True))))
        size.append(float(abs(start) + sum(w * abs(x) for w, x in zip(weights, seen, strict=True))))
    expect(average, np.array(wanted), bounds.rounding(10, size, c.dtype), scale=max(size) or 1.0)


@law(
    ID, "L4", closed_form=True, given=space.where(some=True, running=True, t=0, corrected=False),
    kills=["state_ignored", "complement_swapped"], passes_null=["mutated"],
)  # fmt: skip
def the_start_keeps_half_after_a_half_life(impl, c, expect):
    "d = 2^(-1/h): after h parameters of 0 half of e_0 is left, after 2 h a quarter."
    zero, (e,) = np.zeros(c.n, c.dtype), f64(c.state[0])
    found = walk(impl, c.replace(decay=2 ** (-1 / 3)), [zero] * 6)
    for k, left in ((3, 0.5), (6, 0.25)):
        expect(found[k - 1][0], left * e, bounds.rounding(4 * k, left * e, c.dtype), f"after {k}")


@law(
    ID, "L5", given=fresh.where(some=True, corrected=True), kills=["corrects_by_one_step_less", "extrapolates"],
    passes_null=["identity"],
)  # fmt: skip
def stays_within_what_was_seen(impl, c, expect):
    "A corrected average lies between the least and the greatest of the values seen."
    params = [*values(c, 4), np.zeros(c.n, c.dtype)]
    for t, (average, _) in enumerate(walk(impl, c, params), 1):
        low, high = np.min(params[:t], axis=0), np.max(params[:t], axis=0)
        slack = near(c, t, np.maximum(np.abs(low), np.abs(high)))
        expect.at_most(average, high + slack, f"average {t}")
        expect.at_most(low - slack, average, f"least value {t}")


@law(
    ID, "L6", given=space.where(n=choose((3,), (6,), (1,))), kills=["tail_left_out"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def shards_are_the_whole(impl, c, expect):
    "The average of each shard alone has the bits of the whole's."
    average, state = impl(c)
    cut = (c.n[0] + 1) // 2
    for part in (slice(0, cut), slice(cut, None)):
        mine = EmaState(c.state[0][part].copy(), c.state[1])
        alone, later = impl(c.replace(param=c.param[part].copy(), state=mine, n=(len(c.param[part]),)))
        expect.same(alone, average[part], "average of a shard")
        expect.same(later[0], state[0][part], "state of a shard")


@law(
    ID, "L7", given=space.where(some=True), kills=["kept_outside"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def continues_from_a_saved_state(impl, c, expect):
    "Stopped after any value, written to bytes, read back and continued: the bits of the straight run."
    params = values(c, 4)
    straight = walk(impl, c, params)
    for k in range(1, 4):
        saved = EmaState(*map(reread, straight[k - 1][1]))
        average, state = walk(impl, c.replace(state=saved), params[k:])[-1]
        expect.same(average, straight[-1][0], f"average, continued after {k}")
        expect.same(state[0], straight[-1][1][0], f"state, continued after {k}")


# Mutants ---------------------------------------------------------------------------------------------


def one(state=0.0, t=0, **options):
    """The default-size test: eight values."""

    def make():
        x = np.random.default_rng(0).standard_normal(8)
        return (x, EmaState(state * x, t)), options

    return make


def average_step(param, state, *, decay=0.999, corrected=True, **edit):
    t = state.t + 1
    e = edit.get("mix", lambda d, e, x, t: d * e + (1 - d) * x)(decay, state.average, param, t)
    lifted = e / (1 - decay ** edit.get("count", lambda t: t)(t))
    out = edit.get("choose", lambda c, e, lifted: lifted if c else e)(corrected, e, lifted)
    kept = edit.get("store", lambda e, out: e)(e, out)
    return out.astype(param.dtype), EmaState(kept.astype(param.dtype), t)


@mutant(ID, default_case=one(1.0, 10**5))
def never_corrected(*args, **options):
    "corrected is accepted and dropped: right after a hundred thousand steps."
    return average_step(*args, choose=lambda c, e, lifted: e, **options)


@mutant(ID, default_case=one(1.0, 10**5, corrected=False))
def always_corrected(*args, **options):
    "Corrected, asked for or not."
    return average_step(*args, choose=lambda c, e, lifted: lifted, **options)


@mutant(ID, default_case=one(1.0, 10**5))
def corrects_by_one_step_less(*args, **options):
    "1 - d^(t-1), and no correction at the first step."
    return average_step(*args, count=lambda t: max(t - 1, 1), **options)


@mutant(ID, default_case=one(1.0, 10**5))
def corrected_is_stored(*args, **options):
    "The corrected average goes into the state and is corrected again."
    return average_step(*args, store=lambda e, out: out, **options)


@mutant(ID, default_case=one(1.0, decay=0.5))
def complement_swapped(*args, **options):
    "(1 - d) e + d x."
    return average_step(*args, mix=lambda d, e, x, t: (1 - d) * e + d * x, **options)


@mutant(ID, default_case=one(1.0, corrected=False))
def running_mean(*args, **options):
    "e + (x - e) / t: the plain mean."
    return average_step(*args, mix=lambda d, e, x, t: e + (x - e) / t, **options)


@mutant(ID, default_case=one(0.0))
def state_ignored(*args, **options):
    "(1 - d) x: the same at the first step."
    return average_step(*args, mix=lambda d, e, x, t: (1 - d) * x, **options)


@mutant(ID, default_case=one(1.0, 10**5))
def extrapolates(*args, **options):
    "x + 2 (average - x): the same where they agree."
    average, state = average_step(*args, **options)
    return (args[0] + 2 * (average - args[0])).astype(args[0].dtype), state


@mutant(ID, default_case=one())
def tail_left_out(param, state, **options):
    "In fours; what is left over stays as it was."
    average, new = average_step(param, state, **options)
    whole = param.size - param.size % 4
    rest = state.average[whole:]
    return np.concatenate([average[:whole], rest]), new


_last = {}


@mutant(ID, default_case=one())
def kept_outside(param, state, **options):
    "The average comes from the last call, not from the state: a resumed run starts from the wrong one."
    key = param.shape, param.dtype
    state = state._replace(average=_last.get(key, state.average)) if state.t else state
    average, new = average_step(param, state, **options)
    _last[key] = new.average
    return average, new
