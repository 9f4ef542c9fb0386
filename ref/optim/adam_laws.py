"""Laws and mutants of Adam."""

from __future__ import annotations

import numpy as np

from ref.optim import common_laws as common
from ref.optim.common_laws import adam_space, adam_step, alike, default, root_of, step_bound
from ref.spec import law, mutant
from ref.spec.cases import choose, floats

ID = "optim.adam"
space = adam_space(ID, eps_mode=choose("outside", "hat", "inside"))
first = space.where(t=0)


@law(
    ID, "L1", closed_form=True, given=first.where(grad=floats("*n", "tiny")).reach("none", "some"),
    kills=["eps_before_the_correction", "mode_ignored", "no_bias_correction"],
)  # fmt: skip
def first_step_is_a_soft_sign(impl, c, expect):
    "t = 1: th' = th - lr g / (|g| + eps); hat: eps / sqrt(1 - b2) for eps; inside: th - lr g / sqrt(g^2 + eps)."
    th, g = common.f64(c.param, c.grad)
    ratio = g / np.where(g == 0, 1, root_of(c, g * g, 1))
    out, _ = impl(c)
    expect(out, th - c.lr * ratio, step_bound(c, np.abs(ratio)), scale=np.abs(th).max(initial=0) + c.lr)


@law(
    ID, "L2", closed_form=True, given=first.where(some=True, beta2=choose(0.75, 0.999)),
    kills=["eps_before_the_correction", "t_from_zero", "only_the_mean_is_corrected"],
)  # fmt: skip
def a_constant_gradient_in_closed_form(impl, c, expect):
    """Constant |g| near eps: each of five steps is -lr g / (|g| + eps); hat: eps / sqrt(1 - b2^t) for eps; inside:
    -lr g / sqrt(g^2 + eps)."""
    near = np.sqrt(c.eps) if c.eps_mode == "inside" else c.eps
    grad = (c.grad * near).astype(c.dtype)
    (g,) = common.f64(grad)
    (before, state) = c.param, c.state
    for t in range(1, 6):
        ratio = g / root_of(c, g * g, t)
        now = c.replace(param=before, grad=grad, state=state)
        after, state = impl(now)
        (th,) = common.f64(before)
        expect(after, th - c.lr * ratio, step_bound(now, np.abs(ratio), t), f"step {t}", scale=np.abs(th).max() + c.lr)
        before = after


@law(
    ID, "L3", closed_form=True, given=first.where(some=True),
    kills=["v_of_g", "betas_swapped", "greatest_v", "t_not_returned", "mode_ignored"],
)  # fmt: skip
def moments_are_weighted_means(impl, c, expect):
    """m^_t = sum b1^(t-i) g_i / sum b1^(t-i), v^_t the same of g^2 with b2, th_t = th_{t-1} - lr m^ / root(v^);
    m = (1 - b1^t) m^."""
    common.moments_are_weighted_means(impl, c, expect, lambda th, g: g, 1.0)


