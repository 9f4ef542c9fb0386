"""Laws and mutants of Adam with L2 regularisation."""

from __future__ import annotations

import numpy as np

from ref.optim import common_laws as common
from ref.optim.common_laws import adam_space, alike, default, step_bound
from ref.spec import law, mutant
from ref.spec.cases import choose, floats

ID = "optim.adam_l2"
space = adam_space(ID, weight_decay=choose(0.01, 0.0, 0.5))
first = space.where(t=0)


@law(
    ID, "L1", closed_form=True, given=first.where(grad=floats("*n", "tiny")).reach("none", "some"),
    kills=["decoupled", "decay_falls", "no_bias_correction", "eps_before_the_correction"],
)  # fmt: skip
def first_step_is_a_soft_sign_of_the_sum(impl, c, expect):
    "t = 1: th' = th - lr h / (|h| + eps), h = g + wd th."
    th, g = common.f64(c.param, c.grad)
    h, size = g + c.weight_decay * th, np.abs(g) + c.weight_decay * np.abs(th)
    root = np.where(h == 0, 1, np.abs(h) + c.eps)
    limit = step_bound(c, np.abs(h) / root + size * c.eps / root**2)  # h cancels; its error moves h / (|h| + eps)
    out, _ = impl(c)
    expect(out, th - c.lr * h / root, limit, scale=np.abs(th).max(initial=0) + c.lr)


