"""bf16 and fp16 rounding: every pattern, every midpoint, and an exact oracle in between."""

import warnings
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import low_precision as lp
from backends.stochastic import stochastic_bf16


class Format(NamedTuple):
    digits: int  # with the hidden bit
    quantum: int  # log2 of the smallest subnormal
    inf: int  # bits of inf: the finite positive patterns are range(inf)
    quiet: int  # the bit that makes a NaN quiet
    round: object
    to_bits: object
    from_bits: object


BF16 = Format(8, -133, 0x7F80, 0x40, lp.round_bf16, lp.to_bf16_bits, lp.from_bf16_bits)
FP16 = Format(11, -24, 0x7C00, 0x200, lp.round_fp16, lp.to_fp16_bits, lp.from_fp16_bits)
formats = pytest.mark.parametrize("f", [BF16, FP16], ids=["bf16", "fp16"])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def oracle(f, x):
    """Nearest by scaling to the format's own unit, where rint is exact and ties go to even."""
    x = np.asarray(x, np.float64)
    unit = np.maximum(np.frexp(x)[1] - f.digits, f.quantum)
    with np.errstate(over="ignore"):
        y = np.ldexp(np.rint(np.ldexp(x, -unit)), unit)
    limit = float(ladder(f)[-2])
    return np.where(np.abs(y) > limit, np.copysign(np.inf, x), y)


def ladder(f):
    """Values of the positive patterns up to inf, which stands one step above the largest."""
    values = f.from_bits(np.arange(f.inf + 1, dtype=np.uint16)).astype(np.float64)
    values[-1] = 2 * values[-2] - values[-3]
    return values


def same(actual, wanted):
    """Equal values, signs of zero included."""
    actual = np.asarray(actual, np.float64)
    np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(np.signbit(actual), np.signbit(wanted))


def check_midpoints(f, dtype, rounding):
    v = ladder(f)
    mid = (v[:-1] + v[1:]) / 2
    down, up = v[:-1], np.append(v[1:-1], np.inf)
    even = np.where(np.arange(f.inf) % 2 == 0, down, up)
    below, above = (np.nextafter(mid.astype(dtype), dtype(s)) for s in (-np.inf, np.inf))
    for sign in (1.0, -1.0):
        for x, wanted in ((mid, even), (below, down), (above, up)):
            same(rounding((sign * x).astype(dtype)), sign * wanted)


@formats
@dtypes
def test_midpoints_go_to_even_and_their_neighbours_to_the_nearer_side(f, dtype):
    check_midpoints(f, dtype, f.round)


def truncated(x):
    return (x.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def ties_away(x):
    return ((x.astype(np.float32).view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


def ties_by_the_wrong_bit(x):
    u = x.astype(np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 15) & 1)) & 0xFFFF0000).view(np.float32)


def rounded_twice(x):
    with np.errstate(over="ignore"):
        return lp.round_bf16(x.astype(np.float32))


def subnormals_flushed(x):
    y = lp.round_bf16(x)
    return np.where(np.abs(y) < 2.0**-126, np.copysign(0, y), y)


def saturated(x):
    return np.clip(lp.round_bf16(x), *lp.from_bf16_bits(np.array([0xFF7F, 0x7F7F], np.uint16)))


@pytest.mark.parametrize(
    "wrong",
    [truncated, ties_away, ties_by_the_wrong_bit, rounded_twice, subnormals_flushed, saturated],
)
def test_midpoints_tell_wrong_roundings(wrong):
    with pytest.raises(AssertionError):
        check_midpoints(BF16, np.float64, wrong)


@formats
@dtypes
def test_every_pattern_is_its_own_rounding(f, dtype):
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = f.from_bits(bits)
    nan = (bits & 0x7FFF) > f.inf
    np.testing.assert_array_equal(np.isnan(values), nan)
    with np.errstate(invalid="ignore"):
        arrived = values.astype(dtype)
    wanted = np.where(nan, bits | f.quiet, bits)
    np.testing.assert_array_equal(f.to_bits(arrived), wanted)
    np.testing.assert_array_equal(f.to_bits(f.round(arrived)), wanted)


def test_bf16_values_are_the_upper_half_of_float32():
    bits = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(lp.from_bf16_bits(bits).view(np.uint32) >> 16, bits)
    assert not np.any(lp.from_bf16_bits(bits).view(np.uint32) & 0xFFFF)


@formats
def test_nan_keeps_its_sign_and_becomes_quiet(f):
    # The first and last two payloads of each sign, signalling ones among them.
    patterns = [0x7F800001, 0x7F80FFFF, 0x7FC00000, 0x7FFFFFFF]
    u = np.array(patterns + [p | 0x80000000 for p in patterns], np.uint32)
    bits = f.to_bits(u.view(np.float32))
    np.testing.assert_array_equal(bits & (f.inf | f.quiet), f.inf | f.quiet)
    np.testing.assert_array_equal(bits >> 15, u >> 31)
    assert np.isnan(f.round(u.view(np.float32))).all()


@formats
@dtypes
def test_patterns_from_the_whole_range_match_the_oracle(f, dtype):
    kind = np.uint32 if dtype == np.float32 else np.uint64
    count = 1 << 18
    # An odd stride that is no small fraction of the range reaches all exponents and endings.
    stride = kind(int(np.iinfo(kind).max / count) | 1)
    x = (np.arange(count, dtype=kind) * stride).view(dtype)
    x = x[np.isfinite(x)]
    same(f.round(x), oracle(f, x))


