"""Baur and Strassen: value and gradient of a scalar program cost at most five times the value.

Counted in operations + - x / (negation counts as one), on scalars of array-api-strict, whose
operators are Python functions. Reference: Baur & Strassen 1983, The complexity of partial
derivatives; the count does not depend on the number of inputs.
"""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from autodiff import tensor
from autodiff.primitive import TABLE, fit
from tests.autodiff.samples import examples

STRICT = backends.get("strict")
FUNCTIONS = ("add", "subtract", "multiply", "divide", "negative")
OPERATORS = ("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__")
STEPS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "x": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
ELEMENT = type(strict.zeros(()))


class Counter:
    """Counts arithmetic while it is open; what runs inside a counted call is not counted again."""

    def __init__(self, monkeypatch):
        self.count, self.inside = 0, False
        for name in (*OPERATORS, "__neg__"):
            monkeypatch.setattr(ELEMENT, name, self._counted(getattr(ELEMENT, name)))
        for name in FUNCTIONS:
            # The library's own and the ones that primitives are already bound to.
            monkeypatch.setitem(STRICT.__dict__, name, self._counted(getattr(STRICT, name)))
            monkeypatch.setattr(TABLE[name], "_bound", {})

    def _counted(self, f):
        def call(*args, **options):
            if self.inside:
                return f(*args, **options)
            self.count, self.inside = self.count + 1, True
            try:
                return f(*args, **options)
            finally:
                self.inside = False

        return call

    def of(self, run):
        before = self.count
        run()
        return self.count - before


@st.composite
def programs(draw, kinds="+-x/"):
    """Inputs, and steps (kind, i, j) that each read two of the values before them."""
    inputs = draw(st.integers(1, 4))
    steps = []
    for k in range(draw(st.integers(1, 15))):
        # The last value always: what nobody reads is no part of the program.
        steps.append((draw(st.sampled_from(kinds)), inputs + k - 1, draw(st.integers(0, inputs + k - 1))))
    return inputs, steps


def run(steps, values):
    values = list(values)
    for kind, i, j in steps:
        values.append(STEPS[kind](values[i], values[j]))
    return values[-1]


def costs(counter, inputs, steps):
    """(operations of the value, operations of value and gradient)."""
    start = [1.0 + 0.25 * k for k in range(inputs)]
    value = counter.of(lambda: run(steps, [strict.asarray(v) for v in start]))
    leaves = [tensor(strict.asarray(v), requires_grad=True) for v in start]
    return value, counter.of(lambda: run(steps, leaves).backward())


def check_factor(monkeypatch, kinds, count=60):
    with monkeypatch.context() as m, np.errstate(all="ignore"):
        counter = Counter(m)

        @examples(count)
        @given(programs(kinds))
        def check(program):
            inputs, steps = program
            value, both = costs(counter, inputs, steps)
            assert value == len(steps)
            assert both <= 5 * value

        check()


@pytest.mark.parametrize("kinds", ["+-x/", "/", "x", "-/"])
def test_value_and_gradient_cost_five_times_the_value_at_most(kinds, monkeypatch):
    check_factor(monkeypatch, kinds)


def test_the_count_is_exact_where_it_can_be_told(monkeypatch):
    with monkeypatch.context() as m:
        counter = Counter(m)
        # x^5 by multiplication: 4 products; each pulls back by two, and x is read five times.
        value, both = costs(counter, 1, [("x", 0, 0), ("x", 1, 0), ("x", 2, 0), ("x", 3, 0)])
        assert (value, both) == (4, 4 + 8 + 4)
        # (x / y) / z: two quotients; each pulls back by a quotient, a product and a sign.
        value, both = costs(counter, 3, [("/", 2, 1), ("/", 3, 0)])
        assert (value, both) == (2, 2 + 6)


def test_the_factor_does_not_grow_with_the_inputs(monkeypatch):
    with monkeypatch.context() as m:
        counter = Counter(m)
        for n in (2, 10, 50):
            product = [("x", k if k == 0 else n + k - 1, k + 1) for k in range(n - 1)]
            value, both = costs(counter, n, product)
            assert (value, both) == (n - 1, 3 * (n - 1))


def _quotient_again(xp, g, node):
    ex, ey = node.edges
    _, y, z = node.saved
    q = g / y
    return (
        None if ex is None else fit(xp, g / y, ex),
        None if ey is None else fit(xp, -q * ((z * y) / y), ey),
    )


def test_a_rule_that_computes_the_quotient_again_is_caught(monkeypatch):
    monkeypatch.setattr(TABLE["divide"], "vjp", _quotient_again)
    monkeypatch.setattr(TABLE["divide"], "saves", ((1, 2), (1, 2)))
    monkeypatch.setattr(TABLE["divide"], "_plans", {})
    value, both = costs(Counter(monkeypatch), 2, [("/", 1, 0), ("/", 2, 0), ("/", 3, 0)])
    assert both > 5 * value
