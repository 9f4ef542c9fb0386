"""Laws and mutants of rotary position embedding."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import cotangent, f64, place, roundings, turned_by
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "nn.rope"
RANGES = {"near": (-4, 9), "far": (0, 2**17)}


def _positions(draw, c):
    shape = (*c.B, c.T) if c.own_positions else (c.T,)
    if c.reach_of == "in order":
        return np.broadcast_to(np.arange(c.T), shape).copy()
    return rng(draw).integers(*RANGES[c.reach_of], shape)


space = cases(
    ID,
    B=batch(2, 2),
    H=dims(1, 3, large=10),
    T=dims(0, 4, large=140),
    half_d=dims(1, 4, large=80),
    d=lambda draw, c: 2 * c.half_d,
    reach_of=choose("near", "in order", "far"),
    own_positions=choose(False, True),
    positions=_positions,
    layout=choose("interleaved", "half"),
    base=choose(10000.0, 100.0, 500000.0),
    values=("dyadic", "normal", "huge"),
    flags={
        "empty": Flag(lambda c: c.x.size == 0, {"T": 0}),
        "many_pairs": Flag(lambda c: c.half_d > 1 and c.x.size > 0,
                           {"half_d": dims(2, 4), "T": dims(1, 3), "B": choose((), (2,))}),
        "own": Flag(lambda c: len(c.B) == 1 and c.B[0] > 1 and c.own_positions, {"B": (2,), "own_positions": True}),
    },
)  # fmt: skip


def positions_of(c):
    """[*B H T] positions."""
    p = np.asarray(c.positions)
    p = p if p.ndim == 1 else p[..., None, :]
    return np.broadcast_to(p, c.x.shape[:-1])


def turned(x, positions, layout, base, sign=1):
    half = x.shape[-1] // 2
    return turned_by(x, lambda i: positions * base ** (-i / half), layout, sign)


def bound_of(c, x=None):
    """6 roundings of a pair's length, and the angle's own error on it: |m| theta carries at most 32 u of float64.

    (base^y errs by |y ln base| u + 4 ulp, ln 500000 = 13.1; the product and the oracle round once more.)
    """
    x = f64(c, "x")[0] if x is None else np.asarray(x, np.float64)
    half = x.shape[-1] // 2
    size = np.zeros(x.shape)
    for i in range(half):
        j, k = place(i, half, c.layout)
        size[..., j] = size[..., k] = np.hypot(x[..., j], x[..., k])
    angle = np.abs(positions_of(c)).astype(np.float64)[..., None]
    return roundings(c, 6, size) + bounds.rounding(32, angle * size, np.float64)


@law(
    ID, "L1", closed_form=True, given=space.where(half_d=1),
    kills=["positions_from_the_index", "angles_in_float32", "turned_back"],
)  # fmt: skip
def two_channels_turn_by_their_position(impl, c, expect):
    "d = 2, either layout and any base: (a, b) -> (a cos m - b sin m, a sin m + b cos m)."
    (x,) = f64(c, "x")
    m = positions_of(c).astype(np.float64)
    a, b = x[..., 0], x[..., 1]
    wanted = np.stack((a * np.cos(m) - b * np.sin(m), a * np.sin(m) + b * np.cos(m)), -1)
    expect(impl(c), wanted, bound_of(c))


@law(
    ID, "L2", closed_form=True, given=space.reach("many_pairs", "empty"),
    kills=["always_half", "always_interleaved", "exponent_i_over_d", "base_ignored", "tables_of_the_other_layout",
           "exponent_from_one_end"],
)  # fmt: skip
def every_pair_turns_by_its_angle(impl, c, expect):
    "Pair i turns by m base^{-2 i / d}: channels (2i, 2i + 1) or (i, i + d/2)."
    expect(impl(c), turned(f64(c, "x")[0], positions_of(c), c.layout, c.base), bound_of(c))


@law(ID, "L3", given=space, kills=["tables_of_the_other_layout"], passes_null=["identity"])
def length_is_kept(impl, c, expect):
    "||R_m x|| = ||x||."
    (x,) = f64(c, "x")
    out = impl(c).astype(np.float64)
    wanted = np.sqrt((x * x).sum(-1))
    expect(np.sqrt((out * out).sum(-1)), wanted, roundings(c, c.d + 12, wanted), "||R x||")


@law(
    ID, "L4", given=space.where(half_d=dims(1, 4), T=dims(1, 4)), kills=["tables_of_the_other_layout"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def scores_depend_on_the_distance(impl, c, expect):
    "<R_m q, R_n k> is unchanged when every position moves by the same step."
    moved = c.replace(positions=c.positions + 5)
    here, there = (impl(z).astype(np.float64) for z in (c, moved))
    scores = [y @ np.swapaxes(y, -1, -2) for y in (here, there)]
    length = np.sqrt((f64(c, "x")[0] ** 2).sum(-1, keepdims=True))
    error = np.max(bound_of(c) + bound_of(moved), axis=-1, keepdims=True, initial=0) * np.sqrt(c.d)
    limit = 2 * (error * np.swapaxes(length, -1, -2) + length * np.swapaxes(error, -1, -2))
    expect(scores[1], scores[0], limit, "<R q, R k>", scale=float(np.max(length, initial=0)) ** 2)


@law(
    ID, "L5", given=space.where(reach_of=choose("near", "in order")), kills=["tables_of_the_other_layout"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def rotations_add(impl, c, expect):
    "R_m R_n = R_{m + n}."
    once = impl(c)
    twice = impl(c.replace(x=once))
    double = c.replace(positions=2 * c.positions)
    size = np.abs(f64(c, "x")[0]).max(initial=0) * 2
    expect(twice, impl(double), 2 * bound_of(c) + bound_of(double), "R_m R_m x", scale=size)


@law(ID, "L6", given=space, kills=["positions_from_the_index"], passes_null=["identity"])
def position_zero_changes_nothing(impl, c, expect):
    "R_0 = I, to the bit."
    expect.same(impl(c.replace(positions=0 * c.positions)), c.x)


@law(
    ID, "L7", given=space.reach("many_pairs"), kills=["always_half", "always_interleaved"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def layouts_agree_on_permuted_channels(impl, c, expect):
    "half on channels taken (2i, then 2i + 1) is interleaved on channels as they are, taken likewise."
    c = c.replace(layout="interleaved")
    order = np.concatenate((np.arange(0, c.d, 2), np.arange(1, c.d, 2)))
    half = c.replace(layout="half", x=c.x[..., order].copy())
    expect(impl(half), impl(c)[..., order], bound_of(half) + bound_of(c)[..., order])


@law(
    ID, "L8", closed_form=True, needs=("vjp",), given=space.reach("many_pairs", "own"),
    kills=["gradient_turns_forward", "gradient_is_not_turned"],
)  # fmt: skip
def gradient_turns_back(impl, c, expect):
    "dx = R_m^T g = R_{-m} g."
    g = cotangent(c, c.x.shape)
    wanted = turned(g.astype(np.float64), positions_of(c), c.layout, c.base, sign=-1)
    expect(impl.vjp(c, g)["x"], wanted, bound_of(c, g), "dx")


@law(
    ID, "L9", given=space.where(own=True, T=dims(1, 4)), kills=["positions_of_the_first_row"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_batch_row_has_its_own_positions(impl, c, expect):
    "positions[b] turn batch row b, as if it came alone."
    out = impl(c)
    for b in range(c.B[0]):
        alone = c.replace(x=c.x[b].copy(), positions=c.positions[b].copy(), B=())
        expect(impl(alone), out[b], bound_of(alone), f"row {b}", scale=np.abs(c.x).max())


# Given frequencies and an attention factor -----------------------------------------------------------

given = cases(
    ID,
    **{**space.fields, "base": 7.0, "half_d": dims(2, 4), "reach_of": choose("near", "in order")},
    theta=floats("half_d", "positive"),
    attention_factor=choose(1.375, 0.75, 1.0),
    flags={"own": space.flags["own"]},
)  # fmt: skip


def by_given(c, x, positions, sign=1):
    """x turned by the case's own frequencies, without the factor."""
    theta = np.asarray(c.theta, np.float64)
    return turned_by(np.asarray(x, np.float64), lambda i: positions * theta[i], c.layout, sign)


