"""axpby: NumPy's bits or those of one fused multiply-add, at every length and offset, with and without OpenBLAS."""

from fractions import Fraction

import numpy as np
import pytest

from backends.fused.numpy import _blas


@pytest.fixture(params=["blas", "numpy"])
def axpby(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(_blas, "_AXPBY", {})
    return lambda a, x, b, y, junk: _blas.axpby(a, _blas.part(x), b, _blas.part(y), _blas.part(junk))


def is_fma(found, a, x, b, y):
    """Whether found is a x + fl(b y), rounded once."""
    dtype = type(found)
    exact = Fraction(float(dtype(a))) * Fraction(float(x)) + Fraction(float(dtype(b) * y))
    return abs(Fraction(float(found)) - exact) <= Fraction(float(np.spacing(abs(found)))) / 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("a, b", [(0.1, 0.9), (-3.7, 1.0), (0.0, 0.5), (0.5, 0.0)])
def test_the_bits_are_numpys_or_those_of_a_fused_multiply_add(axpby, dtype, a, b):
    rng = np.random.default_rng(0)
    for n in (0, 1, 7, 8, 9, 31, 33, 1025, 8193, 10_007):
        x, y = rng.standard_normal((2, n)).astype(dtype)
        wanted = dtype(a) * x + dtype(b) * y
        kept, old = x.copy(), y.copy()
        axpby(a, x, b, y, np.empty_like(x))
        np.testing.assert_array_equal(x, kept)
        others = np.flatnonzero(y != wanted)
        assert all(is_fma(y[i], a, x[i], b, old[i]) for i in others)
        assert len(others) == 0 or not _blas._AXPBY[np.dtype(dtype)][1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cut_does_not_show(axpby, dtype):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 20_011)).astype(dtype)
    whole = y.copy()
    axpby(0.1, x, 0.9, whole, np.empty_like(x))
    ends = [0, 1, 2, 9, 40, 8232, 8239, 20_000, 20_011]
    for start, stop in zip(ends, ends[1:], strict=False):
        axpby(0.1, x[start:stop], 0.9, y[start:stop], np.empty(stop - start, dtype))
    np.testing.assert_array_equal(y, whole)


def test_what_is_added_may_be_read_only(axpby):
    x, y = np.ones(9000, np.float32), np.ones(9000, np.float32)
    x.flags.writeable = False
    axpby(2.0, x, 1.0, y, np.empty_like(x))
    np.testing.assert_array_equal(y, np.full(9000, 3, np.float32))


def test_junk_may_be_x(axpby):
    x, y = np.float32([1, 2, 3]), np.float32([10, 20, 30])
    axpby(2.0, x, 0.5, y, x)
    np.testing.assert_array_equal(y, np.float32([7, 14, 21]))


def test_a_zero_factor_does_not_hide_a_nan(axpby):
    for a, b, x, y in [(0.0, 1.0, np.nan, 1.0), (1.0, 0.0, 1.0, np.nan)]:
        y = np.full(3, y)
        axpby(a, np.full(3, x), b, y, np.empty(3))
        assert np.isnan(y).all()
