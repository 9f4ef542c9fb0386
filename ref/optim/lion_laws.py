"""Laws and mutants of Lion."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.optim import common_laws as common
from ref.optim.common_laws import FLAGS, f64, gradients, walk
from ref.optim.lion import LionState
from ref.spec import bounds, law, mutant
from ref.spec.cases import cases, choose, dims, floats

ID = "optim.lion"


def _state(draw, c):
    return LionState(floats("*n")(draw, c) if c.running else np.zeros(c.n))


space = cases(
    ID,
    n=lambda draw, c: (draw(dims(0, 6).strategy(False)),),
    running=choose(False, True),
    state=_state,
    grad=floats("*n"),
    lr=choose(0.125, 0.01, 1.0),
    beta1=choose(0.9, 0.5, 0.0),
    beta2=choose(0.99, 0.75, 0.0),
    weight_decay=choose(0.0, 0.25),
    flags=FLAGS,
)
fresh = space.where(running=False)
# Halves and quarters of small dyadic numbers are exact, so the sign that is wanted is never in doubt.
dyadic = space.where(beta1=choose(0.5, 0.75), beta2=choose(0.75, 0.5), values=("dyadic",), grad=floats("*n", "dyadic"))


def limit(c, n=4):
    return bounds.rounding(n, np.abs(c.param) + c.lr, c.dtype)


@law(
    ID, "L1", closed_form=True, given=dyadic.where(some=True),
    kills=["no_sign", "soft_sign", "decay_without_lr", "decay_in_the_gradient"],
)  # fmt: skip
def every_step_has_one_size(impl, c, expect):
    "|th' - (1 - lr wd) th| is lr, or 0 where b1 m + (1 - b1) g is 0 exactly."
    th, g, m = f64(c.param, c.grad, c.state[0])
    moved = np.abs(impl(c)[0] - (1 - c.lr * c.weight_decay) * th)
    expect(moved, np.where(c.beta1 * m + (1 - c.beta1) * g == 0, 0, c.lr), limit(c), "|step|", scale=c.lr)


@law(
    ID, "L2", closed_form=True, given=dyadic.where(some=True, running=True),
    kills=["sign_of_the_new_momentum", "betas_swapped", "sign_of_the_gradient", "ascends"],
)  # fmt: skip
def the_sign_is_of_the_interpolation(impl, c, expect):
    "th' = (1 - lr wd) th - lr sign(b1 m + (1 - b1) g), the sign by exact fractions."
    (th,), b = f64(c.param), Fraction(c.beta1)
    toward = [b * Fraction(float(m)) + (1 - b) * Fraction(float(g)) for m, g in zip(c.state[0], c.grad, strict=True)]
    sign = np.array([float((x > 0) - (x < 0)) for x in toward])
    expect(impl(c)[0], (1 - c.lr * c.weight_decay) * th - c.lr * sign, limit(c), scale=np.max(np.abs(th)) + c.lr)


@law(
    ID, "L3", closed_form=True, given=fresh.where(some=True), kills=["betas_swapped", "momentum_sums", "no_momentum"],
)  # fmt: skip
def momentum_is_a_weighted_sum(impl, c, expect):
    "m_t = (1 - b2) sum b2^(t-i) g_i, whatever b1 is."
    grads = gradients(c, 4)
    found, m, size = walk(impl, c, grads), 0.0, 0.0
    for t, g in enumerate(f64(*grads), 1):
        m, size = c.beta2 * m + (1 - c.beta2) * g, c.beta2 * size + (1 - c.beta2) * np.abs(g)
        expect(found[t][1][0], m, bounds.rounding(4 * t, size, c.dtype), f"m {t}", scale=max(np.max(size), 1e-300))


@law(
    ID, "L4", closed_form=True, given=fresh.where(some=True), kills=["sign_of_zero", "decay_without_lr"],
)  # fmt: skip
def no_gradient_only_decays(impl, c, expect):
    "g = 0 from the start: after three steps th = th_0 (1 - lr wd)^3, and m stays 0."
    zero = np.zeros(c.n, c.dtype)
    param, state = walk(impl, c, [zero] * 3)[-1]
    (th,) = f64(c.param)
    expect(param, th * (1 - c.lr * c.weight_decay) ** 3, bounds.rounding(8, th, c.dtype), scale=np.max(np.abs(th)))
    expect.same(state[0], zero, "m")


@law(
    ID, "L5", closed_form=True, given=fresh.where(nonzero=True, lr=choose(0.125, 0.5)),
    kills=["decay_after", "no_sign", "ascends"],
)  # fmt: skip
def a_constant_gradient_walks_evenly(impl, c, expect):
    "Constant g: th_k = q^k th_0 - lr sign(g) (1 + q + .. + q^(k-1)), q = 1 - lr wd."
    (th,), (g,), q = f64(c.param), f64(c.grad), 1 - c.lr * c.weight_decay
    found = walk(impl, c, [c.grad] * 4)
    for k in range(1, 5):
        wanted = q**k * th - c.lr * np.sign(g) * sum(q**i for i in range(k))
        wide = bounds.rounding(4 * k, np.abs(th) + k * c.lr, c.dtype)
        expect(found[k][0], wanted, wide, f"step {k}", scale=np.max(np.abs(th)) + c.lr)


@law(
    ID, "L6", given=space.where(some=True), kills=["soft_sign"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_power_of_two_scale_is_invisible(impl, c, expect):
    "Gradient and momentum times 2^k leave every bit of th."
    wanted, _ = impl(c)
    for scale in (2.0**9, 2.0**-40):
        found, _ = impl(c.replace(
            grad=(c.grad * scale).astype(c.dtype), state=LionState((c.state[0] * scale).astype(c.dtype)),
        ))  # fmt: skip
        expect.same(found, wanted, f"th under g {scale}")


@law(
    ID, "L7", given=space.where(n=choose((2,), (5,), (6,))), kills=["tail_left_out", "sign_of_zero"],
    passes_null=["zeros", "identity"],
)  # fmt: skip
def commutes_with_permutation_and_signs(impl, c, expect):
    "Entries in another order, and any of them with the other sign, give those entries, bit for bit."
    common.commutes_with_permutation_and_signs(impl, c, expect)


@law(
    ID, "L8", given=space.where(n=choose((3,), (6,), (1,))), kills=["tail_left_out"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def shards_are_the_whole(impl, c, expect):
    "A step of each shard alone gives the bits of the whole."
    common.shards_are_the_whole(impl, c, expect)


@law(
    ID, "L9", given=space.where(nonzero=True), kills=["momentum_kept_outside"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def continues_from_a_saved_state(impl, c, expect):
    "Stopped after any step, written to bytes, read back and continued: the bits of the straight run."
    common.continues_from_a_saved_state(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def first(m=0.0, **options):
    """The default-size test: eight ordinary gradients, no decay, a momentum of m times them."""

    def make():
        g = np.random.default_rng(0)
        grad = g.standard_normal(8)
        return (g.standard_normal(8), grad, LionState(m * grad)), {"lr": 0.1, **options}

    return make


def lion_step(param, grad, state, *, lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0, **edit):
    """A step in plain NumPy whose parts an edit replaces."""
    g = grad + weight_decay * param if edit.get("l2") else grad
    m = edit.get("gather", lambda b, m, g: b * m + (1 - b) * g)(beta2, state.m, g)
    toward = edit.get("toward", lambda b, old, g, new: b * old + (1 - b) * g)(beta1, state.m, g, m)
    kept = 1.0 if edit.get("l2") else edit.get("keep", lambda lr, wd: 1 - lr * wd)(lr, weight_decay)
    move = lr * edit.get("sign", np.sign)(toward)
    out = (param - move) * kept if edit.get("after") else param * kept - move
    return out.astype(param.dtype), LionState(m.astype(param.dtype))


@mutant(ID, default_case=first())
def sign_of_the_new_momentum(*args, **options):
    "sign(m_t): after one gradient the same."
    return lion_step(*args, toward=lambda b, old, g, new: new, **options)


@mutant(ID, default_case=first())
def sign_of_the_gradient(*args, **options):
    "signSGD: the momentum is kept and not looked at."
    return lion_step(*args, toward=lambda b, old, g, new: g, **options)


@mutant(ID, default_case=first(m=1.0))
def betas_swapped(*args, beta1=0.9, beta2=0.99, **options):
    "beta1 and beta2 exchanged."
    return lion_step(*args, beta1=beta2, beta2=beta1, **options)


@mutant(ID, default_case=lambda: ((np.zeros(4), np.full(4, 1.0), LionState(np.ones(4))), {}))
def no_sign(*args, **options):
    "c itself."
    return lion_step(*args, sign=lambda x: x, **options)


@mutant(ID, default_case=first())
def soft_sign(*args, **options):
    "c / (|c| + 1e-8)."
    return lion_step(*args, sign=lambda x: x / (np.abs(x) + 1e-8), **options)


@mutant(ID, default_case=first())
def sign_of_zero(*args, **options):
    "sign(0) = 1."
    return lion_step(*args, sign=lambda x: np.where(x < 0, -1.0, 1.0), **options)


@mutant(ID, default_case=first(lr=0.0))
def ascends(*args, **options):
    "th + lr sign: not seen at the first step of a warm-up from 0."
    return lion_step(*args, sign=lambda x: -np.sign(x), **options)


@mutant(ID, default_case=first(m=1.0, beta2=0.0))
def momentum_sums(*args, **options):
    "m <- b2 m + g."
    return lion_step(*args, gather=lambda b, m, g: b * m + g, **options)


@mutant(ID, default_case=first(m=1.0))
def no_momentum(*args, **options):
    "m <- g."
    return lion_step(*args, gather=lambda b, m, g: g, **options)


@mutant(ID, default_case=first())
def decay_without_lr(*args, **options):
    "1 - wd."
    return lion_step(*args, keep=lambda lr, wd: 1 - wd, **options)


@mutant(ID, default_case=first())
def decay_after(*args, **options):
    "The decay applied to the new value."
    return lion_step(*args, after=True, **options)


@mutant(ID, default_case=first())
def decay_in_the_gradient(*args, **options):
    "wd th added to the gradient: under the sign it is lost or everything."
    return lion_step(*args, l2=True, **options)


@mutant(ID, default_case=first())
def tail_left_out(param, grad, state, **options):
    "In fours; what is left over stays as it was."
    return _in_fours(param, grad, state, **options)


@mutant(ID, default_case=first())
def momentum_kept_outside(param, grad, state, **options):
    "m comes from the last call, not from the state: a resumed run starts from the wrong one."
    return _keeping(param, grad, state, **options)


_in_fours, _keeping = common.without_tail(lion_step), common.keeping_outside(lion_step, ("m",))
