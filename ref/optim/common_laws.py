"""Input space, walks and the edited step that the laws of the Adam family share."""

from __future__ import annotations

import numpy as np

from ref.optim.adamw import AdamState
from ref.spec import bounds
from ref.spec.cases import Flag, batch, cases, choose, floats, rng


def _state(draw, c):
    """Zeros at t = 0; else moments that some gradients could have left: v >= m^2."""
    if c.t == 0:
        return AdamState(np.zeros(c.n), np.zeros(c.n), 0)
    m = rng(draw).integers(-64, 65, c.n) / 64.0
    return AdamState(m, m * m + rng(draw).integers(1, 9, c.n) / 8.0, c.t)


SIGNED = ("m", "velocity")  # fields of a state that turn with the gradient's sign; the others are of its square

FLAGS = {
    "some": Flag(lambda c: c.n[0] > 0, {"n": choose((1,), (3,), (6,))}),
    "none": Flag(lambda c: c.n[0] == 0, {"n": (0,)}),
    "nonzero": Flag(lambda c: c.n[0] > 0 and bool(np.all(c.grad)), {"n": choose((1,), (4,))}),
}


def adam_space(id, **fields):
    """The inputs of a step of Adam: fresh and running states, rates and decays of every size."""
    known = dict(
        n=batch(1, 6, large=300, least=1),
        t=choose(0, 1, 2, 7, 1000),
        state=_state,
        grad=floats("*n"),
        lr=choose(0.125, 1e-3, 1.0),
        beta1=choose(0.9, 0.5, 0.0),
        beta2=choose(0.999, 0.75, 0.0),
        eps=choose(1e-8, 1e-3, 0.5),
    )
    return cases(id, **{**known, **fields}, flags=FLAGS)


def f64(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def zero_state(c):
    return AdamState(np.zeros(c.n, c.dtype), np.zeros(c.n, c.dtype), 0)


def gradients(c, count):
    """`count` different gradients made of the case's one: k - 1.5 times it, turned by k places."""
    return [(np.roll(c.grad, k) * (k - 1.5)).astype(c.dtype) for k in range(count)]


def walk(impl, c, grads):
    """[(param, state)] before the first gradient and after each."""
    found = [(c.param, c.state)]
    for g in grads:
        param, state = found[-1]
        found.append(impl(c.replace(param=param, grad=g, state=state)))
    return found


def step_bound(c, size, t=1):
    """A dozen roundings of a step of the given size, and three of the parameter.

    b^t is rounded, so 1 - b^t is off by u / (1 - b^t) of itself; at t = 1 it is exact (Sterbenz).
    """
    lost = 0 if t == 1 else 1 / (1 - c.beta1**t) + 1 / (1 - c.beta2**t)
    return bounds.rounding(40 + lost, c.lr * size, c.dtype) + bounds.rounding(4, np.abs(c.param), c.dtype)


def weighted_mean(beta, values):
    """sum b^(t-i) x_i / sum b^(t-i), the latest weighing 1: what a bias-corrected moment is."""
    weights = [beta ** (len(values) - 1 - i) if beta else float(i == len(values) - 1) for i in range(len(values))]
    return sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights)


def root_of(c, square, t):
    """The denominator at v^ = `square` after t steps, by mode."""
    mode = c.get("eps_mode", "outside")
    if mode == "inside":
        return np.sqrt(square + c.eps)
    return np.sqrt(square) + (c.eps / np.sqrt(1 - c.beta2**t) if mode == "hat" else c.eps)


# Bodies of laws that hold for the whole family -------------------------------------------------------


def moments_are_weighted_means(impl, c, expect, gradient, kept):
    """After gradients g_i: th_t = kept th_{t-1} - lr m^ / root(v^), m^ and v^ the weighted means."""
    (param, state), seen = (c.param, c.state), []
    for t, g in enumerate(gradients(c, 4), 1):
        now = c.replace(param=param, grad=g, state=state)
        th, g64 = f64(param, g)
        seen.append(gradient(th, g64))
        param, state = impl(now)
        square = weighted_mean(c.beta2, [x * x for x in seen])
        root = root_of(c, square, t)
        root = np.where(root == 0, 1, root)
        size = weighted_mean(c.beta1, [np.abs(x) for x in seen]) / root
        wanted = kept * th - c.lr * weighted_mean(c.beta1, seen) / root
        expect(param, wanted, step_bound(now, size, t), f"step {t}", scale=np.max(np.abs(th)) + c.lr)
    expect.holds(int(state.t) == 4, "t counts the steps")
    for name, found, beta, values in (
        ("m", state.m, c.beta1, seen), ("v", state.v, c.beta2, [x * x for x in seen]),
    ):  # fmt: skip
        share = (1 - beta) * sum(beta**i for i in range(4))
        limit = bounds.rounding(40, share * weighted_mean(beta, [np.abs(x) for x in values]), c.dtype)
        expect(found, share * weighted_mean(beta, values), limit, name, scale=max(np.max(np.abs(values)), 1e-300))