def given_bound(c, x=None):
    """As `bound_of`, with an angle of a few roundings alone and one rounding more for the factor."""
    return c.attention_factor * (bound_of(c, x) * 7 / 6)


@law(
    ID, "L10", closed_form=True, given=given, kills=["theta_ignored", "factor_ignored", "factor_on_the_cosine"],
)  # fmt: skip
def given_frequencies_and_a_factor(impl, c, expect):
    "Pair i turns by m theta_i, whatever the base, and the result is multiplied by the factor."
    expect(impl(c), c.attention_factor * by_given(c, c.x, positions_of(c)), given_bound(c))


@law(
    ID, "L11", closed_form=True, given=given.where(attention_factor=1.375, T=dims(1, 4)),
    kills=["factor_ignored", "factor_on_the_cosine"], passes_null=["zeros"],
)  # fmt: skip
def two_turns_take_the_factor_twice(impl, c, expect):
    "R_m R_n = a R_{m+n}, not R_{m+n}: with a factor the rotations are no group."
    twice = impl(c.replace(x=impl(c)))
    double = impl(c.replace(positions=2 * c.positions)).astype(np.float64)
    size = 2 * c.attention_factor**2 * np.abs(c.x).max(initial=0)
    limit = 4 * c.attention_factor * given_bound(c.replace(positions=2 * c.positions))
    expect(twice, c.attention_factor * double, limit, "R_m R_m x", scale=size)


