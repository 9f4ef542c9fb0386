"""Debug mode: the write, the operation and the line that a wrong number comes from."""

from __future__ import annotations

import gc
import threading

import array_api_strict as strict
import numpy as np
import pytest

from autodiff import (
    checkpoint,
    debug,
    grad,
    gradients,
    jvp,
    namespace,
    no_grad,
    saved_bytes,
    saved_tensors_hooks,
    tensor,
    vjp,
)
from autodiff import debug as _debug_function
from autodiff.ops import logsumexp
from autodiff.tape import SPECIAL, STATE, TRACES
from backends import fused

DEBUG = __import__("sys").modules[_debug_function.__module__]


def leaf(data):
    return tensor(np.array(data, float), requires_grad=True)


def frozen(array):
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 9.0
    return True


# --- writes -----------------------------------------------------------------------------------


def test_saved_inputs_and_outputs_are_read_only_until_their_backward():
    x = leaf([1.0, 2.0])
    with debug():
        h = x.exp()
        y = (h * h).sum()
    assert frozen(h.data)
    with pytest.raises(ValueError, match="read-only"):
        h.detach().assign(0.0)
    x.data[0] = 1.0  # exp keeps its output alone
    y.backward()
    h.data[0] = x.data[0] = 5.0
    assert not DEBUG._frozen and not DEBUG._waiting


def test_they_are_writable_again_when_the_graph_is_gone():
    x = leaf([1.0, 2.0])
    with debug():
        y = x * x
        z = x * 3.0 * x
        assert frozen(x.data)
    del y
    assert frozen(x.data)
    del z
    x.data[0] = 3.0
    with debug():
        y = (x * x).sum()
    y.backward(retain_graph=True)
    assert frozen(x.data)
    y.backward()
    x.data[0] = 3.0


def test_views_and_what_they_view_freeze_and_thaw_in_any_order():
    for order in (0, 1):
        x = leaf(np.ones((2, 3)))
        row = tensor(x.data[0], requires_grad=True)
        with debug():
            kept = [row * row, x * x]
        assert frozen(row.data) and frozen(x.data)
        del kept[order]
        assert frozen(x.data) and frozen(row.data)
        kept.clear()
        row.data[0] = x.data[0, 0] = 2.0
    assert not DEBUG._frozen and not DEBUG._waiting


def test_arrays_that_were_read_only_stay_so():
    a = np.ones(2)
    a.flags.writeable = False
    with debug():
        y = (tensor(a, True) * tensor(a, True)).sum()
    y.backward()
    assert not a.flags.writeable


def test_strict_arrays_checkpoints_and_hooks():
    x = tensor(strict.asarray([1.0, 2.0]), requires_grad=True)
    with debug():
        y = namespace(x).sum(x * x)
    with pytest.raises(ValueError, match="read-only"):
        x.data[0] = 3.0
    y.backward()
    x.data[0] = 3.0
    z = leaf([1.0, 2.0])
    with debug():
        w = checkpoint(lambda z: (z * z).exp(), z).sum()
        assert frozen(z.data)  # the argument that the checkpoint keeps
        with saved_tensors_hooks(np.copy, lambda a: a):
            w = w + (z * z).sum()
    w.backward()
    assert np.allclose(z.grad, 2 * z.data * np.exp(z.data**2) + 2 * z.data)
    with saved_tensors_hooks(np.copy, lambda a: a), debug():
        y = (z * z).sum()
        z.data[0] = 7.0  # the tape has copies
    assert saved_bytes(y) == 0
    y.backward()


def test_freezing_can_be_left_out():
    x = leaf([1.0, 2.0])
    with debug(freeze=False):
        y = (x * x).sum()
        x.data[0] = 5.0
    y.backward()


# --- numbers that are not finite --------------------------------------------------------------

