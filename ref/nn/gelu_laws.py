"""Laws and mutants of GELU."""

from __future__ import annotations

import math

import mpmath
import numpy as np

from ref.nn.common_laws import cotangent, f64, huge, roundings, sigmoid
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose

ID = "nn.gelu"
space = cases(
    ID,
    B=batch(2, 4, large=300),
    approximate=choose(None, "tanh"),
    values=("dyadic", "normal", "extreme"),
    flags={
        "none": Flag(lambda c: c.x.size == 0, {"B": choose((0,), (2, 0))}),
        "some": Flag(lambda c: c.x.size > 0),
        "exact": Flag(lambda c: c.approximate is None, {"approximate": None}),
        "by_tanh": Flag(lambda c: c.approximate == "tanh", {"approximate": "tanh"}),
    },
)
ROOT, CUBIC = math.sqrt(2 / math.pi), 0.044715


def each(f, x):
    return np.array([float(f(float(t))) for t in np.ravel(x)]).reshape(np.shape(x))


def cdf(t):
    with mpmath.workdps(30):
        return mpmath.ncdf(t)


def density(t):
    return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)


def gate(c, x):
    """What multiplies x: Phi, or (1 + tanh h) / 2."""
    if c.approximate is None:
        return each(cdf, x)
    return each(lambda t: (1 + math.tanh(ROOT * (t + CUBIC * t**3))) / 2, x)


def output_bound(c, x=None):
    """16 roundings of |x|: the argument's (where the gate has slope), erf's or tanh's 4 ulp, the sum, two products.

    The argument errs by 5 u |h|, the gate by that times its slope: |h| (1 - tanh^2 h) / 2 <= 0.23, and
    |x| phi(x) <= 0.25.
    """
    return roundings(c, 16, f64(c, "x")[0] if x is None else x)


def size(c):
    return float(np.max(np.abs(np.asarray(c.x, np.float64)), initial=0.0))


@law(
    ID, "L1", closed_form=True, given=space.where(exact=True).reach("none"),
    kills=["always_tanh", "sigmoid_of_1702", "erf_without_the_root", "always_in_float32"],
)  # fmt: skip
def exact_form_is_the_normal_cdf(impl, c, expect):
    "approximate = None: y = x Phi(x)."
    (x,) = f64(c, "x")
    expect(impl(c), x * gate(c, x), output_bound(c), scale=size(c))


@law(
    ID, "L2", closed_form=True, given=space.where(by_tanh=True).reach("none"),
    kills=["always_exact", "cube_forgotten", "constants_in_single", "sigmoid_of_1702"],
)  # fmt: skip
def tanh_form_is_the_tanh(impl, c, expect):
    "approximate = tanh: y = x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."
    (x,) = f64(c, "x")
    expect(impl(c), x * gate(c, x), output_bound(c), scale=size(c))


@law(ID, "L3", closed_form=True, given=space, kills=["square_for_the_cube", "half_forgotten"])
def opposite_inputs_differ_by_x(impl, c, expect):
    "y(x) - y(-x) = x in both forms: their gates are distribution functions of symmetric laws."
    difference = impl(c).astype(np.float64) - impl(c.replace(x=-c.x))
    expect(difference, np.asarray(c.x, np.float64), 2 * output_bound(c), "y(x) - y(-x)")


@law(
    ID, "L4", closed_form=True, given=space.where(some=True).reach("exact", "by_tanh"),
    kills=["exponentials_overflow", "far_inputs_leak", "nan_at_minus_infinity"],
)  # fmt: skip
def far_inputs_pass_or_vanish(impl, c, expect):
    "y(x) = x and y(-x) = 0, exactly, at x = 100, 1e4, where x^2 overflows and at infinity."
    for far in (100.0, 1e4, huge(c), math.inf):
        right = np.full(c.x.shape, far, c.dtype)
        expect.same(impl(c.replace(x=right)), right, f"y({far})")
        expect.same(impl(c.replace(x=-right)), np.zeros(c.x.shape), f"y(-{far})")


