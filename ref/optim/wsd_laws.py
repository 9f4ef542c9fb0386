"""Laws and mutants of warm-up, stable, decay."""

from __future__ import annotations

import math

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, ints

ID = "optim.wsd"
DOUBLE = ("float64",)  # a rate is a float64 whatever the parameters are

space = cases(
    ID,
    B=batch(1, 6),
    warmup=dims(0, 7),
    stable=dims(0, 6),
    decay=dims(1, 9),
    total=lambda draw, c: c.warmup + c.stable + c.decay,
    peak=choose(1.0, 3e-4),
    final=choose(3e-5, 0.25),
    shape=choose("linear", "sqrt", "exponential"),
    step=ints("*B", 0, 24),
    flags={
        "rises": Flag(lambda c: c.warmup > 1, {"warmup": choose(2, 5)}),
        "sudden": Flag(lambda c: c.warmup == 0, {"warmup": 0}),
        "no_plateau": Flag(lambda c: c.stable == 0, {"stable": 0}),
        "plateau": Flag(lambda c: c.stable > 1, {"stable": dims(2, 6)}),
    },
)
plateau = space.where(plateau=True)
to_zero = space.where(final=0.0, shape=choose("linear", "sqrt"))


def at(impl, c, steps):
    return impl(c.replace(step=np.asarray(steps)))


def limit(c, n=12):
    """A dozen roundings; an exponential's exponent x log(F / P) <= 11 is off by 3 u of itself."""
    return bounds.rounding(n + 36 * (c.shape == "exponential"), c.peak + c.final, "float64")


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=plateau.where(warmup=dims(1, 7)),
    kills=["counted_from_zero", "decays_at_once", "down_by_the_peak", "halves"],
)  # fmt: skip
def landmarks(impl, c, expect):
    "r(1) = P / W, r(W) = r(N - D) = P, r(N) = F; a quarter into sqrt's decay, half of a linear one, (P + F) / 2."
    W, N, P, F = c.warmup, c.total, c.peak, c.final
    expect(at(impl, c, [1, W, N - c.decay, N]), [P / W, P, P, F], limit(c), scale=P + F)
    long = c.replace(decay=4 * c.decay, total=N + 3 * c.decay)
    where = {"linear": 2, "sqrt": 1, "exponential": 2}[c.shape] * c.decay
    middle = math.sqrt(P * F) if c.shape == "exponential" else (P + F) / 2
    expect(at(impl, long, [N - c.decay + where]), [middle], limit(c), "half way", scale=P + F)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.reach("rises", "sudden", "plateau", "no_plateau"),
    kills=["counted_from_zero", "decays_at_once", "warm_up_from_final", "plateau_one_short"],
)  # fmt: skip
def warm_up_is_linear_and_the_plateau_flat(impl, c, expect):
    "r(t) = P t / W up to W, then P, to the bit, up to N - D."
    t = np.arange(c.warmup + 1)
    expect(at(impl, c, t), c.peak * t / max(c.warmup, 1) + (c.peak if not c.warmup else 0), limit(c), scale=c.peak)
    flat = np.arange(c.warmup, c.warmup + c.stable + 1)
    expect.same(at(impl, c, flat), np.full(flat.shape, c.peak), "the plateau")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space,
    kills=["counted_from_zero", "root_of_the_rest", "halves", "half_a_cosine", "down_by_the_peak"],
)  # fmt: skip
def each_decay_has_its_shape(impl, c, expect):
    """j steps into the decay: the fall (P - r) / (P - F) is j / D (linear), its square is (sqrt), and r / P is the j-th
    power of (F / P)^(1/D) (exponential)."""
    j, P, F = np.arange(c.decay + 1), c.peak, c.final
    rates = at(impl, c, c.total - c.decay + j)
    if c.shape == "exponential":
        wanted = [P * (F / P) ** (k / c.decay) for k in j]
    else:
        x = j / c.decay if c.shape == "linear" else np.sqrt(j / c.decay)
        wanted = P - (P - F) * x
    expect(rates, wanted, 2 * limit(c), scale=P + F)


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE, given=space.where(shape=choose("linear", "exponential")),
    kills=["decays_at_once", "plateau_one_short", "halves"],
)  # fmt: skip
def the_area_is_closed(impl, c, expect):
    """sum of r(t), t = 1 .. N: P (W + 1) / 2 (0 if W = 0) + P (N - D - W), and of the decay D F + (P - F) (D - 1) / 2
    (linear) or P (q + .. + q^D) = P q (1 - q^D) / (1 - q), q = (F / P)^(1/D) (exponential; P D if q = 1)."""
    W, D, P, F = c.warmup, c.decay, c.peak, c.final
    q = (F / P) ** (1 / D)
    fall = D * F + (P - F) * (D - 1) / 2
    if c.shape == "exponential":
        fall = P * D if q == 1 else P * q * (1 - F / P) / (1 - q)
    wanted = (P * (W + 1) / 2 if W else 0.0) + P * c.stable + fall
    found = math.fsum(at(impl, c, np.arange(1, c.total + 1)))
    # 1 - q cancels: its relative error is u / |1 - q|.
    lost = c.total * limit(c) * (1 + 1 / max(abs(1 - q), 0.05))
    expect(found, wanted, lost, "area", scale=c.total * P)