@law(ID, "L12", closed_form=True, needs=("vjp",), given=given, kills=["gradient_without_the_factor"])
def gradient_takes_the_factor(impl, c, expect):
    "dx = a R_m^T g, by the given frequencies."
    g = cotangent(c, c.x.shape)
    expect(impl.vjp(c, g)["x"], c.attention_factor * by_given(c, g, positions_of(c), -1), given_bound(c, g), "dx")


# Mutants ---------------------------------------------------------------------------------------------


def first_positions(T=4, d=2, **options):
    """The default-size test: one pair of channels, positions 0, 1, 2, ..."""

    def make():
        return (np.random.default_rng(0).standard_normal((2, T, d)), np.arange(T)), options

    return make


def edited(x, positions, *, layout="interleaved", base=10000.0, dtype=np.float64, exponent=None, sign=1, tables=None):
    d = x.shape[-1]
    half = d // 2
    i = np.arange(half)
    theta = base ** (-(2 * i / d if exponent is None else exponent(i, d)))
    angle = positions.astype(dtype)[..., None] * theta.astype(dtype)
    angle = angle if positions.ndim == 1 else angle[..., None, :, :]
    pair = np.array([place(k, half, layout) for k in range(half)]).reshape(half, 2)
    spread = np.zeros((*angle.shape[:-1], d), dtype)
    chosen = np.array([place(k, half, tables or layout) for k in range(half)]).reshape(half, 2)
    spread[..., chosen[:, 0]] = spread[..., chosen[:, 1]] = angle
    cos, sin = np.cos(spread).astype(x.dtype), (np.sin(spread) * sign).astype(x.dtype)
    turned_by_90 = np.zeros(x.shape, x.dtype)
    turned_by_90[..., pair[:, 0]] = -x[..., pair[:, 1]]
    turned_by_90[..., pair[:, 1]] = x[..., pair[:, 0]]
    return x * cos + turned_by_90 * sin


@mutant(ID, thread="candle#3948, LLMs-from-scratch#747", default_case=first_positions())
def always_half(x, positions, *, layout="interleaved", base=10000.0):
    "Channels paired (i, i + d/2) whatever the layout says: one pair does not tell."
    return edited(x, positions, layout="half", base=base)


@mutant(ID, thread="candle#3948", default_case=first_positions())
def always_interleaved(x, positions, *, layout="interleaved", base=10000.0):
    "Channels paired (2i, 2i + 1) whatever the layout says."
    return edited(x, positions, base=base)


@mutant(ID, thread="LLMs-from-scratch#747", default_case=first_positions())
def tables_of_the_other_layout(x, positions, *, layout="interleaved", base=10000.0):
    "The channels of one layout with the cos and sin tables of the other."
    return edited(x, positions, layout=layout, base=base, tables="half" if layout == "interleaved" else "interleaved")