@law(
    ID, "L2", given=space.where(some=True, weight_decay=0.5), kills=["decoupled", "decay_not_in_v"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def decay_is_a_quadratic_penalty(impl, c, expect):
    "A step with decay wd is the step without it at the gradient g + wd th, to the bit where wd = 1/2."
    found, state = impl(c)
    wanted, other = impl(c.replace(grad=(c.grad + c.weight_decay * c.param).astype(c.dtype), weight_decay=0.0))
    expect.same(found, wanted, "th")
    expect.same(state[0], other[0], "m")
    expect.same(state[1], other[1], "v")


@law(
    ID, "L3", closed_form=True, given=first.where(nonzero=True, eps=0.0, weight_decay=0.5), kills=["decoupled"],
)  # fmt: skip
def outweighed_decay_changes_nothing(impl, c, expect):
    """Not decoupled decay: where |g| > wd |th| and eps = 0 the first step is lr sign(g), decay or not; AdamW would
    take lr wd th more."""
    th, g = common.f64(c.param, c.grad)
    grad = (np.sign(g) * (np.abs(g) + np.abs(th))).astype(c.dtype)
    out, _ = impl(c.replace(grad=grad))
    expect(out, th - c.lr * np.sign(g), step_bound(c, 1.0), scale=np.abs(th).max() + c.lr)


@law(
    ID, "L4", closed_form=True, given=first.where(some=True, weight_decay=choose(0.5, 0.01)),
    kills=["decoupled", "decay_falls", "decay_times_the_rate"],
)  # fmt: skip
def decay_alone_moves_by_the_rate(impl, c, expect):
    "g = 0: th' = th - lr wd th / (wd |th| + eps): almost lr a step, whatever wd is."
    (th,) = common.f64(c.param)
    ratio = c.weight_decay * th / (c.weight_decay * np.abs(th) + c.eps)
    out, _ = impl(c.replace(grad=np.zeros(c.n, c.dtype)))
    expect(out, th - c.lr * ratio, step_bound(c, np.abs(ratio)), scale=np.abs(th).max() + c.lr)


@law(
    ID, "L5", closed_form=True, given=first.where(some=True, weight_decay=0.0), kills=["betas_swapped", "v_of_g"],
)  # fmt: skip
def moments_are_weighted_means(impl, c, expect):
    "wd = 0: m^_t = sum b1^(t-i) g_i / sum b1^(t-i), v^_t so of g^2, th_t = th_{t-1} - lr m^ / (sqrt(v^) + eps)."
    common.moments_are_weighted_means(impl, c, expect, lambda th, g: g, 1.0)


@law(
    ID, "L6", given=first.where(some=True, eps=0.0, weight_decay=0.5, beta2=choose(0.999, 0.75)),
    kills=["decoupled"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_power_of_two_scale_is_invisible(impl, c, expect):
    "eps = 0: the gradient and wd both times 2^k leave every bit of th."
    wanted, _ = impl(c)
    for scale in (2.0**9, 2.0**-11):
        scaled = c.replace(grad=(c.grad * scale).astype(c.dtype), weight_decay=c.weight_decay * scale)
        expect.same(impl(scaled)[0], wanted, f"th under {scale}")


@law(
    ID, "L7", given=space.where(n=choose((2,), (5,), (6,))), kills=["tail_left_out"],
    passes_null=["zeros", "identity"],
)  # fmt: skip
def commutes_with_permutation_and_signs(impl, c, expect):
    "Entries in another order, and any of them with the other sign, give those entries, bit for bit."
    common.commutes_with_permutation_and_signs(impl, c, expect)


@law(
    ID, "L8", given=space.where(n=choose((3,), (6,), (1,))), kills=["one_v_for_all"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def shards_are_the_whole(impl, c, expect):
    "A step of each shard alone gives the bits of the whole, and so does the whole in another shape."
    common.shards_are_the_whole(impl, c, expect)


@law(
    ID, "L9", given=space.where(nonzero=True), kills=["mean_kept_outside"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def continues_from_a_saved_state(impl, c, expect):
    "Stopped after any step, written to bytes, read back and continued: the bits of the straight run."
    common.continues_from_a_saved_state(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------

plain = default(weight_decay=0.0)


def l2_step(param, grad, state, *, weight_decay=0.01, **options):
    return common.adam_step(param, grad, state, weight_decay=weight_decay, l2=True, **options)


@mutant(ID, default_case=plain)
def decoupled(param, grad, state, **options):
    "AdamW under this name."
    return common.adam_step(param, grad, state, **options)


@mutant(ID, default_case=plain)
def decay_falls(param, grad, state, *, weight_decay=0.01, **options):
    "g - wd th."
    return l2_step(param, grad, state, weight_decay=-weight_decay, **options)


@mutant(ID, default_case=plain)
def decay_times_the_rate(param, grad, state, *, lr=1e-3, weight_decay=0.01, **options):
    "g + lr wd th."
    return l2_step(param, grad, state, lr=lr, weight_decay=lr * weight_decay, **options)


@mutant(ID, default_case=plain)
def decay_not_in_v(param, grad, state, **options):
    "The decay enters m alone."
    return l2_step(param, grad, state, power=lambda g: grad * grad, **options)


@mutant(ID, default_case=plain)
def no_bias_correction(param, grad, state, **options):
    "m and v as they are: right after ten thousand steps."
    return l2_step(param, grad, state, correct=False, **options)


@mutant(ID, thread="nanochat#304, pytorch#22628, tensorflow#35102", default_case=plain)
def eps_before_the_correction(param, grad, state, **options):
    "eps added to sqrt(v) before the bias correction."
    return l2_step(param, grad, state, eps_mode="hat", **options)


@mutant(ID, default_case=alike(1.0, 1.0, 1.0, 9, weight_decay=0.0))
def v_of_g(param, grad, state, **options):
    "v averages |g|, not g^2: the same for gradients of one."
    return l2_step(param, grad, state, power=np.abs, **options)


@mutant(ID, default_case=alike(0.0, weight_decay=0.0))
def betas_swapped(param, grad, state, *, beta1=0.9, beta2=0.999, **options):
    "beta1 and beta2 exchanged."
    return l2_step(param, grad, state, beta1=beta2, beta2=beta1, **options)


@mutant(ID, default_case=alike(2.0, 1.0, 1.0))
def one_v_for_all(param, grad, state, **options):
    "One second moment for the whole array."
    return l2_step(param, grad, state, power=lambda g: np.full_like(g, np.mean(g * g)), **options)


@mutant(ID, default_case=plain)
def tail_left_out(param, grad, state, **options):
    "In fours; what is left over stays as it was."
    return _in_fours(param, grad, state, **options)


@mutant(ID, default_case=alike(1.0))
def mean_kept_outside(param, grad, state, **options):
    "m comes from the last call, not from the state: a resumed run starts from the wrong one."
    return _keeping(param, grad, state, **options)


_in_fours, _keeping = common.without_tail(l2_step), common.keeping_outside(l2_step, ("m",))
