"""Laws and mutants of SwiGLU's gate."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import cotangent, f64, logistic, roundings, sigmoid
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, dims

ID = "nn.swiglu"
space = cases(
    ID,
    B=batch(2, 3, large=80),
    F=dims(0, 5, large=300),
    values=("dyadic", "normal", "extreme"),
    flags={"none": Flag(lambda c: c.gate.size == 0, {"F": 0}), "some": Flag(lambda c: c.gate.size > 0)},
)


def output_bound(c, gate=None):
    """Exponential, sum, quotient (4 ulp, 1, 1) and two products, of |a b|: s may be formed as (1 + tanh) / 2."""
    a, b = f64(c, "gate", "up")
    return roundings(c, 14, np.abs((a if gate is None else gate) * b))


@law(
    ID, "L1", closed_form=True, given=space.reach("none"),
    kills=["gate_is_the_sigmoid", "slope_of_quick_gelu", "up_is_gated"],
)  # fmt: skip
def a_gate_of_log_odds(impl, c, expect):
    "gate = log n, up = b: y = b n log(n) / (n + 1), and b log(n) (-1) / (n + 1) at -log n."
    n = 2.0 + np.arange(c.gate.size).reshape(c.gate.shape)
    sign = np.where(np.arange(c.gate.size) % 2 == 0, 1.0, -1.0).reshape(n.shape)
    c = c.replace(gate=(sign * np.log(n)).astype(c.dtype))
    (b,) = f64(c, "up")
    wanted = b * sign * np.log(n) * np.where(sign > 0, n, 1) / (n + 1)
    expect(impl(c), wanted, output_bound(c) + roundings(c, 2, b * np.log(n)))


@law(
    ID, "L2", closed_form=True, given=space, kills=["gate_is_the_sigmoid"],
    passes_null=["zeros", "identity", "mutated"],
)  # fmt: skip
def a_closed_gate_is_zero(impl, c, expect):
    "gate = 0: y = 0, exactly."
    expect.same(impl(c.replace(gate=np.zeros(c.gate.shape, c.dtype))), np.zeros(c.gate.shape))


@law(ID, "L3", closed_form=True, given=space, kills=["gate_is_the_sigmoid", "gate_is_a_rectifier_with_leak"])
def opposite_gates_differ_by_the_product(impl, c, expect):
    "silu(a) b - silu(-a) b = a b, for the two sigmoids add up to 1."
    a, b = f64(c, "gate", "up")
    difference = impl(c).astype(np.float64) - impl(c.replace(gate=-c.gate))
    expect(difference, a * b, 2 * output_bound(c), "difference")


@law(ID, "L4", given=space, kills=["up_is_gated"], passes_null=["zeros"])
def linear_in_the_ungated_half(impl, c, expect):
    "y(a, -3 b) = -3 y(a, b)."
    tripled = c.replace(up=-3 * c.up)
    a, b = f64(c, "gate", "up")
    size = float(np.max(np.abs(a * b), initial=0.0)) * 3
    expect(impl(tripled), -3.0 * impl(c).astype(np.float64), 2 * output_bound(tripled), scale=size)


@law(ID, "L5", closed_form=True, given=space.where(some=True), kills=["exponentials_overflow"])
def far_gates_are_open_or_shut(impl, c, expect):
    "gate = 1e4: y = 1e4 up; gate = -1e4: y = 0."
    (b,) = f64(c, "up")
    for far in (1e4, -1e4):
        at = c.replace(gate=np.full(c.gate.shape, far, c.dtype))
        expect(impl(at), max(far, 0.0) * b, roundings(c, 3, far * b), f"gate = {far}", scale=1e4 * np.max(np.abs(b)))


# Gradients -------------------------------------------------------------------------------------------


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.reach("none"),
    kills=["slope_is_the_sigmoid", "slope_without_the_complement", "gradients_swapped"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "d gate = g up s (1 + a (1 - s)), d up = g a s."
    a, b = f64(c, "gate", "up")
    g = cotangent(c, a.shape)
    s, rest = logistic(a), logistic(-a)
    found, g64 = impl.vjp(c, g), np.abs(g.astype(np.float64))
    # 1 - s is off by u where it is not 0, so a (1 - s) by |a| u; above |a| = 40 it is 0 to the last bit.
    size = g64 * np.abs(b) * (1 + np.minimum(np.abs(a), 40))
    most = [float(np.max(g64 * np.abs(x), initial=0)) for x in (a, b)]
    expect(found["gate"], g * b * s * (1 + a * rest), roundings(c, 16, size), "d gate", scale=most[1])
    expect(found["up"], g * a * s, roundings(c, 14, g64 * np.abs(a)), "d up", scale=most[0])


@law(
    ID, "L7", closed_form=True, needs=("vjp",), given=space.where(some=True), kills=["gradients_swapped"],
)  # fmt: skip
def gradient_at_a_closed_gate(impl, c, expect):
    "gate = 0: d gate = g up / 2 and d up = 0."
    c = c.replace(gate=np.zeros(c.gate.shape, c.dtype))
    g = cotangent(c, c.gate.shape)
    found, wanted = impl.vjp(c, g), g * f64(c, "up")[0] / 2
    expect(found["gate"], wanted, roundings(c, 8, wanted), "d gate")
    expect.same(found["up"], np.zeros(c.up.shape), "d up")


# Mutants ---------------------------------------------------------------------------------------------


def gates(gate, up=None):
    """The default-size test: given gates over random values, or the same array twice."""

    def make():
        b = np.random.default_rng(0).standard_normal((2, 4)) if up is None else np.full((2, 4), up)
        return (np.full((2, 4), gate), b), {}

    return make


@mutant(ID, default_case=gates(1.0))
def gate_is_the_sigmoid(gate, up):
    "GLU: sigma(gate) up. A gate of ones does not tell."
    return sigmoid(gate) * up


@mutant(ID, default_case=gates(30.0))
def slope_of_quick_gelu(gate, up):
    "gate sigma(1.702 gate): the same on an open gate."
    return gate * sigmoid(gate * gate.dtype.type(1.702)) * up


@mutant(ID, default_case=gates(0.5, up=0.5))
def up_is_gated(gate, up):
    "The two halves in the other order."
    return up * sigmoid(up) * gate


@mutant(ID, default_case=gates(3.0))
def exponentials_overflow(gate, up):
    "e^a / (1 + e^a): inf / inf at a large gate."
    return gate * (np.exp(gate) / (1 + np.exp(gate))) * up


@mutant(ID, default_case=gates(2.0))
def gate_is_a_rectifier_with_leak(gate, up):
    "silu where the gate is open, a leak of 1 / 100 where it is shut."
    return np.where(gate >= 0, gate * sigmoid(gate), gate / 100).astype(gate.dtype) * up


def _vjp_mutant(name, doc, vjp):
    def function(gate, up):
        return gate * sigmoid(gate) * up

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=gates(1.0))(function)


_vjp_mutant("slope_is_the_sigmoid", "d gate = g up s: a s' forgotten.",
            lambda g, a, b: (g * b * sigmoid(a), g * a * sigmoid(a)))  # fmt: skip
_vjp_mutant("slope_without_the_complement", "s (1 + a s) instead of s (1 + a (1 - s)).",
            lambda g, a, b: (g * b * sigmoid(a) * (1 + a * sigmoid(a)), g * a * sigmoid(a)))  # fmt: skip
_vjp_mutant("gradients_swapped", "The two cotangents in the other order.",
            lambda g, a, b: (g * a * sigmoid(a), g * b * sigmoid(a) * (1 + a * (1 - sigmoid(a)))))  # fmt: skip