@law(
    ID, "L4", given=space.where(some=True, eps=0.0, beta2=choose(0.999, 0.75)), kills=["eps_at_least"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_power_of_two_scale_is_invisible(impl, c, expect):
    "eps = 0: gradients and m times 2^k, and v times 4^k, leave every bit of th."
    wanted, _ = impl(c)
    for scale in (2.0**9, 2.0**-25):
        state = c.state._replace(m=(c.state.m * scale).astype(c.dtype), v=(c.state.v * scale**2).astype(c.dtype))
        found, _ = impl(c.replace(grad=(c.grad * scale).astype(c.dtype), state=state))
        expect.same(found, wanted, f"th under g {scale}")


@law(
    ID, "L5", closed_form=True,
    given=first.where(nonzero=True, eps=0.0, beta1=choose(0.9, 0.5), beta2=choose(0.999, 0.75, 0.25)),
    kills=["betas_swapped", "no_bias_correction", "greatest_v"],
)  # fmt: skip
def aligned_gradients_attain_the_bound(impl, c, expect):
    """g_i ~ (b1 / b2)^(t-i), eps = 0: |m^ / sqrt v^| = (1 - b1) / sqrt(1 - b2) sqrt((1 - r^t) / (1 - r))
    sqrt(1 - b2^t) / (1 - b1^t), r = b1^2 / b2: the greatest of all sequences, sqrt t at r = 1."""
    common.aligned_gradients_attain_the_bound(impl, c, expect)


@law(
    ID, "L6", closed_form=True, given=first.where(some=True, eps=choose(0.0, 1e-8)), kills=["zero_over_zero"],
    passes_null=["identity"],
)  # fmt: skip
def no_gradient_no_move(impl, c, expect):
    "Zero gradients from the start: three steps leave every bit of th, at eps = 0 too."
    zero = np.zeros(c.n, c.dtype)
    param, state = common.walk(impl, c, [zero, zero, zero])[-1]
    expect.same(param, c.param, "th")
    expect.same(state[0], zero, "m")


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

@mutant(ID, thread="nanochat#304, pytorch#22628, tensorflow#35102", default_case=default())
def eps_before_the_correction(param, grad, state, *, eps_mode="outside", **options):
    "eps added to sqrt(v), where it was to stand outside the root of v^."
    mode = "hat" if eps_mode == "outside" else eps_mode
    return adam_step(param, grad, state, eps_mode=mode, **options)


@mutant(ID, default_case=default())
def mode_ignored(param, grad, state, *, eps_mode="outside", **options):
    "eps_mode is accepted and dropped."
    return adam_step(param, grad, state, **options)


@mutant(ID, default_case=default())
def no_bias_correction(param, grad, state, **options):
    "m and v as they are: right after ten thousand steps."
    return adam_step(param, grad, state, correct=False, **options)


@mutant(ID, default_case=default())
def only_the_mean_is_corrected(param, grad, state, *, beta2=0.999, eps=1e-8, eps_mode="outside", **options):
    "v uncorrected: right after ten thousand steps."
    c2 = 1 - beta2 ** (state.t + 1)

    def root(v, c2_, eps):
        return common.ROOTS[eps_mode](v * c2, c2, eps)

    return adam_step(param, grad, state, beta2=beta2, eps=eps, eps_mode=eps_mode, root=root, **options)


@mutant(ID, default_case=default())
def t_from_zero(param, grad, state, **options):
    "The correction uses the count before the step."
    return adam_step(param, grad, state, count=0, **options)


@mutant(ID, default_case=alike(0.5, 0.5, 0.25, 10_000))
def t_not_returned(param, grad, state, **options):
    "The count is not advanced in the state."
    out, new = adam_step(param, grad, state, **options)
    return out, new._replace(t=state.t if state.t < 10_000 else new.t)


@mutant(ID, default_case=alike(1.0, 1.0, 1.0, 9))
def v_of_g(param, grad, state, **options):
    "v averages |g|, not g^2: the same for gradients of one."
    return adam_step(param, grad, state, power=np.abs, **options)


@mutant(ID, default_case=alike(0.0))
def betas_swapped(param, grad, state, *, beta1=0.9, beta2=0.999, **options):
    "beta1 and beta2 exchanged."
    return adam_step(param, grad, state, beta1=beta2, beta2=beta1, **options)


@mutant(ID, default_case=alike(2.0, 1.0, 1.0, 9))
def greatest_v(param, grad, state, **options):
    "v never falls, as in AMSGrad."
    out, new = adam_step(param, grad, state, **options)
    fell = new.v < state.v
    kept, _ = adam_step(param, grad, state, power=lambda g: state.v, **options)
    return np.where(fell, kept, out), new._replace(v=np.maximum(new.v, state.v))


@mutant(ID, default_case=default())
def eps_at_least(param, grad, state, *, eps=1e-8, **options):
    "eps is raised to 1e-12 where it is less."
    return adam_step(param, grad, state, eps=max(eps, 1e-12), **options)


@mutant(ID, default_case=default())
def zero_over_zero(param, grad, state, **options):
    "NaN where eps = 0 and there never was a gradient."
    return adam_step(param, grad, state, guarded=False, **options)


@mutant(ID, default_case=alike(2.0, 1.0, 1.0))
def one_v_for_all(param, grad, state, **options):
    "One second moment for the whole array."
    return adam_step(param, grad, state, power=lambda g: np.full_like(g, np.mean(g * g)), **options)


@mutant(ID, default_case=default())
def tail_left_out(param, grad, state, **options):
    "In fours; what is left over stays as it was."
    return _in_fours(param, grad, state, **options)


@mutant(ID, default_case=alike(1.0))
def mean_kept_outside(param, grad, state, **options):
    "m comes from the last call, not from the state: a resumed run starts from the wrong one."
    return _keeping(param, grad, state, **options)


_in_fours, _keeping = common.without_tail(adam_step), common.keeping_outside(adam_step, ("m",))
