"""Checkpointing: the bits of the plain run, less memory, and a counted price."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodiff import (
    checkpoint,
    checkpoint_sequential,
    grad,
    namespace,
    no_grad,
    register_post_accumulate_grad_hook,
    saved_bytes,
    tensor,
    vjp,
)
from autodiff.checkpoint import _checksum
from autodiff.primitive import Primitive
from autodiff.sequential import segment_lengths
from tests.autodiff.samples import examples

RNG = np.random.default_rng(11)


def layers(w, n, rng=None):
    """n layers that share a weight; with `rng` each drops half of its values."""

    def layer(x):
        xp = namespace(x)
        y = xp.tanh(xp.matmul(x, w)) + x * 0.5
        return y if rng is None else y * ((rng.random(y.shape) < 0.5) * 2.0)

    return [layer] * n


@st.composite
def partitions(draw):
    return draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))


def gradients(run, seed, dropout):
    """Value, gradients and the generator's next draw, after `run(layers, x, rng)`."""
    source = np.random.default_rng(seed)
    w, x = (tensor(source.standard_normal((3, 3)), requires_grad=True) for _ in range(2))
    rng = np.random.default_rng(seed) if dropout else None
    out = run(w, x, rng)
    (out * out).sum().backward()
    return out.data, w.grad, x.grad, rng.random() if dropout else 0.0


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@given(partitions(), st.integers(0, 999), st.booleans())
@examples(30)
def test_any_partition_has_the_bits_of_the_plain_run(lengths, seed, dropout):
    n = sum(lengths)

    def plain(w, x, rng):
        for f in layers(w, n, rng):
            x = f(x)
        return x

    def cut(w, x, rng):
        return checkpoint_sequential(layers(w, n, rng), x, lengths, rng=rng)

    assert same(gradients(plain, seed, dropout), gradients(cut, seed, dropout))


@given(partitions(), partitions(), st.integers(0, 999))
@examples(20)
def test_nested_checkpoints_too(outer, inner, seed):
    def plain(w, x, rng):
        for f in layers(w, len(outer) * sum(inner), rng):
            x = f(x)
        return x

    def nested(w, x, rng):
        block = lambda x: checkpoint_sequential(layers(w, sum(inner), rng), x, inner, rng=rng)  # noqa: E731
        for _ in outer:
            x = checkpoint(block, x, rng=rng)
        return x

    assert same(gradients(plain, seed, True), gradients(nested, seed, True))


def test_a_nested_checkpoint_keeps_the_outer_arguments_alone():
    x = tensor(RNG.standard_normal(8), requires_grad=True)
    inner = lambda h: checkpoint(lambda v: v.sin().sin().sin(), h)  # noqa: E731
    out = checkpoint(lambda h: inner(inner(inner(h))), x)
    assert saved_bytes(out) == x.data.nbytes
    out.sum().backward()
    y = tensor(x.data, requires_grad=True)
    h = y
    for _ in range(9):
        h = h.sin()
    h.sum().backward()
    assert np.array_equal(x.grad, y.grad)


def test_double_backward_through_a_checkpoint():
    x, u = RNG.standard_normal((2, 5))
    f = lambda x: (x.sin() * x.exp()).sum()  # noqa: E731
    twice = lambda f: grad(lambda x: (grad(f)(x) * u).sum())(x)  # noqa: E731
    assert np.array_equal(twice(lambda x: checkpoint(f, x)), twice(f))
    _, pull = vjp(lambda x: checkpoint(f, x), x)
    assert np.array_equal(pull(np.ones(()))[0], pull(np.ones(()))[0])


def test_trees_constants_and_several_outputs_go_through():
    p = {"w": tensor(np.ones(3), requires_grad=True), "frozen": np.arange(3.0), "name": "n"}
    f = lambda p, k: ((p["w"] * p["frozen"]).exp() * k, p["name"])  # noqa: E731
    out, name = checkpoint(f, p, 2.0)
    out.sum().backward()
    assert name == "n" and np.allclose(p["w"].grad, 2 * np.arange(3) * np.exp(np.arange(3)))


def test_under_no_grad_it_is_the_function():
    with no_grad():
        assert checkpoint(lambda x: x * 2.0, tensor([1.0], requires_grad=True)).data == 2.0


