"""Laws and mutants of SGD with momentum."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.optim import common_laws as common
from ref.optim.common_laws import FLAGS, f64, gradients
from ref.optim.sgd import SgdState
from ref.spec import bounds, law, mutant
from ref.spec.cases import batch, cases, choose, floats

ID = "optim.sgd"


def _state(draw, c):
    return SgdState(floats("*n")(draw, c) if c.running else np.zeros(c.n))


space = cases(
    ID,
    n=batch(1, 6, large=300, least=1),
    running=choose(False, True),
    state=_state,
    grad=floats("*n"),
    lr=choose(0.125, 0.01, 1.0),
    momentum=choose(0.0, 0.5, 0.9),
    nesterov=choose(False, True),
    weight_decay=choose(0.0, 0.25),
    form=choose("torch", "sutskever"),
    flags=FLAGS,
)
fresh = space.where(running=False)


def limit(c, n, size):
    return bounds.rounding(n, size, c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.where(momentum=0.0).reach("none", "some"),
    kills=["decay_ignored", "decay_falls", "decay_without_the_rate"],
)  # fmt: skip
def a_plain_step(impl, c, expect):
    "momentum 0: th' = (1 - lr wd) th - lr g, whatever the velocity was: L2 and decoupled decay are one."
    th, g = f64(c.param, c.grad)
    out, _ = impl(c)
    size = np.abs(th) + c.lr * (np.abs(g) + c.weight_decay * np.abs(th))
    expect(out, (1 - c.lr * c.weight_decay) * th - c.lr * g, limit(c, 6, size), scale=np.max(size, initial=0))


@law(
    ID, "L2", closed_form=True, given=fresh.where(some=True, momentum=0.0, weight_decay=0.0),
    kills=["rate_halved_by_nesterov"],
)  # fmt: skip
def one_over_k_is_the_running_mean(impl, c, expect):
    "lr = 1 / k on |th - x_k|^2 / 2: after k steps th is the mean of x_1 .. x_k, from any start."
    points, (param, state), top = gradients(c, 4), (c.param, c.state), 0.0
    for k, x in enumerate(points, 1):
        top = max(top, float(np.max(np.abs(x))), float(np.max(np.abs(param))))
        param, state = impl(c.replace(param=param, grad=param - x, state=state, lr=1 / k))
        wanted = np.mean(f64(*points[:k]), axis=0)
        expect(param, wanted, limit(c, 4 * k, 2 * top), f"mean of {k}", scale=top or 1.0)


@law(
    ID, "L3", closed_form=True, given=fresh.where(some=True, weight_decay=0.0),
    kills=["nesterov_ignored", "velocity_damped", "first_step_without_velocity", "nesterov_from_the_old_velocity"],
)  # fmt: skip
def constant_gradient_is_a_geometric_sum(impl, c, expect):
    """Constant g from rest: the k-th step is -lr g (1 - mu^k) / (1 - mu); Nesterov's is one ahead,
    -lr g (1 - mu^{k+1}) / (1 - mu)."""
    (g,), found = f64(c.grad), common.walk(impl, c, [c.grad] * 4)
    for k in range(1, 5):
        (before,) = f64(found[k - 1][0])
        gathered = sum(c.momentum**i for i in range(k + (c.nesterov and c.momentum > 0)))
        size = np.abs(before) + c.lr * gathered * np.abs(g)
        expect(found[k][0], before - c.lr * gathered * g, limit(c, 4 * k + 4, size), f"step {k}", scale=np.max(size))


@law(
    ID, "L4", closed_form=True,
    given=fresh.where(some=True, weight_decay=0.0, lr=choose(0.125, 1.0), momentum=choose(0.5, 0.25)),
    kills=["nesterov_ignored", "velocity_damped", "nesterov_from_the_old_velocity"],
)  # fmt: skip
def quadratic_is_a_matrix_power(impl, c, expect):
    """f = h th^2 / 2: (th, b) after k steps is M^k (th, 0), in exact fractions. Heavy ball: M = [[1 - lr h, -lr mu],
    [h, mu]]; Nesterov: [[1 - lr h (1 + mu), -lr mu^2], [h, mu]]. Sutskever's b is lr times that."""
    h, steps, (param, state) = 0.75, 4, (c.param, c.state)
    for _ in range(steps):
        param, state = impl(c.replace(param=param, grad=(h * param).astype(c.dtype), state=state))
    a, mu, H = Fraction(c.lr), Fraction(c.momentum), Fraction(h)
    row = [1 - a * H * (1 + mu), -a * mu**2] if c.nesterov else [1 - a * H, -a * mu]
    M = [row, [H, mu]]
    exact, size = _power(M, steps), _power([[abs(x) for x in r] for r in M], steps)
    (th,) = f64(c.param)
    wide = (1 + h) * float(size[0][0] + size[0][1] + size[1][0] + size[1][1]) * np.abs(th)
    expect(param, float(exact[0][0]) * th, limit(c, 6 * steps, wide), "th", scale=np.max(np.abs(th)))
    b = float(exact[1][0]) * th * (1 if c.form == "torch" else c.lr)
    expect(state[0], b, limit(c, 6 * steps, wide), "velocity", scale=np.max(np.abs(th)))


