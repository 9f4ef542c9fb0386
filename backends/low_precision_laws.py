"""Laws and mutants of rounding to bfloat16; this floor knows no registry, so the subject is registered here."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from backends.low_precision import round_bf16, round_fp16
from ref.spec import law, mutant, spec
from ref.spec.cases import cases, dims, rng

ID = "backends.round_bf16"
spec(ID, "x[n] -> :any[n]", backends=("numpy",), infinite=True, title="Rounding to bfloat16")(round_bf16)
HALF = "backends.round_fp16"
spec(HALF, "x[n] -> :any[n]", backends=("numpy",), infinite=True, title="Rounding to float16")(round_fp16)

NEAR = (-(2.0**-30), -(2.0**-12), 0.0, 2.0**-12, 2.0**-30)  # off a midpoint, in gaps; 2^-30 is lost in float32


def _bits(draw, shape):
    """bf16 numbers of every exponent but the two highest, as the upper half of float32 bits."""
    g = rng(draw)
    sign, upper = g.integers(0, 2, shape) << 31, g.integers(0, 0x7F00, shape) << 16
    return (sign | upper).astype(np.uint32).view(np.float32).astype(np.float64)


def gap(w):
    """Distance from |w| up to the next bf16 number: 2^(e - 7), 2^-133 for subnormals."""
    exponent = np.frexp(np.abs(w))[1] - 1
    return np.ldexp(1.0, np.maximum(np.where(w == 0, -200, exponent), -126) - 7)


def _near_midpoints(draw, c):
    w, where = _bits(draw, (c.n,)), rng(draw)
    offset = np.where(where.integers(0, 4, c.n) == 0, 0.0, 0.5 + np.array(NEAR)[where.integers(0, 5, c.n)])
    return w + np.copysign(gap(w), w) * offset


space = cases(ID, n=dims(0, 12, large=70000), x=_near_midpoints, k=dims(-100, 100))


@law(
    ID, "L1", closed_form=True, given=space, kills=["truncated", "half_up", "rounded_twice"],
)  # fmt: skip
def nearest_and_ties_to_even(impl, c, expect):
    "In exact fractions: no bf16 number is nearer, and of two equally near ones the even wins."
    out = impl(c)
    expect.holds(out.dtype == np.float32, "the result is float32")
    expect.same(out.view(np.uint32) & 0xFFFF, np.zeros(len(out), np.uint32), "lower halves")
    for x, r in zip(c.x[:64].tolist(), out[:64].tolist(), strict=True):
        up, down = (_neighbour(r, step) for step in (1, -1))
        off = abs(Fraction(x) - Fraction(r))
        other = min(abs(Fraction(x) - up), abs(Fraction(x) - down))
        even = not (np.float32(r).view(np.uint32) >> 16) & 1
        expect.holds(off < other or (off == other and even), f"{r!r} is the nearest even bf16 of {x!r}")


def _neighbour(r, step):
    """The next bf16 number away from (step 1) or towards (-1) zero, as a Fraction."""
    bits = int(np.float32(abs(r)).view(np.uint32)) >> 16
    if bits + step < 0:
        return -np.sign(r) * Fraction(2) ** -133 if r else Fraction(-1, 2**133)
    value = Fraction(float(np.uint32((bits + step) << 16).view(np.float32)))
    return -value if np.signbit(r) else value


@law(
    ID, "L2", closed_form=True, given=space.where(x=lambda draw, c: _bits(draw, (c.n,))), kills=["away_from_zero"],
    passes_null=["identity"],
)  # fmt: skip
def representable_numbers_stay(impl, c, expect):
    "A bf16 number, of any exponent, is itself."
    expect.same(impl(c), c.x)


@law(
    ID, "L3", given=space.where(n=dims(2, 12, large=70000)), kills=["half_up"],
    passes_null=["zeros", "identity", "wrong_dtype"],
)  # fmt: skip
def order_and_sign_are_kept(impl, c, expect):
    "round(-x) = -round(x), and x <= y gives round(x) <= round(y)."
    c = c.replace(x=np.sort(c.x))
    out = impl(c)
    expect.same(impl(c.replace(x=-c.x)), -out)
    expect.at_most(out[:-1], out[1:], "a rounded smaller number")


@law(ID, "L4", closed_form=True, given=space.where(n=6), kills=["truncated", "half_up"])
def half_a_gap_is_lost(impl, c, expect):
    "256 + 1 = 256, 258 + 1 = 260, 256 - 0.5 = 256, 256 - 0.75 = 255, below zero too, times any 2^k."
    x = np.array([257.0, 259.0, 255.5, 255.25, -257.0, -259.0], c.dtype)
    wanted = np.array([256.0, 260.0, 256.0, 255.0, -256.0, -260.0])
    expect.same(impl(c.replace(x=np.ldexp(x, c.k))), np.ldexp(wanted, c.k))


@law(ID, "L5", closed_form=True, given=space.where(n=3), kills=["payload_dropped", "nan_overflows"])
def a_nan_stays_that_nan(impl, c, expect):
    "A NaN keeps its sign and the upper half of its payload, becomes quiet, and never turns into inf."
    upper = np.array([0x7F81, 0xFFA5, 0x7FFF], np.uint64)  # payloads 1, 0x25, 0x7f; all ones below
    x = (upper << 16 | 0xFFFF).astype(np.uint32).view(np.float32)
    if c.dtype == np.float64:
        x = ((upper & 0x8000) << 48 | 0x7FF << 52 | (upper & 0x7F) << 45 | 2**45 - 1).view(np.float64)
    out = impl(c.replace(x=x))
    expect.holds(out.dtype == np.float32, "the result is float32")
    expect.same(np.ascontiguousarray(out).view(np.uint32) >> 16, upper | 0x40, "upper halves")


half_space = cases(HALF, n=dims(0, 12, large=70000), x=lambda draw, c: _near_halves(draw, c))


def _near_halves(draw, c):
    """On and around the midpoints of float16, subnormal ones too."""
    g = rng(draw)
    w = g.integers(0, 0x7BFF, c.n).astype(np.uint16).view(np.float16).astype(np.float64)
    gap_ = np.ldexp(1.0, np.maximum(np.frexp(w)[1] - 11, -24))
    offset = np.where(g.integers(0, 4, c.n) == 0, 0.0, 0.5 + np.array(NEAR)[g.integers(0, 5, c.n)])
    return (w + gap_ * offset) * (1 - 2 * g.integers(0, 2, c.n))


@law(
    HALF, "L6", closed_form=True, given=half_space.where(n=dims(1, 12, large=70000)),
    kills=["fp16_rounded_twice", "fp16_truncated"],
)  # fmt: skip
def fp16_is_nearest_and_ties_to_even(impl, c, expect):
    "In exact fractions, in units of the last place (2^-24 for subnormals): no integer is nearer, ties go to the even."
    out = impl(c)
    expect.holds(out.dtype == np.float32, "the result is float32")
    for x, r in zip(c.x[:64].tolist(), out[:64].tolist(), strict=True):
        unit = Fraction(2) ** max(int(np.frexp(x)[1]) - 11, -24)
        expect.same(r, float(round(Fraction(x) / unit) * unit), f"the rounded {x!r}")


@law(
    HALF, "L7", closed_form=True, given=half_space.where(n=6), kills=["fp16_saturates", "fp16_flushes"],
    passes_null=["wrong_dtype"],
)  # fmt: skip
def fp16_reaches_inf_and_subnormals(impl, c, expect):
    "65519 gives 65504 and 65520 inf; 2^-25 gives 0, 1.5 times it 2^-24, 3 times it 2^-23, below zero too."
    x = np.array([65519.0, 65520.0, -65520.0, 2.0**-25, -1.5 * 2.0**-25, 3 * 2.0**-25])
    wanted = np.array([65504.0, np.inf, -np.inf, 0.0, -(2.0**-24), 2.0**-23])
    expect.same(impl(c.replace(x=x.astype(c.dtype))), wanted)


def _whole():
    return (np.arange(-8.0, 9.0),), {}


def _upper(x, add):
    u = x.astype(np.float32).view(np.uint32).astype(np.uint64) + add
    return (u & 0xFFFF0000).astype(np.uint32).view(np.float32)


@mutant(ID, default_case=_whole)
def truncated(x):
    "The lower half is cut off."
    return _upper(x, 0)


@mutant(ID, default_case=_whole)
def half_up(x):
    "Half a gap is added to the value, not to its size: ties go up."
    with np.errstate(all="ignore"):
        down = np.float32(np.copysign(1, 1)) * _upper(x, 0x8000)
        tie = (x.astype(np.float32).view(np.uint32) & 0xFFFF) == 0x8000
        return np.where(tie & (x < 0), _upper(x, 0), down).astype(np.float32)


@mutant(ID, default_case=_whole)
def away_from_zero(x):
    "Every number with a lower half, or without, goes to the next above in size from 256 on."
    return np.where(np.abs(x) >= 256, _upper(x, 0x10000), _upper(x, 0x8000)).astype(np.float32)


@mutant(ID, thread="pytorch: double -> float -> bfloat16", default_case=_whole)
def rounded_twice(x):
    "float64 to float32 to bf16: a value just above a tie falls on it, and then down."
    u = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _nan(x, out, bits):
    out = np.array(out)
    out.view(np.uint32)[np.isnan(x)] = bits[np.isnan(x)]
    return out


@mutant(ID, default_case=_whole)
def payload_dropped(x):
    "Every NaN becomes the same one."
    return _nan(x, round_by_gap(x), np.full(x.shape, 0x7FC00000, np.uint32))


@mutant(ID, default_case=_whole)
def nan_overflows(x):
    "The carry runs through a NaN: 0x7FFFFFFF comes out as -0."
    with np.errstate(invalid="ignore"):
        u = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    return _nan(x, round_by_gap(x), ((u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000).astype(np.uint32))


def round_by_gap(x):
    """Right for what is no NaN: in units of the gap, where rint is exact."""
    x = np.asarray(x, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.copysign(np.rint(np.abs(x) / gap(x)) * gap(x), x).astype(np.float32)


@mutant(HALF, default_case=_whole)
def fp16_rounded_twice(x):
    "float64 to float32 to float16."
    with np.errstate(over="ignore"):
        return x.astype(np.float32).astype(np.float16).astype(np.float32)


@mutant(HALF, default_case=_whole)
def fp16_truncated(x):
    "Towards zero."
    with np.errstate(over="ignore"):
        y = x.astype(np.float16)
        return np.where(np.abs(y.astype(np.float64)) > np.abs(x), np.nextafter(y, np.float16(0)), y).astype(np.float32)


@mutant(HALF, default_case=_whole)
def fp16_saturates(x):
    "Too large stops at 65504."
    return round_fp16(np.clip(x, -65504, 65504))


@mutant(HALF, default_case=_whole)
def fp16_flushes(x):
    "Subnormals become zero."
    y = round_fp16(x)
    return np.where(np.abs(y) < 2.0**-14, np.copysign(np.float32(0), y), y)
