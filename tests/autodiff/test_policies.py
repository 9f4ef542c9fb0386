"""Selective checkpointing: the bits of the plain run under every policy, and bytes and runs as counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autodiff import (
    Spill,
    checkpoint,
    checkpoint_selective,
    counted,
    custom,
    grad,
    jvp,
    namespace,
    no_grad,
    saved_bytes,
    tensor,
)
from autodiff.policies import CHOICES
from tests.autodiff.samples import examples

NAMES = ("matmul", "tanh", "multiply", "add")
policies = st.fixed_dictionaries({}, optional={name: st.sampled_from(CHOICES) for name in NAMES})


def block(w, rng, n=3):
    """n layers that share a weight, with dropout: 2 matmul, 1 tanh, 1 add, 1 multiply (by the mask) each."""

    def run(x):
        xp = namespace(x, w)
        for _ in range(n):
            x = xp.tanh(xp.matmul(x, w)) + xp.matmul(x, w)
            x = x * ((rng.random(x.shape) < 0.5) * 2.0)
        return x

    return run


def gradients(run, seed):
    """(value, dw, dx, the generator's next draw) of `run(f, x, rng)` over the block f."""
    source = np.random.default_rng(seed)
    w, x = (tensor(source.standard_normal((3, 3)), requires_grad=True) for _ in range(2))
    rng = np.random.default_rng(seed)
    out = run(block(w, rng), x, rng)
    (out * out).sum().backward()
    return out.data, w.grad, x.grad, rng.random()


def plain(f, x, rng):
    return f(f(x))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@given(policies, policies, st.integers(0, 99))
@examples(40)
def test_any_policy_has_the_bits_of_the_plain_run(first, second, seed):
    def run(f, x, rng):
        x = checkpoint_selective(f, x, policy=first, rng=rng)
        return checkpoint_selective(f, x, policy=second, rng=rng)

    assert same(gradients(run, seed), gradients(plain, seed))


@given(policies, policies, st.integers(0, 99), st.integers(0, 2))
@examples(40)
def test_nested_too(outer, inner, seed, way):
    def run(f, x, rng):
        def both(x):
            x = checkpoint(f, x, rng=rng) if way == 1 else checkpoint_selective(f, x, policy=inner, rng=rng)
            return f(x)

        if way == 2:
            return checkpoint(both, x, rng=rng)
        return checkpoint_selective(both, x, policy=outer, rng=rng)

    assert same(gradients(run, seed), gradients(plain, seed))


@given(policies)
@examples(20)
def test_bytes_and_runs_are_counted(policy):
    """Held: the argument and the results of what is saved. Written: the results of what is offloaded. Each primitive
    runs n times, and n times more if it is recomputed.
    """
    n, spill, rng = 3, Spill(), np.random.default_rng(0)
    w, x = (tensor(rng.standard_normal((5, 5)), requires_grad=True) for _ in range(2))
    calls = {"matmul": 2 * n, "tanh": n, "add": n, "multiply": n}
    with counted() as counts:
        out = checkpoint_selective(block(w, rng, n), x * 1.0, policy=policy, rng=rng, spill=spill)
        total = {c: 200 * sum(calls[k] for k in calls if policy.get(k, "recompute") == c) for c in CHOICES}
        assert saved_bytes(out) == 200 + total["save"]
        assert (spill.written, spill.read) == (total["offload"], 0)
        out.backward(np.ones((5, 5)))
    wanted = {k: v * (2 if policy.get(k, "recompute") == "recompute" else 1) for k, v in calls.items()}
    assert {**counts, "multiply": counts["multiply"] - 1} == wanted
    assert spill.read == total["offload"] == spill.written


def test_an_outer_checkpoint_drops_what_an_inner_policy_saves():
    x = tensor(np.linspace(0.0, 1.0, 8), requires_grad=True)
    sins = lambda x: x.sin().sin().sin()  # noqa: E731
    out = checkpoint(lambda x: checkpoint_selective(sins, x, policy={"sin": "save"}), x)
    assert saved_bytes(out) == 64
    assert saved_bytes(checkpoint_selective(sins, x, policy={"sin": "save"})) == 4 * 64


def test_twice_differentiated_and_in_forward_mode():
    rng = np.random.default_rng(3)
    w, x, u = (rng.standard_normal((3, 3)) for _ in range(3))
    mask = np.random.default_rng

    def chain(w, x, policy):
        f = block(w, mask(1))
        return f(x) if policy is None else checkpoint_selective(f, x, policy=policy, rng=None)

    def first(w, policy):
        f = lambda w: (chain(w, x, policy) ** 2).sum()  # noqa: E731
        return grad(f)(w)

    # The mask is drawn afresh from the same seed in each block, so the block itself is deterministic.
    def block(w, rng):
        def run(x):
            xp, draw = namespace(x, w), mask(1)
            for _ in range(3):
                x = xp.tanh(xp.matmul(x, w)) * ((draw.random(x.shape) < 0.5) * 2.0)
            return x

        return run

    for policy in ({}, {"matmul": "save"}, {"tanh": "offload", "multiply": "save"}):
        second = [grad(lambda w, p=p: (first(w, p) * u).sum())(w) for p in (None, policy)]
        assert np.array_equal(*second) and np.any(second[0])
        mixed = [jvp(lambda w, p=p: first(w, p), (w,), (u,))[1] for p in (None, policy)]
        assert np.array_equal(*mixed)


def test_a_fused_form_is_kept_by_its_id():
    from ref.nn.gelu import gelu

    x = tensor(np.linspace(-1.0, 1.0, 8), requires_grad=True)
    with counted() as counts:
        checkpoint_selective(lambda x: gelu(x.sin()).exp(), x, policy={"nn.gelu": "save"}).sum().backward()
    assert counts == {"nn.gelu": 1, "sin": 2, "exp": 2, "sum": 1}


def test_other_dtypes_shapes_and_several_outputs_come_back_from_the_file():
    spill = Spill()
    for a in (np.zeros((0, 3)), np.array(2.5), np.arange(6, dtype=np.float32).reshape(2, 3).T, np.array([True, False])):
        back = spill.put(a)()
        assert back.dtype == a.dtype and np.array_equal(back, a) and back.flags.writeable
    assert spill.written == spill.read == 8 + 24 + 2
    two = custom("two", lambda x: ((x * 2.0, x * 3.0), ()), lambda g, y, s, needs, x: (g[0] * 2.0 + g[1] * 3.0,))
    x = tensor(np.arange(3.0), requires_grad=True)
    out = checkpoint_selective(lambda x: (lambda p: p[0] * p[1])(two(x)), x, policy=lambda name: "offload", spill=spill)
    out.sum().backward()
    assert np.array_equal(x.grad, 12 * x.data) and spill.written == 34 + 3 * 24


def test_one_file_serves_step_after_step():
    spill, x = Spill(), tensor(np.ones(1000), requires_grad=True)
    for step in range(1, 4):
        out = checkpoint_selective(lambda x: x.sin().cos(), x, policy={"sin": "offload"}, spill=spill)
        assert (spill.size, spill.written) == (8000, 8000 * step)
        out.sum().backward()
        del out
        assert spill.size == spill.file.seek(0, 2) == 0
    first, second = spill.put(np.arange(3.0)), spill.put(np.arange(5.0))
    del first
    assert spill.size == 64 and np.array_equal(second(), np.arange(5.0))


def test_on_the_strict_backend_too():
    from autodiff import checkpoint_schedule
    from backends import get
    from ref.training.revolve import revolve

    xp = get("strict")

    def gradient(run):
        x = tensor(xp.asarray([0.25, 0.5]), requires_grad=True)
        namespace(x).sum(run(lambda x: namespace(x).tanh(x * x + x), x)).backward()
        return xp.to_numpy(x.grad)

    plain = gradient(lambda f, x: f(f(f(x))))
    policy = {"multiply": "offload", "tanh": "save"}
    assert np.array_equal(gradient(lambda f, x: checkpoint_schedule([f] * 3, x, revolve(3, 1))), plain)
    assert np.array_equal(gradient(lambda f, x: checkpoint_selective(lambda x: f(f(f(x))), x, policy=policy)), plain)


def test_without_gradients_nothing_is_kept():
    spill = Spill()
    with no_grad():
        checkpoint_selective(lambda x: x.sin(), tensor(np.ones(3)), policy={"sin": "offload"}, spill=spill)
    assert spill.written == 0


def test_a_function_that_is_not_deterministic_raises():
    rng = np.random.default_rng(0)
    x = tensor(np.ones(64), requires_grad=True)
    noisy = lambda x: (x.sin() * (rng.random(x.shape) < 0.5)).exp()  # noqa: E731
    out = checkpoint_selective(noisy, x, policy={"sin": "save"})
    with pytest.raises(RuntimeError, match=r"not deterministic: the argument 1 \(y\) that multiply saved"):
        out.sum().backward()
    flips = iter([True, False])
    out = checkpoint_selective(lambda x: x.sin().cos() if next(flips) else x.sin().exp(), x, policy={"sin": "save"})
    with pytest.raises(RuntimeError, match="not deterministic: call number 1 was cos, and exp when it was run again"):
        out.sum().backward()
    more = iter([1, 2])
    out = checkpoint_selective(lambda x: (x.sin(), [x * 2.0] * next(more))[0] * x, x, policy={"sin": "save"})
    out.sum().backward()  # a Python list repeats no call
    runs = iter([1, 2])
    out = checkpoint_selective(lambda x: [x.sin() for _ in range(next(runs))][0], x, policy={})
    with pytest.raises(RuntimeError, match="not deterministic"):
        out.sum().backward()


@pytest.mark.parametrize(
    "policy, said",
    [
        ({"sin": "keep"}, "policy has 'keep' for sin; needed one of save, recompute, offload"),
        ({"sine": "save", "co": "save"}, "policy names co, sine, which no primitive is called; there are"),
    ],
)
def test_bad_policies(policy, said):
    with pytest.raises(ValueError, match=f"checkpoint_selective: {said}"):
        checkpoint_selective(lambda x: x.sin(), tensor(np.ones(2), requires_grad=True), policy=policy)


def test_a_policy_that_is_called_is_held_to_the_same_choices():
    with pytest.raises(ValueError, match="policy has None for sin; needed one of"):
        checkpoint_selective(lambda x: x.sin(), tensor(np.ones(2), requires_grad=True), policy=lambda name: None)