def _power(M, k):
    out = [[Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]]
    for _ in range(k):
        out = [[sum(M[i][m] * out[m][j] for m in range(2)) for j in range(2)] for i in range(2)]
    return out


@law(
    ID, "L5", closed_form=True,
    given=fresh.where(some=True, weight_decay=0.0, nesterov=False, momentum=choose(0.5, 0.9)),
    kills=["form_ignored"],
)  # fmt: skip
def a_changed_rate_tells_the_forms_apart(impl, c, expect):
    """Rates a, then b: torch's second step is -b (mu g_1 + g_2), Sutskever's -(mu a g_1 + b g_2); with a = b they are
    one."""
    first, second = gradients(c, 2)
    g1, g2 = f64(first, second)
    for b in (c.lr, c.lr / 4):
        middle, state = impl(c.replace(grad=first))
        out, _ = impl(c.replace(param=middle, grad=second, state=state, lr=b))
        carried = c.momentum * (b if c.form == "torch" else c.lr)
        (th,) = f64(middle)
        size = np.abs(th) + carried * np.abs(g1) + b * np.abs(g2)
        expect(out, th - carried * g1 - b * g2, limit(c, 8, size), scale=np.max(size))


@law(
    ID, "L6", given=space.where(some=True, weight_decay=0.25), kills=["decay_ignored", "decay_stands_apart"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def decay_is_a_quadratic_penalty(impl, c, expect):
    "A step with decay wd is the step without it at the gradient g + wd th (velocity too)."
    found, state = impl(c)
    wanted, other = impl(c.replace(grad=(c.grad + c.weight_decay * c.param).astype(c.dtype), weight_decay=0.0))
    for a, b in ((found, wanted), (state[0], other[0])):
        size = np.abs(c.param) + np.abs(c.grad) + np.abs(c.state[0]) + np.abs(f64(b)[0])
        expect(a, b, limit(c, 8, size), scale=np.max(size))


@law(
    ID, "L7", closed_form=True,
    given=fresh.where(some=True, weight_decay=0.25, momentum=choose(0.5, 0.9), nesterov=False),
    kills=["decay_stands_apart"],
)  # fmt: skip
def decay_gathers_momentum(impl, c, expect):
    """Not decoupled once there is momentum: with g = 0 two steps leave th ((1 - a)^2 - a mu), a = lr wd; decoupled
    decay would leave th (1 - a)^2."""
    zero = np.zeros(c.n, c.dtype)
    out, _ = common.walk(impl, c, [zero, zero])[-1]
    (th,), a = f64(c.param), c.lr * c.weight_decay
    expect(out, th * ((1 - a) ** 2 - a * c.momentum), limit(c, 10, 2 * np.abs(th)), scale=np.max(np.abs(th)))


@law(
    ID, "L8", given=space.where(n=choose((2,), (5,), (6,))), kills=["tail_left_out"], passes_null=["zeros", "identity"],
)  # fmt: skip
def commutes_with_permutation_and_signs(impl, c, expect):
    "Entries in another order, and any of them with the other sign, give those entries, bit for bit."
    common.commutes_with_permutation_and_signs(impl, c, expect)


@law(
    ID, "L9", given=space.where(n=choose((3,), (6,), (1,))), kills=["divided_by_the_norm"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def shards_are_the_whole(impl, c, expect):
    "A step of each shard alone gives the bits of the whole, and so does the whole in another shape."
    common.shards_are_the_whole(impl, c, expect)


@law(
    ID, "L10", given=space.where(nonzero=True), kills=["velocity_kept_outside"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def continues_from_a_saved_state(impl, c, expect):
    "Stopped after any step, written to bytes, read back and continued: the bits of the straight run."
    common.continues_from_a_saved_state(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def first(n=8, **options):
    """The default-size test: a first step of n parameters without options."""

    def make():
        g = np.random.default_rng(0)
        return (g.standard_normal(n), g.standard_normal(n), SgdState(np.zeros(n))), {"lr": 0.1, **options}

    return make


def sgd_step(
    param, grad, state, *, lr=1e-2, momentum=0.0, nesterov=False, weight_decay=0.0, form="torch", **edit
):  # fmt: skip
    g = edit.get("decay", lambda g, wd, th: g + wd * th)(grad, weight_decay, param)
    push, rate = (g, lr) if form == "torch" else (lr * g, 1.0)
    b = edit.get("gather", lambda mu, b, push: mu * b + push)(momentum, state.velocity, push)
    ahead = edit.get("ahead", lambda push, mu, b, old: push + mu * b)
    d = ahead(push, momentum, b, state.velocity) if nesterov else b
    out = edit.get("keep", lambda th, lr, wd: th)(param, lr, weight_decay) - rate * d
    return out.astype(param.dtype), SgdState(b.astype(param.dtype))


@mutant(ID, default_case=first())
def decay_ignored(*args, **options):
    "weight_decay is accepted and dropped."
    return sgd_step(*args, decay=lambda g, wd, th: g, **options)


@mutant(ID, default_case=first())
def decay_falls(*args, **options):
    "g - wd th."
    return sgd_step(*args, decay=lambda g, wd, th: g - wd * th, **options)


@mutant(ID, default_case=first())
def decay_without_the_rate(*args, **options):
    "th (1 - wd)."
    return sgd_step(*args, decay=lambda g, wd, th: g, keep=lambda th, lr, wd: th * (1 - wd), **options)


@mutant(ID, default_case=first(momentum=0.9))
def decay_stands_apart(*args, **options):
    "Decoupled: th (1 - lr wd), the velocity without it."
    return sgd_step(*args, decay=lambda g, wd, th: g, keep=lambda th, lr, wd: th * (1 - lr * wd), **options)


@mutant(ID, default_case=first())
def nesterov_ignored(*args, nesterov=False, **options):
    "Heavy ball, asked for or not."
    return sgd_step(*args, **options)


@mutant(ID, default_case=first(nesterov=True))
def nesterov_from_the_old_velocity(*args, **options):
    "g + mu b of the step before: heavy ball by another name."
    return sgd_step(*args, ahead=lambda push, mu, b, old: push + mu * old, **options)


@mutant(ID, default_case=first())
def rate_halved_by_nesterov(*args, nesterov=False, lr=1e-2, **options):
    "(g + mu b) / (1 + mu), half of it at mu = 0 too."
    return sgd_step(*args, nesterov=nesterov, lr=lr / 2 if nesterov else lr, **options)


@mutant(ID, default_case=first())
def velocity_damped(*args, **options):
    "b <- mu b + (1 - mu) g: a running mean."
    return sgd_step(*args, gather=lambda mu, b, push: mu * b + (1 - mu) * push, **options)


@mutant(ID, default_case=lambda: ((np.ones(8), np.ones(8), SgdState(np.ones(8))), {"momentum": 0.9}))
def first_step_without_velocity(*args, **options):
    "The first gradient moves the parameter and leaves no velocity."
    return sgd_step(*args, **options) if np.any(args[2].velocity) else _forgetful(*args, **options)


def _forgetful(param, grad, state, **options):
    return sgd_step(param, grad, state, **options)[0], SgdState(np.zeros_like(param))


@mutant(ID, default_case=first(momentum=0.9))
def form_ignored(*args, form="torch", **options):
    "torch's form under either name: the same while lr is constant."
    return sgd_step(*args, **options)


@mutant(ID, default_case=lambda: ((np.ones(1), np.ones(1), SgdState(np.zeros(1))), {}))
def divided_by_the_norm(param, grad, state, **options):
    "Normalised gradients."
    return sgd_step(param, grad / max(np.linalg.norm(grad), 1e-12), state, **options)


@mutant(ID, default_case=first())
def tail_left_out(param, grad, state, **options):
    "In fours; what is left over stays as it was."
    return _in_fours(param, grad, state, **options)


@mutant(ID, default_case=first())
def velocity_kept_outside(param, grad, state, **options):
    "The velocity comes from the last call, not from the state: a resumed run starts from the wrong one."
    return _keeping(param, grad, state, **options)


_in_fours, _keeping = common.without_tail(sgd_step), common.keeping_outside(sgd_step, ("velocity",))
