"""Tensor as a user meets it: methods, modes, writes in place, hooks, and what is refused."""

from __future__ import annotations

import threading

import array_api_strict
import numpy as np
import pytest

import backends
from autodiff import (
    Tensor,
    enable_grad,
    grad_enabled,
    is_tensor,
    namespace,
    no_grad,
    raw,
    register_hook,
    register_post_accumulate_grad_hook,
    saved_bytes,
    saved_tensors_hooks,
    tensor,
)

A = np.arange(6.0).reshape(2, 3)


def leaf(data=A):
    return tensor(np.array(data, float), requires_grad=True)


# --- methods ----------------------------------------------------------------------------------


def test_methods_are_those_of_the_array():
    t = leaf(A + 1)
    a = t.data
    assert (t.shape, t.ndim, t.dtype, t.size, len(t)) == ((2, 3), 2, np.float64, 6, 2)
    pairs = [
        (t.sum(), a.sum()), (t.sum(0), a.sum(0)), (t.mean(axis=1, keepdims=True), a.mean(1, keepdims=True)),
        (t.max(), a.max()), (t.min(1), a.min(1)), (t.prod(0), a.prod(0)), (t.var(), a.var()), (t.std(0), a.std(0)),
        (t.T, a.T), (t.mT, a.T), (t.reshape(3, 2), a.reshape(3, 2)), (t.reshape((-1,)), a.reshape(-1)),
        (t.transpose(0, 1), a.T), (t.permute(1, 0), a.T), (t.flatten(), a.ravel()), (t.unsqueeze(0), a[None]),
        (t[0], a[0]), (t[:, 1], a[:, 1]), (t[None].squeeze(0), a), (-t, -a), (abs(t), a), (t**2, a**2),
        (2.0**t, 2.0**a), (1 - t, 1 - a), (1 / t, 1 / a), (t @ t.T, a @ a.T), (a @ t.T, a @ a.T),
        (t.exp(), np.exp(a)), (t.log(), np.log(a)), (t.sqrt(), np.sqrt(a)), (t.tanh(), np.tanh(a)),
        (t.clip(2, 4), a.clip(2, 4)), (a * t, a * a), (np.float64(2) * t, 2 * a), (a / t, a / a),
    ]  # fmt: skip
    for got, want in pairs:
        assert isinstance(got, Tensor) and got.requires_grad
        assert np.allclose(got.data, want, rtol=1e-15) and got.shape == np.shape(want)
    assert [r.data.tolist() for r in t] == a.tolist()
    for got, want in [(t > 2, a > 2), (t == 3, a == 3), (t <= a, a <= a), (t.argmax(), 5), (t.argmin(1), [0, 0])]:
        assert not is_tensor(got) and np.array_equal(got, want)
    assert leaf([3.0]).item() == 3.0 and float(leaf(2.0)) == 2.0 and int(leaf(2.0)) == 2 and bool(leaf(1.0))
    assert repr(leaf([1.0])) == "tensor(array([1.]), requires_grad=True)"
    assert "from='exp'" in repr(leaf([1.0]).exp()) and repr(tensor([1.0])) == "tensor(array([1.]))"
    assert len({t, t, leaf()}) == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_python_numbers_are_weak(dtype):
    t = tensor(np.ones(3, dtype), requires_grad=True)
    for out in (t * 2.0, 2 * t, t + 1, 1.0 - t, t / 3, t**2, t**0.5, 2.0**t, t.mean(), t.clip(0, 1), t.var()):
        assert out.dtype == dtype
    (t * 2.0 + 1).sum().backward()
    assert t.grad.dtype == dtype


def test_detach_shares_memory_and_numpy_needs_it():
    t = leaf()
    d = t.detach()
    assert d.data is t.data and not d.requires_grad
    assert np.shares_memory(d.numpy(), t.data)
    with pytest.raises(RuntimeError, match="detach"):
        t.numpy()


def test_requires_grad_can_be_asked_and_withdrawn_on_leaves():
    t = tensor(A.copy())
    assert not (t * 2.0).requires_grad and t.requires_grad_() is t and (t * 2.0).requires_grad
    t.requires_grad_(False)
    assert not (t * 2.0).requires_grad
    with pytest.raises(RuntimeError, match="result of an operation"):
        (leaf() * 2.0).requires_grad_(False)