FORWARD = {
    "log": lambda x: x.log(),
    "divide": lambda x: x / x,
    "exp": lambda x: (x + 1000.0).exp(),
    "sqrt": lambda x: (x - 1.0).sqrt(),
    "matmul": lambda x: (x + 1e200) @ (x + 1e200),
    "prod": lambda x: (x + 1e200).prod(),
}


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("tracked", [True, False])
def test_the_primitive_that_made_it_is_named_with_its_line(name, tracked):
    x = tensor(np.zeros(3), requires_grad=tracked)
    with debug(), pytest.raises(FloatingPointError, match=rf"^{name} made (NaN|an infinity)") as caught:
        FORWARD[name](x).sum()
    assert f"in <lambda>: \"{name}\": lambda x:" in str(caught.value)
    assert "test_debug.py" in str(caught.value) and "float64(3,)" in str(caught.value)
    FORWARD[name](x)


BACKWARD = {
    "sqrt": (lambda x: x.sqrt().sum(), 0.0, "an infinity for argument 0"),
    "pow": (lambda x: (x**0.5).sum(), 0.0, "an infinity for argument 0"),
    "multiply": (lambda x: (x * np.array([1e300])).sum() * 1e300, 1e-300, "an infinity for argument 0"),
    "divide": (lambda x: (x / np.array([1e-308])).sum() * 10.0, 1e-308, "an infinity for argument 0"),
}


@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_backward_names_the_rule_and_where_its_forward_was_called(name, create_graph):
    f, at, said = BACKWARD[name]
    x = leaf([at])
    with debug():
        y = f(x)
        with pytest.raises(FloatingPointError) as caught:
            y.backward(create_graph=create_graph)
    text = str(caught.value)
    said = "made an infinity" if create_graph else said
    assert said in text and f"backward of {name}" in text
    assert "its forward was called at" in text and f"\"{name}\": (lambda x:" in text
    if create_graph:
        with debug(), pytest.raises(FloatingPointError, match="log made an infinity .* called at") as caught:
            leaf([0.0]).log()
        assert "backward" not in str(caught.value).splitlines()[0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_transforms_are_watched_too():
    x = leaf([0.0])
    root = lambda x: namespace(x).sqrt(x).sum()  # noqa: E731
    for call in (
        lambda: grad(root)(np.zeros(1)),
        lambda: vjp(root, np.zeros(1))[1](1.0),
        lambda: gradients(root(x), x),
        lambda: jvp(lambda x: jvp(root, (x,), (np.ones(1),))[1], (np.zeros(1),), (np.ones(1),)),
    ):
        with debug(), pytest.raises(FloatingPointError, match="made"):
            call()
    assert STATE.watch is None and STATE.saver is None and not SPECIAL


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_sums_that_overflow_and_cotangents_that_arrive_so():
    x = leaf([1e-10])
    with debug():
        h = x * 1.0
        y = h * 1e308 + h * 1e308
        with pytest.raises(FloatingPointError, match="the cotangent that arrives, a sum .* is infinite"):
            y.sum().backward()
        with pytest.raises(FloatingPointError, match="is NaN"):
            (x * 1.0).backward(np.array([np.nan]))


def test_infinities_that_arrive_are_no_error():
    scores = leaf([[1.0, 2.0], [3.0, 4.0]])
    mask = np.array([[True, False], [False, False]])
    with debug():
        xp = namespace(scores)
        s = xp.where(mask, scores, -np.inf)
        logsumexp(s, axis=1)
        top = xp.max(s, axis=1, keepdims=True)
        top = xp.where(xp.isinf(top), 0.0, top)
        xp.exp(s - top).sum().backward()
        with pytest.raises(FloatingPointError, match="subtract made NaN"), np.errstate(all="ignore"):
            s - xp.max(s, axis=1, keepdims=True)


def test_a_fused_form_is_named(monkeypatch):
    from autodiff import fusable

    class Form:
        forward = staticmethod(lambda x: (np.log(x), ()))
        vjp = staticmethod(lambda g, out, saved, needs, x: (g / (x - x),))

    monkeypatch.setattr(fused, "find", lambda id, backend: Form)
    f = fusable("test.log", tensors=("x",))(lambda x: namespace(x).log(x))
    with debug(), np.errstate(all="ignore"):
        with pytest.raises(FloatingPointError, match="test.log made an infinity"):
            f(leaf([0.0]))
        y = f(leaf([1.0]))
        with pytest.raises(FloatingPointError, match=r"backward of test.log made an infinity for argument 0 \(x\)"):
            y.sum().backward()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_check_can_be_left_out_and_integers_are_no_floats():
    with debug(nonfinite=False):
        leaf([0.0]).log()
    with debug():
        tensor(np.array([1, 2])) + tensor(np.array([3, 4]))


# --- errors that say where --------------------------------------------------------------------


def test_errors_of_the_backward_say_where_the_forward_was():
    x, c = leaf([1.0, 2.0]), tensor(np.ones(2))
    with debug(freeze=False):
        y = (x * c).sum()
    c.assign(3.0)
    with pytest.raises(RuntimeError, match="changed in place") as caught:
        y.backward()
    assert "y = (x * c).sum()" in str(caught.value) and "autodiff/primitive" not in str(caught.value)
    with debug():
        y = (x * c).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="freed") as caught:
        y.backward()
    assert "y = (x * c).sum()" in str(caught.value)


