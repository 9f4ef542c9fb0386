"""Laws and mutants of layer normalisation."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import column_sum, cotangent, f64, roundings, row_products, rows_alone
from ref.spec import bounds, law, mutant
from ref.spec.cases import VALUES, Flag, batch, cases, choose, dims, rng

ID = "nn.layer_norm"


def _maybe(name):
    return lambda draw, c: VALUES["normal"](rng(draw), (c.d,)) if c[name] else None


rows = cases(
    ID,
    B=batch(2, 3, large=80),
    d=dims(1, 6, large=300),
    eps=choose(1e-5, 1e-3, 0.25),
    has_weight=choose(True, False),
    has_bias=choose(True, False),
    weight=_maybe("has_weight"),
    bias=_maybe("has_bias"),
    values=("dyadic", "normal", "extreme"),
    unset={"weight": {"has_weight": False, "weight": None}, "bias": {"has_bias": False, "bias": None}},
    flags={
        "varied": Flag(lambda c: c.x.size > 0 and bool((np.ptp(c.x, -1) >= 0.25).all()), {"d": dims(2, 6, large=300)}),
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1, {"B": choose((2, 2), (2, 3))}),
        "no_rows": Flag(lambda c: 0 in c.B, {"B": choose((0,), (2, 0))}),
        "affine": Flag(lambda c: c.has_weight and c.has_bias, {"has_weight": True, "has_bias": True}),
        "bare": Flag(lambda c: not c.has_weight and not c.has_bias, {"has_weight": False, "has_bias": False}),
    },
)  # fmt: skip
plain = rows.where(has_weight=False, has_bias=False)


def standardised(c):
    """(u, 1 / sqrt(v + eps), weight, bias) in float64, absent ones as 1 and 0; sums by loops over channels."""
    x = np.asarray(c.x, np.float64)
    d = x.shape[-1]
    m = sum(x[..., j] for j in range(d)) / d
    v = sum((x[..., j] - m) ** 2 for j in range(d)) / d
    r = 1 / np.sqrt(np.where(v + c.eps == 0, 1.0, v + c.eps))[..., None]
    w = np.ones(d) if c.weight is None else np.asarray(c.weight, np.float64)
    b = np.zeros(d) if c.bias is None else np.asarray(c.bias, np.float64)
    return (x - m[..., None]) * r, r, w, b


def unit_error(c):
    """Error of u.

    x - m is off by (d + 2) u mean|x| + u |x - m|, which r multiplies; r is off, relative to itself, by the mean
    of that error times |u|, and by d + 12 roundings.
    """
    unit, r, _, _ = standardised(c)
    x = np.asarray(c.x, np.float64)
    lost = (c.d + 2) * np.abs(x).mean(-1, keepdims=True) * r + np.abs(unit)
    return lost + np.abs(unit) * ((np.abs(unit) * lost).mean(-1, keepdims=True) + c.d + 12)


def output_bound(c):
    unit, _, w, b = standardised(c)
    return roundings(c, 1, unit_error(c) * np.abs(w) + 6 * (np.abs(unit * w) + np.abs(b)))


def size(c):
    unit, _, w, b = standardised(c)
    return float(np.max(np.abs(unit * w) + np.abs(b), initial=0.0))


@law(
    ID, "L1", closed_form=True, given=rows.where(d=2).reach("affine", "bare"),
    kills=["eps_outside_the_root", "eps_ignored", "variance_of_a_sample", "always_in_float32",
           "bias_before_the_weight"],
)  # fmt: skip
def two_channels(impl, c, expect):
    "d = 2, h = (x_0 - x_1) / 2: u = (h, -h) / sqrt(h^2 + eps)."
    (x,) = f64(c, "x")
    h = (x[..., :1] - x[..., 1:]) / 2
    _, _, w, b = standardised(c)
    unit = np.concatenate((h, -h), -1) / np.sqrt(h * h + c.eps)
    expect(impl(c), unit * w + b, output_bound(c), scale=size(c))


@law(
    ID, "L2", closed_form=True, given=plain.where(varied=True).reach("rows"),
    kills=["variance_of_a_sample", "normalised_over_all_rows", "mean_not_subtracted"],
)  # fmt: skip
def rows_are_standardised(impl, c, expect):
    "w = 1, b = 0: every row has mean 0 and mean of squares v / (v + eps)."
    out, limit = impl(c).astype(np.float64), output_bound(c)
    unit, r, _, _ = standardised(c)
    expect(out.mean(-1), np.zeros(c.B), limit.mean(-1), "mean", scale=1.0)
    wanted = 1 - c.eps * r[..., 0] ** 2
    expect((out * out).mean(-1), wanted, 3 * (np.abs(unit) * limit).mean(-1), "mean of squares")


@law(
    ID, "L3", closed_form=True, given=rows.where(varied=True, values=("dyadic", "normal")),
    kills=["variance_by_squares", "mean_not_subtracted"], passes_null=["zeros", "constant"],
)  # fmt: skip
def a_shift_is_invisible(impl, c, expect):
    "y(x + a) = y(x), also for a = 2048."
    for a in (2.0, 2048.0):
        moved = c.replace(x=c.x + c.dtype.type(a))
        expect(impl(moved), impl(c), output_bound(c) + output_bound(moved), f"y(x + {a})", scale=size(c))


@law(ID, "L4", closed_form=True, given=plain.where(eps=0.0, varied=True), kills=["hidden_eps"])
def a_scale_leaves_only_its_sign(impl, c, expect):
    "eps = 0, w = 1, b = 0: y(k x) = sign(k) y(x)."
    out = impl(c)
    for k in (-4.0, 2.0**-18):
        scaled = c.replace(x=c.x * c.dtype.type(k))
        expect(impl(scaled), np.sign(k) * out, 2 * output_bound(c), f"y({k} x)")


@law(
    ID, "L5", given=rows.where(affine=True), kills=["bias_before_the_weight", "bias_ignored"],
)  # fmt: skip
def weight_and_bias_come_last(impl, c, expect):
    "y(x; w, b) = y(x; none, none) w + b."
    _, _, w, b = standardised(c)
    bare = c.replace(weight=None, bias=None)
    wanted = impl(bare).astype(np.float64) * w + b
    expect(impl(c), wanted, output_bound(c) + output_bound(bare) * np.abs(w), scale=size(c))


@law(
    ID, "L6", closed_form=True, given=rows.where(values=("dyadic", "normal")).reach("affine"),
    kills=["eps_ignored", "bias_ignored"],
)  # fmt: skip
def a_constant_row_is_the_bias(impl, c, expect):
    "x_j = a: y = b."
    c = c.replace(x=np.broadcast_to(c.x[..., :1], c.x.shape).copy())
    b = standardised(c)[3]
    expect(impl(c), np.broadcast_to(b, c.x.shape), output_bound(c), scale=max(size(c), 1.0))


@law(
    ID, "L7", given=rows.where(B=batch(2, 2, large=20)).reach("rows"), kills=["normalised_over_all_rows"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_row_is_its_own(impl, c, expect):
    "A row alone gives what it gives among the others."
    expect.same(impl(c).shape, c.x.shape, "shape")
    rows_alone(c, impl, "x", expect, 2 * output_bound(c), size(c))


# Gradients -------------------------------------------------------------------------------------------


def gradient_bounds(c, g):
    """{name: (bound, scale)}: dx = r (g w - s - u k), s = mean(g w), k = mean(g w u), each with its own error."""
    unit, r, w, _ = standardised(c)
    gw, err, d = np.abs(g * w), unit_error(c), max(c.d, 1)
    s, k = row_products(gw, 1) / d, row_products(gw, np.abs(unit)) / d
    err_k = row_products(gw, err + (d + 8) * np.abs(unit)) / d
    whole = gw + s + np.abs(unit) * k
    err_r = row_products(np.abs(unit), err) / d + d + 12
    slack = r * (6 * gw + (d + 8) * s + err * k + np.abs(unit) * (err_k + 6 * k) + whole * err_r)
    n = g.size // d
    columns = {"weight": np.abs(g) * (err + (n + 8) * np.abs(unit)), "bias": np.abs(g) * (n + 8)}
    scales = {"weight": np.abs(g * unit), "bias": np.abs(g)}
    out = {name: (roundings(c, 1, column_sum(v)), np.max(column_sum(scales[name]), initial=0.0))
           for name, v in columns.items()}  # fmt: skip
    return {**out, "x": (roundings(c, 1, slack), np.max(r * whole, initial=0.0))}


def jacobian_product(g, c):
    """(g w)^T r (I - 1 1^T / d - u u^T / d), with the matrix written out a row at a time."""
    unit, r, w, _ = standardised(c)
    out, d = np.zeros(unit.shape), c.d
    for at in np.ndindex(unit.shape[:-1]):
        J = np.eye(d) - np.ones((d, d)) / d - np.outer(unit[at], unit[at]) / d
        out[at] = (g[at] * w) @ J * r[at]
    return out


@law(
    ID, "L8", closed_form=True, needs=("vjp",), given=rows.reach("rows", "no_rows", "affine"),
    kills=["mean_held_constant", "variance_held_constant", "weight_gradient_of_the_input", "bias_gradient_is_a_mean"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dx = (g w)^T (I - 1 1^T / d - u u^T / d) / sqrt(v + eps), dw = sum over rows of g u, db = of g."
    g = cotangent(c, c.x.shape)
    g64 = g.astype(np.float64)
    found, limits = impl.vjp(c, g), gradient_bounds(c, g64)
    wanted = {"x": jacobian_product(g64, c), "weight": column_sum(g64 * standardised(c)[0]), "bias": column_sum(g64)}
    for name, cotangent_found in found.items():
        limit, scale = limits[name]
        expect(cotangent_found, wanted[name], limit, f"d {name}", scale)


@law(
    ID, "L9", closed_form=True, needs=("vjp",), given=plain.where(eps=0.0, varied=True),
    kills=["mean_held_constant", "variance_held_constant"], passes_null=["zeros"],
)  # fmt: skip
def gradient_is_orthogonal_to_ones_and_row(impl, c, expect):
    "eps = 0: the output knows neither the row's mean nor its spread, so sum_j dx_j = 0 and sum_j x_j dx_j = 0."
    x = f64(c, "x")[0]
    g = np.ones(c.x.shape) + np.arange(c.d) ** 2
    found, (limit, scale) = impl.vjp(c, g)["x"].astype(np.float64), gradient_bounds(c, g)["x"]
    zero = np.zeros((*c.x.shape[:-1], 1))
    expect(row_products(found, 1), zero, row_products(limit, 1), "sum of dx", c.d * scale)
    along = row_products(limit, np.abs(x))
    expect(row_products(found, x), zero, along, "x . dx", c.d * scale * np.max(np.abs(x), initial=0.0))


@law(
    ID, "L10", given=rows.where(values=("extreme",), varied=True), kills=["squares_in_half"], dtypes=("float16",),
    passes_null=["wrong_dtype"],
)  # fmt: skip
def half_precision_does_not_overflow(impl, c, expect):
    "float16, |x| up to 60000: the output is that of float64, to float32 inside and the roundings of the result."
    c = c.replace(x=np.clip(c.x.astype(np.float64) * 2.0**8, -60000, 60000).astype(np.float16))
    unit, _, w, b = standardised(c)
    inside = bounds.rounding(1, unit_error(c) * np.abs(w), "float32")
    tiny = 2.0**-24 * (1 + np.abs(w))  # half a subnormal, in the quotient and in the product
    limit = inside + roundings(c, 3, np.abs(unit * w) + np.abs(b)) + tiny
    expect(impl(c), unit * w + b, limit, scale=size(c))


# Mutants ---------------------------------------------------------------------------------------------


def default(d=8, rows=3, **options):
    """The default-size test: rows of random numbers, weight 1, bias 0, a small eps."""

    def make():
        x = np.random.default_rng(0).standard_normal((rows, d))
        return (x, np.ones(d), np.zeros(d)), {"eps": 1e-6, **options}

    return make


def centred():
    (x, w, b), options = default()()
    return (x - x.mean(-1, keepdims=True), w, b), options


def edited(x, weight=None, bias=None, *, eps=1e-5, centre=None, variance=None, root=None, affine=None):
    d = max(x.shape[-1], 1)
    e = x.dtype.type(eps)
    m = x.sum(-1, keepdims=True) / d
    z = x - m if centre is None else centre(x, m)
    v = (z * z).sum(-1, keepdims=True) / d if variance is None else variance(x, z)
    u = (z / (np.sqrt(v + e) if root is None else root(v, e))).astype(x.dtype)
    if affine is not None:
        return affine(u, 1 if weight is None else weight, 0 if bias is None else bias).astype(x.dtype)
    u = u if weight is None else u * weight
    return u if bias is None else u + bias


@mutant(ID, default_case=default())
def eps_outside_the_root(x, weight=None, bias=None, **options):
    "(x - m) / (std + eps)."
    return edited(x, weight, bias, **options, root=lambda v, e: np.sqrt(v) + e)


@mutant(ID, default_case=default())
def eps_ignored(x, weight=None, bias=None, **options):
    "eps is accepted and dropped: a constant row is 0 / 0."
    return edited(x, weight, bias, **options, root=lambda v, e: np.sqrt(v))


@mutant(ID, default_case=default())
def hidden_eps(x, weight=None, bias=None, **options):
    "A second, silent 1e-9 against division by zero."
    return edited(x, weight, bias, **options, root=lambda v, e: np.sqrt(v + e + x.dtype.type(1e-9)))


@mutant(ID, default_case=default(d=100_000, rows=1))
def variance_of_a_sample(x, weight=None, bias=None, **options):
    "The variance divides by d - 1, as torch.std does: unseen at a large width."
    return edited(x, weight, bias, **options,
                  variance=lambda x, z: (z * z).sum(-1, keepdims=True) / max(x.shape[-1] - 1, 1))  # fmt: skip


@mutant(ID, default_case=default())
def variance_by_squares(x, weight=None, bias=None, **options):
    "mean x^2 - m^2: cancels far from 0."
    def variance(x, z):
        d = max(x.shape[-1], 1)
        m = x.sum(-1, keepdims=True) / d
        return np.maximum((x * x).sum(-1, keepdims=True) / d - m * m, 0)

    return edited(x, weight, bias, **options, variance=variance)


@mutant(ID, default_case=centred)
def mean_not_subtracted(x, weight=None, bias=None, **options):
    "RMSNorm under another name: unseen on centred rows."
    return edited(x, weight, bias, **options, centre=lambda x, m: x)


@mutant(ID, default_case=default(rows=1))
def normalised_over_all_rows(x, weight=None, bias=None, **options):
    "One mean and one variance for the whole array."
    return edited(x, weight, bias, **options, centre=lambda x, m: x - x.sum() / max(x.size, 1),
                  variance=lambda x, z: (z * z).sum() / max(z.size, 1))  # fmt: skip


@mutant(ID, default_case=default())
def bias_before_the_weight(x, weight=None, bias=None, **options):
    "(u + b) w: a bias of zeros at the start does not tell."
    return edited(x, weight, bias, **options, affine=lambda u, w, b: (u + b) * w)


@mutant(ID, default_case=default())
def bias_ignored(x, weight=None, bias=None, **options):
    "The bias is accepted and dropped."
    return edited(x, weight, None, **options)


@mutant(ID, default_case=default())
def always_in_float32(x, weight=None, bias=None, **options):
    "float32 inside whatever arrives."
    u = edited(x.astype(np.float32), **options).astype(x.dtype)
    u = u if weight is None else u * weight
    return u if bias is None else u + bias


@mutant(ID, default_case=default())
def squares_in_half(x, weight=None, bias=None, **options):
    "The sums and squares in the dtype of the input: infinite above 255 in float16."
    return edited(x, weight, bias, **options)


def _vjp_mutant(name, doc, *, mean=1, spread=1, weighted="unit", rows_of=1.0):
    def function(x, weight=None, bias=None, **options):
        return edited(x, weight, bias, **options)

    def vjp(g, x, weight=None, bias=None, *, eps=1e-5):
        d = max(x.shape[-1], 1)
        z = x - x.sum(-1, keepdims=True) / d
        r = 1 / np.sqrt((z * z).sum(-1, keepdims=True) / d + x.dtype.type(eps))
        u, gw = z * r, g if weight is None else g * weight
        dx = r * (gw - mean * gw.sum(-1, keepdims=True) / d - spread * u * (gw * u).sum(-1, keepdims=True) / d)
        dw = column_sum(g * (u if weighted == "unit" else x)).astype(x.dtype)
        n = max(g.size // d, 1) if rows_of != 1.0 else 1
        return dx, dw, (column_sum(g) / n).astype(x.dtype)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_vjp_mutant("mean_held_constant", "The term mean(g w) is forgotten.", mean=0)
_vjp_mutant("variance_held_constant", "The term u mean(g w u) is forgotten.", spread=0)
_vjp_mutant("weight_gradient_of_the_input", "dw = sum g x, before the normalisation.", weighted="input")
_vjp_mutant("bias_gradient_is_a_mean", "db divided by the number of rows.", rows_of=0.0)