def test_gradients_accumulate_until_reset():
    t = leaf()
    for k in range(1, 4):
        (t * 2.0).sum().backward()
        assert np.array_equal(t.grad, np.full((2, 3), 2.0 * k))
    t.zero_grad()
    assert t.grad is None


def test_create_graph_gives_a_differentiable_gradient():
    t = leaf([2.0])
    (t * t * t).sum().backward(create_graph=True)
    g = t.grad
    assert is_tensor(g) and g.data == 12.0
    t.grad = None
    g.sum().backward()
    assert np.array_equal(t.grad, [12.0])


# --- modes ------------------------------------------------------------------------------------


def test_modes_nest_and_come_back():
    t = leaf()
    with no_grad():
        assert not grad_enabled() and not (t * t).requires_grad
        with enable_grad():
            assert (t * t).requires_grad
        assert saved_bytes(t * t) == 0

        @enable_grad()
        def recorded():
            return (t * t).requires_grad

        assert recorded() and recorded() and not grad_enabled()
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert grad_enabled() and (t * t).requires_grad


def test_grad_mode_is_a_threads_own():
    t, seen = leaf(), []
    inside, done = threading.Event(), threading.Event()

    def other():
        with no_grad():
            inside.set()
            done.wait(10)
            seen.append((t * t).requires_grad)

    worker = threading.Thread(target=other)
    worker.start()
    inside.wait(10)
    assert (t * t).requires_grad
    done.set()
    worker.join()
    assert seen == [False] and (t * t).requires_grad


def test_threads_may_add_to_one_leaf():
    t = leaf(np.zeros(4))
    work = [threading.Thread(target=lambda: [(t * 1.0).sum().backward() for _ in range(50)]) for _ in range(4)]
    for w in work:
        w.start()
    for w in work:
        w.join()
    assert np.array_equal(t.grad, np.full(4, 200.0))


# --- writes in place --------------------------------------------------------------------------


def test_writes_count_versions_and_views_share_them():
    t = tensor(np.zeros((2, 3)))
    row, flat = t[0], t.reshape(6)
    assert (t.version, row.version) == (0, 0)
    row.assign(1.0)
    flat[4] = 5.0
    t += 1.0
    assert t.version == row.version == flat.version == 3
    assert np.array_equal(t.data, [[2, 2, 2], [1, 6, 1]])
    assert tensor(t.data).version == 3 and tensor(t.data.copy()).version == 0


@pytest.mark.parametrize("view", [lambda t: t, lambda t: t[0], lambda t: t.T, lambda t: t.reshape(6)])
def test_a_write_through_any_view_is_seen(view):
    t = leaf()
    out = (t * t).sum()
    view(t.detach()).assign(7.0)
    with pytest.raises(RuntimeError, match=r"multiply: its saved argument 0 \(x\) of shape \(2, 3\).*version 1"):
        out.backward()


def test_writes_before_and_after_and_elsewhere_are_fine():
    t, other = leaf(), tensor(np.zeros(3))
    t.detach().assign(3.0)
    out = (t * t).sum()
    other.assign(1.0)
    out.backward()
    t.detach().assign(4.0)
    assert np.array_equal(t.grad, np.full((2, 3), 6.0))


def test_a_write_that_no_rule_reads_is_fine():
    t, c = leaf(), tensor(np.ones((2, 3)))
    out = (t + c).sum()
    c.assign(9.0)
    out.backward()
    assert np.array_equal(t.grad, np.ones((2, 3)))


def test_optimizer_style_updates():
    t = leaf()
    before = t.data
    for _ in range(3):
        (t * t).sum().backward()
        with no_grad():
            t -= 0.25 * t.grad
        t.grad = None
    assert t.data is before and t.is_leaf and np.allclose(t.data, A / 8)


def test_writes_that_would_lose_a_gradient_are_refused():
    t, buffer = leaf(), tensor(np.zeros((2, 3)))
    with pytest.raises(RuntimeError, match="no_grad"):
        t.assign(0.0)
    with pytest.raises(RuntimeError, match="no_grad"):
        t[0] = 1.0
    with pytest.raises(RuntimeError, match="value requires grad"):
        buffer[0] = t[0]
    with pytest.raises(RuntimeError, match="leaf requires grad"):
        t += 1.0
    h = t * 1.0
    same = h
    h *= 3.0
    assert same is not h
    h.sum().backward()
    assert np.array_equal(t.grad, np.full((2, 3), 3.0))
    with pytest.raises(TypeError, match="0-d result"):
        (t.detach() * 1.0).sum().assign(1.0)