def aligned_gradients_attain_the_bound(impl, c, expect):
    """g_i ~ (b1 / b2)^(t-i), eps = 0: m^ / sqrt v^ is the greatest that Cauchy-Schwarz allows."""
    steps, sign = 5, np.sign(np.asarray(c.grad, np.float64))
    ratio, r = c.beta1 / c.beta2, c.beta1**2 / c.beta2
    grads = [(sign * ratio ** (steps - i)).astype(c.dtype) for i in range(1, steps + 1)]
    found = walk(impl, c, grads)
    before, after = found[-2][0], found[-1][0]
    total = steps if r == 1 else (1 - r**steps) / (1 - r)
    most = (1 - c.beta1) / np.sqrt(1 - c.beta2) * np.sqrt(total * (1 - c.beta2**steps)) / (1 - c.beta1**steps)
    wanted = np.asarray(before, np.float64) - c.lr * most * sign
    expect(after, wanted, step_bound(c.replace(param=before), most, steps), scale=np.abs(wanted).max() + c.lr)


def commutes_with_permutation_and_signs(impl, c, expect):
    """Entries in another order, and any of them with the other sign, give those entries, bit for bit."""
    order = np.argsort(np.sin(1 + np.arange(c.n[0])))
    sign = np.where(np.cos(np.arange(c.n[0])) > 0, -1.0, 1.0).astype(c.dtype)

    def turned(x):
        return (sign * x)[order]

    out, after = impl(c)
    state = c.state._replace(**{
        k: turned(x) if k in SIGNED else x[order] for k, x in c.state._asdict().items() if hasattr(x, "shape")
    })  # fmt: skip
    other, later = impl(c.replace(param=turned(c.param), grad=turned(c.grad), state=state))
    expect.same(other, turned(out), "th in the other order")
    expect.same(later[0], turned(after[0]), "the first moment in the other order")


def shards_are_the_whole(impl, c, expect):
    """A step of each shard alone gives the bits of the whole, and so does the whole in another shape."""
    out, after = impl(c)
    cut = (c.n[0] + 1) // 2
    for part in (slice(0, cut), slice(cut, None)):
        mine = [x[part].copy() if hasattr(x, "shape") else x for x in c.state]
        n = (len(out[part]),)
        alone, later = impl(c.replace(
            param=c.param[part].copy(), grad=c.grad[part].copy(), state=type(c.state)(*mine), n=n,
        ))  # fmt: skip
        expect.same(alone, out[part], "th of a shard")
        for name, x, whole in zip(c.state._fields, later, after, strict=True):
            expect.same(x, whole[part] if name != "t" else whole, f"{name} of a shard")
    for shape in ((1, *c.n), (*c.n, 1)) + (((),) if c.n == (1,) else ()):
        folded = [x.reshape(shape) if hasattr(x, "shape") else x for x in c.state]
        same, _ = impl(c.replace(
            param=c.param.reshape(shape), grad=c.grad.reshape(shape), state=type(c.state)(*folded), n=shape
        ))  # fmt: skip
        expect.same(same, out.reshape(shape), f"th in the shape {shape}")


def continues_from_a_saved_state(impl, c, expect):
    """Stopped after any step, written to bytes, read back and continued: the bits of the straight run."""
    grads = gradients(c, 4)
    straight = walk(impl, c, grads)
    for k in range(1, len(grads)):
        param, state = straight[k]
        resumed = walk(impl, c.replace(param=reread(param), state=type(state)(*map(reread, state))), grads[k:])
        expect.same(resumed[-1][0], straight[-1][0], f"th, continued after step {k}")
        for name, x, wanted in zip(state._fields, resumed[-1][1], straight[-1][1], strict=True):
            expect.same(x, wanted, f"{name}, continued after step {k}")


def reread(x):
    x_ = np.asarray(x)
    back = np.frombuffer(x_.tobytes(), x_.dtype).reshape(x_.shape)
    return back.copy() if hasattr(x, "shape") else x


# The step that mutants edit --------------------------------------------------------------------------


def default(**options):
    """The default-size test: eight parameters, ordinary gradients, ten thousand steps in, no decay."""

    def make():
        g = np.random.default_rng(0)
        state = AdamState(g.standard_normal(8), 1 + g.random(8), 10_000)
        return (g.standard_normal(8), g.standard_normal(8), state), {"lr": 1e-3, **options}

    return make


def alike(grad, m=0.0, v=0.0, t=0, **options):
    """A default-size test of eight parameters that are all 1 and have one gradient."""
    return lambda: ((np.ones(8), np.full(8, grad), AdamState(np.full(8, m), np.full(8, v), t)), options)


