"""What outlives a call: memory, versions, hooks, modes, checkpoints, threads."""

import threading
import weakref

import array_api_strict as strict
import numpy as np
import pytest

from autodiff import (
    checkpoint,
    custom,
    forms,
    fusable,
    grad,
    hvp,
    jvp,
    namespace,
    no_grad,
    raw,
    register_hook,
    register_post_accumulate_grad_hook,
    saved_tensors_hooks,
    tensor,
    vjp,
)
from autodiff.opaque import form_chosen
from backends import fused
from tests.autodiff.collector import leaves_nothing_to_collect

X = np.array([1.0, 2.0, 3.0])
A = np.random.default_rng(0).standard_normal((4, 4))
TWO = custom(
    "two",
    lambda x: ((x * 2, x * 3), ()),
    lambda g, out, saved, needs, x: (sum(k * p for k, p in zip((2, 3), g, strict=True) if p is not None),),
    composite=lambda x: (x * 2, x * 3),
)


def leaf(x=X):
    return tensor(x.copy(), requires_grad=True)


def run_threads(*jobs):
    errors = []

    def guarded(job):
        try:
            job()
        except BaseException as error:  # carried to the test's thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors


# --- memory -----------------------------------------------------------------------------------


def hooked():
    x = leaf()
    y = x * x
    register_hook(y, lambda g: g * 2)
    register_hook(x, lambda g: g)
    register_post_accumulate_grad_hook(x, lambda t: None)
    y.sum().backward()


def twice(f):
    x = leaf()
    f(x).sum().backward(create_graph=True)
    (x.grad * x.grad).sum().backward()


def nested(x):
    return checkpoint(lambda x: checkpoint(lambda z: (z * z).exp(), x * x).sin(), x)


@pytest.mark.parametrize(
    "run",
    [
        lambda: (leaf() * leaf()).exp().sum().backward(),
        lambda: (leaf() * leaf()).exp(),
        lambda: twice(lambda x: (x * x).exp()),
        lambda: twice(lambda x: TWO(x)[0] * TWO(x)[1]),
        lambda: twice(nested),
        lambda: nested(leaf()),
        lambda: nested(leaf()).sum().backward(),
        lambda: grad(lambda x: grad(lambda y: (y * y * y).sum())(x).sum())(X),
        lambda: hvp(lambda x: (x * x * x).sum(), (X,), (X,)),
        lambda: vjp(lambda x: x * x, X)[1](X),
        lambda: jvp(lambda x: jvp(lambda y: nested(y) * x, (x,), (X,))[1], (X,), (X,)),
        hooked,
    ],
)
def test_nothing_waits_for_the_collector(run):
    assert leaves_nothing_to_collect(run)


def test_saved_values_die_as_the_sweep_passes():
    x = leaf()
    y = x.exp()
    data = weakref.ref(y.data)
    z = y.exp().sum()
    del y
    alive = []
    register_hook(x, lambda g: alive.append(data()))
    assert data() is not None
    z.backward()
    assert alive == [None]


def test_a_long_chain_is_swept_and_freed():
    x = leaf()
    y = x
    for _ in range(30000):
        y = y + 1.0
    y.sum().backward()
    del y
    assert np.array_equal(x.grad, [1, 1, 1])


# --- ownership of gradients -------------------------------------------------------------------


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("make", [np.array, strict.asarray])
def test_gradients_share_memory_with_nothing(make, create_graph):
    x, y, w = (tensor(make([1.0, 2.0]), requires_grad=True) for _ in range(3))
    g = make([1.0, 1.0])
    (x + y + namespace(w).sum(w)).backward(g, create_graph=create_graph)
    with no_grad():
        for t in (x, w):
            t.grad[0] = 7.0
    assert [float(a[0]) for a in (x.grad, y.grad, w.grad, g)] == [7.0, 1.0, 7.0, 1.0]


def test_cotangents_that_others_hold_are_not_written_into():
    constant = np.full(3, 7.0)
    kept = []
    flat = custom("flat", lambda x: (x.copy(), ()), lambda g, *_: (constant,))
    turned = custom("turned", lambda x: (x.copy(), ()), lambda g, *_: (constant[::-1],))
    x, G = leaf(), np.ones(3)
    y = x * 1.0
    register_hook(y, kept.append)
    (flat(x) + flat(x) + turned(x) + y * 2.0 + y).backward(G)
    assert np.array_equal(x.grad, np.full(3, 24.0)) and np.array_equal(constant, np.full(3, 7.0))
    assert np.array_equal(kept[0], np.full(3, 3.0)) and np.array_equal(G, np.ones(3))


