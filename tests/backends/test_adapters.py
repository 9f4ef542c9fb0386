"""erf, the way in and out, and strict's escapes."""

import ast
import inspect

import mpmath
import numpy as np
import pytest

import backends
from backends import strict

XPS = [backends.get("numpy"), backends.get("strict")]
NP, STRICT = XPS
each = pytest.mark.parametrize("xp", XPS, ids=["numpy", "strict"])


# The standard has no float16.
@pytest.mark.parametrize(
    "xp, dtype, ulps",
    [(NP, np.float64, 4), (NP, np.float32, 1), (NP, np.float16, 1)]
    + [(STRICT, np.float64, 4), (STRICT, np.float32, 1)],
)
def test_erf_against_many_digits(xp, dtype, ulps):
    tiny = np.finfo(dtype).tiny
    x = np.concatenate([np.linspace(-6, 6, 101), [0.0, -0.0, tiny, 1e-3, np.inf, -np.inf]])
    x = x.astype(dtype)
    y = xp.to_numpy(xp.erf(xp.from_numpy(x)))
    assert y.dtype == dtype
    with mpmath.workdps(30):
        wanted = np.array([float(mpmath.erf(mpmath.mpf(float(v)))) for v in x])
    assert np.all(np.abs(y - wanted) <= ulps * np.spacing(np.abs(wanted).astype(dtype)))
    np.testing.assert_array_equal(np.signbit(y), np.signbit(x))
    assert np.isnan(xp.to_numpy(xp.erf(xp.from_numpy(np.array([np.nan], dtype)))))


@each
def test_erf_of_a_point_an_empty_array_and_integers(xp):
    assert xp.erf(xp.asarray(0.5)).shape == ()
    assert xp.erf(xp.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(TypeError, match="erf: x has dtype int64; a floating-point dtype is need"):
        xp.erf(xp.arange(3))


@each
@pytest.mark.parametrize(
    "dtype",
    [*(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8", "c8", "c16", ">f8"])],
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_values_are_carried_over_and_share_no_memory(xp, dtype, shape):
    a = np.ones(shape, dtype)
    x = xp.from_numpy(a)
    a[...] = 0
    b = xp.to_numpy(x)
    assert isinstance(x, xp.array_class) and type(b) is np.ndarray
    assert b.shape == shape and b.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(b, np.ones(shape))
    b[...] = 0
    np.testing.assert_array_equal(xp.to_numpy(x), np.ones(shape))


@each
def test_read_only_and_strided_values_are_carried_over(xp):
    a = np.arange(6.0).reshape(2, 3).T[::-1]
    a.flags.writeable = False
    np.testing.assert_array_equal(xp.to_numpy(xp.from_numpy(a)), a)


def test_strict_names_a_dtype_that_the_standard_lacks():
    with pytest.raises(TypeError, match="from_numpy: a has dtype float16, which the array API st"):
        STRICT.from_numpy(np.zeros(3, np.float16))


def escaped(call):
    before = strict.escapes.copy()
    call()
    return dict(strict.escapes - before)


def test_strict_escapes_are_exactly_those_listed():
    x, ids = STRICT.ones((3, 3)), STRICT.asarray([0, 2, 0])
    special = {"erf", "erfc", "gammaln", "polygamma"}
    assert set(strict.ESCAPES) == {*special, "from_numpy", "to_numpy"}
    assert escaped(lambda: STRICT.scatter_add((4, 3), ids, x)) == {}
    assert escaped(lambda: STRICT.einsum("ij,jk,kk->i", x, x, x)) == {}
    assert escaped(lambda: STRICT.solve_triangular(STRICT.eye(3), x)) == {}
    assert escaped(lambda: STRICT.overlap_add(STRICT.windows(x, (2,), (1,), (1,)), (3,), (1,), (1,))) == {}
    for name in special - {"polygamma"}:
        assert escaped(lambda name=name: getattr(STRICT, name)(x)) == {name: 1}
    assert escaped(lambda: STRICT.polygamma(1, x)) == {"polygamma": 1}
    assert escaped(lambda: STRICT.to_numpy(STRICT.from_numpy(np.ones(2)))) == {
        "from_numpy": 1,
        "to_numpy": 1,
    }
    with pytest.raises(KeyError):
        strict.escape("softmax")


def outsiders(source):
    """Functions of a source that name NumPy or SciPy, apart from the escapes' own."""
    allowed = {f.__name__ for f in strict.ESCAPES.values()}
    return {
        f.name
        for f in ast.parse(source).body
        if isinstance(f, ast.FunctionDef) and f.name not in allowed
        for node in ast.walk(f)
        if isinstance(node, ast.Name) and node.id in {"np", "numpy", "native_copy", *allowed}
    }


def test_strict_leaves_the_standard_by_the_counted_door_alone():
    source = inspect.getsource(strict)
    assert outsiders(source) == set()
    cheat = source + "\ndef quick(x):\n    return np.exp(x)\ndef quiet(x):\n    return _erf(x)\n"
    assert outsiders(cheat) == {"quick", "quiet"}
