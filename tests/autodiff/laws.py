"""Laws of one primitive, as plain functions of its name and a `Draw`.

They look the primitive up in the engine's table at every call, so that a wrong row put there is
judged in place of the right one (test_mutants).
"""

from __future__ import annotations

import gc
import weakref

import numpy as np

import backends
from autodiff import hvp, jvp, no_grad, saved_bytes, tensor, vjp
from autodiff.ops import multiply
from autodiff.ops import sum as total
from autodiff.primitive import TABLE
from tests.autodiff.samples import SAMPLES


def setting(name, d):
    """(f of the real arguments alone, those arguments, direction, cotangent)."""
    args, params = SAMPLES[name](d)
    slots = [i for i, a in enumerate(args) if a.dtype.kind == "f"]

    def f(*xs):
        full = list(args)
        for i, x in zip(slots, xs, strict=True):
            full[i] = x
        return TABLE[name](*full, **params)

    xs = tuple(args[i] for i in slots)
    u = tuple(d.real(x.shape) for x in xs)
    v = d.real(np.shape(f(*xs)))
    return f, xs, u, v


def inner(a, b):
    assert [np.shape(x) for x in a] == [np.shape(y) for y in b]
    return sum(float(np.sum(x * y)) for x, y in zip(a, b, strict=True))


def scale(a, b):
    return 1 + sum(float(np.sum(np.abs(x * y))) for x, y in zip(a, b, strict=True))


def close(got, want, size, tol=1e-12):
    assert abs(got - want) <= tol * size, (got, want, size)


def moved(xs, u, h):
    return tuple(x + h * t for x, t in zip(xs, u, strict=True))


def richardson(f, xs, u):
    """Directional derivative by central differences at h and h/2; error O(h^4)."""
    h = 1e-3
    wide = (f(*moved(xs, u, h)) - f(*moved(xs, u, -h))) / (2 * h)
    near = (f(*moved(xs, u, h / 2)) - f(*moved(xs, u, -h / 2))) / h
    return (4 * near - wide) / 3


def exact(table):
    """Linear primitives that neither divide nor round."""
    return {name for name, row in table.items() if row.kind == "linear"} - {"mean"}


# --- first derivatives ------------------------------------------------------------------------


def duality(name, d):
    """<v, J u> = <J^T v, u>; to the bit for linear primitives on integers."""
    f, xs, u, v = setting(name, d)
    _, tangent = jvp(f, xs, u)
    _, pull = vjp(f, *xs)
    back = pull(v)
    if d.whole and name in exact(TABLE):
        assert inner((v,), (tangent,)) == inner(back, u)
    else:
        close(inner(back, u), inner((v,), (tangent,)), scale(back, u) + scale((v,), (tangent,)))


def slope(name, d):
    """The pullback is the transpose of the slope that differences of f show."""
    f, xs, u, v = setting(name, d)
    back = vjp(f, *xs)[1](v)
    change = richardson(f, xs, u)
    close(inner(back, u), inner((v,), (change,)), scale(back, u) + scale((v,), (change,)), 1e-8)


def taylor(name, d):
    """|f(x + h u) - f(x) - h J u| falls with h^2."""
    f, xs, u, v = setting(name, d)
    value, tangent = jvp(f, xs, u)

    def rest(h):
        # Both signs: on one side the second and third order may cancel.
        ends = [f(*moved(xs, u, s * h)) - value - s * h * tangent for s in (1, -1)]
        return float(np.max(np.abs(ends), initial=0.0))

    coarse, fine = rest(2.0**-8), rest(2.0**-12)
    # 16^2 = 256 for a smooth f; 2 x slack for its third derivative, and the rounding of f.
    assert fine <= coarse / 128 + 1e-13 * (1 + float(np.max(np.abs(value), initial=0.0)))


