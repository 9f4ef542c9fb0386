"""Laws and mutants of SiLU."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import lambertw

from ref.nn.common_laws import cotangent, f64, huge, logistic, roundings, sigmoid
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose

ID = "nn.silu"
space = cases(
    ID,
    B=batch(2, 4, large=300),
    values=("dyadic", "normal", "extreme"),
    flags={
        "none": Flag(lambda c: c.x.size == 0, {"B": choose((0,), (2, 0))}),
        "some": Flag(lambda c: c.x.size > 0),
    },
)


def output_bound(c, x=None):
    """Exponential, sum, quotient (4 ulp, 1, 1) and a product, of |x|: s may be formed as (1 + tanh(x / 2)) / 2."""
    return roundings(c, 12, f64(c, "x")[0] if x is None else x)


@law(
    ID, "L1", closed_form=True, given=space.reach("none"),
    kills=["sigmoid_alone", "slope_of_quick_gelu", "rectified", "hard", "softplus"],
)  # fmt: skip
def log_odds_in_closed_form(impl, c, expect):
    "x = log n: y = log(n) n / (n + 1), and -log(n) / (n + 1) at -log n, n = 1, 2, 3, ..."
    n = 1.0 + np.arange(c.x.size).reshape(c.x.shape)
    sign = np.where(np.arange(c.x.size) % 2 == 0, 1.0, -1.0).reshape(n.shape)
    at = c.replace(x=(sign * np.log(n)).astype(c.dtype))
    # |dy / dx| < 1.1 multiplies the rounding of log n.
    wanted = sign * np.log(n) * np.where(sign > 0, n, 1) / (n + 1)
    expect(impl(at), wanted, output_bound(at) + roundings(c, 2, np.log(n)))


@law(
    ID, "L2", closed_form=True, given=space.reach("none"),
    kills=["always_in_float32", "hard", "softplus", "tail_cut"],
)  # fmt: skip
def is_the_quotient(impl, c, expect):
    "y = x / (1 + e^{-x}), on the drawn numbers and from -12 to 12."
    grid = np.linspace(-12, 12, 49)
    for at in (c, c.replace(x=grid.astype(c.dtype), B=grid.shape)):
        (x,) = f64(at, "x")
        expect(impl(at), x * logistic(x), output_bound(at), scale=float(np.max(np.abs(x), initial=0.0)))


@law(ID, "L3", closed_form=True, given=space, kills=["rectified_with_leak", "half_forgotten", "slope_in_the_tail"])
def opposite_inputs_differ_by_x(impl, c, expect):
    "y(x) - y(-x) = x, for the two sigmoids add up to 1."
    difference = impl(c).astype(np.float64) - impl(c.replace(x=-c.x))
    expect(difference, f64(c, "x")[0], 2 * output_bound(c), "y(x) - y(-x)")


@law(
    ID, "L4", closed_form=True, given=space.where(some=True),
    kills=["exponentials_overflow", "far_inputs_leak"],
)  # fmt: skip
def far_inputs_pass_or_vanish(impl, c, expect):
    "y(x) = x and y(-x) = 0, exactly, at x = 1e4 and where x^2 overflows."
    for far in (1e4, huge(c)):
        right = np.full(c.x.shape, far, c.dtype)
        expect.same(impl(c.replace(x=right)), right, f"y({far})")
        expect.same(impl(c.replace(x=-right)), np.zeros(c.x.shape), f"y(-{far})")


@law(
    ID, "L5", closed_form=True, given=space.where(some=True),
    kills=["slope_of_quick_gelu", "hard", "rectified_with_leak", "rectified"],
)  # fmt: skip
def least_value_is_lamberts(impl, c, expect):
    "y >= -W(1/e) = -0.27846..., which is met at x = -1 - W(1/e), where 1 + x (1 - s) = 0."
    w = float(lambertw(math.exp(-1)).real)
    low = c.replace(x=np.full(c.x.shape, -1 - w, c.dtype))
    expect(impl(low), np.full(c.x.shape, -w), output_bound(low), "y(-1 - W)")
    expect.at_most(np.full(c.x.shape, -w), impl(c).astype(np.float64) + output_bound(c), "-W(1/e)")


# Gradients -------------------------------------------------------------------------------------------


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.reach("none"),
    kills=["slope_is_the_sigmoid", "slope_without_the_complement", "slope_of_the_sigmoid"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dx = g s (1 + x (1 - s))."
    (x,) = f64(c, "x")
    g = cotangent(c, x.shape)
    # 1 - s is off by u where it is not 0, so x (1 - s) by |x| u; above |x| = 40 it is 0 to the last bit.
    size = np.abs(g.astype(np.float64)) * (1 + np.minimum(np.abs(x), 40))
    wanted = g * logistic(x) * (1 + x * logistic(-x))
    expect(impl.vjp(c, g)["x"], wanted, roundings(c, 16, size), "dx", scale=float(np.max(np.abs(g), initial=0.0)))


@law(
    ID, "L7", closed_form=True, needs=("vjp",), given=space.where(some=True),
    kills=["slope_without_the_complement", "slope_by_the_plain_product"],
)  # fmt: skip
def far_gradients_are_one_or_zero(impl, c, expect):
    "dy/dx = 1 at 1e4 and where x^2 overflows, and 0 at their opposites, exactly; 1/2 at 0."
    g = np.ones(c.x.shape, c.dtype)
    for far in (1e4, huge(c)):
        for x, wanted in ((far, 1.0), (-far, 0.0), (0.0, 0.5)):
            at = c.replace(x=np.full(c.x.shape, x, c.dtype))
            expect.same(impl.vjp(at, g)["x"], wanted * g, f"dy/dx at {x}")


# Mutants ---------------------------------------------------------------------------------------------


def at(*numbers):
    """The default-size test: the numbers given."""
    return lambda: ((np.array(numbers),), {})


def _silu(x):
    return np.maximum(x, -10000) * sigmoid(x)


@mutant(ID, default_case=at(1.0, 1.0))
def sigmoid_alone(x):
    "sigma(x)."
    return sigmoid(x)


@mutant(ID, default_case=at(-40.0, 0.0, 40.0))
def slope_of_quick_gelu(x):
    "x sigma(1.702 x)."
    return np.maximum(x, -10000) * sigmoid(x * x.dtype.type(1.702))


@mutant(ID, default_case=at(0.0, 40.0))
def rectified(x):
    "max(x, 0)."
    return np.maximum(x, 0)


@mutant(ID, default_case=at(0.0, 0.5, 2.0))
def rectified_with_leak(x):
    "SiLU to the right of 0, a leak of 1 / 100 to the left."
    return np.where(x >= 0, _silu(x), np.maximum(x, -10000) / 100).astype(x.dtype)


@mutant(ID, default_case=at(0.0, 40.0, 80.0))
def hard(x):
    "Hard swish: x clip(x + 3, 0, 6) / 6."
    z = np.clip(x, -10000, None)
    return (z * (np.clip(z + 3, 0, 6) / 6)).astype(x.dtype)


@mutant(ID, default_case=at(40.0, 80.0))
def softplus(x):
    "log(1 + e^x), which is the same far to the right."
    return (np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))).astype(x.dtype)


@mutant(ID, default_case=at(-40.0, 0.0))
def half_forgotten(x):
    "1 + tanh(x / 2) without the half: right at 0 and far to the left."
    return 2 * _silu(x)


@mutant(ID, default_case=at(-2.0, 0.0, 2.0))
def slope_in_the_tail(x):
    "e^x x where x < -4: the sigmoid's own first term."
    return np.where(x < -4, np.maximum(x, -10000) * np.exp(np.minimum(x, 0)), _silu(x)).astype(x.dtype)


@mutant(ID, default_case=at(-2.0, 0.0, 2.0))
def tail_cut(x):
    "Zero below -8, where the table ends."
    return np.where(x < -8, x.dtype.type(0), _silu(x))


@mutant(ID, default_case=at(-2.0, 0.0, 2.0))
def exponentials_overflow(x):
    "x e^x / (1 + e^x): inf / inf far out."
    return x * (np.exp(x) / (1 + np.exp(x)))


@mutant(ID, default_case=at(-2.0, 0.0, 2.0))
def far_inputs_leak(x):
    "The gate kept above 1e-6, so that no unit dies."
    return np.where(x < -20, x * x.dtype.type(1e-6), _silu(x))


@mutant(ID, default_case=at(-2.0, 0.0, 2.0))
def always_in_float32(x):
    "float32 inside whatever arrives."
    return _silu(x.astype(np.float32)).astype(x.dtype)


def _vjp_mutant(name, doc, slope):
    def function(x):
        return _silu(x)

    def vjp(g, x):
        return ((g * slope(x)).astype(x.dtype),)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=at(-2.0, 0.0, 2.0))(function)


_vjp_mutant("slope_is_the_sigmoid", "s: x s' forgotten.", sigmoid)
_vjp_mutant("slope_of_the_sigmoid", "s (1 - s): that of the gate.", lambda x: sigmoid(x) * (1 - sigmoid(x)))
_vjp_mutant("slope_without_the_complement", "s (1 + x s).",
            lambda x: sigmoid(x) * (1 + np.clip(x, -10000, 10000) * sigmoid(x)))  # fmt: skip
_vjp_mutant("slope_by_the_plain_product", "s + x e^{-x} / (1 + e^{-x})^2: inf / inf far to the left.",
            lambda x: sigmoid(x) + x * np.exp(-x) / np.square(1 + np.exp(-x)))  # fmt: skip
