"""scatter_add on NumPy, strict and the CuPy adapter, against its definition as a transpose."""

import math
import sys
import types

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import backends
from backends import cupy as cupy_adapter

XPS = [backends.get("numpy"), backends.get("strict")]
NP, STRICT = XPS
each = pytest.mark.parametrize("xp", XPS, ids=["numpy", "strict"])


def carried(xp, index):
    """The index with its arrays carried over to xp."""
    if isinstance(index, tuple):
        return tuple(carried(xp, part) for part in index)
    return xp.from_numpy(index) if isinstance(index, np.ndarray) else index


def scatter(xp, shape, index, values):
    out = xp.scatter_add(shape, carried(xp, index), xp.from_numpy(values))
    assert isinstance(out, xp.array_class)
    return xp.to_numpy(out)


def transposed(shape, index, values):
    """Transpose of x[index] from its definition: entry j is <values, e_j[index]>."""
    out = np.zeros(shape, values.dtype)
    for j in np.ndindex(*shape):
        e = np.zeros(shape, bool)
        e[j] = True
        out[j] = values[e[index]].sum()
    return out


@st.composite
def scatters(draw, kinds):
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    ids = [st.integers(-n, n - 1) for n in shape]
    kind = draw(st.sampled_from(kinds))
    if kind == "rows":
        assume(shape)
        fan = tuple(draw(st.lists(st.integers(0, 4), max_size=2))) if shape[0] else (0,)
        count = math.prod(fan)
        flat = draw(st.lists(ids[0], min_size=count, max_size=count)) if count else []
        index = np.array(flat, np.int64).reshape(fan)
    elif kind == "points":
        assume(shape and 0 not in shape)
        fan = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
        count = math.prod(fan)
        index = tuple(
            np.array(draw(st.lists(i, min_size=count, max_size=count)), np.int64).reshape(fan)
            for i in ids
        )
    elif kind == "mask":
        size = math.prod(shape)
        flat = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        index = np.array(flat, bool).reshape(shape)
    else:
        step = st.sampled_from([-2, -1, 1, 2, None])
        parts = [slice(None, None, draw(step)) for _ in shape]
        for axis, n in enumerate(shape):
            if n and draw(st.booleans()):
                parts[axis] = draw(st.sampled_from([draw(ids[axis]), slice(n // 2, n)]))
        if draw(st.booleans()):
            parts.insert(draw(st.integers(0, len(parts))), None)
        index = tuple(parts)
    values = np.zeros(np.zeros(shape, bool)[index].shape)
    values.flat = draw(st.lists(st.integers(-9, 9), min_size=values.size, max_size=values.size))
    return shape, index, values


@each
@given(scatters(["rows", "points", "mask", "basic"]))
@example(((3,), np.array([2, -1, 2, 0]), np.array([1.0, 2.0, 3.0, 4.0])))
@example(((), (), np.array(5.0)))
@example(((), np.array(True), np.array([5.0])))
@example(((0, 3), np.zeros(0, int), np.zeros((0, 3))))
@example(((2, 0), np.array([1, 1]), np.zeros((2, 0))))
@example(((3, 2), np.array(1), np.array([4.0, 5.0])))
@example(((2, 3), np.array([True, False]), np.array([[4.0, 5.0, 6.0]])))
def test_scatter_add_is_the_transpose_of_indexing(xp, case):
    shape, index, values = case
    np.testing.assert_array_equal(scatter(xp, shape, index, values), transposed(*case))


@given(st.sampled_from([(0, [0, 0]), ([1, 1], slice(None)), (slice(1), 0, [2, 2]), ([0],)]))
def test_numpy_also_takes_arrays_beside_slices(parts):
    index = tuple(np.array(p) if isinstance(p, list) else p for p in parts)
    shape = (2, 2, 3)
    values = np.arange(1.0, 1 + np.zeros(shape)[index].size).reshape(np.zeros(shape)[index].shape)
    case = shape, index, values
    np.testing.assert_array_equal(scatter(NP, *case), transposed(*case))


def last_wins(shape, index, values):
    out = np.zeros(shape, values.dtype)
    out[index] += values
    return out


def unsigned_ids(shape, index, values):
    return NP.scatter_add(shape, np.abs(index), values)


def running_sum(shape, index, values):
    return np.cumsum(NP.scatter_add(shape, index, values), axis=0)


@pytest.mark.parametrize("wrong", [last_wins, unsigned_ids, running_sum])
def test_the_transpose_tells_wrong_scatters(wrong):
    case = (3,), np.array([2, -1, 2, 0, -2]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert not np.array_equal(wrong(*case), transposed(*case))


# The standard has no float16 ("e").
@pytest.mark.parametrize(
    "xp, dtype", [(NP, c) for c in "fdFDilHe"] + [(STRICT, c) for c in "fdFDilH"], ids=str
)
@pytest.mark.parametrize("count, width", [(5, 3), (700, 1), (90, 7)])
def test_scatter_add_sums_in_the_order_of_values(xp, dtype, count, width):
    # The bits of one addition after another, on the small and on the large path.
    kind = np.dtype(dtype).kind
    rng = np.random.default_rng(count)
    values = rng.standard_normal((count, width)) * 100
    if kind == "c":
        values = values + 1j * values[::-1]
    values = values.astype(np.int64 if kind in "iu" else dtype).astype(dtype)
    index = rng.integers(-11, 11, count)
    if kind in "fc":
        values[0], values[1], values[-1] = np.inf, np.nan, -0.0
    wanted = np.zeros((11, width), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for i, row in zip(index, values, strict=True):
            wanted[i] = wanted[i] + row
    out = scatter(xp, (11, width), index, values)
    assert out.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(out, wanted)
    zero = wanted == 0
    assert not np.any(np.signbit(out[zero].real))


@each
def test_scatter_add_takes_views_and_leaves_its_inputs(xp):
    values = np.arange(2400.0).reshape(40, 60)
    index = np.arange(80)[::-2] % 7
    kept = values.copy(), index.copy()
    strided = NP.scatter_add((7, 60), index, values[:, ::-1])
    np.testing.assert_array_equal(strided, scatter(xp, (7, 60), index, values[:, ::-1].copy()))
    np.testing.assert_array_equal(values, kept[0])
    np.testing.assert_array_equal(index, kept[1])


@each
def test_scatter_add_names_what_does_not_fit(xp):
    zeros, ids = xp.zeros((2, 4)), xp.asarray([0, 1])
    with pytest.raises(ValueError, match=r"values has shape \(2, 4\), x\[index\] has \(2, 3\)"):
        xp.scatter_add((5, 3), ids, zeros)
    with pytest.raises(ValueError, match=r"values has shape \(2, 4\), x\[index\] has \(2, 3\)"):
        xp.scatter_add((5, 3), slice(0, 2), zeros)
    with pytest.raises(ValueError, match=r"values has shape \(4,\), x\[index\] has \(2,\)"):
        xp.scatter_add((5, 3), (ids, ids), xp.zeros(4))
    with pytest.raises(TypeError, match="scatter_add: values has dtype bool; a numeric dtype"):
        xp.scatter_add((5,), ids, xp.zeros(2, dtype=xp.bool))
    for outside in ([5], [-6], [0, 99]):
        with pytest.raises(IndexError):
            xp.scatter_add((5,), xp.asarray(outside), xp.zeros(len(outside)))


@pytest.fixture
def cupy_on_numpy(monkeypatch):
    """CuPy's names played by NumPy, and the kernel's loop by Python."""

    def segment_sum(values, order, first, width, out):
        for i in range(out.size):
            row, column = divmod(i, width)
            total = out.dtype.type(0)
            for p in range(first[row], first[row + 1]):
                total = total + values[order[p] * width + column]
            out.flat[i] = total

    cupy = types.ModuleType("cupy")
    for name in ("zeros", "arange", "argsort", "searchsorted"):
        setattr(cupy, name, getattr(np, name))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cupy_adapter, "_segment_sum", lambda: segment_sum)


def test_cupy_scatter_add_hands_the_kernel_the_right_segments(cupy_on_numpy):
    @given(scatters(["rows", "points", "mask", "basic"]))
    def law(case):
        np.testing.assert_array_equal(cupy_adapter.scatter_add(*case), transposed(*case))

    law()