# --- in-place writes --------------------------------------------------------------------------


@pytest.mark.parametrize("take", [lambda x, i: x[i], lambda x, i: x[i, ...], lambda x, i: namespace(x).take(x, i)])
@pytest.mark.parametrize("create_graph", [False, True])
def test_an_index_written_after_the_forward_raises(take, create_graph):
    x, i = leaf(), tensor(np.array([0, 1]))
    y = take(x, i).sum()
    i.assign(np.array([2, 2]))
    with pytest.raises(RuntimeError, match=r"option ind\w+ of shape \(2,\) was changed in place.*version 1"):
        y.backward(create_graph=create_graph)


def test_an_option_of_a_fused_form_written_after_the_forward_raises(monkeypatch):
    class Form:
        @staticmethod
        def forward(x, scale):
            return x * scale, ()

        @staticmethod
        def vjp(g, out, saved, needs, x, scale):
            return (g * scale,)

    monkeypatch.setattr(fused, "find", lambda id, backend: Form)
    scaled = fusable("test.scaled", tensors=("x",))(lambda x, scale: x * scale)
    x, scale = leaf(), tensor(X.copy())
    y = scaled(x, scale).sum()
    scale[0] = 9.0
    with pytest.raises(RuntimeError, match="test.scaled: its option scale"):
        y.backward()


@pytest.mark.parametrize("view", [lambda b: b[0], lambda b: b.T, lambda b: b.reshape(3, 2)])
def test_a_write_through_a_view_is_seen(view):
    base = tensor(np.ones((2, 3)))
    x = leaf()
    y = (base * x).sum()
    view(base)[...] = 9.0
    assert base.version == 1
    with pytest.raises(RuntimeError, match="multiply.*changed in place"):
        y.backward()


def test_a_tensor_is_an_index_to_write_at():
    t = tensor(X.copy())
    t[tensor(np.array([0, 2]))] = 9.0
    assert np.array_equal(t.data, [9, 2, 9]) and t.version == 1


# --- hooks ------------------------------------------------------------------------------------


def test_hooks_fire_on_one_of_several_outputs():
    x = leaf()
    a, b = TWO(x)
    seen = []
    register_hook(a, lambda g: seen.append(g.copy()) or g * 10)
    (a + b).sum().backward()
    assert np.array_equal(seen, [[1, 1, 1]]) and np.array_equal(x.grad, [23, 23, 23])


def test_hooks_fire_on_the_variable_of_a_transform():
    def f(x):
        register_hook(x, lambda g: g * 10)
        return (x * x).sum()

    assert np.array_equal(grad(f)(X), 20 * X)
    assert np.array_equal(grad(f)(leaf()).data, 20 * X)


@pytest.mark.parametrize("array", [np.asarray, strict.asarray])
def test_a_hook_may_return_a_raw_array_under_create_graph(array):
    x = tensor(array([1.0, 2.0]), requires_grad=True)
    y = x * x
    register_hook(y, lambda g: array([3.0, 3.0]))
    namespace(y).sum(y).backward(create_graph=True)
    namespace(y).sum(x.grad * x.grad).backward()  # grad = 6 x, and d(36 x^2) = 72 x more
    assert float(x.grad[1]) == 12.0 + 144.0


def test_a_hook_that_returns_no_array_is_refused():
    x = leaf()
    register_hook(x, lambda g: 2.0)
    with pytest.raises(TypeError, match="register_hook: the hook returned a float"):
        x.sum().backward()


@pytest.mark.parametrize("register", [register_hook, register_post_accumulate_grad_hook])
def test_removing_twice_takes_nobody_elses_hook_off(register):
    x, seen = leaf(), []
    hook = lambda _: seen.append(1)  # noqa: E731
    first = register(x, hook)
    first.remove()
    register(x, hook)
    first.remove()
    x.sum().backward()
    assert seen == [1]


# --- checkpoints and modes --------------------------------------------------------------------