def test_a_dead_array_leaves_no_version_behind():
    from autodiff.tape import WRITES

    t = tensor(np.zeros(3))
    t.assign(1.0)
    before = len(WRITES.stamps)
    del t
    assert len(WRITES.stamps) == before - 1


# --- hooks ------------------------------------------------------------------------------------


def test_hooks_see_the_whole_gradient_once_and_may_replace_it():
    x = leaf([1.0, 2.0])
    h = x * 3.0
    seen = []
    first = register_hook(h, lambda g: seen.append(g.copy()))
    register_hook(h, lambda g: g * 10.0)
    register_hook(x, lambda g: seen.append(g.copy()))
    (h * h + h).sum().backward(retain_graph=True)
    assert np.array_equal(seen[0], [7.0, 13.0]) and np.array_equal(seen[1], [210.0, 390.0])
    assert np.array_equal(x.grad, [210.0, 390.0])
    first.remove()
    (h + h).sum().backward()
    assert len(seen) == 3


def test_a_hook_that_returns_another_shape_raises():
    x = leaf([1.0, 2.0])
    register_hook(x, lambda g: g[:1])
    with pytest.raises(ValueError, match=r"float64\(1,\), needed float64\(2,\)"):
        (x * x).sum().backward()


def test_post_accumulate_hooks_fire_once_as_soon_as_the_leaf_is_done():
    w = [leaf([1.0]), leaf([2.0]), leaf([3.0])]
    done = []
    for k, t in enumerate(w):
        register_post_accumulate_grad_hook(t, lambda t, k=k: done.append((k, t.grad.copy())))
    x = leaf([1.0])
    register_hook(x * 1.0, lambda g: None)
    h = x * w[0]
    register_hook(h, lambda g: done.append("h"))
    ((h * w[1]) * w[2] + w[2]).sum().backward()
    # The last layer's weight is finished before the sweep reaches the first layer.
    assert [d if d == "h" else d[0] for d in done] == [2, 1, "h", 0]
    assert done[0][1] == [3.0] and x.grad == [6.0]


def test_an_optimizer_in_the_backward_is_caught_only_if_it_breaks_the_rest():
    w = leaf([2.0])
    register_post_accumulate_grad_hook(w, lambda t: t.detach().assign(0.0))
    x = leaf([3.0])
    (x * w).sum().backward()
    assert x.grad == [2.0] and w.data == [0.0]


def test_saved_tensors_hooks_pack_what_is_saved_and_fetch_it_back():
    x, shelf = leaf(), []

    def pack(a):
        shelf.append(a.tobytes())
        return len(shelf) - 1, a.shape

    with saved_tensors_hooks(pack, lambda h: np.frombuffer(shelf[h[0]]).reshape(h[1])):
        out = ((x * x).exp() * 0.5).sum()
    assert saved_bytes(out) == 0 and len(shelf) == 3
    out.backward()
    assert np.allclose(x.grad, A * np.exp(A * A), rtol=1e-15)


# --- what is refused --------------------------------------------------------------------------