@mutant(ID, default_case=first_positions())
def exponent_i_over_d(x, positions, *, layout="interleaved", base=10000.0):
    "theta_i = base^{-i / d}: the 2 forgotten."
    return edited(x, positions, layout=layout, base=base, exponent=lambda i, d: i / d)


@mutant(ID, default_case=first_positions())
def exponent_from_one_end(x, positions, *, layout="interleaved", base=10000.0):
    "Frequencies from 1 to 1 / base, both ends counted (linspace)."
    return edited(x, positions, layout=layout, base=base, exponent=lambda i, d: i / max(d // 2 - 1, 1))


@mutant(ID, default_case=first_positions(d=8))
def base_ignored(x, positions, *, layout="interleaved", base=10000.0):
    "base is accepted and dropped."
    return edited(x, positions, layout=layout)


@mutant(ID, default_case=first_positions(d=8))
def positions_from_the_index(x, positions, *, layout="interleaved", base=10000.0):
    "0, 1, 2, ... whatever the positions say: wrong in decoding and under left padding."
    return edited(x, np.broadcast_to(np.arange(x.shape[-2]), positions.shape), layout=layout, base=base)


@mutant(ID, default_case=first_positions(d=8))
def positions_of_the_first_row(x, positions, *, layout="interleaved", base=10000.0):
    "The first batch row's positions for all."
    positions = positions if positions.ndim == 1 else positions.reshape(-1, positions.shape[-1])[0]
    return edited(x, positions, layout=layout, base=base)


@mutant(ID, default_case=first_positions())
def angles_in_float32(x, positions, *, layout="interleaved", base=10000.0):
    "Angles formed in float32: unseen at the first positions."
    return edited(x, positions, layout=layout, base=base, dtype=np.float32)


@mutant(ID, default_case=first_positions(T=1, d=8))
def turned_back(x, positions, *, layout="interleaved", base=10000.0):
    "The other direction: every law of distances holds, weights of others do not fit."
    return edited(x, positions, layout=layout, base=base, sign=-1)


def _vjp_mutant(name, doc, vjp):
    def function(x, positions, *, layout="interleaved", base=10000.0):
        return edited(x, positions, layout=layout, base=base)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=first_positions(d=8))(function)


_vjp_mutant("gradient_turns_forward", "The forward rotation used again.",
            lambda g, x, positions, **options: (edited(g, positions, **options),))  # fmt: skip
_vjp_mutant("gradient_is_not_turned", "The cotangent passed through.", lambda g, x, positions, **options: (g.copy(),))


def scaled(x, positions, *, layout="interleaved", base=10000.0, theta=None, attention_factor=1.0):
    """The rotation with given frequencies, for the edits below."""
    exponent = None if theta is None else lambda i, d: -np.log(np.asarray(theta, np.float64)) / np.log(base)
    y = edited(x, positions, layout=layout, base=base, exponent=exponent)
    return (attention_factor * y).astype(x.dtype)


@mutant(ID, default_case=first_positions(d=8))
def theta_ignored(x, positions, *, theta=None, **options):
    "The frequencies of the base, whatever is given."
    return scaled(x, positions, **options)


@mutant(ID, default_case=first_positions(d=8))
def factor_ignored(x, positions, *, attention_factor=1.0, **options):
    "The attention factor is accepted and dropped."
    return scaled(x, positions, **options)


@mutant(ID, default_case=first_positions(d=8))
def factor_on_the_cosine(x, positions, *, attention_factor=1.0, **options):
    "The factor on the cosine table alone."
    turned_part = scaled(x, positions, **options) + scaled(x, -positions, **options)
    return (scaled(x, positions, **options) + (attention_factor - 1) / 2 * turned_part).astype(x.dtype)


@mutant(
    ID, default_case=first_positions(d=8),
    vjp=lambda g, x, positions, *, attention_factor=1.0, **options: (scaled(g, -positions, **options),),
)  # fmt: skip
def gradient_without_the_factor(x, positions, **options):
    "The cotangent turned back, the factor forgotten."
    return scaled(x, positions, **options)