# --- the mode itself --------------------------------------------------------------------------


def test_off_nothing_is_frozen_kept_or_called():
    gc.collect()
    before = len(TRACES)
    with debug():
        x = leaf([1.0, 2.0])
        y = (x * x).sum()
    assert len(TRACES) == before + 2
    del y
    assert len(TRACES) == before
    assert STATE.watch is None and STATE.saver is None and not SPECIAL
    x = leaf([1.0, 2.0])
    y = x * x
    assert y.node.saved.__class__ is tuple and x.data.flags.writeable and len(TRACES) == before


def test_it_is_a_threads_own_nests_decorates_and_leaves_no_mode_after_an_error():
    seen = []

    def other():
        seen.append((leaf([0.5]).exp().node.saved.__class__ is tuple, STATE.watch))

    with debug():
        worker = threading.Thread(target=other)
        worker.start()
        worker.join()
        with debug(nonfinite=False), no_grad():
            assert not (leaf([1.0]) * 2.0).requires_grad
        with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
            leaf([0.0]).log()
    assert seen == [(True, None)]

    @debug()
    def inside():
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            inside()
    assert STATE.watch is None and STATE.saver is None and not SPECIAL


# --- wrong debug modes ------------------------------------------------------------------------


def _forgets_the_count(self):
    for a in reversed(self.held):
        DEBUG._frozen.pop(id(a), None)
    for a in self.held:
        a.flags.writeable = True


def _set(owner, name, value):
    return lambda m: m.setattr(owner, name, value)


MUTANTS = [
    ("the view alone is frozen", _set(DEBUG, "_chain", lambda x: [x] if isinstance(x, np.ndarray) else []),
     test_views_and_what_they_view_freeze_and_thaw_in_any_order),
    ("the first node to die thaws", _set(DEBUG._Frozen, "__del__", _forgets_the_count),
     test_they_are_writable_again_when_the_graph_is_gone),
    ("it stays frozen", _set(DEBUG._Frozen, "__del__", lambda self: None),
     test_saved_inputs_and_outputs_are_read_only_until_their_backward),
    ("every infinity is an error", _set(DEBUG, "_new", lambda out, known: "an infinity" if DEBUG._bad(out) else ""),
     test_infinities_that_arrive_are_no_error),
    ("rules are not watched", _set(DEBUG._Watch, "pulled", lambda *a: None),
     lambda: test_backward_names_the_rule_and_where_its_forward_was_called("sqrt", False)),
    ("sums are not watched", _set(DEBUG._Watch, "arrives", lambda *a: None),
     test_sums_that_overflow_and_cotangents_that_arrive_so),
    ("the engine's own frames", _set(DEBUG, "_OURS", ("nowhere",)),
     test_errors_of_the_backward_say_where_the_forward_was),
    ("traces outlive their nodes", _set(DEBUG.weakref, "finalize", lambda *a: None),
     test_off_nothing_is_frozen_kept_or_called),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("breaks, check", [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS])
def test_a_wrong_debug_mode_is_caught(breaks, check, monkeypatch):
    check()
    with monkeypatch.context() as m:
        breaks(m)
        with pytest.raises(BaseException) as caught:  # noqa: PT011  a check may fail in its own way
            check()
    wrong = (AssertionError, ValueError, FloatingPointError, pytest.fail.Exception)
    assert isinstance(caught.value, wrong)
    DEBUG._frozen.clear()
    TRACES.clear()