@law(
    ID,
    "L5",
    dtypes=DOUBLE,
    given=plateau,
    kills=["decays_at_once"],
    passes_null=["zeros", "constant"],
)
def budgets_share_their_plateau(impl, c, expect):
    "A run of another length has the same bits until the shorter one decays, and its own decay of the same bits."
    longer = c.replace(total=c.total + 5)
    before = np.arange(c.total - c.decay + 1)
    expect.same(at(impl, longer, before), at(impl, c, before), "before the decay")
    j = np.arange(c.decay + 1)
    expect.same(at(impl, longer, longer.total - c.decay + j), at(impl, c, c.total - c.decay + j), "the decay")


@law(ID, "L6", closed_form=True, dtypes=DOUBLE, given=to_zero, kills=["falls_on", "rests_at_the_peak"])
def after_the_end_it_stays(impl, c, expect):
    "r(t) = F = 0 for t >= N, far away too, to the bit; r(N - D) = P."
    t = c.total + np.array([0, 1, 2, c.total, 10**9])
    expect.same(at(impl, c, t), np.zeros(t.shape), "after the end")
    expect.same(at(impl, c, [c.total - c.decay]), [c.peak], "r(N - D)")


@law(
    ID,
    "L7",
    dtypes=DOUBLE,
    given=space.where(B=(2, 3)),
    kills=["first_row_for_all"],
    passes_null=["zeros", "constant", "identity"],
)
def any_array_gets_the_rates_of_its_entries(impl, c, expect):
    "An array of steps of any shape gets, place by place, the rates of its entries."
    rates = at(impl, c, np.arange(25))
    expect(impl(c), rates[c.step], limit(c, 2), "the rates of the entries", scale=c.peak + c.final)


# Mutants ---------------------------------------------------------------------------------------------


SHAPES = {
    "linear": lambda P, F, x: F + (P - F) * (1 - x),
    "sqrt": lambda P, F, x: F + (P - F) * (1 - math.sqrt(x)),
    "exponential": lambda P, F, x: P * (F / P) ** x,
}


def schedule(step, *, peak, warmup, decay, total, final=0.0, shape="linear", **edit):
    """The schedule in plain loops, whose parts an edit replaces."""
    W, D, N, P, F = warmup, decay, total, peak, final
    start = edit.get("start", lambda W, D, N: N - D)(W, D, N)

    def rate(t):
        t = max(t + edit.get("shift", 0), 0)
        if t < W:
            return edit.get("rise", lambda t: P * t / W)(t)
        if t <= start:
            return P
        x = (t - start) / max(N - start, 1)
        fall = edit.get("fall", {}).get(shape, SHAPES[shape])
        return fall(P, F, x) if t <= N else edit.get("after", lambda x: F)(x)

    return np.array([rate(int(t)) for t in np.ravel(step)], np.float64).reshape(np.shape(step))


def points(steps, **options):
    return lambda: ((np.array(steps),), {"peak": 1.0, "warmup": 10, "decay": 40, "total": 100, "final": 0.0, **options})


@mutant(ID, default_case=points([20, 30, 50, 120]))
def counted_from_zero(step, **options):
    "Step t gets the rate of t - 1: not seen on the plateau."
    return schedule(step, shift=-1, **options)


@mutant(ID, default_case=points([5, 10, 55, 100], decay=90))
def decays_at_once(step, **options):
    "The decay starts at W: the same where there is no plateau."
    return schedule(step, start=lambda W, D, N: W, **options)


@mutant(ID, default_case=points([5, 10, 30, 100]))
def plateau_one_short(step, **options):
    "The decay starts a step early."
    return schedule(step, start=lambda W, D, N: max(N - D - 1, W), **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def down_by_the_peak(step, **options):
    "F + P (1 - x): the same where F = 0."
    fall = {"linear": lambda P, F, x: F + P * (1 - x), "sqrt": lambda P, F, x: F + P * (1 - math.sqrt(x))}
    return schedule(step, fall=fall, **options)


@mutant(ID, default_case=points([5, 10, 60, 100], shape="sqrt"))
def root_of_the_rest(step, **options):
    "sqrt(1 - x), not 1 - sqrt(x): the same at both ends."
    return schedule(step, fall={"sqrt": lambda P, F, x: F + (P - F) * math.sqrt(1 - x)}, **options)


@mutant(ID, default_case=points([5, 10, 60, 80, 100], shape="exponential", final=0.5))
def halves(step, **options):
    "0.5^x, whatever F is."
    return schedule(step, fall={"exponential": lambda P, F, x: P * 0.5**x}, **options)


@mutant(ID, default_case=points([5, 10, 60, 80, 100]))
def half_a_cosine(step, **options):
    "A cosine for the straight line: the same at both ends and half way."
    return schedule(step, fall={"linear": lambda P, F, x: F + (P - F) * (1 + math.cos(math.pi * x)) / 2}, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def warm_up_from_final(step, *, peak, warmup, final=0.0, **options):
    "The warm-up starts from F."
    rise = lambda t: final + (peak - final) * t / warmup  # noqa: E731
    return schedule(step, peak=peak, warmup=warmup, final=final, rise=rise, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def falls_on(step, *, peak, final=0.0, **options):
    "The line goes on after the end, below 0."
    return schedule(step, peak=peak, final=final, after=lambda x: final + (peak - final) * (1 - x), **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def rests_at_the_peak(step, *, peak, **options):
    "After the end the plateau's rate again."
    return schedule(step, peak=peak, after=lambda x: peak, **options)


@mutant(ID, default_case=points([5, 10, 55, 100]))
def first_row_for_all(step, **options):
    "Every row gets the rates of the first."
    rates = schedule(step, **options)
    return np.broadcast_to(rates[:1], rates.shape).copy() if rates.ndim > 1 and rates.size else rates
