"""Laws of a primitive with complex arguments, under the real inner product Re(sum(conj(v) u))."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import given

import backends
from autodiff import (
    hvp,
    jvp,
    namespace,
    tensor,
    vjp,
)
from autodiff.primitive import TABLE
from tests.autodiff.laws import moved, richardson
from tests.autodiff.samples import SAMPLES, Draw, draws, examples

SUPPORTED = sorted(name for name, row in TABLE.items() if row.complex)
# Not holomorphic: they look at the real part, the imaginary part or the size.
BROKEN = {"abs", "angle", "conj", "imag", "real", "vecdot"}


class ComplexDraw(Draw):
    """Complex values, now and then real ones, clear of the branch cuts along the negative axis."""

    share = 0.8

    def _some(self, x, spread=2.0):
        if self.rng.random() > self.share:
            return x
        return x + 1j * self.rng.uniform(-spread, spread, np.shape(x)).astype(self.dtype)

    def real(self, shape=None):
        return self._some(super().real(shape))

    def positive(self, shape=None):
        return self._some(super().positive(shape))

    def nonzero(self, shape=None):
        return self._some(super().positive(shape), 1.0)


class AllComplex(ComplexDraw):
    share = 1.1


def setting(name, d, kind=ComplexDraw):
    """(f of the floating arguments alone, those arguments, directions, cotangent, the draw)."""
    d = kind(d.shape, d.seed)
    if name == "complex":
        args, params = SAMPLES[name](Draw(d.shape, d.seed))
    else:
        args, params = SAMPLES[name](d)
    if name == "astype":
        params = {"dtype": np.dtype(complex)}
    slots = [i for i, a in enumerate(args) if a.dtype.kind in "fc"]

    def f(*xs):
        full = list(args)
        for i, x in zip(slots, xs, strict=True):
            full[i] = x
        return TABLE[name](*full, **params)

    xs = tuple(args[i] for i in slots)
    out = f(*xs)
    return f, xs, tuple(like(d, x) for x in xs), like(d, out), d


def like(d, x):
    """Values of the shape and kind of x."""
    x = np.asarray(x)
    v = d.rng.uniform(-1, 1, x.shape)
    return v + 1j * d.rng.uniform(-1, 1, x.shape) if x.dtype.kind == "c" else v


def inner(a, b):
    """Re(sum(conj(v) u)), summed over the arguments."""
    assert [np.shape(x) for x in a] == [np.shape(y) for y in b]
    return sum(float(np.real(np.sum(np.conj(x) * y))) for x, y in zip(a, b, strict=True))


def size_of(*parts):
    return 1 + sum(float(np.sum(np.abs(x))) for part in parts for x in part)


def given_draws(law, name, count):
    @examples(count)
    @given(draws(max_dims=2))
    def check(d):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            law(name, d)

    check()


# --- laws of a primitive ----------------------------------------------------------------------


def adjoint(name, d):
    """<v, J u> = <J* v, u> with Re(conj(v) u); each cotangent has the dtype of its argument."""
    f, xs, u, v, _ = setting(name, d)
    out, tangent = jvp(f, xs, u)
    back = vjp(f, *xs)[1](v)
    assert [b.dtype for b in back] == [x.dtype for x in xs] and tangent.dtype == np.asarray(out).dtype
    assert abs(inner((v,), (tangent,)) - inner(back, u)) <= 1e-12 * size_of(back, (tangent,))


def slope(name, d):
    """The pullback is the adjoint of the slope that differences of f show."""
    f, xs, u, v, _ = setting(name, d)
    back = vjp(f, *xs)[1](v)
    change = np.asarray(richardson(f, xs, u))
    assert abs(inner((v,), (change,)) - inner(back, u)) <= 1e-8 * size_of(back, (change,))


def taylor(name, d):
    """|f(z + h u) - f(z) - h J u| falls with h^2."""
    f, xs, u, v, _ = setting(name, d)
    value, tangent = jvp(f, xs, u)

    def rest(h):
        ends = [f(*moved(xs, u, s * h)) - value - s * h * tangent for s in (1, -1)]
        return float(np.max(np.abs(ends), initial=0.0))

    top = 1 + float(np.max(np.abs(value), initial=0.0))
    assert rest(2.0**-12) <= rest(2.0**-8) / 128 + 1e-13 * top


def shortcut_is_derived(name, d):
    f, xs, u, v, _ = setting(name, d)
    row = TABLE[name]
    short = jvp(f, xs, u)[1]
    kind, rule = row.kind, row.jvp
    row.kind = row.jvp = None
    try:
        derived = jvp(f, xs, u)[1]
    finally:
        row.kind, row.jvp = kind, rule
    assert np.allclose(short, derived, rtol=1e-12, atol=1e-12)


def second_order(name, d):
    """The Hessian of a real energy is symmetric, and its three products agree."""
    f, xs, u, v, d = setting(name, d)
    w = tuple(like(d, x) for x in xs)

    def energy(*zs):
        y = f(*zs)
        xp = namespace(y)
        product = xp.multiply(y, v) if v.dtype.kind == "f" else xp.multiply(y, np.conj(v))
        return xp.sum(xp.real(product)) + xp.sum(xp.square(xp.real(y)) + xp.square(xp.imag(y)))

    left, right = hvp(energy, xs, u), hvp(energy, xs, w)
    assert abs(inner(left, w) - inner(right, u)) <= 1e-11 * size_of(left, right)
    for mode in ("reverse_over_reverse", "reverse_over_forward"):
        for a, b in zip(hvp(energy, xs, u, mode=mode), left, strict=True):
            assert np.allclose(a, b, rtol=1e-11, atol=1e-11)


def cauchy_riemann(name, d):
    """J (i u) = i J u, and the pullback is linear over the complex numbers too."""
    f, xs, u, v, d = setting(name, d, AllComplex)
    _, along = jvp(f, xs, u)
    turned = jvp(f, xs, tuple(1j * t for t in u))[1]
    assert np.allclose(turned, 1j * along, rtol=1e-12, atol=1e-12)
    pull = vjp(f, *xs)[1]
    for a, b in zip(pull(1j * v), pull(v), strict=True):
        assert np.allclose(a, 1j * b, rtol=1e-12, atol=1e-12)


def breaks_cauchy_riemann(name, d):
    """J (i u) is not i J u wherever J u is not 0."""
    f, xs, u, _, d = setting(name, d, AllComplex)
    _, along = jvp(f, xs, u)
    turned = jvp(f, xs, tuple(1j * t for t in u))[1]
    nowhere = along.size == 0 or not np.any(np.abs(along) > 1e-6)
    assert nowhere or not np.allclose(turned, 1j * along, rtol=1e-6, atol=1e-9)


def narrow_stays_narrow(name, d):
    """float32 and complex64 stay what they are, forward and backward."""
    f, xs, u, v, _ = setting(name, d)
    small = {"f": np.float32, "c": np.complex64}
    ts = [tensor(x.astype(small[x.dtype.kind]), True) for x in xs]
    out = f(*ts)
    assert out.dtype == small[np.asarray(v).dtype.kind]
    out.backward(v.astype(out.dtype))
    for t in ts:
        assert t.grad.dtype == t.dtype and t.grad.shape == t.shape


def strict_agrees(name, d):
    """array-api-strict computes the same values and gradients."""
    strict = backends.get("strict")
    f, xs, u, v, _ = setting(name, d)
    args, params = SAMPLES[name](Draw(d.shape, d.seed) if name == "complex" else ComplexDraw(d.shape, d.seed))
    over = {k: strict.from_numpy(p) if isinstance(p, np.ndarray) else p for k, p in params.items()}
    if name == "astype":
        over["dtype"] = strict.complex128
    ts = [tensor(strict.from_numpy(a), a.dtype.kind in "fc") for a in args]
    out = TABLE[name](*ts, **over)
    out.backward(strict.from_numpy(v))
    wanted = vjp(f, *xs)[1](v)
    got = [strict.to_numpy(t.grad) for t in ts if t.grad is not None]
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert np.allclose(a, b, rtol=1e-12, atol=1e-12)