# --- memory and price -------------------------------------------------------------------------


def unit_layer(unit):
    """A layer that saves its input alone; counts its runs, and the tape at each backward."""
    seen = {"runs": 0, "peak": 0, "out": None}

    def forward(xp, x):
        seen["runs"] += 1
        return xp.sin(x)

    def rule(xp, g, node):
        seen["peak"] = max(seen["peak"], saved_bytes(seen["out"]) // unit)
        return (g * xp.cos(node.saved[0]),)

    return Primitive("unit", rule, ((0,),), forward=forward), seen


@given(partitions())
@examples(40)
def test_peak_is_the_formula_and_each_step_but_the_last_segments_runs_twice(lengths):
    x = tensor(RNG.standard_normal(16), requires_grad=True)
    layer, seen = unit_layer(x.data.nbytes)
    n = sum(lengths)
    seen["out"] = out = checkpoint_sequential([layer] * n, x, lengths)
    # Inputs of the dropped segments, and all of the last.
    assert saved_bytes(out) == x.data.nbytes * (len(lengths) - 1 + lengths[-1])
    out.backward(np.ones(16))
    assert seen["peak"] == max(j + length - 1 for j, length in enumerate(lengths, start=1))
    assert seen["runs"] == n + n - lengths[-1]


@pytest.mark.parametrize("root", [1, 2, 3, 5, 8])
def test_the_square_root_of_n_segments_hold_two_root_n_minus_one(root):
    x = tensor(RNG.standard_normal(4), requires_grad=True)
    layer, seen = unit_layer(x.data.nbytes)
    seen["out"] = out = checkpoint_sequential([layer] * root**2, x)
    out.backward(np.ones(4))
    assert seen["peak"] == 2 * root - 1


def test_decreasing_lengths_hold_less():
    x = tensor(RNG.standard_normal(4), requires_grad=True)
    peaks = []
    for lengths in ([1] * 10, [10], [4, 3, 2, 1], [3, 3, 2, 2], [1, 2, 3, 4]):
        layer, seen = unit_layer(x.data.nbytes)
        seen["out"] = out = checkpoint_sequential([layer] * 10, x, lengths)
        out.backward(np.ones(4))
        peaks.append(seen["peak"])
    assert peaks == [10, 10, 4, 5, 7]


def test_segment_lengths():
    for n in range(1, 40):
        for k in range(1, n + 1):
            lengths = segment_lengths(n, k)
            assert sum(lengths) == n and len(lengths) == k and max(lengths) - min(lengths) <= 1
        assert len(segment_lengths(n)) == max(1, round(math.sqrt(n)))


def test_hooks_on_weights_fire_once():
    w = tensor(np.eye(3), requires_grad=True)
    fired = []
    register_post_accumulate_grad_hook(w, lambda t: fired.append(t.grad.copy()))
    x = tensor(np.ones((2, 3)), requires_grad=True)
    checkpoint_sequential(layers(w, 6), x, 3).sum().backward()
    assert len(fired) == 1 and np.array_equal(fired[0], w.grad)


# --- what is refused --------------------------------------------------------------------------


def _counter(change):
    calls = []

    def f(x):
        calls.append(0)
        return change(x, len(calls))

    return f


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda x, k: (x * float(k)).sin(), r"argument 1 \(y\) that multiply saved \(number 0\) differs"),
        (lambda x, k: (x + float(k)).sin(), r"argument 0 \(x\) that sin saved"),
        (lambda x, k: x.sin() if k == 1 else x.cos(), "operation number 0 was sin, and cos"),
        (lambda x, k: x.sin() if k == 1 else x.sin().sin(), "saved 1 times, and 2 times"),
        (lambda x, k: x.sin().sin() if k == 1 else x.sin(), "saved 2 times, and 1 times"),
        (lambda x, k: x[: 5 - k].sin(), "that sin saved"),
    ],
)
def test_a_function_that_changes_its_mind_raises_and_names_the_tensor(change, said):
    x = tensor(np.ones(4), requires_grad=True)
    out = checkpoint(_counter(change), x).sum()
    with pytest.raises(RuntimeError, match=f"checkpoint: f is not deterministic.*{said}"):
        out.backward()


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 5000, 32 * 1024, 70_000])
def test_one_changed_or_exchanged_value_is_seen_at_any_size_and_place(size):
    source = np.random.default_rng(size)
    values = source.standard_normal(size)
    for at in {0, size // 2, size - 1}:
        for other in {*((at + d) % size for d in (1, 512, 1024, 32 * 1024)), None} - {at}:
            changed = values.copy()
            if other is None:
                changed[at] = np.nextafter(changed[at], np.inf)
            else:
                changed[[at, other]] = changed[[other, at]]
            runs = iter([values, changed])
            x = tensor(np.ones(size), requires_grad=True)
            out = checkpoint(lambda x, runs=runs: x * next(runs), x).sum()
            with pytest.raises(RuntimeError, match="not deterministic"):
                out.backward()


each_digest = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "passes"])


