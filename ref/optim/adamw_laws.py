"""Laws and mutants of AdamW."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ref.optim.adamw import AdamState
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, floats, rng

ID = "optim.adamw"


def _state(draw, c):
    """Zeros at t = 0; else moments that some gradients could have left: v >= m^2."""
    if c.t == 0:
        return AdamState(np.zeros(c.n), np.zeros(c.n), 0)
    m = rng(draw).integers(-64, 65, c.n) / 64.0
    return AdamState(m, m * m + rng(draw).integers(1, 9, c.n) / 8.0, c.t)


def _sizes(draw, c):
    return (draw(dims(0, 6, 70).strategy(False)),)


space = cases(
    ID,
    n=_sizes,
    t=choose(0, 1, 2, 7, 1000),
    state=_state,
    grad=floats("*n"),
    lr=choose(0.125, 1e-3, 1.0),
    beta1=choose(0.9, 0.5, 0.0),
    beta2=choose(0.999, 0.75, 0.0),
    eps=choose(1e-8, 1e-3, 0.5),
    weight_decay=choose(0.01, 0.0, 0.5),
    flags={
        "some": Flag(lambda c: c.n[0] > 0, {"n": choose((1,), (3,), (6,))}),
        "none": Flag(lambda c: c.n[0] == 0, {"n": (0,)}),
        "nonzero": Flag(lambda c: c.n[0] > 0 and bool(np.all(c.grad)), {"n": choose((1,), (4,))}),
    },
)
first = space.where(t=0)


def zero_state(c):
    return AdamState(np.zeros(c.n, c.dtype), np.zeros(c.n, c.dtype), 0)


def step_bound(c, size):
    """A dozen roundings of a step of the given size, and three of the parameter."""
    return bounds.rounding(40, c.lr * size, c.dtype) + bounds.rounding(4, np.abs(c.param), c.dtype)


@law(
    ID, "L1", closed_form=True, given=first.where(grad=floats("*n", "tiny")).reach("none", "some"),
    kills=["eps_hat", "eps_inside", "no_bias_correction", "l2_for_decay", "decay_without_lr", "eps_ignored"],
)  # fmt: skip
def first_step_is_the_sign(impl, c, expect):
    "t = 1: th' = (1 - lr wd) th - lr g / (|g| + eps), |g| near eps too."
    th, g = (np.asarray(x, np.float64) for x in (c.param, c.grad))
    ratio = g / np.where(g == 0, 1, np.abs(g) + c.eps)
    out, _ = impl(c)
    wanted = (1 - c.lr * c.weight_decay) * th - c.lr * ratio
    expect(out, wanted, step_bound(c, np.abs(ratio)), scale=np.abs(th).max(initial=0) + c.lr)


@law(
    ID, "L2", closed_form=True, given=first.where(some=True, weight_decay=0.0, grad=floats("*n", "tiny")),
    kills=["eps_hat", "eps_inside", "no_bias_correction", "t_from_zero", "v_of_g"],
)  # fmt: skip
def a_constant_gradient_repeats_its_step(impl, c, expect):
    "Constant g, wd = 0: each of five steps is -lr g / (|g| + eps)."
    g = np.asarray(c.grad, np.float64)
    ratio = g / np.where(g == 0, 1, np.abs(g) + c.eps)
    param, state = c.param, c.state
    for k in range(5):
        now = c.replace(param=param, state=state)
        param, state = impl(now)
        wanted = np.asarray(now.param, np.float64) - c.lr * ratio
        limit = step_bound(now, np.abs(ratio)) * (1 + k / (1 - c.beta2) ** 0.5 * (c.beta2 > 0))
        expect(param, wanted, limit, f"step {k + 1}", scale=np.abs(now.param).max() + c.lr)
        expect.holds(state.t == k + 1, "t counts the steps")


@law(
    ID, "L3", closed_form=True, given=first.where(some=True), kills=["l2_for_decay", "decay_without_lr", "decay_after"],
)  # fmt: skip
def no_gradient_only_decays(impl, c, expect):
    "g = 0 from the start: after three steps th = th_0 (1 - lr wd)^3, and the moments stay 0."
    param, state = c.param, c.state
    for _ in range(3):
        param, state = impl(c.replace(param=param, grad=np.zeros(c.n, c.dtype), state=state))
    wanted = np.asarray(c.param, np.float64) * (1 - c.lr * c.weight_decay) ** 3
    expect(param, wanted, bounds.rounding(8, c.param, c.dtype), scale=np.abs(c.param).max())
    expect.same(state.m, np.zeros(c.n), "m")


@law(
    ID, "L4", given=first.where(some=True, eps=0.0), kills=["hidden_eps", "v_of_g"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_power_of_two_scale_is_invisible(impl, c, expect):
    "eps = 0: gradients times 2^k, in all of three steps, leave every bit of th."
    found = []
    for scale in (1.0, 2.0**9, 2.0**-11):
        param, state = c.param, zero_state(c)
        for k in range(3):
            grad = (c.grad * scale * (1 + k)).astype(c.dtype)
            param, state = impl(c.replace(param=param, grad=grad, state=state))
        found.append(param)
    expect.same(found[1], found[0], "th under g 2^9")
    expect.same(found[2], found[0], "th under g 2^-11")


@law(
    ID, "L5", given=space.where(n=choose((3,), (6,), (1,))), kills=["normalised_by_the_mean"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def shards_are_the_whole(impl, c, expect):
    "A step of each shard alone, or of the elements in reverse, gives the bits of the whole."
    out, state = impl(c)
    cut = c.n[0] // 2
    for part in (slice(0, cut), slice(cut, None), slice(None, None, -1)):
        n = (len(out[part]),)
        shard = AdamState(c.state.m[part].copy(), c.state.v[part].copy(), c.t)
        alone, after = impl(c.replace(param=c.param[part].copy(), grad=c.grad[part].copy(), state=shard, n=n))
        expect.same(alone, out[part], "th of a shard")
        expect.same(after.v, state.v[part], "v of a shard")


@law(ID, "L6", closed_form=True, given=first.where(some=True, weight_decay=0.0, eps=0.0, beta2=choose(0.999, 0.75)),
     kills=["no_bias_correction", "v_of_g"], passes_null=["identity"])  # fmt: skip
def a_step_is_bounded(impl, c, expect):
    """|th' - th| <= lr (1 - b1) / sqrt(1 - b2) sqrt((1 - r^t) / (1 - r)) sqrt(1 - b2^t) / (1 - b1^t), r = b1^2 / b2,
    for any gradients (Cauchy-Schwarz on m and v)."""
    r, param, state = c.beta1**2 / c.beta2, c.param, c.state
    for t in range(1, 7):
        grad = (c.grad * (-1.0) ** (t // 2) * 2.0 ** (t % 3)).astype(c.dtype)
        before = np.asarray(param, np.float64)
        param, state = impl(c.replace(param=param, grad=grad, state=state))
        total = t if r == 1 else (1 - r**t) / (1 - r)
        most = (1 - c.beta1) / math.sqrt(1 - c.beta2) * math.sqrt(total * (1 - c.beta2**t)) / (1 - c.beta1**t)
        slack = bounds.rounding(40, c.lr * most, c.dtype) + bounds.rounding(4, before, c.dtype)
        expect.at_most(np.abs(np.asarray(param, np.float64) - before), c.lr * most + slack, f"step {t}")


@law(ID, "L7", closed_form=True, given=first.where(some=True, beta1=0.5, beta2=0.75), kills=["v_of_g", "beta_swapped"])
def moments_are_weighted_sums(impl, c, expect):
    "b1 = 1/2, b2 = 3/4: m_t = sum b1^(t-i) (1 - b1) g_i and v_t = sum b2^(t-i) (1 - b2) g_i^2, in exact fractions."
    param, state, m, v = c.param, c.state, [Fraction(0)] * c.n[0], [Fraction(0)] * c.n[0]
    for k in range(3):
        grad = (c.grad * (k - 1.5)).astype(c.dtype)
        param, state = impl(c.replace(param=param, grad=grad, state=state))
        m = [a / 2 + Fraction(float(g)) / 2 for a, g in zip(m, grad, strict=True)]
        v = [a * 3 / 4 + Fraction(float(g)) ** 2 / 4 for a, g in zip(v, grad, strict=True)]
    for name, found, exact in (("m", state.m, m), ("v", state.v, v)):
        wanted = np.array([float(x) for x in exact])
        size = np.abs(c.grad).astype(np.float64).max() ** (1 + (name == "v")) * 3
        expect(found, wanted, bounds.rounding(9, size, c.dtype), name, scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: eight parameters, ordinary gradients, the tenth step, no decay."""
    g = np.random.default_rng(0)
    state = AdamState(g.standard_normal(8), 1 + g.random(8), 10_000)
    return (g.standard_normal(8), g.standard_normal(8), state), {"weight_decay": 0.0, "lr": 1e-3}