floats = {
    np.float32: st.floats(width=32, allow_nan=False),
    np.float64: st.floats(width=64, allow_nan=False),
}


@formats
@dtypes
def test_oracle_idempotence_and_oddness(f, dtype):
    @given(st.lists(floats[dtype], max_size=20))
    def law(values):
        x = np.array(values, dtype)
        y = f.round(x)
        finite = np.isfinite(x)
        same(y[finite], oracle(f, x[finite]))
        same(y[~finite], x[~finite])
        same(f.round(y), y)
        same(f.round(-x), -y)
        same(f.from_bits(f.to_bits(x)), y)

    law()


@formats
@dtypes
def test_rounding_is_monotone(f, dtype):
    @given(st.lists(floats[dtype], min_size=2, max_size=20))
    def law(values):
        y = f.round(np.sort(np.array(values, dtype)))
        assert np.all(y[:-1] <= y[1:])

    law()


@formats
def test_less_than_half_a_gap_is_lost(f):
    v = ladder(f)

    # w + d = w for |d| below half the gap on d's side; shares of 2^-20 keep w + d exact.
    @given(st.integers(1, f.inf - 1), st.integers(1 - 2**19, 2**19 - 1))
    def law(pattern, share):
        w, below, above = v[pattern], v[pattern - 1], v[pattern + 1]
        gap = above - w if share > 0 else w - below
        assert f.round(np.array(w + share * 2.0**-20 * gap)) == w

    law()


def test_known_sums():
    np.testing.assert_array_equal(lp.round_bf16(np.array([256.0, 258.0]) + 1), [256, 260])
    np.testing.assert_array_equal(lp.round_fp16(np.array([2048.0, 2050.0]) + 1), [2048, 2052])
    # Above the tie by less than float32 can tell.
    assert lp.round_bf16(np.array(1 + 2.0**-8 + 2.0**-40)) == 1 + 2.0**-7
    assert lp.round_fp16(np.array(1 + 2.0**-11 + 2.0**-40)) == 1 + 2.0**-10


@formats
@dtypes
@pytest.mark.parametrize("size", [0, 1, lp._BLOCK - 1, lp._BLOCK, lp._BLOCK + 1, 2 * lp._BLOCK + 3])
def test_blocks_join(f, dtype, size):
    x = np.random.default_rng(size).standard_normal(size).astype(dtype)
    x[-1:] = np.nan
    y = f.round(x)
    same(y[:-1], oracle(f, x[:-1]))
    assert np.isnan(y[-1:]).all()


@formats
@dtypes
def test_layout_dtype_freshness_and_silence(f, dtype):
    x = np.array([[1.1, -np.inf, np.finfo(dtype).max], [np.nan, 1e-41, -0.0]], dtype)
    for view in (x, x.T, x[:, ::-2], x[:0], x[0, 0], np.array(x[1, 1])):
        before = np.array(view)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y, bits = f.round(view), f.to_bits(view)
            back = f.from_bits(bits)
        assert (y.dtype, bits.dtype, back.dtype) == (np.float32, np.uint16, np.float32)
        assert y.shape == bits.shape == back.shape == np.shape(view)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(before))
        flat = [f.round(before[i]) for i in np.ndindex(before.shape)]
        np.testing.assert_array_equal(y.reshape(-1), flat)
        np.testing.assert_array_equal(view, before)
        assert not np.shares_memory(y, view) and not np.shares_memory(back, bits)


@formats
def test_other_dtypes_are_named(f):
    with pytest.raises(TypeError, match=f"{f.round.__name__}: x has dtype int64; float32 or"):
        f.round(np.arange(3))
    with pytest.raises(TypeError, match=f"{f.to_bits.__name__}: x has dtype float16; float32 or"):
        f.to_bits(np.zeros(3, np.float16))
    with pytest.raises(TypeError, match=f"{f.from_bits.__name__}: bits has dtype int64; uint16"):
        f.from_bits(np.arange(3))


@pytest.mark.parametrize(
    "error, x, noise, said",
    [
        (TypeError, np.zeros(2), np.zeros(2, np.uint16), "x has dtype float64, noise uint16; float32 and uint16 are"),
        (TypeError, np.zeros(2, np.float32), np.zeros(2, int), "noise int64"),
        (ValueError, np.zeros(2, np.float32), np.zeros(3, np.uint16), r"x has shape \(2,\), noise \(3,\); they"),
    ],
)
def test_stochastic_rounding_says_what_it_needs(error, x, noise, said):
    with pytest.raises(error, match=f"stochastic_bf16: .*{said}"):
        stochastic_bf16(x, noise)


def test_stochastic_rounding_of_every_ending_is_right_on_average():
    """Every lower half under the noise that just carries and the one that just does not: 2^16 endings, exact."""
    low = np.arange(1 << 16)
    x = (np.uint32(0x43800000) + low.astype(np.uint32)).view(np.float32)
    last = np.minimum(0xFFFF - low, 0xFFFF).astype(np.uint16)
    assert np.all(stochastic_bf16(x, last) == 256)
    assert np.all(stochastic_bf16(x[1:], last[1:] + np.uint16(1)) == 258)
    view = stochastic_bf16(x.reshape(256, 256).T, last.reshape(256, 256).T)
    assert view.shape == (256, 256) and np.all(view == 256)
