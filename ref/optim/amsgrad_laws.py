"""Laws and mutants of AMSGrad."""

from __future__ import annotations

import numpy as np

from ref.optim import common_laws as common
from ref.optim.amsgrad import AmsgradState
from ref.optim.common_laws import f64, gradients, step_bound, walk
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, floats, rng

ID = "optim.amsgrad"


def _state(draw, c):
    """Zeros at t = 0; else moments that some gradients could have left: v >= m^2, v_max >= v."""
    zeros = np.zeros(c.n)
    if c.t == 0:
        return AmsgradState(zeros, zeros, zeros, 0)
    m, g = rng(draw).integers(-64, 65, c.n) / 64.0, rng(draw)
    v = m * m + g.integers(1, 9, c.n) / 8.0
    return AmsgradState(m, v, v + g.integers(0, 9, c.n) / 4.0, c.t)


space = common.adam_space(ID, state=_state, form=choose("paper", "torch", "optax"))
first = space.where(t=0)


def step_of(c, m, u, t):
    """lr times the step at first moment m and remembered second moment u, and its denominator."""
    root = np.sqrt(u / (1 - c.beta2**t) if c.form == "torch" else u) + c.eps
    root = np.where(root == 0, 1, root)
    return c.lr * m / (root if c.form == "paper" else (1 - c.beta1**t) * root), root


@law(
    ID, "L1", closed_form=True, given=first.where(grad=floats("*n", "tiny")).reach("none", "some"),
    kills=["torch_for_every_form", "nothing_is_corrected", "eps_ignored"],
)  # fmt: skip
def first_step(impl, c, expect):
    "t = 1: th' = th - lr g / (|g| + eps); the paper's is th - lr (1 - b1) g / (sqrt(1 - b2) |g| + eps)."
    th, g = f64(c.param, c.grad)
    share, spread = (1 - c.beta1, np.sqrt(1 - c.beta2)) if c.form == "paper" else (1.0, 1.0)
    ratio = share * g / np.where(g == 0, 1, spread * np.abs(g) + c.eps)
    out, _ = impl(c)
    expect(out, th - c.lr * ratio, step_bound(c, np.abs(ratio)), scale=np.abs(th).max(initial=0) + c.lr)


@law(
    ID, "L2", closed_form=True, given=first.where(some=True, grad=floats("*n", "tiny")),
    kills=["torch_for_every_form", "nothing_is_corrected", "maximum_feeds_the_average"],
)  # fmt: skip
def a_constant_gradient_in_closed_form(impl, c, expect):
    """Constant g: v rises, so each of five steps is -lr g / (|g| + eps); the paper's k-th is
    -lr (1 - b1^k) g / (sqrt(1 - b2^k) |g| + eps)."""
    (g,), found = f64(c.grad), walk(impl, c, [c.grad] * 5)
    for k in range(1, 6):
        (before,) = f64(found[k - 1][0])
        share, spread = (1 - c.beta1**k, np.sqrt(1 - c.beta2**k)) if c.form == "paper" else (1.0, 1.0)
        ratio = share * g / np.where(g == 0, 1, spread * np.abs(g) + c.eps)
        limit = step_bound(c.replace(param=found[k - 1][0]), np.abs(ratio), k)
        expect(found[k][0], before - c.lr * ratio, limit, f"step {k}", scale=np.abs(before).max() + c.lr)


@law(
    ID, "L3", closed_form=True, given=first.where(nonzero=True),
    kills=["plain_adam", "optax_for_torch", "torch_for_every_form", "maximum_not_returned", "nothing_is_corrected"],
)  # fmt: skip
def a_spike_is_remembered(impl, c, expect):
    """One gradient g, then zeros: m_k = b1^(k-1) (1 - b1) g, and the denominator stays sqrt(1 - b2) |g| (paper),
    sqrt((1 - b2) / (1 - b2^k)) |g| (torch), |g| (optax)."""
    zero = np.zeros(c.n, c.dtype)
    (g,), found = f64(c.grad), walk(impl, c, [c.grad, zero, zero, zero])
    for k in range(1, 5):
        (before,) = f64(found[k - 1][0])
        m = (c.beta1 ** (k - 1) if k > 1 else 1.0) * (1 - c.beta1) * g
        step, _ = step_of(c, m, g * g * (1.0 if c.form == "optax" else 1 - c.beta2), k)
        limit = step_bound(c.replace(param=found[k - 1][0]), np.abs(step) / c.lr, k)
        expect(found[k][0], before - step, limit, f"step {k}", scale=np.abs(before).max() + c.lr)


