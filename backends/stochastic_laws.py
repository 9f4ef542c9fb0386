"""Laws and mutants of stochastic rounding to bfloat16."""

from __future__ import annotations

import numpy as np

from backends.stochastic import stochastic_bf16
from ref.spec import law, mutant, spec
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "backends.stochastic_bf16"
spec(ID, "x[n], noise:int[n] -> :any[n]", backends=("numpy",), infinite=True,
     title="Stochastic rounding to bfloat16")(stochastic_bf16)  # fmt: skip
SINGLE = ("float32",)
ALL = np.arange(1 << 16).astype(np.uint16)


def _any_bits(draw, c):
    """float32 numbers of every exponent but the highest, whose next bf16 number is finite."""
    u = rng(draw).integers(0, 0x7F7F0000, c.n) | (rng(draw).integers(0, 2, c.n) << 31)
    return u.astype(np.uint32).view(np.float32).astype(np.float64)


def _noise(draw, c):
    return rng(draw).integers(0, 1 << 16, c.n).astype(np.uint16)


space = cases(
    ID,
    n=dims(1, 8),
    x=_any_bits,
    noise=_noise,
    flags={"negative": Flag(lambda c: bool(np.any(c.x < 0)), {"n": 8})},
)


def neighbours(x):
    """(towards zero, away from zero), the bf16 numbers around each x, in float64."""
    down = (np.asarray(x, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    up = (down.view(np.uint32) + 0x10000).view(np.float32)
    return down.astype(np.float64), up.astype(np.float64)


@law(
    ID, "L1", closed_form=True, dtypes=SINGLE, given=space.where(memory="C").reach("negative"),
    kills=["nearest", "one_bit_short", "one_too_many"], passes_null=["identity"],
)  # fmt: skip
def expectation_is_exact(impl, c, expect):
    "Over all 2^16 values of the noise the mean is x, exactly."
    for x in c.x[:2]:
        every = c.replace(x=np.full(1 << 16, x, np.float32), noise=ALL, n=1 << 16)
        expect.same(np.sum(impl(every).astype(np.float64)), float(x) * 2**16, "2^16 times the mean")


@law(
    ID, "L2", closed_form=True, dtypes=SINGLE, given=space.where(memory=choose("C", "strided")).reach("negative"),
    kills=["carried_twice", "one_too_many"],
)  # fmt: skip
def only_neighbours_and_the_number_itself(impl, c, expect):
    """The result is the neighbour towards zero or away from it: away iff the lower half of x and the noise sum to 2^16
    or more; a bf16 number is itself under any noise."""
    down, up = neighbours(c.x)
    low = np.ascontiguousarray(c.x).view(np.uint32).astype(np.int64) & 0xFFFF
    expect.same(impl(c), np.where(low + c.noise.astype(np.int64) >= 1 << 16, up, down), "neighbour")
    edge = np.minimum(0xFFFF - low + (c.noise & 1), 0xFFFF).astype(np.uint16)
    wanted = np.where(low + edge.astype(np.int64) >= 1 << 16, up, down)
    expect.same(impl(c.replace(noise=edge)), wanted, "neighbour at the last noise that does not carry, and the next")
    most = np.full(c.n, 0xFFFF, np.uint16)
    expect.same(impl(c.replace(x=down.astype(np.float32), noise=most)), down, "a bf16 number under the most noise")


@law(
    ID, "L3", dtypes=SINGLE, given=space, kills=["noise_reversed"],
    passes_null=["zeros", "constant", "identity", "wrong_dtype"],
)  # fmt: skip
def more_noise_is_never_nearer_to_zero(impl, c, expect):
    "r <= s gives |bf16(x, r)| <= |bf16(x, s)|."
    s = np.maximum(c.noise, rng_of(c).integers(0, 1 << 16, c.n).astype(np.uint16))
    expect.at_most(np.abs(impl(c)), np.abs(impl(c.replace(noise=s))), "the size under less noise")


def rng_of(c):
    return np.random.default_rng(int(c.noise.sum()))


@law(ID, "L4", closed_form=True, dtypes=SINGLE, given=space.where(n=4), kills=["nan_is_a_number", "payload_lost"])
def infinities_and_nans_stay(impl, c, expect):
    "inf and -inf stay; a NaN keeps its sign and the upper half of its payload, and is quiet."
    u = np.array([0x7F800000, 0xFF800000, 0x7F800001, 0xFFA5FFFF], np.uint32)
    out = impl(c.replace(x=u.view(np.float32)))
    expect.holds(out.dtype == np.float32 and out.shape == (4,), "the result is float32, of x's shape")
    wanted = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFE50000], np.uint32)
    expect.same(np.ascontiguousarray(out).view(np.uint32), wanted, "bits")


# Mutants ---------------------------------------------------------------------------------------------


def _whole():
    return (np.arange(-8.0, 9.0, dtype=np.float32), np.arange(17).astype(np.uint16)), {}


def cut(x, noise, nan=lambda u, out: np.where((u & 0x7FFFFFFF) > 0x7F800000, u | 0x00400000, out)):
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    out = (u.astype(np.uint64) + noise.astype(np.uint64)).astype(np.uint32)
    return (nan(u, out) & np.uint32(0xFFFF0000)).view(np.float32)


@mutant(ID, default_case=_whole)
def nearest(x, noise):
    "The noise is not used."
    return cut(x, np.full(x.shape, 0x7FFF))


@mutant(ID, default_case=_whole)
def one_bit_short(x, noise):
    "15 random bits for 16."
    return cut(x, noise >> 1)


@mutant(ID, default_case=_whole)
def one_too_many(x, noise):
    "Noise on 1 .. 2^16."
    return cut(x, np.where(np.ascontiguousarray(x).view(np.uint32) & 0xFFFF == 0, 0, noise.astype(np.int64) + 1))


@mutant(ID, default_case=_whole)
def carried_twice(x, noise):
    "Rounded to the nearest first, then by noise of a whole gap."
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return cut(x, np.where(u & 0xFFFF, noise.astype(np.int64) + 0x8000, 0))


@mutant(ID, default_case=_whole)
def noise_reversed(x, noise):
    "2^16 - 1 - r: right on average too, and another function of the noise."
    return cut(x, 0xFFFF - noise.astype(np.int64))


@mutant(ID, default_case=_whole)
def nan_is_a_number(x, noise):
    "A NaN whose payload lies in the lower half becomes an infinity."
    return cut(x, noise, nan=lambda u, out: out)


@mutant(ID, default_case=_whole)
def payload_lost(x, noise):
    "Every NaN becomes the same one."
    return cut(x, noise, nan=lambda u, out: np.where((u & 0x7FFFFFFF) > 0x7F800000, np.uint32(0x7FC00000), out))
