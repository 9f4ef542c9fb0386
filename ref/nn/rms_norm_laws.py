"""Laws and mutants of root-mean-square normalisation."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import column_sum, cotangent, f64, roundings, row_products, rows_alone
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "nn.rms_norm"
rows = cases(
    ID,
    B=batch(2, 3, large=80),
    d=dims(1, 6, large=300),
    eps=choose(1e-5, 1e-6, 0.25),
    values=("dyadic", "normal", "extreme"),
    flags={
        "no_zero_row": Flag(lambda c: c.x.size > 0 and bool(np.any(c.x, -1).all())),
        "zero_row": Flag(lambda c: c.x.size > 0 and not np.any(c.x, -1).all(),
                         {"x": lambda draw, c: np.zeros((*c.B, c.d))}),
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1, {"B": choose((2, 2), (2, 3))}),
        "no_rows": Flag(lambda c: 0 in c.B, {"B": choose((0,), (2, 0))}),
    },
)  # fmt: skip
exact = rows.where(eps=0.0, no_zero_row=True)


def output_bound(c):
    """d + 2 roundings in the mean of squares, halved by the root; root, quotient and product round too."""
    x, w = f64(c, "x", "weight")
    return roundings(c, c.d + 12, np.abs(x * w) / root(x, c.eps))


def root(x, eps):
    """r of each row, by loops over channels."""
    total = np.zeros((*x.shape[:-1], 1))
    for j in range(x.shape[-1]):
        total[..., 0] += x[..., j] ** 2
    r = np.sqrt(total / max(x.shape[-1], 1) + eps)
    return np.where(r == 0, 1.0, r)


@law(
    ID, "L1", closed_form=True, given=rows,
    kills=["eps_outside_the_root", "eps_ignored", "eps_summed_not_averaged", "eps_as_a_floor", "always_in_float32",
           "mean_subtracted"],
)  # fmt: skip
def equal_magnitudes(impl, c, expect):
    "x_j = +-a: y_j = +-a w_j / sqrt(a^2 + eps)."
    a = 2.0 ** (np.arange(int(np.prod(c.B, dtype=np.int64))).reshape(*c.B, 1) % 5 - 3)
    sign = np.where(np.arange(c.d) % 3 == 1, -1.0, 1.0)
    c = c.replace(x=(a * sign).astype(c.dtype))
    (w,) = f64(c, "weight")
    expect(impl(c), sign * w * (a / np.sqrt(a * a + c.eps)), output_bound(c))


@law(ID, "L2", closed_form=True, given=exact, kills=["hidden_eps"])
def a_scale_leaves_only_its_sign(impl, c, expect):
    "eps = 0: y(k x) = sign(k) y(x) for every k but 0."
    out = impl(c)
    for k in (-3.0, 2.0**-18, -(2.0**10)):
        scaled = c.replace(x=(c.x * k).astype(c.dtype))
        expect(impl(scaled), np.sign(k) * out, 2 * output_bound(c), f"y({k} x)")


@law(
    ID, "L3", closed_form=True, given=exact.reach("rows"), kills=["normalised_over_all_rows"],
    passes_null=["constant"],
)  # fmt: skip
def the_norm_is_root_d(impl, c, expect):
    "eps = 0, w = 1: ||y||^2 = d for every row."
    c = c.replace(weight=np.ones(c.d, c.dtype))
    y = impl(c).astype(np.float64)
    wanted = np.full(c.B, float(c.d))
    expect((y * y).sum(-1), wanted, roundings(c, 2 * c.d + 26, wanted), "||y||^2")


@law(
    ID, "L4", closed_form=True, given=rows.where(zero_row=True), kills=["eps_ignored"],
    passes_null=["zeros", "identity", "mutated"],
)  # fmt: skip
def a_row_of_zeros_is_zero(impl, c, expect):
    "x = 0 and eps > 0: y = 0, exactly."
    expect.same(impl(c), np.zeros(c.x.shape))


@law(
    ID, "L5", given=rows.where(B=batch(2, 2, large=20)).reach("rows"), kills=["normalised_over_all_rows"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_row_is_its_own(impl, c, expect):
    "A row alone gives what it gives among the others."
    expect.same(impl(c).shape, c.x.shape, "shape")
    x, w = f64(c, "x", "weight")
    size = np.max(np.abs(x * w) / root(x, c.eps), initial=0.0)
    rows_alone(c, impl, "x", expect, 2 * output_bound(c), size)


# Gradients -------------------------------------------------------------------------------------------


def jacobian_product(g, x, w, eps):
    """(g w)^T (1 / r) (I - x x^T / (d r^2)), with the matrix written out a row at a time."""
    r, d = root(x, eps), x.shape[-1]
    out = np.zeros(x.shape)
    for at in np.ndindex(x.shape[:-1]):
        J = (np.eye(d) - np.outer(x[at], x[at]) / (d * r[at] ** 2)) / r[at]
        out[at] = (g[at] * w) @ J
    return out


def gradient_bounds(c, g):
    """{name: (bound, scale)}; dx = (g w - u c) / r, u = x / r, c = mean(g w u): both terms, d + 12 roundings each."""
    x, w = f64(c, "x", "weight")
    r, k = root(x, c.eps), c.d + 12
    unit, gw = np.abs(x) / r, np.abs(g * w)
    terms = row_products(gw, unit) / max(c.d, 1)
    size = (gw + 3 * unit * terms) / r
    n = x.size // max(c.d, 1)
    columns = column_sum(np.abs(g) * unit)
    return {"x": (roundings(c, k, size), np.max(size, initial=0)),
            "weight": (roundings(c, n + k, columns), np.max(columns, initial=0))}  # fmt: skip


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=rows.reach("rows", "no_rows"),
    kills=["projection_forgotten", "projection_without_eps", "weight_gradient_of_the_input",
           "weight_gradient_of_one_row"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dx = (g w)^T (I - x x^T / (d r^2)) / r, and dw = sum over rows of g x / r."
    x, w = f64(c, "x", "weight")
    g = cotangent(c, c.x.shape)
    g64 = g.astype(np.float64)
    found, limit = impl.vjp(c, g), gradient_bounds(c, g64)
    expect(found["x"], jacobian_product(g64, x, w, c.eps), limit["x"][0], "dx", limit["x"][1])
    expect(found["weight"], column_sum(g64 * x / root(x, c.eps)), limit["weight"][0], "dw", limit["weight"][1])


@law(ID, "L7", closed_form=True, needs=("vjp",), given=exact, kills=["projection_forgotten"], passes_null=["zeros"])
def gradient_is_orthogonal_to_the_row(impl, c, expect):
    "eps = 0: the output does not know the row's length, so sum_j x_j dx_j = 0."
    x = f64(c, "x")[0]
    g = np.ones(c.x.shape) + np.arange(c.d)
    found, (limit, size) = impl.vjp(c, g)["x"], gradient_bounds(c, g)["x"]
    along = row_products(x, found.astype(np.float64))
    expect(along, np.zeros(along.shape), row_products(np.abs(x), limit), "x . dx", c.d * size * np.max(np.abs(x)))


@law(
    ID, "L8", given=rows.where(values=("extreme",), no_zero_row=True), kills=["squares_in_half"], dtypes=("float16",),
    passes_null=["wrong_dtype"],
)  # fmt: skip
def half_precision_does_not_overflow(impl, c, expect):
    "float16, |x| up to 60000: the output is that of float64, to the rounding of the result."
    c = c.replace(x=np.clip(c.x.astype(np.float64) * 2.0**8, -60000, 60000).astype(np.float16))
    x, w = f64(c, "x", "weight")
    tiny = 2.0**-24 * (1 + np.abs(w))  # half a subnormal, in the quotient and in the product
    expect(impl(c), x / root(x, c.eps) * w, roundings(c, 3, x / root(x, c.eps) * w) + tiny)


# Mutants ---------------------------------------------------------------------------------------------


def default(**options):
    """The default-size test: three rows of eight centred numbers, a small eps."""

    def make():
        x = np.random.default_rng(0).standard_normal((3, 8))
        return (x - x.mean(-1, keepdims=True), np.ones(8)), {"eps": 1e-6, **options}

    return make


def one_row():
    return (np.random.default_rng(0).standard_normal(8), np.ones(8)), {"eps": 1e-6}


def mean_square(x):
    return np.sum(x * x, -1, keepdims=True) / max(x.shape[-1], 1)


@mutant(ID, default_case=default())
def eps_outside_the_root(x, weight, *, eps=1e-5):
    "x / (rms + eps)."
    return (x / (np.sqrt(mean_square(x)) + x.dtype.type(eps))) * weight


@mutant(ID, default_case=default())
def eps_ignored(x, weight, *, eps=1e-5):
    "eps is accepted and dropped."
    return x / np.sqrt(mean_square(x)) * weight


@mutant(ID, default_case=default())
def eps_summed_not_averaged(x, weight, *, eps=1e-5):
    "sqrt((sum x^2 + eps) / d): the rest of the formula is right."
    return x / np.sqrt(mean_square(x) + x.dtype.type(eps / x.shape[-1])) * weight


@mutant(ID, default_case=default())
def eps_as_a_floor(x, weight, *, eps=1e-5):
    "max(mean x^2, eps) instead of the sum."
    return x / np.sqrt(np.maximum(mean_square(x), x.dtype.type(eps))) * weight


@mutant(ID, default_case=default())
def hidden_eps(x, weight, *, eps=1e-5):
    "A second, silent 1e-9 against division by zero."
    return x / np.sqrt(mean_square(x) + x.dtype.type(eps + 1e-9)) * weight


@mutant(ID, default_case=default())
def mean_subtracted(x, weight, *, eps=1e-5):
    "LayerNorm's numerator: unseen on centred rows."
    x = x - x.sum(-1, keepdims=True) / max(x.shape[-1], 1)
    return x / np.sqrt(mean_square(x) + x.dtype.type(eps)) * weight


@mutant(ID, default_case=one_row)
def normalised_over_all_rows(x, weight, *, eps=1e-5):
    "One root mean square for the whole array."
    return x / np.sqrt(np.sum(x * x) / max(x.size, 1) + x.dtype.type(eps)) * weight


@mutant(ID, default_case=default())
def always_in_float32(x, weight, *, eps=1e-5):
    "float32 inside whatever arrives."
    z = x.astype(np.float32)
    return (z / np.sqrt(mean_square(z) + np.float32(eps))).astype(x.dtype) * weight


@mutant(ID, default_case=default())
def squares_in_half(x, weight, *, eps=1e-5):
    "The squares in the dtype of the input: infinite above 255 in float16."
    return x / np.sqrt(mean_square(x) + x.dtype.type(eps)) * weight


def _vjp_mutant(name, doc, vjp):
    def function(x, weight, *, eps=1e-5):
        return x / np.sqrt(mean_square(x) + x.dtype.type(eps)) * weight

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


def _edited(*, projection=lambda u, r, x: u, of_weight=lambda g, u, x: column_sum(g * u).astype(u.dtype)):
    def vjp(g, x, weight, *, eps=1e-5):
        r = np.sqrt(mean_square(x) + x.dtype.type(eps))
        u = x / r
        c = row_products(g * weight, u) / max(x.shape[-1], 1)
        return (g * weight - projection(u, r, x) * c) / r, of_weight(g, u, x)

    return vjp


_vjp_mutant("projection_forgotten", "dx = g w / r: r is taken for a constant.",
            _edited(projection=lambda u, r, x: 0 * u))  # fmt: skip
_vjp_mutant("projection_without_eps", "I - x x^T / ||x||^2: right at eps = 0 alone.",
            _edited(projection=lambda u, r, x: u * r * r / np.maximum(mean_square(x), 1e-30)))  # fmt: skip
_vjp_mutant("weight_gradient_of_the_input", "dw = sum g x, before the normalisation.",
            _edited(of_weight=lambda g, u, x: column_sum(g * x).astype(x.dtype)))  # fmt: skip
_vjp_mutant("weight_gradient_of_one_row", "dw of the first row, not the sum.",
            _edited(of_weight=lambda g, u, x: (g * u).reshape(-1, x.shape[-1])[:1].sum(0)))  # fmt: skip