def test_a_checkpoint_runs_again_in_the_form_it_ran_in(monkeypatch):
    class Form:
        @staticmethod
        def forward(x):
            return x * x, ()

        @staticmethod
        def vjp(g, out, saved, needs, x):
            return (g * x * 2,)

    monkeypatch.setattr(fused, "find", lambda id, backend: Form)
    square = fusable("test.square", tensors=("x",))(lambda x: x * x * 1.0)
    for form in ("composite", "fused", "compiled"):
        x = leaf()
        with forms(form):
            y = checkpoint(lambda x: square(x).exp(), x).sum()
        run_threads(y.backward)
        assert x.grad == pytest.approx(2 * X * np.exp(X * X))
    assert form_chosen() == "compiled"


def test_forms_as_a_decorator_serves_several_threads():
    inside, gate = threading.Barrier(2), threading.Event()

    @forms("composite")
    def hold(first):
        inside.wait(5)
        if not first:
            gate.wait(5)
        return form_chosen()

    after = {}

    def plain():
        hold(True)
        after["plain"] = form_chosen()
        gate.set()

    def already():
        with forms("composite"):
            hold(False)
            after["already"] = form_chosen()

    run_threads(plain, already)
    assert after == {"plain": "compiled", "already": "composite"}


@pytest.mark.parametrize("create_graph", [False, True])
def test_nested_checkpoints_with_dropout_give_the_plain_bits(create_graph):
    found = []
    for keep in (lambda f, *a, rng: f(*a), checkpoint):
        rng = np.random.default_rng(3)

        def drop(z, rng=rng):
            return (z * (rng.random((4, 4)) > 0.3)).tanh()

        def block(z, keep=keep, rng=rng, drop=drop):
            return keep(drop, keep(drop, z, rng=rng) * 2.0, rng=rng) + keep(drop, z, rng=rng)

        x = leaf(A)
        y = keep(drop, keep(block, x, rng=rng), rng=rng).sum()
        y.backward(create_graph=create_graph)
        if create_graph:
            (x.grad * x.grad).sum().backward()
        found.append((raw(x.grad), rng.random()))
    assert np.array_equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_a_checkpoint_under_packing_hooks_is_the_plain_run():
    with saved_tensors_hooks(np.copy, lambda a: a):
        x = leaf(A)
        checkpoint(lambda z: (z @ z).tanh(), x).sum().backward()
    y = leaf(A)
    (y @ y).tanh().sum().backward()
    assert np.array_equal(x.grad, y.grad)


def test_an_index_written_under_a_checkpoint_raises():
    x, i = leaf(), tensor(np.array([0, 1]))
    y = checkpoint(lambda x: x[i].exp(), x).sum()
    i.assign(np.array([1, 0]))
    with pytest.raises(RuntimeError, match="changed in place|not deterministic"):
        y.backward()


def test_an_error_inside_a_checkpoint_leaves_no_mode_behind():
    x = leaf()
    with pytest.raises(ZeroDivisionError):
        checkpoint(lambda x: x * (1 / 0), x)
    y = (x * x).sum()
    assert y.node.saved == () and (x * x).node.saved[0] is x.data


# --- threads ----------------------------------------------------------------------------------


def test_threads_on_graphs_of_their_own():
    wanted = grad(lambda x: (x @ x).tanh().sum())(A)

    def work():
        for k in range(30):
            x = leaf(A)
            (x @ x).tanh().sum().backward(create_graph=k % 2 == 0)
            assert np.array_equal(raw(x.grad), wanted)

    run_threads(work, work, work)


@pytest.mark.parametrize("create_graph", [False, True])
def test_threads_that_share_a_leaf_lose_no_gradient(create_graph):
    x = leaf()

    def work():
        for _ in range(50):
            (x * 2.0).sum().backward(create_graph=create_graph)

    run_threads(work, work, work)
    assert np.array_equal(raw(x.grad), np.full(3, 300.0))


def test_modes_belong_to_their_thread():
    def tracks():
        assert (leaf() * 2.0).requires_grad and form_chosen() == "compiled"

    with no_grad(), forms("composite"):
        run_threads(tracks)
        assert not (leaf() * 2.0).requires_grad


def test_transforms_in_another_thread_keep_their_levels_apart():
    found = []

    def f(x):
        run_threads(lambda: found.append(jvp(lambda y: y * y * x, (2.0,), (1.0,))[1]))
        return found[0]

    assert jvp(f, (3.0,), (1.0,)) == (12.0, 4.0)
