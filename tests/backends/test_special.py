"""erfc, gammaln, polygamma against many digits; triangular systems; windows and their transpose."""

import itertools
import sys
import types

import mpmath
import numpy as np
import pytest
from scipy import linalg, special

import backends
from backends import cupy as cupy_backend

XPS = [backends.get("numpy"), backends.get("strict")]
NP, STRICT = XPS
each = pytest.mark.parametrize("xp", XPS, ids=["numpy", "strict"])

POINTS = np.array([0.1, 0.9, 1.0, 1.7, 2.0, 3.5, 11.0, 40.0, -0.3, -2.6])
EXACT = {
    "erfc": (mpmath.erfc, np.linspace(-3, 9, 25)),
    "gammaln": (lambda v: mpmath.log(abs(mpmath.gamma(v))), POINTS),
    **{f"polygamma {n}": (lambda v, n=n: mpmath.psi(n, v), POINTS) for n in range(4)},
}


def evaluate(xp, name, x):
    word, _, n = name.partition(" ")
    return getattr(xp, word)(int(n), x) if n else getattr(xp, word)(x)


@each
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_special_functions_against_many_digits(xp, name, dtype):
    exact, points = EXACT[name]
    x = points.astype(dtype)
    y = xp.to_numpy(evaluate(xp, name, xp.from_numpy(x)))
    with mpmath.workdps(40):
        wanted = np.array([float(exact(mpmath.mpf(float(v)))) for v in x])
    assert y.dtype == dtype
    # An ulp of the value, and of x through the slope: both functions cross 0 near 1.5 and 2.
    bound = 64 * np.finfo(dtype).eps * np.maximum(np.abs(wanted), 1.0 if name != "erfc" else 0.0)
    assert np.all(np.abs(y - wanted) <= bound)


def test_special_functions_keep_float16_and_refuse_integers():
    for name in EXACT:
        assert evaluate(NP, name, np.ones(3, np.float16)).dtype == np.float16
        with pytest.raises(TypeError, match="x has dtype int64; a floating-point dtype is needed"):
            evaluate(NP, name, np.arange(3))


@each
def test_solve_triangular_reads_one_triangle(xp):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 2, (2, 4, 4)), rng.standard_normal((2, 4, 3))
    for upper in (False, True):
        half = np.triu(a) if upper else np.tril(a)
        x = xp.to_numpy(xp.solve_triangular(xp.from_numpy(a), xp.from_numpy(b), upper=upper))
        assert np.allclose(half @ x, b, rtol=1e-13, atol=1e-13)
    for shape in ((0, 4, 3), (2, 4, 0)):
        empty = xp.solve_triangular(xp.ones((shape[0], 4, 4)), xp.zeros(shape))
        assert empty.shape == shape


SLIDES = [((6,), (3,), (2,), (1,)), ((5, 4), (2, 2), (1, 2), (2, 1)), ((3, 3, 3), (1, 2, 3), (1, 1, 1), (1, 1, 1))]


@each
@pytest.mark.parametrize("shape, size, strides, dilation", SLIDES)
def test_windows_are_the_elements_that_their_formula_names(xp, shape, size, strides, dilation):
    x = np.arange(float(2 * np.prod(shape))).reshape(2, *shape)
    w = xp.to_numpy(xp.windows(xp.from_numpy(x), size, strides, dilation))
    places = w.shape[1 + len(size) :]
    back = np.zeros_like(x)
    for k in itertools.product(*map(range, size)):
        for p in itertools.product(*map(range, places)):
            at = tuple(s * q + d * o for s, q, d, o in zip(strides, p, dilation, k, strict=True))
            assert np.array_equal(w[(slice(None), *k, *p)], x[(slice(None), *at)])
            back[(slice(None), *at)] += w[(slice(None), *k, *p)]
    # No window more would fit.
    for n, k, s, d, p in zip(shape, size, strides, dilation, places, strict=True):
        assert s * p + d * (k - 1) >= n
    added = xp.overlap_add(xp.from_numpy(w), shape, strides, dilation)
    assert np.array_equal(xp.to_numpy(added), back)


@each
def test_windows_name_what_does_not_fit(xp):
    for size, strides, dilation in (((4,), (1,), (1,)), ((2,), (0,), (1,)), ((2,), (1,), (3,)), ((0,), (1,), (1,))):
        with pytest.raises(ValueError, match=r"windows: no window of size .* fits into \(3,\)"):
            xp.windows(xp.ones((2, 3)), size, strides, dilation)
    with pytest.raises(ValueError, match=r"overlap_add: w has \(5,\) places; an array of \(4,\) has \(3,\)"):
        xp.overlap_add(xp.ones((2, 5)), (4,), (1,), (1,))


@pytest.fixture
def cupyx(monkeypatch):
    """NumPy and SciPy under CuPy's names: shows which functions the adapter asks for."""
    for name, module in (("cupy", np), ("cupyx.scipy.special", special), ("cupyx.scipy.linalg", linalg)):
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("cupyx", "cupyx.scipy"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


def test_cupys_adapter_computes_the_same_under_cupyx_names(cupyx):
    x = np.array([0.5, 1.5, 2.5], np.float32)
    for name in EXACT:
        assert np.array_equal(evaluate(cupy_backend, name, x), evaluate(NP, name, x)), name
        with pytest.raises(TypeError, match="floating-point dtype is needed"):
            evaluate(cupy_backend, name, np.arange(3))
    a, b = np.eye(3)[None] + 0.1, np.ones((1, 3, 2))
    for upper in (False, True):
        ours = cupy_backend.solve_triangular(a, b, upper=upper)
        assert np.array_equal(ours, NP.solve_triangular(a, b, upper=upper))