@law(
    ID, "L4", closed_form=True, given=first.where(some=True),
    kills=["plain_adam", "betas_swapped", "maximum_feeds_the_average", "v_of_g", "optax_for_torch"],
)  # fmt: skip
def the_maximum_is_of_weighted_sums(impl, c, expect):
    """Changing gradients: u_t = max over s <= t of (1 - b2) sum b2^(s-i) g_i^2, in optax's form of that over 1 - b2^s;
    m_t the sum with b1; th_t follows."""
    grads = gradients(c, 4)
    found, seen, u = walk(impl, c, grads), f64(*grads), 0.0
    for t in range(1, 5):
        (before,) = f64(found[t - 1][0])
        shares = {b: (1 - b) * sum(b**i for i in range(t)) for b in (c.beta1, c.beta2)}
        m = shares[c.beta1] * common.weighted_mean(c.beta1, seen[:t])
        size = shares[c.beta1] * common.weighted_mean(c.beta1, [np.abs(x) for x in seen[:t]])
        v = common.weighted_mean(c.beta2, [x * x for x in seen[:t]]) * (1 if c.form == "optax" else shares[c.beta2])
        u = np.maximum(u, v)
        (step, _), (most, _) = step_of(c, m, u, t), step_of(c, size, u, t)
        limit = step_bound(c.replace(param=found[t - 1][0]), most / c.lr, t)
        expect(found[t][0], before - step, limit, f"step {t}", scale=np.abs(before).max() + c.lr)
        lost = 40 + 1 / (1 - c.beta2**t)
        expect(found[t][1][2], u, bounds.rounding(lost, u, c.dtype), f"v_max {t}", scale=max(np.max(u), 1e-300))


@law(
    ID, "L5", given=space.where(some=True), kills=["plain_adam", "maximum_not_returned"],
    passes_null=["identity"],
)  # fmt: skip
def the_denominator_never_falls(impl, c, expect):
    "From any state v_max only rises, and where g is 0 and the form is not optax's it keeps its bits."
    quiet = c.replace(grad=np.zeros(c.n, c.dtype))
    _, after = impl(c)
    _, still = impl(quiet)
    expect.at_most(c.state.v_max, after[2], "v_max of the state before")
    expect.at_most(c.state.v_max, still[2], "v_max of the state before, g = 0")
    if c.form != "optax":
        expect.same(still[2], c.state.v_max, "v_max after g = 0")


