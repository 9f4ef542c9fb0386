"""Laws and mutants of Adafactor."""

from __future__ import annotations

import numpy as np

from ref.optim import common_laws as common
from ref.optim.adafactor import AdafactorState
from ref.optim.common_laws import f64, gradients, reread
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, floats, rng

ID = "optim.adafactor"


def _shape(draw, c):
    sizes = [draw(dims(0, 5).strategy(False)) for _ in range(c.axes)]
    return tuple(sizes)


def _state(draw, c):
    """Zeros at t = 0; else the sums of some positive matrix."""
    V = (rng(draw).integers(1, 65, c.n) / 16.0) * (c.t > 0)
    return AdafactorState(V, None, c.t) if len(c.n) == 1 else AdafactorState(V.sum(1), V.sum(0), c.t)


SOME = {
    1: lambda draw, c: (draw(dims(1, 6).strategy(False)),),
    2: lambda draw, c: (draw(dims(1, 5).strategy(False)), draw(dims(1, 5).strategy(False))),
}
space = cases(
    ID,
    axes=choose(2, 1),
    n=_shape,
    t=choose(0, 1, 7, 20_000),
    state=_state,
    param=floats("*n"),
    grad=floats("*n"),
    lr=choose(None, 0.125),
    decay_exponent=choose(0.8, 0.5),
    clip=choose(1.0, 0.25, np.inf),
    eps1=choose(1e-30),
    eps2=choose(1e-3, 0.5),
    scale_parameter=choose(True, False),
    flags={
        "some": Flag(lambda c: 0 not in c.n, {"n": lambda draw, c: SOME[c.axes](draw, c)}),
        "none": Flag(lambda c: 0 in c.n, {"n": lambda draw, c: (0,) * c.axes}),
        "small": Flag(lambda c: rms(c.param) < c.eps2, {"param": lambda draw, c: np.zeros(c.n)}),
        "far": Flag(lambda c: c.t > 10**4, {"t": 20_000}),
    },
)
some = space.where(some=True)
matrix = some.where(axes=2)


def _outer(draw, c):
    """A gradient of rank one without zeros."""
    g = rng(draw)
    u, v = ((g.integers(1, 9, k) / 4.0) * g.choice([-1.0, 1.0], k) for k in c.n)
    return np.outer(u, v)


def beta(c, t):
    return 1 - t**-c.decay_exponent


def rms(x):
    return np.sqrt(np.mean(np.square(x))) if np.size(x) else 0.0


def alpha(c, param, t):
    rho = min(1e-2, t**-0.5) if c.lr is None else c.lr
    return rho * (max(c.eps2, rms(np.asarray(param, np.float64))) if c.scale_parameter else 1.0)


def clipped(c, U):
    return U / max(1.0, rms(U) / c.clip)


def limit(c, param, U, t):
    """Sums of at most 25 squares, roots and quotients; 1 - t^-x is off by u / (t^-x) where t is large."""
    n = 3 * np.size(U) + 40
    return bounds.rounding(n, alpha(c, param, t) * np.max(np.abs(U), initial=0), c.dtype) + bounds.rounding(
        4, np.abs(param), c.dtype
    )


def span(c, param, t):
    return np.max(np.abs(param), initial=0) + alpha(c, param, t)


@law(
    ID, "L1", closed_form=True, given=matrix.where(t=0, grad=_outer),
    kills=["means_for_sums_in_one", "square_root_of_rows_only", "rows_and_columns_summed"],
)  # fmt: skip
def rank_one_squares_are_exact(impl, c, expect):
    """G_t = a_t u v^T: V^ = w_t G_t^2 / a_t^2 with w_t = b_t w_{t-1} + (1 - b_t) a_t^2, so U = a_t sign(G) / sqrt(w_t)
    in every entry."""
    param, state, w = c.param, c.state, 0.0
    (g,) = f64(c.grad)
    for t, a in enumerate((1.0, -0.5, 4.0), 1):
        now = c.replace(param=param, grad=(a * c.grad).astype(c.dtype), state=state)
        param, state = impl(now)
        w = beta(c, t) * w + (1 - beta(c, t)) * a * a
        U = a * np.sign(g) / np.sqrt(w)
        wanted = np.asarray(now.param, np.float64) - alpha(c, now.param, t) * clipped(c, U)
        expect(param, wanted, limit(c, now.param, U, t), f"step {t}", scale=span(c, now.param, t))


