"""A chain reversed by a schedule: the bits of the plain run, whatever the layers do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodiff import (
    Action,
    checkpoint,
    checkpoint_schedule,
    checkpoint_selective,
    grad,
    grad_enabled,
    jvp,
    namespace,
    no_grad,
    register_hook,
    register_post_accumulate_grad_hook,
    saved_bytes,
    tensor,
)
from autodiff.primitive import Primitive
from ref.training.budgeted_schedule import budgeted_schedule
from ref.training.revolve import extra_steps, revolve


def layers(n, w, rng=None, calls=None):
    def layer(x):
        if calls is not None:
            calls.append(1)
        xp = namespace(x, w)
        y = xp.tanh(xp.matmul(x, w)) + xp.matmul(x, w) * 0.5
        return y if rng is None else y * ((rng.random(y.shape) < 0.5) * 2.0)

    return [layer] * n


def chain(fs, x, snaps, rng=None):
    if snaps:
        return checkpoint_schedule(fs, x, revolve(len(fs), snaps), rng=rng)
    for f in fs:
        x = f(x)
    return x


def gradients(n, snaps, seed, dropout, inside=None, outside=False):
    """(value, dw, dx, the generator's next draw, calls) of n layers that share a weight."""
    source, calls = np.random.default_rng(seed), []
    w, x = (tensor(source.standard_normal((3, 3)), requires_grad=True) for _ in range(2))
    rng = np.random.default_rng(seed) if dropout else None
    fs = layers(n, w, rng, calls)
    if inside:
        fs = [lambda x: chain(layers(inside, w, rng), x, snaps and 1, rng) for _ in range(n)]
    run = lambda x: chain(fs, x, snaps, rng)  # noqa: E731
    out = checkpoint(run, x, rng=rng) if outside and snaps else run(x)
    (out * out).sum().backward()
    return (out.data, w.grad, x.grad, np.array(rng.random() if dropout else 0.0)), len(calls)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_bits_draws_and_calls(n, snaps, seed, dropout):
    plain, _ = gradients(n, 0, seed, dropout)
    found, calls = gradients(n, snaps, seed, dropout)
    assert same(found, plain)
    assert calls == extra_steps(n, snaps) + n


@settings(max_examples=12)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 4), st.integers(0, 99), st.booleans())
def test_nested_in_itself_and_in_a_checkpoint(n, snaps, inside, seed, outside):
    plain, _ = gradients(n, 0, seed, True, inside)
    assert same(gradients(n, snaps, seed, True, inside, outside)[0], plain)


def test_an_outer_checkpoint_keeps_its_argument_alone():
    x = tensor(np.linspace(0.0, 1.0, 8), requires_grad=True)
    fs = [lambda x: x.sin()] * 9
    out = checkpoint(lambda x: checkpoint_schedule(fs, x, revolve(9, 3)), x)
    assert saved_bytes(out) == 64
    alone = checkpoint_schedule(fs, x, revolve(9, 3))
    assert saved_bytes(alone) == 4 * 64


def test_twice_differentiated_and_in_forward_mode():
    rng = np.random.default_rng(3)
    w, x, u = (rng.standard_normal((3, 3)) for _ in range(3))

    def first(w, snaps):
        return grad(lambda w: (chain(layers(5, w), tensor(x), snaps) ** 2).sum())(w)

    def second(snaps):
        return grad(lambda w: (first(w, snaps) * u).sum())(w)

    def forward_over_reverse(snaps):
        return jvp(lambda w: first(w, snaps), (w,), (u,))[1]

    for snaps in (1, 2, 4):
        assert np.array_equal(second(snaps), second(0))
        assert np.array_equal(forward_over_reverse(snaps), forward_over_reverse(0))
        forward = [jvp(lambda x, s=s: chain(layers(5, tensor(w)), x, s), (x,), (u,))[1] for s in (0, snaps)]
        assert np.array_equal(*forward)


def test_a_graph_kept_gives_the_same_gradient_again():
    x = tensor(np.linspace(0.0, 1.0, 5), requires_grad=True)
    out = checkpoint_schedule([lambda x: x.sin()] * 6, x, revolve(6, 2)).sum()
    out.backward(retain_graph=True)
    once = x.grad.copy()
    out.backward()
    assert np.array_equal(x.grad, 2 * once)