@law(
    ID, "L5", closed_form=True, given=space.where(some=True, by_tanh=True), kills=["always_exact", "always_tanh"],
)  # fmt: skip
def the_forms_differ_by_little(impl, c, expect):
    "At x = 0.7, 2 and 2.5 the forms are 5.2e-5 to 3.8e-4 apart; nowhere between -6 and 6 more than 4.8e-4."
    grid = np.concatenate((np.linspace(-6, 6, 97), (0.7, 2.0, 2.5)))
    wide = c.replace(x=grid.astype(c.dtype), B=grid.shape)
    gap = np.abs(impl(wide).astype(np.float64) - impl(wide.replace(approximate=None)))
    slack = 2 * output_bound(wide)
    expect.at_most(gap, 4.8e-4 + slack, "|tanh form - exact form|")
    expect.at_most(4e-5 - slack[-3:], gap[-3:], "the least gap")


@law(ID, "L8", closed_form=True, given=space.where(exact=True), kills=["tail_cut", "always_tanh"])
def tail_lies_between_two_densities(impl, c, expect):
    "phi(t) t^2 / (1 + t^2) <= -y(-t) <= phi(t), t from 2 to 9 (Mills' ratio; Gordon 1941)."
    t = np.linspace(2, 9, 57)
    at = c.replace(x=-t.astype(c.dtype), B=t.shape)
    found, slack, top = -impl(at).astype(np.float64), output_bound(at), each(density, t)
    expect.at_most(found - slack, top, "-y(-t)")
    expect.at_most(top * t * t / (1 + t * t) - slack, found, "its lower bound")


# Gradients -------------------------------------------------------------------------------------------