def complex_step(name, d):
    """Im f(x + i h u) / h is J u to rounding, where f is analytic."""
    f, xs, u, v = setting(name, d)
    h = 1e-30
    change = f(*moved(xs, u, 1j * h)).imag / h
    back = vjp(f, *xs)[1](v)
    size = scale(back, u) + scale((v,), (change,))
    close(inner(back, u), inner((v,), (change,)), size, 1e-13)


def pullback_is_linear(name, d):
    """J^T (2 v) = 2 J^T v to the bit; J^T (v + w) = J^T v + J^T w to rounding."""
    f, xs, u, v = setting(name, d)
    w = d.real(v.shape)
    _, pull = vjp(f, *xs)
    for one, double in zip(pull(v), pull(2 * v), strict=True):
        assert np.array_equal(2 * one, double)
    for a, b, both in zip(pull(v), pull(w), pull(v + w), strict=True):
        assert np.allclose(a + b, both, rtol=1e-12, atol=1e-12 * (1 + np.max(np.abs(a), initial=0)))


def shortcut_is_derived(name, d):
    """Forward mode by the row's `kind` or jvp equals forward mode derived from the vjp alone."""
    f, xs, u, v = setting(name, d)
    row = TABLE[name]
    short = jvp(f, xs, u)[1]
    kind, rule = row.kind, row.jvp
    row.kind = row.jvp = None
    try:
        derived = jvp(f, xs, u)[1]
    finally:
        row.kind, row.jvp = kind, rule
    assert np.allclose(short, derived, rtol=1e-12, atol=1e-12)


# --- second derivatives -----------------------------------------------------------------------


def _energy(f, v):
    """A scalar with a full Hessian: <v, f> + <f, f> / 2."""

    def energy(*xs):
        y = f(*xs)
        return total(multiply(y, v)) + total(multiply(y, y)) * 0.5

    return energy


def _gradient(f, xs):
    ts = [tensor(x, requires_grad=True) for x in xs]
    y = f(*ts)
    if y.requires_grad:
        y.backward()
    return tuple(np.zeros_like(x) if t.grad is None else t.grad for t, x in zip(ts, xs, strict=True))


def _reverse_twice(f, xs, u):
    """Hessian times u, reverse over reverse."""
    ts = [tensor(x, requires_grad=True) for x in xs]
    f(*ts).backward(create_graph=True)
    firsts = [t.grad for t in ts]
    for t in ts:
        t.grad = None
    pieces = [total(multiply(g, a)) for g, a in zip(firsts, u, strict=True) if g is not None]
    s = sum(pieces[1:], pieces[0]) if pieces else None
    if s is not None and s.requires_grad:
        s.backward()
    return tuple(np.zeros_like(x) if t.grad is None else t.grad for t, x in zip(ts, xs, strict=True))


def double_backward(name, d):
    """Reverse over reverse = differences of the gradient = forward over reverse."""
    f, xs, u, v = setting(name, d)
    energy = _energy(f, v)
    twice = _reverse_twice(energy, xs, u)
    w = tuple(d.real(x.shape) for x in xs)
    wanted = richardson(lambda *ys: np.asarray(inner(_gradient(energy, ys), w)), xs, u)
    mixed = hvp(energy, xs, u)
    size = scale(twice, w) + abs(float(wanted)) + scale(u, u)
    close(inner(twice, w), float(wanted), size, 1e-7)
    for a, b in zip(twice, mixed, strict=True):
        assert np.allclose(a, b, rtol=1e-10, atol=1e-10)


def hessian_is_symmetric(name, d):
    """<w, H u> = <u, H w>."""
    f, xs, u, v = setting(name, d)
    energy = _energy(f, v)
    w = tuple(d.real(x.shape) for x in xs)
    left, right = _reverse_twice(energy, xs, u), _reverse_twice(energy, xs, w)
    close(inner(left, w), inner(right, u), scale(left, w) + scale(right, u), 1e-11)


# --- the tape ---------------------------------------------------------------------------------