@law(
    ID, "L2", closed_form=True, given=some.where(lr=None, grad=lambda draw, c: np.full(c.n, 0.5)).reach("small", "far"),
    kills=["greater_of_the_rates", "rate_of_the_first_step", "eps2_ignored", "scale_ignored", "t_from_zero"],
)  # fmt: skip
def relative_step_in_closed_form(impl, c, expect):
    """Every entry of G is 1/2 and V^ was 1/4: U = 1, so the step at t is max(eps2, RMS(X)) min(1e-2, 1 / sqrt(t))
    min(1, d)."""
    V = np.full(c.n, 0.25, c.dtype)
    state = AdafactorState(V, None, c.t) if len(c.n) == 1 else AdafactorState(V.sum(1), V.sum(0), c.t)
    out, after = impl(c.replace(state=state))
    (th,), t = f64(c.param), c.t + 1
    size = max(c.eps2, float(np.sqrt(np.mean(th * th)))) if c.scale_parameter else 1.0
    wanted = th - size * min(1e-2, 1 / np.sqrt(t)) * min(1.0, c.clip)
    expect(out, wanted, limit(c, c.param, np.ones(c.n), t), scale=span(c, th, t))
    expect.holds(int(after.t) == t, "t counts the steps")


@law(
    ID, "L3", closed_form=True, given=matrix.where(t=0).reach("small"),
    kills=["not_factored", "rows_and_columns_summed", "square_root_of_rows_only"],
)  # fmt: skip
def first_step_of_any_matrix(impl, c, expect):
    "t = 1: U_ij = G_ij sqrt(|G|^2 / (|G_i.|^2 |G_.j|^2)), from rows, columns and the whole."
    (g,), (th,) = f64(c.grad), f64(c.param)
    S = g * g + c.eps1
    with np.errstate(all="ignore"):
        U = np.where(g == 0, 0, g * np.sqrt(S.sum()) / np.sqrt(np.outer(S.sum(1), S.sum(0))))
    wanted = th - alpha(c, th, 1) * clipped(c, U)
    out, _ = impl(c)
    expect(out, wanted, limit(c, th, U, 1), scale=span(c, th, 1))


@law(
    ID, "L4", closed_form=True, given=some.where(t=0), kills=["constant_beta", "eps1_dropped", "t_from_zero"],
)  # fmt: skip
def sums_are_weighted_by_age(impl, c, expect):
    "R_t and C_t are sums of w_i S_i, w_i = (1 - b_i) prod_{j > i} b_j, whose total is 1."
    c = c.replace(eps1=0.125)
    grads, (param, state) = gradients(c, 3), (c.param, c.state)
    for g in grads:
        param, state = impl(c.replace(param=param, grad=g, state=state))
    weights = [(1 - beta(c, i)) * np.prod([beta(c, j) for j in range(i + 1, 4)]) for i in (1, 2, 3)]
    S = sum(w * (g * g + c.eps1) for w, g in zip(weights, f64(*grads), strict=True))
    found = [("rows", state[0], S if len(c.n) == 1 else S.sum(1))]
    found += [("columns", state[1], S.sum(0))] if len(c.n) == 2 else []
    for name, actual, wanted in found:
        expect(actual, wanted, bounds.rounding(20 + max(c.n), wanted, c.dtype), name)


@law(
    ID, "L5", closed_form=True, given=some.where(axes=1), kills=["vector_as_a_row", "constant_beta"],
)  # fmt: skip
def a_vector_is_not_factored(impl, c, expect):
    "V^' = b V^ + (1 - b) (G^2 + eps1), an entry at a time; U = G / sqrt(V^')."
    g, th, V = f64(c.grad, c.param, c.state[0])
    t = c.t + 1
    V = beta(c, t) * V + (1 - beta(c, t)) * (g * g + c.eps1)
    U = g / np.sqrt(V)
    out, after = impl(c)
    expect(out, th - alpha(c, th, t) * clipped(c, U), limit(c, th, U, t), scale=span(c, th, t))
    expect(after[0], V, bounds.rounding(12, V, c.dtype), "V^")


@law(
    ID, "L6", closed_form=True, given=some.where(lr=0.125, scale_parameter=False, clip=choose(0.25, 0.0625)),
    kills=["clipped_by_the_maximum", "never_clipped"],
)  # fmt: skip
def a_clipped_step_has_its_size(impl, c, expect):
    "RMS(step) <= lr d, and lr d where the gradient is a thousand times what V^ knew."
    far = c.replace(grad=np.where(c.grad < 0, -1000.0, 1000.0).astype(c.dtype), t=max(c.t, 1),
                    state=c.state._replace(t=max(c.t, 1)))  # fmt: skip
    (th,) = f64(c.param)
    for case, least in ((c, 0.0), (far, c.lr * c.clip)):
        size = rms(impl(case)[0] - th)
        slack = bounds.rounding(3 * th.size + 40, c.lr * c.clip + np.max(np.abs(th)), c.dtype)
        expect.at_most(size, c.lr * c.clip + slack, "RMS of the step")
        if case is far:
            expect.at_most(least - slack, size, "least RMS of the step")