def slope(c, x):
    if c.approximate is None:
        return each(cdf, x) + x * each(density, x)
    h = ROOT * (x + CUBIC * x**3)
    rise = ROOT * (1 + 3 * CUBIC * x * x) * each(lambda t: 1 / math.cosh(min(abs(t), 300.0)) ** 2, h) / 2
    return gate(c, x) + x * rise


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.reach("exact", "by_tanh", "none"),
    kills=["slope_is_the_gate", "slope_of_the_other_form"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dx = g (Phi + x phi), and by tanh g ((1 + tanh h) / 2 + x (1 - tanh^2 h) h' / 2)."
    (x,) = f64(c, "x")
    g = cotangent(c, x.shape)
    # 1 - tanh^2 is off by u, which x h' <= 0.8 |x| (1 + 0.14 x^2) multiplies until it is 0 (|x| = 8).
    near = np.minimum(np.abs(x), 10.0)
    grown = 1 + (0 if c.approximate is None else near * (1 + 0.14 * near**2))
    limit = roundings(c, 20, np.abs(g.astype(np.float64)) * grown * (1 + np.minimum(near**2, 4)))
    expect(impl.vjp(c, g)["x"], g * slope(c, x), limit, "dx", scale=max(float(np.max(np.abs(g), initial=0.0)), 1.0))


@law(
    ID, "L7", closed_form=True, needs=("vjp",), given=space.where(some=True).reach("exact", "by_tanh"),
    kills=["slope_by_the_plain_cube"],
)  # fmt: skip
def far_gradients_are_one_or_zero(impl, c, expect):
    "dy/dx = 1 at 100, 1e4 and where x^2 overflows, and 0 at their opposites, exactly; 1/2 at 0."
    g = np.ones(c.x.shape, c.dtype)
    for far in (100.0, 1e4, huge(c)):
        for x, wanted in ((far, 1.0), (-far, 0.0), (0.0, 0.5)):
            at = c.replace(x=np.full(c.x.shape, x, c.dtype))
            expect.same(impl.vjp(at, g)["x"], wanted * g, f"dy/dx at {x}")


# Mutants ---------------------------------------------------------------------------------------------


def saturated(**options):
    """The default-size test: zero and numbers far from it."""
    return lambda: ((np.array([-30.0, -12.0, 0.0, 12.0, 30.0]),), options)


def _exact(x):
    from scipy.special import erf

    return (x * (0.5 * (1 + erf(x * math.sqrt(0.5))))).astype(x.dtype)


def _tanh(x, root=ROOT, cubic=CUBIC, power=3):
    z = np.clip(x, -10, 10)
    return (x * (0.5 * (1 + np.tanh(root * (z + cubic * z**power))))).astype(x.dtype)


def _by(approximate, exact, tanh):
    return exact if approximate is None else tanh


@mutant(ID, default_case=saturated())
def always_tanh(x, *, approximate=None):
    "The approximation under the exact name."
    return _tanh(x)


@mutant(ID, default_case=saturated(approximate="tanh"))
def always_exact(x, *, approximate=None):
    "approximate is accepted and dropped."
    return _exact(x)


@mutant(ID, default_case=saturated())
def sigmoid_of_1702(x, *, approximate=None):
    "Quick GELU."
    return (x * sigmoid(1.702 * x)).astype(x.dtype)


@mutant(ID, default_case=saturated())
def erf_without_the_root(x, *, approximate=None):
    "erf(x): the distribution of variance 1/2."
    return _exact(x * math.sqrt(2)) / x.dtype.type(math.sqrt(2)) if approximate is None else _tanh(x)


@mutant(ID, default_case=lambda: ((np.array([0.0, 12.0, 30.0]),), {"approximate": "tanh"}))
def cube_forgotten(x, *, approximate=None):
    "tanh(sqrt(2 / pi) x)."
    return _exact(x) if approximate is None else _tanh(x, cubic=0.0)


@mutant(ID, default_case=lambda: ((np.linspace(-2, 2, 9),), {"approximate": "tanh"}))
def constants_in_single(x, *, approximate=None):
    "sqrt(2 / pi) and 0.044715 typed in with seven digits."
    return _exact(x) if approximate is None else _tanh(x, root=0.7978846, cubic=0.044715)


@mutant(ID, default_case=lambda: ((np.array([0.0, 12.0, 30.0]),), {}))
def square_for_the_cube(x, *, approximate=None):
    "x + 0.044715 x^2."
    return _exact(x) if approximate is None else _tanh(x, power=2)


@mutant(ID, default_case=lambda: ((np.array([-30.0, 0.0]),), {}))
def half_forgotten(x, *, approximate=None):
    "x (1 + erf): right on the left and at 0."
    return 2 * _by(approximate, _exact, _tanh)(x)


@mutant(ID, default_case=lambda: ((np.linspace(-2, 2, 9),), {"approximate": "tanh"}))
def exponentials_overflow(x, *, approximate=None):
    "tanh by exponentials: inf / inf far out."
    if approximate is None:
        return _exact(x)
    e = np.exp(2 * ROOT * (x + CUBIC * x**3))
    return (x * (e / (1 + e))).astype(x.dtype)


@mutant(ID, default_case=lambda: ((np.linspace(-2, 2, 9),), {}))
def far_inputs_leak(x, *, approximate=None):
    "The gate kept above 1e-6, so that no unit dies."
    y = _by(approximate, _exact, _tanh)(x)
    return np.where(x < -20, x * x.dtype.type(1e-6), y)


@mutant(ID, default_case=saturated())
def nan_at_minus_infinity(x, *, approximate=None):
    "x times a gate of 0, whatever x is."
    return np.where(np.isneginf(x), np.nan, _by(approximate, _exact, _tanh)(np.maximum(x, -100))).astype(x.dtype)


@mutant(ID, default_case=lambda: ((np.linspace(-2, 2, 9),), {}))
def always_in_float32(x, *, approximate=None):
    "float32 inside whatever arrives."
    return _by(approximate, _exact, _tanh)(x.astype(np.float32)).astype(x.dtype)


@mutant(ID, default_case=lambda: ((np.linspace(-4, 4, 9),), {}))
def tail_cut(x, *, approximate=None):
    "Zero below -5, where the table ends."
    return np.where(x < -5, x.dtype.type(0), _by(approximate, _exact, _tanh)(x))


def _vjp_mutant(name, doc, vjp):
    def function(x, *, approximate=None):
        return _by(approximate, _exact, _tanh)(x)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=saturated())(function)


def _slope(x, approximate):
    if approximate is None:
        return _gate(x, None) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    t = np.tanh(ROOT * (x + CUBIC * x**3))
    return (1 + t) / 2 + x * (1 - t * t) * ROOT * (1 + 3 * CUBIC * x * x) / 2


def _gate(x, approximate):
    return np.where(x == 0, 0.5, _by(approximate, _exact, _tanh)(x) / np.where(x == 0, 1, x))


_vjp_mutant("slope_is_the_gate", "Phi(x): x phi(x) forgotten.",
            lambda g, x, *, approximate=None: ((g * _gate(x, approximate)).astype(x.dtype),))  # fmt: skip
_vjp_mutant("slope_of_the_other_form", "The exact gradient under the tanh form.",
            lambda g, x, *, approximate=None: ((g * _slope(x, None)).astype(x.dtype),))  # fmt: skip
_vjp_mutant("slope_by_the_plain_cube", "0 times infinity far out.",
            lambda g, x, *, approximate=None: ((g * _slope(x, approximate)).astype(x.dtype),))  # fmt: skip
