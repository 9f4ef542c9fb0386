"""Laws and mutants of the rotary embedding over two axes."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import cotangent, f64, roundings, turned_by
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "nn.rope_2d"


def _positions(draw, c):
    return rng(draw).integers(0, 65, ((*c.B, c.T, 2) if c.own_positions else (c.T, 2)))


space = cases(
    ID, B=batch(1, 2), H=dims(1, 2), T=dims(0, 4, large=33), quarter=dims(1, 3, large=16),
    d=lambda draw, c: 4 * c.quarter, own_positions=choose(False, True), positions=_positions,
    base=choose(10000.0, 100.0),
    flags={"several": Flag(lambda c: c.quarter > 1 and c.a.size > 0 and np.ptp(c.positions, axis=-1).any(),
                           {"quarter": dims(2, 3), "T": dims(2, 4), "B": ()})},
)  # fmt: skip


def axes_of(c):
    """x[*B H T] and y[*B H T]."""
    p = c.positions if c.positions.ndim == 2 else c.positions[..., None, :, :]
    return [np.broadcast_to(p[..., k], c.a.shape[:-1]) for k in (0, 1)]


def wanted_of(c, a, sign=1):
    at = axes_of(c)
    return turned_by(
        np.asarray(a, np.float64), lambda i: at[i % 2] * c.base ** (-4 * (i // 2) / c.d), "interleaved", sign
    )


def bound_of(c, a=None):
    """6 roundings of a pair's length, and its angle's own error, at most 32 u of float64 times itself."""
    a = np.asarray(c.a if a is None else a, np.float64)
    size = np.repeat(np.hypot(a[..., ::2], a[..., 1::2]), 2, axis=-1)
    return roundings(c, 6, size) + bounds.rounding(32 * 70, size, np.float64)


@law(ID, "L1", closed_form=True, given=space.where(quarter=1), kills=["axes_swapped", "rows_ignored"])
def four_channels_turn_by_x_and_y(impl, c, expect):
    "d = 4: (a, b) turns by x, (c, d) by y, for any base."
    (a,), (x, y) = f64(c, "a"), axes_of(c)
    pairs = [a[..., 0] + 1j * a[..., 1], a[..., 2] + 1j * a[..., 3]]
    first, second = pairs[0] * np.exp(1j * x), pairs[1] * np.exp(1j * y)
    expect(impl(c), np.stack((first.real, first.imag, second.real, second.imag), -1), bound_of(c))


@law(
    ID, "L2", closed_form=True, given=space.reach("several"),
    kills=["axes_swapped", "rows_ignored", "an_axis_a_half", "exponent_of_one_axis", "base_ignored"],
)  # fmt: skip
def every_pair_turns_by_its_axis(impl, c, expect):
    "Pair 2 j turns by x base^{-4 j / d}, pair 2 j + 1 by y base^{-4 j / d}."
    expect(impl(c), wanted_of(c, c.a), bound_of(c))


@law(
    ID, "L3", given=space.where(T=dims(1, 4)), kills=["turned_by_the_product"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def scores_depend_on_both_distances(impl, c, expect):
    "All patches moved by the same (dx, dy): the scores stay."
    moved = c.replace(positions=c.positions + np.array([5, 3]))
    here, there = (impl(z).astype(np.float64) for z in (c, moved))
    scores = [y @ np.swapaxes(y, -1, -2) for y in (here, there)]
    length = np.sqrt((f64(c, "a")[0] ** 2).sum(-1, keepdims=True))
    error = np.max(bound_of(c), axis=-1, keepdims=True, initial=0) * np.sqrt(c.d)
    limit = 4 * (error * np.swapaxes(length, -1, -2) + length * np.swapaxes(error, -1, -2))
    expect(scores[1], scores[0], limit, "<R q, R k>", scale=float(np.max(length, initial=0)) ** 2)


@law(ID, "L4", given=space, kills=["counted_from_one"], passes_null=["identity"])
def the_origin_changes_nothing(impl, c, expect):
    "At (0, 0) every bit stays."
    expect.same(impl(c.replace(positions=0 * c.positions)), c.a)


@law(ID, "L5", closed_form=True, needs=("vjp",), given=space, kills=["gradient_turns_forward"])
def gradient_turns_back(impl, c, expect):
    "da = R^T g."
    g = cotangent(c, c.a.shape)
    expect(impl.vjp(c, g)["a"], wanted_of(c, g, -1), bound_of(c, g), "da")


@law(ID, "L6", given=space.reach("several"), kills=["an_axis_a_half"], passes_null=["zeros", "constant", "identity"])
def equal_axes_are_one(impl, c, expect):
    "Pairs 2 j and 2 j + 1 exchanged in the input and x with y: exchanged in the output."
    order = (np.arange(c.d).reshape(-1, 2, 2)[:, ::-1]).ravel()
    other = c.replace(a=c.a[..., order].copy(), positions=c.positions[..., ::-1].copy())
    expect(impl(other), impl(c)[..., order], 2 * bound_of(c)[..., order], scale=2 * np.abs(c.a).max(initial=0))


def one_patch(d=4):
    def make():
        return (np.random.default_rng(0).standard_normal((2, 3, d)), np.full((3, 2), 0)), {}

    return make


def edited(a, positions, *, base=10000.0, axis=lambda i, n: i % 2, exponent=lambda i, n: i // 2 * 2 / n, sign=1):
    n = a.shape[-1] // 2
    p = positions if positions.ndim == 2 else positions[..., None, :, :]
    angle = np.stack([p[..., axis(i, n)] * float(base) ** -exponent(i, n) for i in range(n)], -1) * sign
    z = (a[..., ::2] + 1j * a[..., 1::2]) * np.exp(1j * angle)
    return np.stack((z.real, z.imag), -1).reshape(a.shape).astype(a.dtype)


@mutant(ID, default_case=one_patch())
def axes_swapped(a, positions, **options):
    "Rows first."
    return edited(a, positions[..., ::-1], **options)


@mutant(ID, default_case=one_patch())
def rows_ignored(a, positions, **options):
    "x for both axes."
    return edited(a, positions, **options, axis=lambda i, n: 0)


@mutant(ID, default_case=one_patch())
def an_axis_a_half(a, positions, **options):
    "The first half of the pairs for x, the second for y."
    half = a.shape[-1] // 4
    return edited(
        a, positions, **options, axis=lambda i, n: i // half, exponent=lambda i, n: i % half * 2 / n
    )


@mutant(ID, default_case=one_patch())
def exponent_of_one_axis(a, positions, **options):
    "base^{-2 i / d}, as over one axis."
    return edited(a, positions, **options, exponent=lambda i, n: i / n)


@mutant(ID, default_case=one_patch())
def base_ignored(a, positions, *, base=10000.0):
    "base is accepted and dropped."
    return edited(a, positions)


@mutant(ID, default_case=one_patch())
def turned_by_the_product(a, positions, **options):
    "The index in the grid, x y, as the one position."
    return edited(a, positions * positions[..., ::-1], **options)


@mutant(ID, default_case=lambda: ((np.zeros((1, 2, 4)), np.zeros((2, 2), int)), {}))
def counted_from_one(a, positions, **options):
    "Columns and rows counted from one."
    return edited(a, positions + 1, **options)


@mutant(ID, default_case=one_patch(), vjp=lambda g, a, positions, **options: (edited(g, positions, **options),))
def gradient_turns_forward(a, positions, **options):
    "The forward rotation used again."
    return edited(a, positions, **options)