def raw_in_raw_out(name, d):
    """Arrays give arrays, tensors give tensors, the numbers are the same, no input is touched."""
    f, xs, u, v = setting(name, d)
    kept = [x.copy() for x in xs]
    out = f(*xs)
    made = f(*(tensor(x, requires_grad=True) for x in xs))
    assert isinstance(out, np.ndarray | np.generic)
    assert np.array_equal(out, made.data) and out.dtype == made.dtype and out.shape == made.shape
    made.backward(v)
    assert all(np.array_equal(a, b) for a, b in zip(kept, xs, strict=True))
    with no_grad():
        assert f(*(tensor(x, requires_grad=True) for x in xs)).node is None


def gradients_fit(name, d):
    """Each gradient has the shape and dtype of its argument and memory of its own."""
    for dtype in (np.float64, np.float32, np.float16):
        again = d.again()
        again.dtype = dtype
        f, xs, u, v = setting(name, again)
        ts = [tensor(x, requires_grad=True) for x in xs]
        out = f(*ts)
        g = v.astype(out.dtype)
        before = g.copy()
        out.backward(g)
        grads = [t.grad for t in ts if t.grad is not None]
        for t in ts:
            if t.grad is not None:
                assert t.grad.shape == t.shape and t.grad.dtype == t.dtype == dtype
        # NumPy's 0-d scalars cannot be written into, so sharing one does no harm.
        grads = [g for g in grads if isinstance(g, np.ndarray)]
        for i, a in enumerate(grads):
            assert a.flags.writeable and not any(np.shares_memory(a, x) for x in (g, *xs))
            assert not any(np.shares_memory(a, b) for b in grads[i + 1 :])
        assert np.array_equal(g, before)


def precisions_mix(name, d):
    """With one argument in float32, its gradient is float32 and the numbers agree to that."""
    f, xs, u, v = setting(name, d)
    if len(xs) < 2:
        return
    ts = [tensor(xs[0].astype(np.float32), True), *(tensor(x, True) for x in xs[1:])]
    out = f(*ts)
    assert out.dtype == np.float64
    out.backward(v)
    assert ts[0].grad is None or ts[0].grad.dtype == np.float32
    assert all(t.grad is None or t.grad.dtype == np.float64 for t in ts[1:])


def twice_is_double(name, d):
    """Two backwards through a kept graph give 2 g to the bit; a third, freed, raises."""
    f, xs, u, v = setting(name, d)
    ts = [tensor(x, requires_grad=True) for x in xs]
    out = f(*ts)
    out.backward(v, retain_graph=True)
    once = [None if t.grad is None else t.grad.copy() for t in ts]
    out.backward(v)
    for t, g in zip(ts, once, strict=True):
        assert (t.grad is None and g is None) or np.array_equal(t.grad, 2 * g)
    try:
        out.backward(v)
    except RuntimeError as error:
        assert "freed" in str(error)
    else:
        raise AssertionError("a freed graph was swept")


def _saved(name, node):
    """[(position, array)] that a node keeps."""
    return [(i, s) for i, s in enumerate(node.saved) if isinstance(s, np.ndarray)]


def dies_with_its_output(name, d):
    """No collector is needed: nodes and saved arrays go when the output goes."""
    f, xs, u, v = setting(name, d)
    ts = [tensor(x.copy(), requires_grad=True) for x in xs]
    was_on = gc.isenabled()
    gc.disable()
    try:
        inputs = [multiply(t, np.ones((), t.dtype)) for t in ts]
        out = f(*inputs)
        refs = [weakref.ref(out.node), *(weakref.ref(t.node) for t in inputs)]
        # A mask is the caller's own array.
        refs += [weakref.ref(s) for _, s in _saved(name, out.node) if s.dtype != bool]
        del inputs
        assert all(r() is not None for r in refs)
        del out
        assert all(r() is None for r in refs)
    finally:
        if was_on:
            gc.enable()