def adam_step(
    param, grad, state, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, eps_mode="outside", **edit
):
    """A step in plain NumPy whose parts an edit replaces; `l2` sends the decay into the gradient."""
    t = state.t + edit.get("count", 1)
    gradient = grad + weight_decay * param if edit.get("l2") else grad
    m = beta1 * state.m + (1 - beta1) * gradient
    v = beta2 * state.v + (1 - beta2) * edit.get("power", lambda g: g * g)(gradient)
    c1, c2 = (1 - beta1**t, 1 - beta2**t) if edit.get("correct", True) and t else (1.0, 1.0)
    root = edit.get("root", ROOTS[eps_mode])(v, c2, eps)
    step = m / c1 / (np.where(root == 0, 1, root) if edit.get("guarded", True) else root)
    kept = 1.0 if edit.get("l2") else edit.get("keep", lambda lr, wd: 1 - lr * wd)(lr, weight_decay)
    out = (param - lr * step) * kept if edit.get("after") else param * kept - lr * step
    return out.astype(param.dtype), AdamState(m.astype(param.dtype), v.astype(param.dtype), state.t + 1)


ROOTS = {
    "outside": lambda v, c2, eps: np.sqrt(v / c2) + eps,
    "hat": lambda v, c2, eps: (np.sqrt(v) + eps) / np.sqrt(c2),
    "inside": lambda v, c2, eps: np.sqrt(v / c2 + eps),
}


def without_tail(step):
    """A step in fours that leaves the rest out."""

    def function(param, grad, state, **options):
        out, new = step(param, grad, state, **options)
        whole = param.size - param.size % 4
        return np.concatenate([out[:whole], param[whole:]]), new

    return function


def keeping_outside(step, fields):
    """A step that takes the named fields of the state from its own last call of that shape."""
    kept = {}

    def function(param, grad, state, **options):
        last = kept.get((param.shape, param.dtype))
        if last is not None and getattr(state, "t", 1) and all(np.any(getattr(state, f)) for f in fields):
            state = state._replace(**{f: getattr(last, f) for f in fields})
        out, new = step(param, grad, state, **options)
        kept[param.shape, param.dtype] = new
        return out, new

    return function


# Matrices whose singular values are known, for Newton-Schulz and Muon ---------------------------------


JORDAN, CONVERGING = (3.4445, -4.7750, 2.0315), (1.875, -1.25, 0.375)


def diagonal(rows, columns, values):
    """[r c] with values[k] at (rows[k], columns[k]): singular values |values|, an exact matrix."""
    x = np.zeros((len(rows), len(columns)))
    for k, value in enumerate(values):
        x[rows[k], columns[k]] = value
    return x


def draw_diagonal(draw, c, low=0):
    """A diagonal with its rows, columns and signs shuffled; singular values low/8 .. 2."""
    g = rng(draw)
    values = g.integers(low, 17, min(c.r, c.c)) / 8.0 * g.choice([-1.0, 1.0], min(c.r, c.c))
    values[0] = values[0] or 1.0
    return diagonal(g.permutation(c.r), g.permutation(c.c), values)


def phi(s, steps, coefficients):
    """a s + b s^3 + c s^5, `steps` times, a number at a time."""
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


def iterated(x, steps, coefficients, eps):
    """Newton-Schulz of a matrix with at most one entry a row and a column: each entry goes through phi alone."""
    x = np.asarray(x, np.float64)
    norm = np.sqrt(np.sum(x * x)) + eps
    return phi(x / (norm if norm else 1.0), steps, coefficients)


def iteration_bound(shape, steps, coefficients, dtype):
    """Roundings of `steps` polynomials of a matrix.

    Singular values stay below 1.21 (the peak of phi) for Jordan's coefficients, and 1 for the converging ones, so the
    terms of a step are at most 1.21 |a| + 1.8 |b| + 2.6 |c| in norm, each with at most 2 k + l + 6 roundings an entry
    for a k x l matrix. An error grows by max |phi'| on that range, and by phi(s) / s <= a outside the row space: 4 a
    step covers both for Jordan's. The converging ones let an error grow by 1.875 only while s is small, at most to
    1 / s_0 <= 8 sqrt(min(r, c)) 2 in all.
    """
    a, b, c = map(abs, coefficients)
    size = 1.21 * a + 1.8 * b + 2.6 * c
    growth = (4.0**steps - 1) / 3 + 4.0**steps / 10 if a > 2 else steps * 16 * np.sqrt(min(shape))
    return bounds.rounding(2 * min(shape) + max(shape) + 6, size * growth, dtype)


def newton_schulz_of(x, steps, coefficients, eps, **edit):
    """The iteration in plain NumPy whose parts an edit replaces."""
    a, b, c = coefficients
    turned = edit.get("turn", lambda r, c: r > c)(*x.shape[-2:])
    X = np.swapaxes(x, -1, -2) if turned else x
    norm = edit.get("norm", lambda X: np.sqrt(np.sum(X * X, axis=(-2, -1), keepdims=True)))(X)
    norm = edit.get("floor", np.add)(norm, eps)
    X = X / (np.where(norm == 0, 1, norm) if edit.get("guarded", True) else norm)
    for _ in range(steps):
        A = X @ np.swapaxes(X, -1, -2)
        X = a * X + edit.get("poly", lambda A: b * A + c * (A @ A))(A) @ X
    return (np.swapaxes(X, -1, -2) if turned else X).astype(x.dtype)
