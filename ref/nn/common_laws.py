"""What the laws of the layers share: oracles in plain NumPy and their bounds."""

from __future__ import annotations

import math

import numpy as np

from ref.spec import bounds
from ref.spec.cases import Flag, cases, choose, dims, rng


def f64(c, *names):
    """Arrays of the case in float64."""
    return [np.asarray(c[n], np.float64) for n in names]


def cotangent(c, shape):
    """A fixed cotangent of the given shape, no two entries alike."""
    n = int(np.prod(shape, dtype=np.int64))
    return np.cos(1.0 + np.arange(n)).reshape(shape).astype(c.dtype)


def row_products(a, b):
    """Sum over the channels of each row, the axis kept."""
    return np.sum(a * b, -1, keepdims=True)


def column_sum(x):
    """x[*B d] -> [d], summed over all rows."""
    return x.reshape(-1, x.shape[-1]).sum(0) if x.size else np.zeros(x.shape[-1])


def roundings(c, n, magnitude):
    """`bounds.rounding` in the dtype of the case."""
    return bounds.rounding(n, magnitude, c.dtype)


def logistic(x):
    """1 / (1 + e^{-x}) by Python's own exponential, from the side that does not overflow."""
    def one(t):
        return 1 / (1 + math.exp(-t)) if t >= 0 else math.exp(t) / (1 + math.exp(t))

    return np.array([one(float(t)) for t in np.ravel(x)]).reshape(np.shape(x))


def sigmoid(x):
    """The same in the dtype of x, for mutants."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def huge(c):
    """A number whose square is infinite: the largest one to the power 3/4."""
    return float(np.finfo(c.dtype).max) ** 0.75


def rows_alone(c, impl, name, expect, bound, scale):
    """Each row of argument `name` given alone has the output it has among the others."""
    out, x = impl(c), c[name]
    for at in np.ndindex(x.shape[:-1]):
        alone = impl(c.replace(**{name: x[at][None].copy(), "B": (1,)}))
        expect(alone[0], out[at], bound[at], f"row {at}", scale)


def rotated(x, r):
    """32 bits turned left by r."""
    return ((x << r) | (x >> (32 - r))) & 0xFFFFFFFF


def threefry(counter, key):
    """Threefry-2x32-20 in Python's integers, round by round as in the paper's figure."""
    words, keys = list(counter), [*key, 0x1BD11BDA ^ key[0] ^ key[1]]
    words = [(w + k) & 0xFFFFFFFF for w, k in zip(words, keys[:2], strict=True)]
    for i in range(20):
        words[0] = (words[0] + words[1]) & 0xFFFFFFFF
        words[1] = rotated(words[1], (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]) ^ words[0]
        if i % 4 == 3:
            s = i // 4 + 1
            words[0] = (words[0] + keys[s % 3]) & 0xFFFFFFFF
            words[1] = (words[1] + keys[(s + 1) % 3] + s) & 0xFFFFFFFF
    return words


def split(n):
    """(upper, lower) 32 bits of an integer."""
    return (n >> 32) & 0xFFFFFFFF, n & 0xFFFFFFFF


# Segments of a packed row ----------------------------------------------------------------------------

WHOLE = ("float64",)  # nothing but integers: one run says it all


def cut(draw, segments, longest=4):
    """Offsets of a few segments, empty ones among them."""
    return np.concatenate(([0], np.cumsum(rng(draw).integers(0, longest + 1, segments)))).astype(np.int64)


def cut_space(id, **fields):
    """Offsets `cu` of n segments."""
    return cases(
        id, n=dims(0, 4, large=9), n1=lambda draw, c: c.n + 1, cu=lambda draw, c: cut(draw, c.n), **fields,
        flags={
            "empty_segment": Flag(lambda c: c.n > 0 and (np.diff(c.cu) == 0).any(), {"n": dims(2, 4)}),
            "no_segment": Flag(lambda c: c.n == 0, {"n": 0}),
            "several": Flag(lambda c: (np.diff(c.cu) > 1).sum() > 1 and c.n > 2 and (np.diff(c.cu) == 0).any(),
                            {"n": dims(3, 4)}),
        },
    )  # fmt: skip


def padded_space(id, **fields):
    """A padded batch x[nB S d] and its mask, one run of valid slots a sample, to one side."""

    def mask(draw, c):
        g = rng(draw)
        counts = g.integers(0, c.S + 1, c.nB)
        at = np.arange(c.S)
        return (at < counts[:, None]) if c.side == "right" else (at >= c.S - counts[:, None])

    return cases(
        id, nB=dims(0, 3, large=6), B=lambda draw, c: c.nB, S=dims(0, 4, large=17), d=dims(1, 2),
        side=choose("right", "left"), mask=mask, **fields,
        flags={
            "empty_sample": Flag(lambda c: c.nB > 1 and c.mask.any() and not c.mask.any(1).all(),
                                 {"nB": dims(2, 3), "S": dims(1, 2)}),
            "no_sample": Flag(lambda c: c.nB == 0, {"nB": 0}),
            "left": Flag(lambda c: c.mask.any() and not c.mask[:, :1].all() and c.nB > 1,
                         {"side": "left", "nB": dims(2, 3), "S": dims(2, 4)}),
            "ragged": Flag(lambda c: c.nB > 1 and c.mask.any() and len(set(c.mask.sum(1))) > 1,
                           {"nB": dims(2, 3), "S": dims(2, 4)}),
        },
    )  # fmt: skip


# Rotations -------------------------------------------------------------------------------------------


def place(i, half, layout):
    """Channels of pair i of `half`."""
    return (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + half)


def turned_by(x, angle, layout, sign=1):
    """x[... d] with pair i turned by angle(i), an array [...], by Python's own sines."""
    half = x.shape[-1] // 2
    out = np.zeros(x.shape)
    for i in range(half):
        angles = np.broadcast_to(angle(i) * sign, x.shape[:-1])
        cos, sin = (np.array([f(t) for t in angles.ravel()]).reshape(angles.shape) for f in (math.cos, math.sin))
        j, k = place(i, half, layout)
        out[..., j] = x[..., j] * cos - x[..., k] * sin
        out[..., k] = x[..., j] * sin + x[..., k] * cos
    return out


# Frequencies of a rotary embedding -------------------------------------------------------------------

FREQUENCIES = ("float64",)  # angles are formed in float64, so frequencies are


def frequency_space(id, **fields):
    """Frequencies base^{-i / n} of n pairs, and the options of their scaling."""
    return cases(
        id, n=dims(1, 8, large=64), base=choose(10000.0, 100.0, 500000.0),
        theta=lambda draw, c: c.base ** (-np.arange(c.n) / c.n), **fields,
    )  # fmt: skip


def frequency_bound(c, n=12):
    """A dozen roundings of a frequency; a power's exponent may be off by as much."""
    return bounds.rounding(n + 30, c.theta, "float64")


def plain_frequencies(**options):
    """The default-size test: four pairs of base 10000 under options that leave them."""

    def make():
        return (10000.0 ** (-np.arange(4) / 4),), options

    return make