@each_digest
def test_exchanged_rows_are_seen(monkeypatch, compiled):
    monkeypatch.setattr(sys.modules["autodiff.checkpoint"], "available", lambda: compiled)
    values = np.random.default_rng(3).standard_normal((4096, 128)).astype(np.float32)
    sums = {_checksum(values)}
    for distance in (1, 2, 16, 64, 1000, 1024, 2048, 4095):
        other = values.copy()
        other[[0, distance]] = other[[distance, 0]]
        sums.add(_checksum(other))
    assert len(sums) == 9


@each_digest
def test_exchanged_numbers_of_few_bits_are_seen(monkeypatch, compiled):
    """1 and 4 differ in their highest bits alone, which products modulo 2^64 push out."""
    monkeypatch.setattr(sys.modules["autodiff.checkpoint"], "available", lambda: compiled)
    values = np.ones(2**18)
    values[0] = 4.0
    sums = {_checksum(values)}
    distances = [2**k for k in range(18)]
    for distance in distances:
        other = values.copy()
        other[[0, distance]] = other[[distance, 0]]
        sums.add(_checksum(other))
    assert len(sums) == 1 + len(distances)


def test_unannounced_dropout_raises_also_when_it_drops_as_many():
    x = tensor(np.arange(1.0, 9.0), requires_grad=True)
    rng = np.random.default_rng(0)
    out = checkpoint(lambda x: (x * rng.permutation([0.0, 2.0] * 4)).sin(), x).sum()
    with pytest.raises(RuntimeError, match="pass rng= if it draws random numbers"):
        out.backward()


def test_arguments_written_in_place_raise():
    x = tensor(np.ones(4), requires_grad=True)
    h = x * 1.0
    out = checkpoint(lambda h: h.sin().exp(), h).sum()
    h.detach().assign(2.0)
    with pytest.raises(RuntimeError, match="checkpoint: its saved argument leaf 0.*changed in place"):
        out.backward()


def test_a_weight_written_in_place_raises():
    w = tensor(np.ones(4), requires_grad=True)
    out = checkpoint(lambda x: (x * w).sin(), tensor(np.ones(4), requires_grad=True)).sum()
    w.detach().assign(2.0)
    with pytest.raises(RuntimeError, match="multiply|in place"):
        out.backward()


@pytest.mark.parametrize(
    "segments, said",
    [(0, "0 segments"), (4, "4 segments"), ([1, 1], "sum to 3"), ([3, 0], "positive")],
)
def test_bad_partitions(segments, said):
    with pytest.raises(ValueError, match=said):
        checkpoint_sequential([lambda x: x] * 3, tensor([1.0], requires_grad=True), segments)


def test_a_freed_checkpoint_raises_like_any_graph():
    x = tensor(np.ones(2), requires_grad=True)
    out = checkpoint(lambda x: x.sin().exp(), x).sum()
    out.backward()
    with pytest.raises(RuntimeError, match="freed"):
        out.backward()


def test_a_checksum_does_not_depend_on_where_the_values_lie():
    values = np.random.default_rng(0).standard_normal(20_000)
    odd = np.frombuffer(b"\0" + values.tobytes(), np.uint8)[1:].view(np.float64)
    assert not odd.flags.aligned and _checksum(odd) == _checksum(values) == _checksum(np.repeat(values, 2)[::2])