def test_states_on_the_way_are_not_taped_and_not_held_at_a_turn():
    """Layers that save their output alone: at a turn the tape holds the kept states and that output."""
    taped, peak = [], []

    def forward(xp, x):
        taped.append(grad_enabled())
        return np.exp(-x)

    def rule(xp, g, node):
        peak.append(saved_bytes(out) // 32)
        return (-g * node.saved[-1],)

    layer = Primitive("exp, counted", rule, ((1,),), forward=forward)
    out = checkpoint_schedule([layer] * 10, tensor(np.zeros(4), requires_grad=True) * 0.125, revolve(10, 3))
    out.backward(np.ones(4))
    assert taped.count(False) == extra_steps(10, 3) - 9 and len(taped) == 25
    assert max(peak) == 3 + 1


@pytest.mark.parametrize("run", [
    lambda fs, x: checkpoint_schedule(fs, x, revolve(len(fs), 2)),
    lambda fs, x: checkpoint_selective(lambda x: chain(fs, x, 0), x, policy={"tanh": "save"}),
])  # fmt: skip
def test_hooks_on_a_shared_weight_fire_once_with_the_whole_gradient(run):
    """What a distributed reduction relies on: one call, when the gradient is complete."""
    w, seen = tensor(np.full((3, 3), 0.25), requires_grad=True), []
    register_post_accumulate_grad_hook(w, lambda t: seen.append(t.grad.copy()))
    on_gradient = []
    register_hook(w, lambda g: on_gradient.append(g.copy()))
    run(layers(6, w), tensor(np.ones((2, 3)))).sum().backward()
    plain = tensor(w.data, requires_grad=True)
    chain(layers(6, plain), tensor(np.ones((2, 3))), 0).sum().backward()
    assert len(seen) == len(on_gradient) == 1
    assert np.array_equal(seen[0], plain.grad) and np.array_equal(on_gradient[0], plain.grad)


def test_pairs_and_layers_that_save_nothing():
    x = tensor(np.arange(3.0), requires_grad=True)
    fs = [lambda p: (p[0] + p[1], p[1] * 2.0), lambda p: (p[0] * p[1], p[1]), lambda p: p[0] + p[1]]
    out = checkpoint_schedule(fs, (x, x * 1.0), revolve(3, 1))
    out.sum().backward()
    assert np.array_equal(out.data, 4 * x.data**2 + 2 * x.data) and np.array_equal(x.grad, 8 * x.data + 2)


def test_without_gradients_it_is_the_plain_chain():
    calls = []
    with no_grad():
        chain(layers(7, np.eye(2), calls=calls), np.ones((2, 2)), 1)
    assert len(calls) == 7


def test_a_layer_that_is_not_deterministic_raises():
    rng = np.random.default_rng(0)
    noisy = lambda x: x.sin() * (rng.random(x.shape) < 0.5)  # noqa: E731
    out = checkpoint_schedule([noisy] * 4, tensor(np.ones(64), requires_grad=True), revolve(4, 2))
    with pytest.raises(RuntimeError, match=r"not deterministic: the argument 1 \(y\) that multiply saved"):
        out.sum().backward()


def test_a_state_written_in_place_raises():
    x = tensor(np.ones(4), requires_grad=True)
    h = x * 1.0
    out = checkpoint_schedule([lambda x: x.sin()] * 4, h, revolve(4, 1))
    h.detach().assign(2.0)
    with pytest.raises(RuntimeError, match="checkpoint: its saved argument leaf 0.*changed in place"):
        out.sum().backward()


@pytest.mark.parametrize(
    "schedule, said",
    [
        ([], "layers 0 .. 1 of 2 are never turned"),
        ([("turn", 0, 1)], "action 0, turn 0 1, cannot be done in state 0"),
        ([("advance", 0, 2)], "advance 0 2, cannot"),
        ([("advance", 0, 1), ("turn", 1, 2), ("restore", 0, 0)], r"action 2, restore 0 0.*states \[\] kept"),
        ([("snapshot", 1, 1)], "snapshot 1 1, cannot"),
        ([("snapshot", 0, 0), ("snapshot", 0, 0)], "action 1, snapshot 0 0"),
        ([("discard", 0, 0)], "discard 0 0, cannot"),
        ([("jump", 0, 1)], "action 0 is 'jump'; needed one of snapshot, advance, restore, discard, turn"),
    ],
)
def test_schedules_that_cannot_be_followed(schedule, said):
    with pytest.raises(ValueError, match=f"checkpoint_schedule: .*{said}"):
        checkpoint_schedule([lambda x: x.sin()] * 2, tensor([1.0], requires_grad=True), [Action(*a) for a in schedule])


@pytest.mark.parametrize(
    "error, steps, snaps, said",
    [
        (ValueError, 0, 1, "revolve: steps=0; needed at least 1"),
        (ValueError, 3, 0, "revolve: snaps=0; needed at least 1"),
        (TypeError, 2.5, 1, "integer"),
        (TypeError, 3, "1", "integer"),
    ],
)
def test_revolve_says_what_it_needs(error, steps, snaps, said):
    with pytest.raises(error, match=said):
        revolve(steps, snaps)


U, A = np.ones(3), np.array([8, 16, 8])


@pytest.mark.parametrize(
    "error, args, options, said",
    [
        (ValueError, (U[:2], A, A, 99), {}, "budgeted_schedule: states has l=3, times has l=2"),
        (ValueError, (U[:0], A[:0], A[:0], 99), {}, "times has l=0 steps; needed at least 1"),
        (ValueError, (U, A, A, 23), {}, "budgeted_schedule: budget=23 bytes; the cheapest in bytes takes 24"),
        (ValueError, (U, A, A, 31), {"unit": 16}, "the cheapest in bytes takes 32"),
        (ValueError, (-U, A, A, 99), {}, "times has -1.0; needed numbers that are not negative"),
        (ValueError, (U, A, A, 99), {"unit": 0}, "unit=0 bytes; needed at least 1"),
        (TypeError, (U, A * 1.0, A, 99), {}, "states has dtype float64"),
        (TypeError, (A, A, A, 99), {}, "times has dtype int64"),
        (TypeError, (U, A, A, 99.5), {}, "integer"),
    ],
)
def test_budgeted_schedule_says_what_it_needs(error, args, options, said):
    with pytest.raises(error, match=said):
        budgeted_schedule(*args, **options)


def test_a_unit_never_takes_more_than_the_budget():
    rng = np.random.default_rng(0)
    u, a = rng.random(24), rng.integers(10**5, 10**6, 24)
    budget = 3 * 10**6
    kept, most = {}, 0
    for action in budgeted_schedule(u, a, a, budget, unit=10**5):
        if action.kind == "snapshot":
            kept[action.at] = int(a[action.at])
        elif action.kind == "discard":
            del kept[action.at]
        elif action.kind == "turn":
            most = max(most, sum(kept.values()) + int(a[action.at]))
    assert 0.8 * budget < most <= budget
