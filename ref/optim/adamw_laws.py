"""Laws and mutants of AdamW."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ref.optim import common_laws as common
from ref.optim.common_laws import adam_space, adam_step, alike, default, step_bound, zero_state
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, floats

ID = "optim.adamw"
space = adam_space(ID, weight_decay=choose(0.01, 0.0, 0.5))
first = space.where(t=0)


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
    ID, "L3", closed_form=True, given=first.where(some=True), kills=["l2_for_decay", "decay_without_lr"],
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
    ID, "L5", given=space.where(n=choose((3,), (6,), (1,))),
    kills=["normalised_by_the_mean", "tail_left_out", "matrices_alone_are_decayed"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def shards_are_the_whole(impl, c, expect):
    "A step of each shard alone gives the bits of the whole, and so does the whole in another shape."
    common.shards_are_the_whole(impl, c, expect)


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


@law(
    ID, "L8", closed_form=True,
    given=first.where(nonzero=True, weight_decay=0.0, eps=0.0, beta1=choose(0.9, 0.5), beta2=choose(0.999, 0.75, 0.25)),
    kills=["beta_swapped", "no_bias_correction"],
)  # fmt: skip
def aligned_gradients_attain_the_bound(impl, c, expect):
    "g_i ~ (b1 / b2)^(t-i), eps = 0: the last step is lr times L6's bound (lr sqrt t at b1^2 = b2), so L6 is tight."
    common.aligned_gradients_attain_the_bound(impl, c, expect)


@law(
    ID, "L9", given=space.where(n=choose((2,), (5,), (6,))), kills=["tail_left_out"],
    passes_null=["zeros", "identity"],
)  # fmt: skip
def commutes_with_permutation_and_signs(impl, c, expect):
    "Entries in another order, and any of them with the other sign, give those entries, bit for bit."
    common.commutes_with_permutation_and_signs(impl, c, expect)


@law(
    ID, "L10", given=space.where(nonzero=True), kills=["moments_kept_outside"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def continues_from_a_saved_state(impl, c, expect):
    "Stopped after any step, written to bytes, read back and continued: the bits of the straight run."
    common.continues_from_a_saved_state(impl, c, expect)


@law(ID, "L11", given=space.where(some=True), kills=["l2_for_decay", "decay_without_lr", "decay_after"])
def decay_stands_apart(impl, c, expect):
    "In any state the decay takes lr wd th off the step without it, and leaves the bits of m and v."
    (th,) = common.f64(c.param)
    plain, state = impl(c.replace(weight_decay=0.0))
    found, later = impl(c.replace(weight_decay=0.5))
    moved = np.abs(th - plain)
    limit = bounds.rounding(6, np.abs(th) + moved, c.dtype) + bounds.rounding(40, moved, c.dtype)
    expect(found, np.asarray(plain, np.float64) - c.lr * 0.5 * th, limit, scale=np.max(np.abs(th) + moved))
    expect.same(later.m, state.m, "m")
    expect.same(later.v, state.v, "v")


@law(
    ID, "L12", closed_form=True, given=first.where(some=True),
    kills=["beta_swapped", "v_of_g", "t_from_zero", "decay_after", "normalised_by_the_mean"],
)  # fmt: skip
def steps_are_those_of_weighted_means(impl, c, expect):
    """Changing gradients: th_t = (1 - lr wd) th_{t-1} - lr m^ / (sqrt(v^) + eps), m^ = sum b1^(t-i) g_i / sum b1^(t-i)
    and v^ the same of g^2 with b2."""
    common.moments_are_weighted_means(impl, c, expect, lambda th, g: g, 1 - c.lr * c.weight_decay)


# Mutants ---------------------------------------------------------------------------------------------


@mutant(ID, thread="nanochat#304, pytorch#22628, tensorflow#35102", default_case=default(weight_decay=0.0))
def eps_hat(param, grad, state, **options):
    "eps added to sqrt(v) before the bias correction."
    return adam_step(param, grad, state, **options, root=lambda v, c2, eps: (np.sqrt(v) + eps) / np.sqrt(c2))


@mutant(ID, default_case=default(weight_decay=0.0))
def eps_inside(param, grad, state, **options):
    "sqrt(v^ + eps)."
    return adam_step(param, grad, state, **options, root=lambda v, c2, eps: np.sqrt(v / c2 + eps))


@mutant(ID, default_case=default(weight_decay=0.0))
def eps_ignored(param, grad, state, **options):
    "eps is accepted and dropped."
    return adam_step(param, grad, state, **options, root=lambda v, c2, eps: np.sqrt(v / c2))


@mutant(ID, default_case=default(weight_decay=0.0))
def hidden_eps(param, grad, state, **options):
    "A second, silent 1e-12."
    return adam_step(param, grad, state, **options, root=lambda v, c2, eps: np.sqrt(v / c2) + eps + 1e-12)


@mutant(ID, default_case=default(weight_decay=0.0))
def no_bias_correction(param, grad, state, **options):
    "m and v as they are: right after ten thousand steps."
    return adam_step(param, grad, state, **options, correct=False)


@mutant(ID, default_case=default(weight_decay=0.0))
def t_from_zero(param, grad, state, **options):
    "The correction counts from 0: each step uses the last one's."
    return adam_step(param, grad, state, **options, count=0)


@mutant(ID, default_case=default(weight_decay=0.0))
def l2_for_decay(param, grad, state, **options):
    "Weight decay added to the gradient."
    return adam_step(param, grad, state, **options, l2=True)


@mutant(ID, default_case=default(weight_decay=0.0))
def decay_without_lr(param, grad, state, **options):
    "th (1 - wd)."
    return adam_step(param, grad, state, **options, keep=lambda lr, wd: 1 - wd)


@mutant(ID, default_case=default(weight_decay=0.0))
def matrices_alone_are_decayed(param, grad, state, *, weight_decay=0.01, **options):
    "No decay for fewer than two axes: a caller's rule of thumb inside the step."
    return adam_step(param, grad, state, weight_decay=weight_decay if param.ndim > 1 else 0.0, **options)


@mutant(ID, default_case=default(weight_decay=0.0))
def decay_after(param, grad, state, **options):
    "The decay applied to the new value: off by lr^2 wd m^ / root."
    return adam_step(param, grad, state, **options, after=True)


@mutant(ID, default_case=alike(1.0, 1.0, 1.0, 9))
def v_of_g(param, grad, state, **options):
    "v averages |g|, not g^2: the same for gradients of one."
    return adam_step(param, grad, state, **options, power=np.abs)


@mutant(ID, default_case=alike(0.0))
def beta_swapped(param, grad, state, *, beta1=0.9, beta2=0.999, **options):
    "beta1 and beta2 exchanged."
    return adam_step(param, grad, state, beta1=beta2, beta2=beta1, **options)


@mutant(ID, default_case=alike(2.0, 1.0, 1.0))
def normalised_by_the_mean(param, grad, state, **options):
    "One second moment for the whole array."
    return adam_step(param, grad, state, **options, power=lambda g: np.full_like(g, np.mean(g * g)))


@mutant(ID, default_case=default(weight_decay=0.0))
def tail_left_out(param, grad, state, **options):
    "In fours; what is left over stays as it was."
    return _in_fours(param, grad, state, **options)


@mutant(ID, default_case=alike(1.0))
def moments_kept_outside(param, grad, state, **options):
    "m and v come from the last call, not from the state: a resumed run starts from the wrong ones."
    return _keeping(param, grad, state, **options)


_in_fours, _keeping = common.without_tail(adam_step), common.keeping_outside(adam_step, ("m", "v"))