STRICT = array_api_strict.asarray([1.0, 2.0])


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda: leaf().backward(), ValueError, r"shape \(2, 3\) needs a gradient"),
        (lambda: (leaf() * 2.0).backward(np.ones(3)), ValueError, r"gradient has shape \(3,\), needed \(2, 3\)"),
        (lambda: (leaf() * 2.0).backward(np.ones((2, 3), np.float32)), TypeError, "float32, needed float64"),
        (lambda: (leaf() * 2.0).backward(STRICT), TypeError, "Array, needed a ndarray"),
        (lambda: tensor([1.0]).backward(), RuntimeError, "no graph"),
        (lambda: tensor([1, 2], requires_grad=True), TypeError, "int64 has no gradients; needs a floating"),
        (lambda: tensor(leaf()), TypeError, "detach"),
        (lambda: tensor("text"), TypeError, "str"),
        (lambda: np.asarray(leaf()), TypeError, "gradient would be lost"),
        (lambda: np.exp(leaf()), TypeError, "operand|ufunc"),
        (lambda: leaf() * tensor(STRICT), TypeError, r"multiply: argument 1 \(y\): .*numpy and strict"),
        (lambda: namespace(leaf(), STRICT), TypeError, "numpy and strict"),
        (lambda: namespace(leaf()).linspace(leaf(), 1, 2), TypeError, "linspace: autodiff has no rule"),
        (lambda: leaf().item(), ValueError, r"shape \(2, 3\) has 6 values"),
        (lambda: len(leaf(1.0)), TypeError, "0-d"),
        (lambda: leaf([1.0]).T, ValueError, "needs 2 axes"),
        (lambda: register_hook(tensor([1.0]), print), RuntimeError, "does not require grad"),
        (lambda: register_post_accumulate_grad_hook(leaf() * 2.0, print), RuntimeError, "needs a leaf"),
        (lambda: namespace(leaf()).take(leaf(), [0]), ValueError, "axis is needed"),
        (lambda: namespace(leaf()).cumulative_sum(leaf()), ValueError, "axis is needed"),
        (lambda: namespace(leaf()).einsum("ij,jk->ik", leaf()), ValueError, "names 2 operands, 1 arrived"),
    ],
)  # fmt: skip
def test_refusals_say_what_arrived_and_what_was_needed(call, error, said):
    with pytest.raises(error, match=said):
        call()


# --- the namespace ----------------------------------------------------------------------------


def test_namespace_of_raw_arrays_is_the_backend_itself():
    assert namespace(A, None, 2.0) is backends.get("numpy")
    assert namespace(STRICT) is backends.get("strict")
    assert namespace(A, leaf()) is namespace(leaf())


def test_what_is_flat_gives_raw_arrays_and_the_rest_is_the_backend():
    t, xp = leaf(), namespace(leaf())
    for name in ("argmax", "isfinite", "zeros_like", "argsort", "ones_like", "signbit"):
        assert np.array_equal(getattr(xp, name)(t), getattr(np, name)(A)), name
    assert not is_tensor(xp.zeros((2,))) and xp.float32 == np.float32 and xp.asarray(t) is t
    assert xp.greater(t, 2.0).dtype == bool and xp.result_type(t, A) == np.float64
    assert xp.isdtype(t.dtype, "real floating")


def test_composites_equal_numpy():
    t, xp = leaf(A + 1), namespace(leaf())
    a = t.data
    pairs = [
        (xp.moveaxis(t, 0, 1), np.moveaxis(a, 0, 1)), (xp.repeat(t, 2, axis=1), np.repeat(a, 2, axis=1)),
        (xp.tile(t, (2, 1, 2)), np.tile(a, (2, 1, 2))), (xp.sort(-t, axis=1), np.sort(-a, axis=1)),
        (xp.std(t, axis=0, correction=1.0), a.std(0, ddof=1)), (xp.reciprocal(t), 1 / a), (xp.log2(t), np.log2(a)),
        (xp.concat([t, t], axis=None), np.concatenate([a, a], axis=None)), (xp.unstack(t, axis=1)[2], a[:, 2]),
        (xp.broadcast_arrays(t, t[0])[1], np.broadcast_to(a[0], (2, 3))), (xp.sum(t, dtype=xp.float32), a.sum()),
        (xp.einsum("...j,...j", t, t), (a * a).sum(1)), (xp.einsum("b...,...->b...", t, t[0]), a * a[0]),
        (xp.take(t[0], np.array([2, 0])), a[0][[2, 0]]), (xp.roll(t, (1, 1), axis=(0, 1)), np.roll(a, (1, 1), (0, 1))),
        (xp.cumulative_sum(t[0]), np.cumsum(a[0])), (xp.astype(t, xp.float32), a), (xp.positive(t), a),
    ]  # fmt: skip
    for got, want in pairs:
        assert is_tensor(got) and np.allclose(raw(got), want, rtol=1e-6)
        got.backward(np.ones(got.shape, got.dtype), retain_graph=True)
    assert not is_tensor(t.astype(np.int64)) or not t.astype(np.int64).requires_grad