@law(
    ID, "L6", given=space.where(some=True, eps=0.0, beta2=choose(0.999, 0.75)), kills=["hidden_eps"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_power_of_two_scale_is_invisible(impl, c, expect):
    "eps = 0: gradients and m times 2^k, v and v_max times 4^k, leave every bit of th."
    wanted, _ = impl(c)
    for scale in (2.0**9, 2.0**-25):
        square = {k: (getattr(c.state, k) * scale**2).astype(c.dtype) for k in ("v", "v_max")}
        state = c.state._replace(m=(c.state.m * scale).astype(c.dtype), **square)
        found, _ = impl(c.replace(grad=(c.grad * scale).astype(c.dtype), state=state))
        expect.same(found, wanted, f"th under g {scale}")


@law(
    ID, "L7", closed_form=True, given=first.where(some=True, eps=choose(0.0, 1e-8)), kills=["zero_over_zero"],
    passes_null=["identity"],
)  # fmt: skip
def no_gradient_no_move(impl, c, expect):
    "Zero gradients from the start: three steps leave every bit of th, at eps = 0 too."
    zero = np.zeros(c.n, c.dtype)
    param, state = walk(impl, c, [zero, zero, zero])[-1]
    expect.same(param, c.param, "th")
    expect.same(state[2], zero, "v_max")


@law(
    ID, "L8", given=space.where(n=choose((2,), (5,), (6,))), kills=["tail_left_out"], passes_null=["zeros", "identity"],
)  # fmt: skip
def commutes_with_permutation_and_signs(impl, c, expect):
    "Entries in another order, and any of them with the other sign, give those entries, bit for bit."
    common.commutes_with_permutation_and_signs(impl, c, expect)


@law(
    ID, "L9", given=space.where(n=choose((3,), (6,), (1,))), kills=["one_maximum_for_all"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def shards_are_the_whole(impl, c, expect):
    "A step of each shard alone gives the bits of the whole."
    common.shards_are_the_whole(impl, c, expect)


@law(
    ID, "L10", given=space.where(nonzero=True), kills=["maximum_kept_outside"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def continues_from_a_saved_state(impl, c, expect):
    "Stopped after any step, written to bytes, read back and continued: the bits of the straight run."
    common.continues_from_a_saved_state(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def late(**options):
    """The default-size test: eight parameters, ordinary gradients, a hundred thousand steps in."""

    def make():
        g = np.random.default_rng(0)
        param, grad, m, v = *g.standard_normal((3, 8)), 1 + g.random(8)
        return (param, grad, AmsgradState(m, v, v + 1, 10**5)), options

    return make


def alike(grad, v_max=0.0, t=0, **options):
    """Eight parameters of 1 with one gradient."""
    state = AmsgradState(np.zeros(8), np.full(8, v_max), np.full(8, v_max), t)
    return lambda: ((np.ones(8), np.full(8, grad), state), options)


def ams_step(param, grad, state, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, form="paper", **edit):
    """A step in plain NumPy whose parts an edit replaces."""
    t = state.t + 1
    c1, c2 = (1 - beta1**t, 1 - beta2**t) if edit.get("correct", True) else (1.0, 1.0)
    m = beta1 * state.m + (1 - beta1) * grad
    v = beta2 * edit.get("old", lambda s: s.v)(state) + (1 - beta2) * edit.get("power", lambda g: g * g)(grad)
    kept = edit.get("most", np.maximum)(state.v_max, v / c2 if form == "optax" else v)
    root = edit.get("root", lambda u, eps: np.sqrt(u) + eps)(kept / c2 if form == "torch" else kept, eps)
    if edit.get("guarded", True):
        root = np.where(root == 0, 1, root)
    out = param - lr * (m if form == "paper" else m / c1) / root
    arrays = (x.astype(param.dtype) for x in (out, m, v, kept))
    out, m, v, kept = arrays
    return out, AmsgradState(m, v, edit.get("given", lambda u, v: u)(kept, v), t)


@mutant(ID, default_case=late())
def plain_adam(*args, form="paper", **options):
    "No maximum: v itself. Where v was rising nobody sees it."
    kept, new = ams_step(*args, form=form, **options)
    bare, _ = ams_step(*args, form=form, most=lambda u, v: v, **options)
    old = args[2].t > 10**4
    return (kept, new) if old else (bare, new._replace(v_max=new.v))


@mutant(ID, default_case=late())
def torch_for_every_form(*args, form="paper", **options):
    "form is accepted and dropped: late in training they agree."
    return ams_step(*args, form="torch", **options)


@mutant(ID, default_case=late(form="torch"))
def optax_for_torch(*args, form="paper", **options):
    "Corrects before the maximum where torch corrects after."
    return ams_step(*args, form="optax" if form == "torch" else form, **options)


@mutant(ID, default_case=late(form="torch"))
def nothing_is_corrected(*args, **options):
    "The moments as they are, in every form."
    return ams_step(*args, correct=False, **options)


@mutant(ID, default_case=alike(1.0, form="torch"))
def maximum_feeds_the_average(*args, **options):
    "The next v starts from the maximum, not from v."
    return ams_step(*args, old=lambda s: s.v_max, **options)


@mutant(ID, default_case=alike(1.0))
def maximum_not_returned(*args, **options):
    "The state gets v for its maximum: each step remembers one step back."
    return ams_step(*args, given=lambda u, v: v, **options)


@mutant(ID, default_case=late())
def eps_ignored(*args, **options):
    "eps is accepted and dropped."
    return ams_step(*args, root=lambda u, eps: np.sqrt(u), **options)


@mutant(ID, default_case=late())
def hidden_eps(*args, **options):
    "A second, silent 1e-12."
    return ams_step(*args, root=lambda u, eps: np.sqrt(u) + eps + 1e-12, **options)


@mutant(ID, default_case=late())
def zero_over_zero(*args, **options):
    "NaN where eps = 0 and there never was a gradient."
    return ams_step(*args, guarded=False, **options)


@mutant(ID, default_case=alike(0.0))
def betas_swapped(*args, beta1=0.9, beta2=0.999, **options):
    "beta1 and beta2 exchanged."
    return ams_step(*args, beta1=beta2, beta2=beta1, **options)


@mutant(ID, default_case=alike(1.0))
def v_of_g(*args, **options):
    "v averages |g|, not g^2: the same for gradients of one."
    return ams_step(*args, power=np.abs, **options)


@mutant(ID, default_case=alike(2.0, 1.0))
def one_maximum_for_all(*args, **options):
    "The maximum over the whole array."
    return ams_step(*args, most=lambda u, v: np.full_like(v, np.max(np.maximum(u, v), initial=0)), **options)


@mutant(ID, default_case=late())
def tail_left_out(param, grad, state, **options):
    "In fours; what is left over stays as it was."
    return _in_fours(param, grad, state, **options)


@mutant(ID, default_case=late())
def maximum_kept_outside(param, grad, state, **options):
    "The maximum comes from the last call, not from the state: a resumed run starts from the wrong one."
    return _keeping(param, grad, state, **options)


_in_fours, _keeping = common.without_tail(ams_step), common.keeping_outside(ams_step, ("v_max",))