def keeps_what_it_declares(name, d):
    """Tape bytes are the bytes of the declared values, each once."""
    f, xs, u, v = setting(name, d)
    ts = [tensor(x.copy(), requires_grad=True) for x in xs]
    out = f(*ts)
    row = TABLE[name]
    node = out.node
    slots = [e is not None for e in node.edges]
    if row.saves == "others":
        declared = {j for j in range(len(slots)) if any(s for i, s in enumerate(slots) if i != j)}
    else:
        rows = zip(slots, row.saves, strict=False)
        declared = {k for needed, kept in rows if needed for k in kept}
    everything = [t.data for t in ts]
    if len(everything) != len(slots):
        everything = [*[node.saved[i] for i, s in enumerate(slots) if not s], *everything]
    everything.append(out.data)
    assert saved_bytes(out) == sum(everything[k].nbytes for k in declared)


def writes_are_seen(name, d):
    """A write into any saved value, input or output, makes the backward raise and say which."""
    f, xs, u, v = setting(name, d)
    ts = [tensor(x.copy(), requires_grad=True) for x in xs]
    probe = f(*ts)
    inputs = len(probe.node.edges)
    shift = inputs - len(ts)
    for position, value in _saved(name, probe.node):
        if position < shift:
            continue
        ts = [tensor(x.copy(), requires_grad=True) for x in xs]
        out = f(*ts)
        written = out.detach() if position >= inputs else ts[position - shift].detach()
        written.assign(np.zeros_like(value))
        try:
            out.backward(v)
        except RuntimeError as error:
            label = "output" if position >= inputs else f"argument {position}"
            said = str(error)
            assert name in said and label in said and "version 1" in said, said
        else:
            raise AssertionError(f"{name}: a write into saved value {position} went unseen")


def strict_agrees(name, d):
    """array-api-strict computes the same values, gradients and second derivatives."""
    strict = backends.get("strict")
    args, params = SAMPLES[name](d)
    index = params.get("index", ())
    if not isinstance(index, tuple):
        return  # the standard takes whole rows by `take` alone
    arrays = sum(isinstance(p, np.ndarray) for p in index)
    if arrays and arrays < len(d.shape):
        return  # nor does it mix arrays with slices
    if index and not arrays and not any(p is Ellipsis for p in index):
        params = {**params, "index": (*index, ...)}
    over = {k: strict.from_numpy(p) if isinstance(p, np.ndarray) else p for k, p in params.items()}
    if index:
        parts = params["index"]
        carry = (strict.from_numpy(p) if isinstance(p, np.ndarray) else p for p in parts)
        over["index"] = tuple(carry)
    if name == "astype":
        over["dtype"] = strict.float64
    there = [strict.from_numpy(a) for a in args]
    real = [a.dtype.kind == "f" for a in args]
    ts = [tensor(a, requires_grad=r) for a, r in zip(there, real, strict=True)]
    us = [tensor(a, requires_grad=r) for a, r in zip(args, real, strict=True)]
    out, wanted = TABLE[name](*ts, **over), TABLE[name](*us, **params)
    assert np.allclose(strict.to_numpy(out.data), wanted.data, rtol=1e-13, atol=1e-13)
    v = d.real(wanted.shape)
    out.backward(strict.from_numpy(v), create_graph=True)
    wanted.backward(v, create_graph=True)
    for t, u in zip(ts, us, strict=True):
        if u.grad is not None:
            got = strict.to_numpy(t.grad.data)
            assert np.allclose(got, u.grad.data, rtol=1e-12, atol=1e-12)


FIRST = (duality, slope, taylor, pullback_is_linear, shortcut_is_derived)
SECOND = (double_backward, hessian_is_symmetric)
TAPE = (
    *(raw_in_raw_out, gradients_fit, precisions_mix, twice_is_double, dies_with_its_output),
    *(keeps_what_it_declares, writes_are_seen, strict_agrees),
)
