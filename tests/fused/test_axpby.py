"""axpby: NumPy's bits at every length and offset, with and without OpenBLAS."""

import numpy as np
import pytest

from backends.fused.numpy import _blas


@pytest.fixture(params=["blas", "numpy"])
def axpby(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(_blas, "_AXPBY", {})
    return lambda a, x, b, y, junk: _blas.axpby(a, _blas.part(x), b, _blas.part(y), _blas.part(junk))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("a, b", [(0.1, 0.9), (-3.7, 1.0), (0.0, 0.5), (0.5, 0.0)])
def test_the_bits_are_numpys(axpby, dtype, a, b):
    rng = np.random.default_rng(0)
    for n in (0, 1, 7, 8, 9, 31, 33, 1025, 8193, 10_007):
        x, y = rng.standard_normal((2, n)).astype(dtype)
        wanted = dtype(a) * x + dtype(b) * y
        kept = x.copy()
        axpby(a, x, b, y, np.empty_like(x))
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(x, kept)


def test_junk_may_be_x(axpby):
    x, y = np.float32([1, 2, 3]), np.float32([10, 20, 30])
    axpby(2.0, x, 0.5, y, x)
    np.testing.assert_array_equal(y, np.float32([7, 14, 21]))


def test_a_zero_factor_does_not_hide_a_nan(axpby):
    for a, b, x, y in [(0.0, 1.0, np.nan, 1.0), (1.0, 0.0, 1.0, np.nan)]:
        y = np.full(3, y)
        axpby(a, np.full(3, x), b, y, np.empty(3))
        assert np.isnan(y).all()