def edited(param, grad, state, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, **edit):
    """A step in plain NumPy whose parts an edit replaces."""
    t = state.t + edit.get("count", 1)
    gradient = grad + weight_decay * param if edit.get("l2") else grad
    m = beta1 * state.m + (1 - beta1) * gradient
    v = beta2 * state.v + (1 - beta2) * edit.get("power", lambda g: g * g)(gradient)
    c1, c2 = (1 - beta1**t, 1 - beta2**t) if edit.get("correct", True) and t else (1.0, 1.0)
    with np.errstate(all="ignore"):
        root = edit.get("root", lambda v, c2, eps: np.sqrt(v / c2) + eps)(v, c2, eps)
        step = m / c1 / np.where(root == 0, 1, root)
    kept = 1 - lr * weight_decay
    kept = 1.0 if edit.get("l2") else edit.get("keep", lambda lr, wd: kept)(lr, weight_decay)
    out = param * kept - lr * step
    if edit.get("after"):
        out = (param - lr * step) * kept - lr * lr * weight_decay * param
    return out.astype(param.dtype), AdamState(m.astype(param.dtype), v.astype(param.dtype), state.t + 1)


@mutant(ID, thread="nanochat#304, tensorflow#35102", default_case=default)
def eps_hat(param, grad, state, **options):
    "eps added to sqrt(v) before the bias correction."
    return edited(param, grad, state, **options, root=lambda v, c2, eps: (np.sqrt(v) + eps) / np.sqrt(c2))


