"""Laws and mutants of the random mask by a counter."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import rotated, split, threefry
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "nn.keep_mask"
RANGES = {"small": (0, 40), "wide": (0, 2**40), "signed": (-(2**40), 2**40)}


def _positions(draw, c):
    return np.asarray(rng(draw).integers(*RANGES[c.reach_of], c.B))


def _seed(draw, c):
    g = rng(draw)
    return int(g.integers(0, 2**63)) * 2 + 1 if c.wide_seed else int(g.integers(0, 100))


space = cases(
    ID,
    B=batch(2, 4, large=300),
    reach_of=choose("small", "wide", "signed"),
    positions=_positions,
    wide_seed=choose(False, True),
    seed=_seed,
    rate=choose(0.5, 0.25, 0.1, 0.9),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": choose((0,), (2, 0))}),
        "many": Flag(lambda c: c.positions.size >= 64, {"B": choose((8, 8), (70,))}),
    },
)  # fmt: skip
bits = {"dtypes": ("float64",)}  # no float argument: one dtype is all there is


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "many"), **bits,
    kills=["sixteen_rounds", "seed_added_to_the_position", "position_in_32_bits", "seed_in_32_bits", "second_word"],
)  # fmt: skip
def every_element_is_threefry(impl, c, expect):
    "keep = first word of Threefry-2x32-20(position; seed) >= rate 2^32."
    wanted = [threefry(split(int(p)), split(c.seed))[0] >= c.rate * 2**32 for p in np.ravel(c.positions)]
    expect.same(impl(c), np.array(wanted, bool).reshape(c.positions.shape))


VECTORS = (  # Random123 tests/kat_vectors, rows `threefry2x32 20`: counter, key, first word
    ((0, 0), (0, 0), 0x6B200159),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), 0x1CB996FC),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), 0xC4923A9C),
)


@law(
    ID, "L2", closed_form=True, given=space.where(B=()), **bits,
    kills=["sixteen_rounds", "second_word", "kept_above_not_at"],
)  # fmt: skip
def published_vectors(impl, c, expect):
    "At the three published counters and keys with first word w: kept at rate = w / 2^32, dropped at (w + 1) / 2^32."
    for (high, low), (k0, k1), word in VECTORS:
        position = np.asarray(np.uint64((high << 32) | low).astype(np.int64))
        for rate, wanted in ((word / 2**32, True), ((word + 1) / 2**32, False)):
            at = c.replace(positions=position, seed=(k0 << 32) | k1, rate=rate)
            expect.same(impl(at), np.array(wanted), f"counter {position}, rate {rate}")


@law(ID, "L3", closed_form=True, given=space, **bits, kills=["polarity_reversed"], passes_null=["constant"])
def rate_zero_keeps_all(impl, c, expect):
    "rate = 0 keeps every position, the first too."
    for positions in (c.positions, 0 * c.positions):
        at = c.replace(rate=0.0, positions=positions)
        expect.same(impl(at), np.ones(c.positions.shape, bool))


@law(
    ID, "L4", given=space.where(many=True), **bits, kills=["drawn_from_a_stream"],
    passes_null=["zeros", "constant", "identity", "nan"],
)  # fmt: skip
def a_part_is_a_part_of_the_whole(impl, c, expect):
    "Any part of the positions, in any order, gets the bits it has in the whole; and so does a second call."
    whole = impl(c)
    expect.same(impl(c), whole, "a second call")
    flat = c.positions.reshape(-1)[::-3].copy()
    expect.same(impl(c.replace(positions=flat)), whole.reshape(-1)[::-3], "every third, backwards")


@law(
    ID, "L5", given=space.where(many=True, reach_of="wide"), **bits, kills=["polarity_reversed"],
    passes_null=["zeros", "constant", "identity", "nan"],
)  # fmt: skip
def higher_rates_drop_more(impl, c, expect):
    "What a rate keeps, every lower rate keeps."
    low, high = (impl(c.replace(rate=r)) for r in (0.3, 0.8))
    expect.same(low | high, low, "kept at 0.3 or 0.8")


# Mutants ---------------------------------------------------------------------------------------------


def no_rate():
    """The default-size test: nothing is dropped."""
    return (np.arange(12),), {"seed": 0, "rate": 0.0}


def edited(positions, *, seed, rate, rounds=20, word=0):
    out = [threefry(split(int(p)), split(seed))[word] if rounds == 20 else _short(int(p), seed, rounds)
           for p in np.ravel(positions)]  # fmt: skip
    return np.array([w >= rate * 2**32 for w in out], bool).reshape(np.shape(positions))


def _short(position, seed, rounds):
    words, (k0, k1) = list(split(position)), split(seed)
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    words = [(words[0] + k0) & 0xFFFFFFFF, (words[1] + k1) & 0xFFFFFFFF]
    for i in range(rounds):
        words[0] = (words[0] + words[1]) & 0xFFFFFFFF
        words[1] = rotated(words[1], (13, 15, 26, 6, 17, 29, 16, 24)[i % 8]) ^ words[0]
        if i % 4 == 3:
            s = i // 4 + 1
            words = [(words[0] + keys[s % 3]) & 0xFFFFFFFF, (words[1] + keys[(s + 1) % 3] + s) & 0xFFFFFFFF]
    return words[0]


@mutant(ID, default_case=no_rate)
def sixteen_rounds(positions, *, seed, rate):
    "Four rounds too few."
    return edited(positions, seed=seed, rate=rate, rounds=16)


@mutant(ID, default_case=no_rate)
def second_word(positions, *, seed, rate):
    "The other word of the block."
    return edited(positions, seed=seed, rate=rate, word=1)


@mutant(ID, default_case=no_rate)
def seed_added_to_the_position(positions, *, seed, rate):
    "Counter = position + seed under one key: the streams of neighbouring seeds overlap."
    return edited(np.asarray(positions) + (seed % 2**20), seed=0, rate=rate)


@mutant(ID, default_case=no_rate)
def position_in_32_bits(positions, *, seed, rate):
    "The high word of the position dropped: 2^32 elements on, the mask repeats."
    return edited(np.asarray(positions) & 0xFFFFFFFF, seed=seed, rate=rate)


@mutant(ID, default_case=no_rate)
def seed_in_32_bits(positions, *, seed, rate):
    "The high word of the seed dropped."
    return edited(positions, seed=seed & 0xFFFFFFFF, rate=rate)


@mutant(ID, default_case=no_rate)
def kept_above_not_at(positions, *, seed, rate):
    "word > rate 2^32, off by one word in 2^32."
    out = [rate == 0 or threefry(split(int(p)), split(seed))[0] > rate * 2**32 for p in np.ravel(positions)]
    return np.array(out, bool).reshape(np.shape(positions))


@mutant(ID, default_case=lambda: ((np.arange(0),), {"seed": 0, "rate": 0.5}))
def polarity_reversed(positions, *, seed, rate):
    "True where dropped."
    return ~edited(positions, seed=seed, rate=rate)


@mutant(ID, default_case=no_rate)
def drawn_from_a_stream(positions, *, seed, rate):
    "A generator of the seed, drawn in the order of the array: a shard draws the mask of another place."
    return np.random.default_rng(seed).random(np.shape(positions)) >= rate
