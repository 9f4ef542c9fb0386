"""Random compositions: the chain rule, the order of sums, and sums in place."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodiff import grad, hvp, jvp, namespace, tensor, vjp
from tests.autodiff.samples import examples

STEPS = {
    "add": lambda xp, a, b: a + b,
    "multiply": lambda xp, a, b: a * b,
    "subtract": lambda xp, a, b: a - b,
    "over": lambda xp, a, b: a / (b * b + 1.0),
    "tanh": lambda xp, a, b: xp.tanh(a),
    "sin": lambda xp, a, b: xp.sin(a),
    "transpose": lambda xp, a, b: xp.matrix_transpose(a),
    "matmul": lambda xp, a, b: xp.matmul(a, b) * 0.3,
    "mean": lambda xp, a, b: a - xp.mean(a, axis=0, keepdims=True),
    "flip": lambda xp, a, b: xp.flip(a, axis=0) + b,
    "row": lambda xp, a, b: a[0:1, :] * b,
    "concat": lambda xp, a, b: xp.concat([a[1:, :], b[:1, :]], axis=0),
    "same": lambda xp, a, b: a,
    "double": lambda xp, a, b: a + a,
}


@st.composite
def programs(draw):
    """Steps (name, i, j): each reads two of the values before it."""
    steps = []
    for k in range(draw(st.integers(1, 12))):
        pick = st.integers(0, k + 1)
        steps.append((draw(st.sampled_from(sorted(STEPS))), draw(pick), draw(pick)))
    return steps, draw(st.integers(0, 2**32 - 1))


def run(steps, x, y):
    xp = namespace(x, y)
    values = [x, y]
    for name, i, j in steps:
        values.append(STEPS[name](xp, values[i], values[j]))
    total = xp.sum(values[-1] * 0.5)
    for v in values[2:-1]:
        total = total + xp.sum(v) * 0.1
    return total


@given(programs())
@examples(80)
def test_chain_rule(program):
    steps, seed = program
    rng = np.random.default_rng(seed)
    x, y, u, w = rng.uniform(-1, 1, (4, 3, 3))
    f = lambda x, y: run(steps, x, y)  # noqa: E731
    gx, gy = grad(f, (0, 1))(x, y)
    _, slope = jvp(f, (x, y), (u, w))
    size = 1 + np.abs(gx * u).sum() + np.abs(gy * w).sum()
    assert abs((gx * u).sum() + (gy * w).sum() - slope) <= 1e-13 * size
    h = 1e-30
    step = run(steps, x + 1j * h * u, y + 1j * h * w).imag / h
    assert abs(slope - step) <= 1e-12 * size


@given(programs())
@examples(40)
def test_second_derivatives_of_compositions(program):
    steps, seed = program
    rng = np.random.default_rng(seed)
    x, y, u, w = rng.uniform(-1, 1, (4, 3, 3))
    f = lambda x, y: run(steps, x, y)  # noqa: E731
    ax, ay = hvp(f, (x, y), (u, w))
    bx, by = hvp(f, (x, y), (w, u))
    left, right = (ax * w).sum() + (ay * u).sum(), (bx * u).sum() + (by * w).sum()
    assert abs(left - right) <= 1e-11 * (1 + np.abs(ax).sum() + np.abs(bx).sum())
    slope = lambda x, y: (lambda g: (g[0] * u).sum() + (g[1] * w).sum())(grad(f, (0, 1))(x, y))  # noqa: E731
    rx, ry = grad(slope, (0, 1))(x, y)
    assert np.allclose(rx, ax, rtol=1e-10, atol=1e-10) and np.allclose(ry, ay, rtol=1e-10, atol=1e-10)


@given(programs())
@examples(40)
def test_backward_repeats_its_bits_and_touches_nothing(program):
    steps, seed = program
    rng = np.random.default_rng(seed)
    x0, y0 = rng.uniform(-1, 1, (2, 3, 3))
    found = []
    for create_graph in (False, False, True):
        x, y = tensor(x0.copy(), True), tensor(y0.copy(), True)
        out = run(steps, x, y)
        saved = [s for s in _saved(out) if isinstance(s, np.ndarray)]
        before = [s.copy() for s in saved]
        out.backward(retain_graph=True, create_graph=create_graph)
        assert all(np.array_equal(a, b) for a, b in zip(before, saved, strict=True))
        found.append([getattr(t.grad, "data", t.grad) if create_graph else t.grad for t in (x, y)])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert (a is None and b is None) or np.array_equal(a, b)


def _saved(out):
    stack, seen = [out.node], set()
    while stack:
        node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield from node.saved
        stack += node.edges


@given(programs())
@examples(30)
def test_everything_dies_with_the_output(program):
    steps, seed = program
    rng = np.random.default_rng(seed)
    x, y = (tensor(rng.uniform(-1, 1, (3, 3)), True) for _ in range(2))
    gc.disable()
    try:
        for create_graph in (False, True):
            out = run(steps, x, y)
            stack, seen = [out.node], {}
            while stack:
                node = stack.pop()
                if node is not None and node.prim is not None and id(node) not in seen:
                    seen[id(node)] = weakref.ref(node)
                    stack += node.edges
            node = None
            out.backward(create_graph=create_graph)
            x.grad = y.grad = None
            del out
            assert all(r() is None for r in seen.values())
    finally:
        gc.enable()


def test_fan_out_is_summed_from_the_latest_consumer_down():
    big, x = 2.0**54, tensor(np.ones(1), True)
    a, b, c = x * 1.0, x * big, x * -big
    (a + b + c).backward(np.ones(1))
    # ((-big) + big) + 1, not (1 + big) - big = 0
    assert x.grad == [1.0]


def test_many_consumers_of_one_value():
    x = tensor(np.arange(3.0), True)
    y = x * 2.0
    total = y
    for k in range(50):
        total = total + y * float(k)
    total.backward(np.ones(3))
    assert np.array_equal(x.grad, np.full(3, 2.0 * (1 + sum(range(50)))))


@pytest.mark.parametrize("step", [lambda y: y + 1.0, lambda y: y * 1.0])
def test_a_chain_longer_than_the_stack(step):
    """The sweep of 10^5 nodes does not recurse, nor does their end, which needs no collector."""
    depth = 100_000
    assert depth > 20 * sys.getrecursionlimit()
    x = tensor(np.ones(2), True)
    gc.disable()
    try:
        y, refs = x, []
        for k in range(depth):
            y = step(y)
            if k % 1000 == 0:
                refs.append(weakref.ref(y.node))
        y.sum().backward()
        assert np.array_equal(x.grad, np.ones(2))
        del y
        assert all(r() is None for r in refs)
    finally:
        gc.enable()


@pytest.mark.parametrize("n", [1, 5, 30])
def test_recording_costs_one_node_an_operation(n):
    x = tensor(np.ones(2), True)
    y = x
    for _ in range(n):
        y = y * x
    nodes, stack = set(), [y.node]
    while stack:
        node = stack.pop()
        if node.prim is not None and node not in nodes:
            nodes.add(node)
            stack += node.edges
    assert len(nodes) == n


def test_euler_for_a_homogeneous_function():
    rng = np.random.default_rng(0)
    a, x = rng.standard_normal((4, 4)), rng.standard_normal(4)

    def cubic(x):
        xp = namespace(x)
        return xp.sum(x * x * xp.matmul(xp.asarray(a), x))

    assert (grad(cubic)(x) * x).sum() == pytest.approx(3 * cubic(x), rel=1e-13)
    assert np.allclose(hvp(cubic, (x,), (x,))[0], 2 * grad(cubic)(x), rtol=1e-13)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6), st.integers(-3, 3))
def test_polynomials_exactly(coefficients, at):
    x = float(at)
    p = lambda x: sum((c * x**k for k, c in enumerate(coefficients)), x * 0.0)  # noqa: E731
    first = sum(k * c * x ** (k - 1) for k, c in enumerate(coefficients) if k)
    second = sum(k * (k - 1) * c * x ** (k - 2) for k, c in enumerate(coefficients) if k > 1)
    assert grad(p)(x) == first and grad(grad(p))(x) == second
    assert jvp(p, (x,), (1.0,))[1] == first
    assert jvp(lambda x: jvp(p, (x,), (1.0,))[1], (x,), (1.0,))[1] == second


def test_quadratic_forms():
    rng = np.random.default_rng(1)
    a, x, u = rng.standard_normal((5, 5)), rng.standard_normal(5), rng.standard_normal(5)
    f = lambda x: namespace(x).einsum("i,ij,j->", x, a, x)  # noqa: E731
    assert np.allclose(grad(f)(x), (a + a.T) @ x, rtol=1e-13)
    assert np.allclose(hvp(f, (x,), (u,))[0], (a + a.T) @ u, rtol=1e-13)
    out, pull = vjp(lambda x: namespace(x).matmul(a, x), x)
    assert np.allclose(pull(u)[0], a.T @ u, rtol=1e-14) and np.allclose(out, a @ x)