@mutant(ID, thread="pytorch#22628", default_case=default)
def eps_inside(param, grad, state, **options):
    "sqrt(v^ + eps)."
    return edited(param, grad, state, **options, root=lambda v, c2, eps: np.sqrt(v / c2 + eps))


@mutant(ID, default_case=default)
def eps_ignored(param, grad, state, **options):
    "eps is accepted and dropped."
    return edited(param, grad, state, **options, root=lambda v, c2, eps: np.sqrt(v / c2))


@mutant(ID, default_case=default)
def hidden_eps(param, grad, state, **options):
    "A second, silent 1e-12."
    return edited(param, grad, state, **options, root=lambda v, c2, eps: np.sqrt(v / c2) + eps + 1e-12)


@mutant(ID, default_case=default)
def no_bias_correction(param, grad, state, **options):
    "m and v as they are: right after ten thousand steps."
    return edited(param, grad, state, **options, correct=False)


@mutant(ID, default_case=default)
def t_from_zero(param, grad, state, **options):
    "The correction counts from 0: each step uses the last one's."
    return edited(param, grad, state, **options, count=0)


@mutant(ID, default_case=default)
def l2_for_decay(param, grad, state, **options):
    "Weight decay added to the gradient."
    return edited(param, grad, state, **options, l2=True)


@mutant(ID, default_case=default)
def decay_without_lr(param, grad, state, **options):
    "th (1 - wd)."
    return edited(param, grad, state, **options, keep=lambda lr, wd: 1 - wd)


@mutant(ID, default_case=default)
def decay_after(param, grad, state, **options):
    "The decay applied after the step, and once more through the old value."
    return edited(param, grad, state, **options, after=True)


@mutant(ID, default_case=lambda: ((np.ones(8), np.ones(8), AdamState(np.ones(8), np.ones(8), 9)), {}))
def v_of_g(param, grad, state, **options):
    "v averages |g|, not g^2: the same for gradients of one."
    return edited(param, grad, state, **options, power=np.abs)


@mutant(ID, default_case=lambda: ((np.ones(4), np.zeros(4), AdamState(np.zeros(4), np.zeros(4), 0)), {}))
def beta_swapped(param, grad, state, *, beta1=0.9, beta2=0.999, **options):
    "beta1 and beta2 exchanged."
    return edited(param, grad, state, beta1=beta2, beta2=beta1, **options)


@mutant(ID, default_case=lambda: ((np.ones(4), np.full(4, 2.0), AdamState(np.ones(4), np.ones(4), 0)), {}))
def normalised_by_the_mean(param, grad, state, **options):
    "One second moment for the whole array."
    return edited(param, grad, state, **options, power=lambda g: np.full_like(g, np.mean(g * g)))