@law(
    ID, "L7", given=some.where(eps1=0.0), kills=["hidden_eps"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_power_of_two_scale_is_invisible(impl, c, expect):
    "eps1 = 0: G times 2^k, R and C times 4^k, leave every bit of X."
    wanted, _ = impl(c)
    for scale in (2.0**8, 2.0**-20):
        sums = [None if x is None else (x * scale**2).astype(c.dtype) for x in c.state[:2]]
        found, _ = impl(c.replace(grad=(c.grad * scale).astype(c.dtype), state=AdafactorState(*sums, c.t)))
        expect.same(found, wanted, f"X under G {scale}")


@law(
    ID, "L8", given=matrix.where(values=("normal",)), kills=["square_root_of_rows_only"],
    passes_null=["zeros", "identity"],
)  # fmt: skip
def commutes_with_transposition_and_signs(impl, c, expect):
    "X^T, G^T with R and C exchanged give the transpose; gradients and parameters of the other sign the negative."
    out, after = impl(c)
    back, later = impl(c.replace(
        param=c.param.T.copy(), grad=c.grad.T.copy(), state=AdafactorState(c.state[1], c.state[0], c.t), n=c.n[::-1],
    ))  # fmt: skip
    (g,), t = f64(c.grad), c.t + 1
    sums = [beta(c, t) * x + (1 - beta(c, t)) * (g * g).sum(a) for a, x in ((1, c.state[0]), (0, c.state[1]))]
    U = np.max(np.abs(g)) / np.sqrt(np.min(sums[0]) * np.min(sums[1]) / np.sum(sums[0]) + 1e-30)
    expect(back.T, out, 2 * limit(c, c.param, U, t), "X transposed", scale=span(c, c.param, t))
    expect(later[0], after[1], bounds.rounding(12, after[1], c.dtype), "R of the transpose")
    other, _ = impl(c.replace(param=-c.param, grad=-c.grad))
    expect.same(other, -out, "the other sign")


@law(
    ID, "L9", closed_form=True, given=space.where(t=0, eps1=choose(1e-30, 0.0)).reach("none", "some"),
    kills=["zero_over_zero"], passes_null=["identity"],
)  # fmt: skip
def no_gradient_no_move(impl, c, expect):
    "Zero gradients from the start: three steps leave every bit of X, at eps1 = 0 too."
    zero = np.zeros(c.n, c.dtype)
    expect.same(common.walk(impl, c, [zero] * 3)[-1][0], c.param, "X")


@law(
    ID, "L10", given=some, kills=["sums_kept_outside"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def continues_from_a_saved_state(impl, c, expect):
    "Stopped after any step, written to bytes, read back and continued: the bits of the straight run."
    grads = gradients(c, 4)
    straight = common.walk(impl, c, grads)
    for k in range(1, len(grads)):
        param, state = straight[k]
        saved = AdafactorState(*(None if x is None else reread(x) for x in state))
        resumed = common.walk(impl, c.replace(param=reread(param), state=saved), grads[k:])[-1]
        expect.same(resumed[0], straight[-1][0], f"X, continued after step {k}")
        expect.same(resumed[1][0], straight[-1][1][0], f"R, continued after step {k}")


# Mutants ---------------------------------------------------------------------------------------------


def ones(t=0, grad=1.0, n=(4, 4), param=1.0, V=0.0, **options):
    """The default-size test: a 4 x 4 matrix whose gradients all have one size."""
    state = AdafactorState(np.full(n[0], V * n[-1]), np.full(n[1], V * n[0]), t) if len(n) == 2 else (
        AdafactorState(np.full(n, V), None, t)
    )  # fmt: skip
    return lambda: ((np.full(n, param), np.full(n, grad), state), options)


def fact_step(
    param, grad, state, *, lr=None, decay_exponent=0.8, clip=1.0, eps1=1e-30, eps2=1e-3, scale_parameter=True, **edit
):
    """A step in plain NumPy whose parts an edit replaces."""
    t = state.t + 1
    b = edit.get("beta", lambda t: 1 - t**-decay_exponent)(t)
    S = edit.get("square", lambda g: g * g + eps1)(grad)
    rows, columns = state[:2]
    if columns is None or edit.get("full"):
        rows = b * rows + (1 - b) * S if columns is None else S
        root = edit.get("vector", np.sqrt)(rows)
        if columns is not None:
            rows, columns = b * state.rows + (1 - b) * S.sum(1), b * columns + (1 - b) * S.sum(0)
    else:
        rows, columns = b * rows + (1 - b) * S.sum(1), b * columns + (1 - b) * S.sum(0)
        total = edit.get("total", np.sum)(rows)
        root = edit.get("factor", lambda R, C, n: np.sqrt(R[:, None] / (n if n else 1.0)) * np.sqrt(C))(
            rows, columns, total
        )
    root = edit.get("floor", lambda r: r)(root)
    U = grad / (np.where(root == 0, 1, root) if edit.get("guarded", True) else root)
    U = edit.get("bound", lambda U, d: U / max(1.0, rms(U) / d))(U, clip)
    rho = edit.get("rho", lambda t: min(1e-2, t**-0.5))(t) if lr is None else lr
    a = rho * edit.get("size", lambda x: max(eps2, rms(x)))(param) if scale_parameter else rho
    kept = AdafactorState(*(x if x is None else x.astype(param.dtype) for x in (rows, columns)), t)
    return (param - a * U).astype(param.dtype), kept


@mutant(ID, default_case=ones())
def not_factored(*args, **options):
    "The whole of G^2, forgotten after a step: the same for rank one at first."
    return fact_step(*args, full=True, **options)


@mutant(ID, default_case=ones(n=(1, 1)))
def means_for_sums_in_one(*args, **options):
    "The mean of R where the sums need its sum."
    return fact_step(*args, total=np.mean, **options)


@mutant(ID, default_case=ones(n=(1, 1)))
def square_root_of_rows_only(*args, **options):
    "R_i / c alone."
    return fact_step(*args, factor=lambda R, C, n: np.sqrt(np.outer(R, np.ones_like(C)) / len(C)), **options)


@mutant(ID, default_case=ones(grad=2.0, n=(2, 2)))
def rows_and_columns_summed(*args, **options):
    "(R_i / c + C_j / r) / 2: right where all entries are alike."
    return fact_step(*args, factor=lambda R, C, n: np.sqrt((R[:, None] / len(C) + C / len(R)) / 2), **options)


@mutant(ID, default_case=ones())
def constant_beta(*args, **options):
    "b = 0.999 after the first step."
    return fact_step(*args, beta=lambda t: 0.999 if t > 1 else 0.0, **options)


@mutant(ID, default_case=ones(t=1, V=1.0))
def t_from_zero(param, grad, state, **options):
    "b and rho of the step before."
    early = state._replace(t=max(state.t - 1, 0))
    out, new = fact_step(param, grad, early, **options)
    return out, new._replace(t=state.t + 1)


@mutant(ID, default_case=ones())
def eps1_dropped(*args, eps1=1e-30, **options):
    "eps1 is accepted and dropped."
    return fact_step(*args, square=lambda g: g * g, **options)


@mutant(ID, default_case=ones())
def eps2_ignored(*args, **options):
    "RMS(X) alone: a parameter that starts at 0 stays there."
    return fact_step(*args, size=rms, **options)


@mutant(ID, default_case=ones())
def scale_ignored(*args, **options):
    "alpha = rho: the same for a parameter of RMS 1."
    return fact_step(*args, size=lambda x: 1.0, **options)


@mutant(ID, default_case=ones(t=9999, V=1.0))
def greater_of_the_rates(*args, **options):
    "max(1e-2, 1 / sqrt(t)): the same at t = 10000."
    return fact_step(*args, rho=lambda t: max(1e-2, t**-0.5), **options)


@mutant(ID, default_case=ones())
def rate_of_the_first_step(*args, **options):
    "rho = 1e-2 for ever."
    return fact_step(*args, rho=lambda t: 1e-2, **options)


@mutant(ID, default_case=ones())
def clipped_by_the_maximum(*args, **options):
    "max |U|, not RMS(U)."
    return fact_step(*args, bound=lambda U, d: U / max(1.0, np.max(np.abs(U), initial=0) / d), **options)


@mutant(ID, default_case=ones())
def never_clipped(*args, **options):
    "clip is accepted and dropped."
    return fact_step(*args, bound=lambda U, d: U, **options)


@mutant(ID, default_case=ones(n=(4,)))
def vector_as_a_row(*args, **options):
    "One second moment for a whole vector."
    return fact_step(*args, vector=lambda V: np.full_like(V, rms(np.sqrt(V))), **options)


@mutant(ID, default_case=ones())
def hidden_eps(*args, **options):
    "A silent 1e-8 beside the root."
    return fact_step(*args, floor=lambda r: r + 1e-8, **options)


@mutant(ID, default_case=ones())
def zero_over_zero(*args, **options):
    "NaN where eps1 = 0 and there never was a gradient."
    return fact_step(*args, guarded=False, **options)


@mutant(ID, default_case=ones())
def sums_kept_outside(param, grad, state, **options):
    "R comes from the last call, not from the state: a resumed run starts from the wrong one."
    return _keeping(param, grad, state, **options)


_keeping = common.keeping_outside(fact_step, ("rows",))
