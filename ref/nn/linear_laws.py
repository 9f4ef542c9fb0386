"""Laws and mutants of the linear layer."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import column_sum, cotangent, f64, roundings
from ref.spec import law, mutant
from ref.spec.cases import VALUES, Flag, batch, cases, choose, dims, rng

ID = "nn.linear"
space = cases(
    ID,
    B=batch(2, 3, large=80),
    I=dims(0, 5, large=160),
    O=dims(0, 5, large=160),
    has_bias=choose(True, False),
    bias=lambda draw, c: VALUES["normal"](rng(draw), (c.O,)) if c.has_bias else None,
    values=("dyadic", "normal", "extreme", "huge"),
    unset={"bias": {"has_bias": False, "bias": None}},
    flags={
        "no_features": Flag(lambda c: c.I == 0, {"I": 0}),
        "no_rows": Flag(lambda c: 0 in c.B, {"B": choose((0,), (2, 0))}),
        "biased": Flag(lambda c: c.bias is not None and c.O > 0, {"has_bias": True, "O": dims(1, 5)}),
        "square": Flag(lambda c: c.I == c.O and c.I > 1, {"I": 3, "O": 3}),
        "stacked": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1, {"B": choose((2, 2), (2, 3)), "O": dims(1, 5)}),
    },
)  # fmt: skip


def bias_of(c):
    return np.zeros(c.O) if c.bias is None else np.asarray(c.bias, np.float64)


def sizes(c):
    """|x| |W|^T + |b|, and the bound of I + 1 roundings on it."""
    x, w = f64(c, "x", "weight")
    size = np.abs(x) @ np.abs(w).T + np.abs(bias_of(c))
    return size, roundings(c, c.I + 1, size)


@law(
    ID, "L1", closed_form=True, given=space.reach("square", "biased"),
    kills=["weight_is_in_out", "bias_ignored", "bias_added_twice"],
)  # fmt: skip
def a_unit_vector_reads_a_column(impl, c, expect):
    "x = e_i: y = column i of the weight, plus the bias."
    w, b = f64(c, "weight")[0], bias_of(c)
    for i in range(c.I):
        unit = np.zeros(c.x.shape, c.dtype)
        unit[..., i] = 1
        at, wanted = c.replace(x=unit), np.broadcast_to(w[:, i] + b, (*c.B, c.O))
        size = np.abs(w[:, i]) + np.abs(b)
        expect(impl(at), wanted, roundings(c, 1, size), f"y(e_{i})", scale=np.max(size, initial=0.0))
    expect.same(impl(c.replace(x=np.zeros(c.x.shape, c.dtype))), np.broadcast_to(b, (*c.B, c.O)), "y(0)")


@law(
    ID, "L2", closed_form=True, given=space.reach("no_features", "no_rows", "stacked"),
    kills=["weight_is_in_out", "products_in_float32", "bias_ignored"],
)  # fmt: skip
def every_output_is_a_dot_product(impl, c, expect):
    "y_o = sum_i x_i W_oi + b_o, for numbers whose products round."
    c = c.replace(weight=(c.weight / 3).astype(c.dtype))
    x, w = f64(c, "x", "weight")
    wanted = np.broadcast_to(bias_of(c), (*c.B, c.O)).copy()
    for i in range(c.I):
        wanted += x[..., i : i + 1] * w[:, i]
    size, limit = sizes(c)
    expect(impl(c), wanted, limit, scale=np.max(size, initial=0.0))


@law(ID, "L3", given=space.reach("biased"), kills=["bias_added_twice", "rectified"])
def affine_along_a_line(impl, c, expect):
    "y(-2 x) - y(0) = -2 (y(x) - y(0)), and y(0) = b."
    zero = np.zeros(c.x.shape, c.dtype)
    at0, at1, at2 = (impl(c.replace(x=x)).astype(np.float64) for x in (zero, c.x, -2 * c.x))
    size, limit = sizes(c)
    expect.same(at0, np.broadcast_to(bias_of(c), at0.shape), "y(0)")
    expect(at2 - at0, -2 * (at1 - at0), 6 * limit, "y(-2 x) - y(0)", scale=2 * np.max(size, initial=0.0))


@law(ID, "L4", given=space.where(has_bias=False), kills=["rectified"], passes_null=["zeros", "identity"])
def no_bias_is_a_bias_of_zero(impl, c, expect):
    "bias = None gives what a bias of zeros gives, and y(-x) = -y(x)."
    out, (size, limit) = impl(c), sizes(c)
    most = np.max(size, initial=0.0)
    expect(impl(c.replace(bias=np.zeros(c.O, c.dtype))), out, 2 * limit, scale=most)
    expect(impl(c.replace(x=-c.x)), -out, 2 * limit, "y(-x)", scale=most)


# Gradients -------------------------------------------------------------------------------------------


@law(
    ID, "L5", closed_form=True, needs=("vjp",), given=space.reach("stacked", "no_rows", "no_features", "biased"),
    kills=["bias_gradient_is_a_mean", "weight_gradient_of_the_last_entry", "gradient_by_the_transpose"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dx = g W, dW = sum over rows of g x^T, db = sum over rows of g."
    x, w = f64(c, "x", "weight")
    g = cotangent(c, (*c.B, c.O))
    g64, rows = g.astype(np.float64), int(np.prod(c.B, dtype=np.int64))
    flat_x, flat_g = x.reshape(rows, c.I), g64.reshape(rows, c.O)
    wanted = {"x": (g64 @ w, np.abs(g64) @ np.abs(w), c.O)}
    wanted["weight"] = (flat_g.T @ flat_x, np.abs(flat_g).T @ np.abs(flat_x), rows)
    if c.bias is not None:
        wanted["bias"] = (column_sum(g64), column_sum(np.abs(g64)), rows)
    found = impl.vjp(c, g)
    for name, (want, size, n) in wanted.items():
        limit = roundings(c, n + 1, size)
        expect(found[name], want, limit, f"d {name}", scale=np.max(size, initial=0.0))


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.where(stacked=True, I=dims(1, 5)),
    kills=["gradient_by_the_transpose", "bias_gradient_is_a_mean"],
)  # fmt: skip
def gradient_of_one_output(impl, c, expect):
    "g = 1 at output 0 of every row: dx = W_0, dW_0 = sum of x, db_0 = the number of rows, every other row of dW is 0."
    x, w = f64(c, "x", "weight")
    g = np.zeros((*c.B, c.O))
    g[..., 0] = 1
    found, rows = impl.vjp(c, g), int(np.prod(c.B))
    expect.same(found["x"], np.broadcast_to(w[0], x.shape), "dx")
    size = column_sum(np.abs(x))
    expect(found["weight"][0], column_sum(x), roundings(c, rows, size), "dW_0", scale=np.max(size))
    expect.same(found["weight"][1:], np.zeros((c.O - 1, c.I)), "the rest of dW")
    expect.same(found.get("bias", np.array([rows]))[:1], np.array([rows]), "db_0")


# Mutants ---------------------------------------------------------------------------------------------


def at_the_start(I=4, O=4):  # noqa: E741
    """The default-size test: a square symmetric weight and a bias of zeros, as a layer may start."""

    def make():
        rng = np.random.default_rng(0)
        return (rng.standard_normal((3, I)), np.eye(O, I), np.zeros(O)), {}

    return make


def positive():
    rng = np.random.default_rng(0)
    return (rng.random((3, 4)), rng.random((2, 4)), rng.random(2)), {}


def _add(y, bias):
    return y if bias is None else y + bias


@mutant(ID, default_case=at_the_start())
def weight_is_in_out(x, weight, bias=None):
    "x W where the shapes allow it: a square weight is read [in out]."
    square = weight.shape[0] == weight.shape[1]
    return _add(x @ (weight if square else weight.T), bias)


@mutant(ID, default_case=at_the_start())
def bias_ignored(x, weight, bias=None):
    "The bias is accepted and dropped: zeros at the start do not tell."
    return x @ weight.T


@mutant(ID, default_case=at_the_start())
def bias_added_twice(x, weight, bias=None):
    "Once in the product, once after."
    return _add(_add(x @ weight.T, bias), bias)


@mutant(ID, default_case=positive)
def products_in_float32(x, weight, bias=None):
    "float32 inside whatever arrives (TF32 is worse)."
    y = (x.astype(np.float32) @ weight.astype(np.float32).T).astype(x.dtype)
    return _add(y, bias)


@mutant(ID, default_case=positive)
def rectified(x, weight, bias=None):
    "A fused activation left on."
    return np.maximum(_add(x @ weight.T, bias), 0)


def _vjp_mutant(name, doc, *, of_x=None, of_weight=None, of_bias=None):
    def function(x, weight, bias=None):
        return _add(x @ weight.T, bias)

    def vjp(g, x, weight, bias=None):
        rows = int(np.prod(x.shape[:-1], dtype=np.int64))
        gf, xf = g.reshape(rows, weight.shape[0]), x.reshape(rows, weight.shape[1])
        dx = g @ weight if of_x is None else of_x(g, weight)
        dw = gf.T @ xf if of_weight is None else of_weight(gf, xf)
        return dx, dw, gf.sum(0) if of_bias is None else of_bias(gf)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=positive)(function)


_vjp_mutant("bias_gradient_is_a_mean", "db is the mean over rows.", of_bias=lambda g: g.sum(0) / max(len(g), 1))
_vjp_mutant("weight_gradient_of_the_last_entry", "dW of the last row alone.", of_weight=lambda g, x: g[-1:].T @ x[-1:])
_vjp_mutant("gradient_by_the_transpose", "dx = g W^T where the weight is square.",
            of_x=lambda g, w: g @ (w.T if w.shape[0] == w.shape[1] else w))  # fmt: skip
