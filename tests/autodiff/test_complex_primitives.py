"""Every primitive that takes complex numbers, under every law; wrong rules are caught."""

from __future__ import annotations

import numpy as np
import pytest

from autodiff import (
    backward,
    forward,
    hooks,
)
from autodiff.primitive import TABLE, fit
from autodiff.transforms import reverse
from tests.autodiff import test_complex as convention
from tests.autodiff.laws_complex import (
    BROKEN,
    SUPPORTED,
    adjoint,
    breaks_cauchy_riemann,
    cauchy_riemann,
    given_draws,
    narrow_stays_narrow,
    second_order,
    shortcut_is_derived,
    slope,
    strict_agrees,
    taylor,
)
from tests.autodiff.samples import Draw

each = pytest.mark.parametrize("name", SUPPORTED)
LAWS = (adjoint, slope, taylor, shortcut_is_derived, second_order)


@each
@pytest.mark.parametrize("law", LAWS, ids=lambda f: f.__name__)
def test_complex_primitive(law, name):
    given_draws(law, name, 10)


@pytest.mark.parametrize("name", sorted(set(SUPPORTED) - BROKEN - {"complex"}))
def test_holomorphic_primitive(name):
    given_draws(cauchy_riemann, name, 10)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_primitive_that_is_not_holomorphic(name):
    given_draws(breaks_cauchy_riemann, name, 10)


@pytest.mark.parametrize("name", sorted(set(SUPPORTED) - {"astype"}))
def test_precision_is_kept(name):
    given_draws(narrow_stays_narrow, name, 10)


# The indices that the standard takes are judged with real numbers.
@pytest.mark.parametrize("name", sorted(set(SUPPORTED) - {"getitem", "scatter_add"}))
def test_strict_agrees(name):
    given_draws(strict_agrees, name, 5)


# --- wrong rules ------------------------------------------------------------------------------


def _rule(name, wrong):
    return lambda m: m.setattr(TABLE[name], "vjp", wrong)


def _linear_vecdot(xp, g, node):
    x, y = node.saved
    g = xp.expand_dims(g, axis=-1)
    return fit(xp, y * g, node.edges[0]), fit(xp, xp.conj(x) * g, node.edges[1])


def _size_for_real(xp, g, node):
    out = []
    for edge, other in zip(node.edges, reversed(node.saved), strict=True):
        part = g * other
        out.append(fit(xp, part if edge.dtype.kind == "c" else xp.abs(part), edge))
    return tuple(out)


def _set(owner, name, value):
    return lambda m: m.setattr(owner, name, value)


# (what is wrong, how, a check that fails on it)
MUTANTS = [
    ("the gradient is JAX's", _set(backward, "turned", lambda g: g), lambda: law_on_draws(adjoint, "multiply")),
    ("abs without a conjugate", _rule("abs", lambda xp, g, n: (g * (n.saved[0] / xp.abs(n.saved[0])),)),
     lambda: law_on_draws(slope, "abs")),
    ("vecdot conjugates one cotangent", _rule("vecdot", _linear_vecdot), lambda: law_on_draws(adjoint, "vecdot")),
    ("conj passes g on", _rule("conj", lambda xp, g, n: (fit(xp, g, n.edges[0]),)),
     lambda: law_on_draws(adjoint, "conj")),
    ("sign of imag", _rule("imag", lambda xp, g, n: (fit(xp, g * 1j, n.edges[0]),)),
     lambda: law_on_draws(slope, "imag")),
    ("sign of the imaginary part", _rule("complex", lambda xp, g, n: (xp.real(g), xp.imag(g))),
     lambda: law_on_draws(slope, "complex")),
    ("abs is taken for diagonal", _set(forward, "_any_complex", lambda values: False),
     lambda: law_on_draws(shortcut_is_derived, "abs")),
    ("J* for J", _set(forward, "turned", lambda g: g), lambda: law_on_draws(adjoint, "prod")),
    ("hooks see JAX's", _set(hooks, "is_complex", lambda node: False),
     lambda: convention.test_hooks_checkpoints_and_second_backwards_keep_the_convention()),
    ("f' conjugated", _set(reverse, "conjugate", lambda tree: tree),
     lambda: convention.test_holomorphic_functions_have_their_complex_derivative("log")),
    ("a real factor gets the size", _rule("multiply", _size_for_real), lambda: law_on_draws(adjoint, "multiply")),
]  # fmt: skip


def law_on_draws(law, name):
    sizes = np.random.default_rng(5)
    for seed in range(40):
        law(name, Draw(sizes.integers(1, 4, sizes.integers(0, 3)), seed))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("breaks, check", [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS])
def test_a_wrong_rule_is_caught(breaks, check, monkeypatch):
    check()
    breaks(monkeypatch)
    with pytest.raises(Exception) as caught:  # noqa: PT011  a law may fail in its own way
        check()
    assert isinstance(caught.value, (AssertionError, TypeError))
