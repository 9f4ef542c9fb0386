"""Laws and mutants of flash attention."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np

from backends.threads import threads
from ref.attention.common_laws import (
    attention_space,
    dense,
    dense_lse,
    dense_vjp,
    f64,
    far_from_hidden,
    gradient_bounds,
    logit_error,
    output_bound,
    scale_of,
    sparse_keep,
    square,
    sum_groups,
    unseen_keys,
    value_size,
    with_junk,
)
from ref.attention.rules import causal, window
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, choose, dims, none_or

ID = "attention.flash"


def _block(axis):
    """Tiles smaller than the axis, dividing it or not, larger, or of the implementation's own choice."""
    return lambda draw, c: draw(choose(None, 1, 2, 3, 7) if c[axis] <= 12 else choose(None, 16, 33, 150))


def _narrow(draw, c):
    """Mostly several tiles of columns, where there are few columns."""
    return draw(choose(1, 2, None)) if c.S <= 12 else _block("S")(draw, c)


qkv = attention_space(ID, block_rows=_block("T"), block_cols=_block("S"))
filled = {"B": choose((), (1,), (2, 1)), "T": dims(1, 6, large=140), "S": dims(1, 6, large=140)}
holes = {**filled, "mask_kind": choose("full", "rows"), "keep": sparse_keep}
flags = qkv.flags
qkv.flags.update(
    some=flags["some"]._replace(build=filled),
    empty_row=flags["empty_row"]._replace(build=holes),
    unseen_key=flags["unseen_key"]._replace(build=holes),
    skipping=Flag(
        lambda c: hasattr(c.mask, "columns") and (c.block_rows or 0) > 1 and c.block_cols in (1, 2),
        {**filled, "mask_kind": choose("window", "bottom_right", "top_left"), "T": dims(3, 6), "S": dims(3, 6),
         "block_rows": choose(2, 3), "block_cols": choose(1, 2)},
    ),
    several_tiles=Flag(lambda c: c.block_rows < c.T or c.block_cols < c.S),
)
plain = qkv.where(mask_kind="none", has_bias=False, scale=None)
rich = qkv.where(**filled)
hidden = qkv.where(unseen_key=True, mask_kind=choose("full", "rows", "padding", "top_left"))


# Bounds and oracles ----------------------------------------------------------------------------------


def steps(c):
    """Roundings that a row's tiles add: a factor e^{m - m'} (8 + 1; its exponents add up to those that the bound of
    a softmax has already), a product, a sum."""
    return 11 * -(-c.k.shape[-2] // (c.block_cols or max(c.k.shape[-2], 1)))


def o_bound(c):
    """The bound of plain attention, and in numerator and denominator the tiles' roundings."""
    return output_bound(c) + bounds.rounding(2 * steps(c), value_size(c), c.dtype)


def lse_bound(c, lse):
    """L = m + log l: a logit's error, the relative error of l (terms, n sums, tiles), the last two roundings."""
    n = max(c.k.shape[-2], 1)
    of_sum = bounds.rounding(np.log(n) + n + 8 + steps(c), 1.0, c.dtype)
    return logit_error(c) + of_sum + bounds.rounding(4, np.nan_to_num(lse, neginf=0.0), c.dtype)


def options_of(c):
    """What the oracles take, in float64; the mask as an array that no rule of ours made."""
    bias = None if c.bias is None else np.asarray(c.bias, np.float64)
    return {"mask": c.keep, "bias": bias, "softcap": c.softcap, "scale": c.scale}


def oracle(c):
    """(o, lse) in float64, all at once."""
    q, k, v = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v))
    p, _, _, vv = dense(q, k, v, **options_of(c))
    return p @ vv, dense_lse(q, k, v, **options_of(c))


def expect_both(expect, c, found, wanted, factor=1):
    o, lse = found
    expect(o, wanted[0], factor * o_bound(c), "o", scale=value_size(c))
    size = 1 + np.abs(np.nan_to_num(wanted[1], neginf=0))
    expect(lse, wanted[1], factor * lse_bound(c, wanted[1]), "lse", scale=size)


def cotangents(c):
    """No two entries alike, in o and in lse."""
    g = np.cos(np.arange(c.q[..., 0].size * c.e)).reshape(*c.q.shape[:-1], c.e)
    return g.astype(c.dtype), np.sin(1.0 + np.arange(c.q[..., 0].size)).reshape(c.q.shape[:-1]).astype(c.dtype)


def expect_gradient(expect, c, found, wanted, g, names="qkv"):
    lse = oracle(c)[1]
    more = float(np.max(lse_bound(c, lse), initial=0.0)) + bounds.rounding(2 * steps(c), 1.0, c.dtype)
    limits = gradient_bounds(c, *g, weight_error=more)
    for name, want in zip(names, wanted, strict=True):
        bound, scale = limits[name]
        expect(found[name], want, bound, f"d{name}", scale)


# Forward ---------------------------------------------------------------------------------------------


@law(ID, "L1", closed_form=True, given=plain.where(S=1), kills=["maximum_not_scaled", "padding_counted"])
def one_key_is_its_value_and_its_logit(impl, c, expect):
    "S = 1: o = v and lse = cap(q . k / sqrt(d)), for every row."
    q, k, v = f64(c, "q", "k", "v")
    s = (q @ np.swapaxes(k, -1, -2))[..., 0] / math.sqrt(c.d)
    s = s if c.softcap is None else c.softcap * np.tanh(s / c.softcap)
    expect_both(expect, c, impl(c), (np.broadcast_to(v, (*c.q.shape[:-1], c.e)), s))


@law(
    ID, "L2", closed_form=True, given=plain.where(S=2, e=1, T=1, softcap=none_or(1.0, 4.0), block_cols=choose(1, None)),
    kills=["o_not_rescaled", "l_not_rescaled", "lse_in_base_two"],
)  # fmt: skip
def two_keys_are_a_tanh_and_a_softplus(impl, c, expect):
    "S = 2, v = (-1, 1): o = tanh((s_1 - s_0) / 2), lse = s_0 + log(1 + e^{s_1 - s_0}), in one tile or two."
    c = c.replace(v=np.broadcast_to(np.array([[-1.0], [1.0]], c.dtype), c.v.shape).copy())
    s = two_logits(c)
    gap = s[..., 1] - s[..., 0]
    expect_both(expect, c, impl(c), (np.tanh(gap / 2)[..., None], s[..., 0] + np.log1p(np.exp(gap))))


def two_logits(c):
    q, k = f64(c, "q", "k")
    s = (q @ np.swapaxes(k, -1, -2)) * scale_of(c)
    return s if c.softcap is None else c.softcap * np.tanh(s / c.softcap)


@law(
    ID, "L3", closed_form=True, given=qkv.where(has_bias=False).reach("empty_row", "no_keys", "no_rows"),
    kills=["padding_counted", "mask_from_the_corner"],
)  # fmt: skip
def equal_keys_average_and_count(impl, c, expect):
    "All keys equal: o is the mean of the n values a row sees, lse = s + log n."
    c = c.replace(k=np.broadcast_to(c.k[..., :1, :], c.k.shape).copy())
    n = c.keep.sum(-1)
    (v,) = f64(c, "v")
    s = two_logits(c.replace(k=c.k[..., :1, :]))[..., 0] if c.S else np.zeros(c.q.shape[:-1])
    lse = s + np.log(n)
    expect_both(expect, c, impl(c), (c.keep.astype(float) @ v / np.maximum(n, 1)[..., None], lse))


@law(
    ID, "L4", given=rich.reach("empty_row", "grouped", "skipping", "head_bias", "flat"),
    kills=["scale_of_zero_is_none", "bias_of_the_first_head",
           "skip_is_off_by_one", "undivided_after_a_skip", "mask_from_the_corner", "padding_counted", "heads_tiled",
           "ragged_rows_dropped", "maximum_not_scaled", "window_of_the_last_row"],
)  # fmt: skip
def tiles_are_immaterial(impl, c, expect):
    "For all B_r and B_c, o = softmax(S) V and lse = logsumexp S, as computed all at once in float64."
    expect_both(expect, c, impl(c), oracle(c))


@law(
    ID, "L5", given=qkv.where(mask_kind=choose("none", "padding", "full", "rows")).reach("empty_row"),
    kills=["lse_in_base_two", "maximum_not_scaled"],
)  # fmt: skip
def split_keys_merge(impl, c, expect):
    "Keys cut in two (halves, or every other one), in either order: sum e^{lse_i - lse} o_i, lse = log sum e^{lse_i}."
    whole = impl(c)
    for first in (np.arange(c.S) < c.S // 2, np.arange(c.S) % 2 == 1):
        parts = [impl(some_keys(c, chosen)) for chosen in (first, ~first)]
        o, lse = 0.0, np.logaddexp(parts[0][1].astype(np.float64), parts[1][1])
        for part_o, part_lse in parts:
            o = o + np.exp(part_lse - np.where(np.isinf(lse), 0, lse))[..., None] * part_o
        expect_both(expect, c, whole, (o, lse), factor=3)


def some_keys(c, chosen):
    """The case with the chosen keys alone, its mask an array."""
    changed = {"k": c.k[..., chosen, :].copy(), "v": c.v[..., chosen, :].copy(), "keep": c.keep[..., chosen]}
    changed["mask"] = changed["keep"].copy()
    if c.bias is not None:
        changed["bias"] = c.bias[..., chosen].copy()
    return c.replace(**changed, S=int(chosen.sum()))


@law(
    ID, "L6", given=qkv.where(has_bias=False, some=True), kills=["bias_before_cap", "bias_ignored"],
)  # fmt: skip
def a_shift_of_a_row_of_logits_shifts_lse(impl, c, expect):
    "A bias that is constant along row i, b_i, leaves o and adds b_i to lse, softcap or not."
    shift = np.arange(c.T)[:, None] * np.ones((1, c.S)) * 0.75 - 1.5
    shifted = c.replace(bias=shift.astype(c.dtype))
    o, lse = impl(c)
    expect_both(expect, shifted, impl(shifted), (o, lse + shift[:, 0]), factor=2)


@law(
    ID, "L7", closed_form=True, given=qkv.reach("empty_row", "skipping"),
    kills=["undivided_after_a_skip", "l_not_rescaled", "padding_counted"],
)  # fmt: skip
def output_is_a_mean_of_visible_values(impl, c, expect):
    "min v <= o <= max v over the keys a row sees, for values between 1 and 2; equal values come out as they are."
    c = c.replace(v=(1 + np.abs(c.v) / 8).astype(c.dtype))
    seeing = c.keep.any(-1)[..., None]
    slack = o_bound(c)
    for case in (c, c.replace(v=np.full_like(c.v, 1.5))):
        (v,) = f64(case, "v")
        keep, v = c.keep[..., None], v[..., None, :, :]
        low = np.where(seeing, np.min(np.where(keep, v, np.inf), -2, initial=np.inf), 0)
        high = np.where(seeing, np.max(np.where(keep, v, -np.inf), -2, initial=-np.inf), 0)
        o = impl(case)[0].astype(np.float64)
        expect.at_most(low - slack, o, "the least visible value")
        expect.at_most(o, high + slack, "o")


@law(
    ID, "L8", closed_form=True, given=plain.where(d=1, T=dims(1, 3), softcap=None, S=dims(1, 6, large=140), B=()),
    kills=["no_maximum", "maximum_of_the_latest_tile"],
)  # fmt: skip
def large_logits_pick_the_largest(impl, c, expect):
    "Logits 1e4 apart, rising or falling, positive or negative: o is the value of the largest, lse the largest."
    rising = 100.0 * np.arange(c.S).reshape(c.S, 1)
    for slope in (rising, rising[::-1], rising - rising[-1], rising[::-1] - rising[-1]):
        k = np.broadcast_to(slope, c.k.shape).astype(c.dtype)
        far = c.replace(q=np.full(c.q.shape, 100.0, c.dtype), k=k)
        (v,) = f64(far, "v")
        best = int(np.argmax(slope))
        o, lse = impl(far)
        wanted = np.broadcast_to(v[..., best : best + 1, :], o.shape)
        expect(o, wanted, bounds.rounding(c.S + 9 + steps(c), value_size(c), c.dtype), "o")
        top = float(100 * slope[best, 0])
        expect(lse, np.full(lse.shape, top), bounds.rounding(6, 1 + abs(top), c.dtype), "lse", scale=1.0)


@law(
    ID, "L19", closed_form=True,
    given=qkv.where(d=1, T=dims(1, 3, 20), S=dims(2, 6, 140), mask_kind="padding", has_bias=False, softcap=None,
                    scale=1.0),
    kills=["filled_with_minus_1e4"],
)  # fmt: skip
def far_keys_outweigh_hidden_ones(impl, c, expect):
    "Visible keys at logits -1e5, -2e5, .. and hidden ones at 0: o is the value of the first visible key."
    far, wanted = far_from_hidden(c)
    expect(impl(far)[0], wanted, bounds.rounding(c.S + 9 + steps(c), value_size(c), c.dtype), scale=value_size(c))


@law(
    ID, "L9", closed_form=True, given=qkv.where(empty_row=True, mask_kind=choose("full", "rows", "bottom_right")),
    kills=["empty_row_is_nan", "empty_row_is_uniform"],
)  # fmt: skip
def a_row_without_keys_is_zero(impl, c, expect):
    "A row that sees no key: o exactly zero, lse = -inf."
    empty = ~c.keep.any(-1)
    o, lse = impl(c)
    expect.same(o[empty], np.zeros((int(empty.sum()), c.e)), "o")
    expect.same(lse[empty], np.full(int(empty.sum()), -np.inf), "lse")


@law(
    ID, "L10", given=hidden.reach("empty_row", "grouped"), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def unseen_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in keys and values that no row sees, and in queries that see no key, change no bit of o or lse."
    for name, junk, clean in zip(("o", "lse"), impl(junk_everywhere(c)), impl(c), strict=True):
        expect.same(junk, clean, name)


def junk_everywhere(c):
    """`with_junk`, and NaN in the queries that see no key."""
    return with_junk(c.replace(q=np.where(c.keep.any(-1)[..., None], c.q, np.nan).astype(c.dtype)))


@law(
    ID, "L11", given=qkv.where(mask_kind=choose("bottom_right", "window"), has_bias=False, T=dims(1, 6, large=140))
    .reach("uneven"),
    kills=["causal_top_left"], passes_null=["zeros", "constant"],
)  # fmt: skip
def a_chunk_is_the_tail(impl, c, expect):
    "Aligned bottom right, the last t queries alone, or the last one, give the last t rows of the whole."
    o, lse = impl(c)
    for t in {(c.T + 1) // 2, 1}:
        tail = c.replace(q=c.q[..., c.T - t :, :].copy(), T=t)
        expect_both(expect, c, impl(tail), (o[..., c.T - t :, :], lse[..., c.T - t :]), factor=2)


# Gradients -------------------------------------------------------------------------------------------


@law(
    ID, "L12", needs=("vjp",), given=rich.reach("grouped", "empty_row", "skipping"),
    kills=["delta_of_one_tile", "cap_has_slope_one", "lse_cotangent_ignored", "last_head_of_a_group",
           "dq_of_the_last_tile", "backward_of_an_empty_row_is_nan"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    """dV = P^T dO, dS = P (dO V^T - rowsum(dO * O) + dL) (1 - (s / cap)^2), dQ = scale dS K, dK = scale dS^T Q,
    summed over a group, for all B_r and B_c."""
    g = cotangents(c)
    q, k, v, g_o, g_lse = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v, *g))
    wanted = dense_vjp(g_o, q, k, v, g_lse=g_lse, **options_of(c))
    expect_gradient(expect, c, impl.vjp(c, g), wanted, g)


@law(
    ID, "L13", closed_form=True, needs=("vjp",),
    given=plain.where(S=2, T=1, R=1, softcap=none_or(1.0, 4.0), block_cols=choose(1, None)),
    kills=["lse_cotangent_ignored", "cap_has_slope_one"],
)  # fmt: skip
def gradient_of_lse_is_the_weights(impl, c, expect):
    """S = 2, dO = 0, dL = 1: dq = (p_0 c_0 k_0 + p_1 c_1 k_1) / sqrt(d), dk_j = p_j c_j q / sqrt(d), dv = 0,
    with the softcap's slope c_j = 1 - (s_j / cap)^2."""
    s, (q, k) = two_logits(c), f64(c, "q", "k")
    weight = 1 / (1 + np.exp(s[..., ::-1] - s))
    weight = weight * (1 if c.softcap is None else 1 - (s / c.softcap) ** 2) / math.sqrt(c.d)
    g = np.zeros((*c.q.shape[:-1], c.e)), np.ones(c.q.shape[:-1])
    found = impl.vjp(c, g)
    expect_gradient(expect, c, found, (weight @ k, np.swapaxes(weight, -1, -2) @ q), g, "qk")
    expect.same(found["v"], np.zeros(c.v.shape), "dv")


@law(
    ID, "L14", closed_form=True, needs=("vjp",),
    given=qkv.where(softcap=None, block_cols=_narrow).reach("no_keys", "no_rows"),
    kills=["delta_of_one_tile"],
    passes_null=["zeros"],
)  # fmt: skip
def key_gradients_cancel(impl, c, expect):
    "sum_j dS_ij = 0 while dL = 0: without a softcap dk sums to zero over the keys."
    g = np.ones((*c.q.shape[:-1], c.e)) * (1 + np.arange(c.e)), np.zeros(c.q.shape[:-1])
    total = np.sum(impl.vjp(c, g)["k"].astype(np.float64), axis=-2)
    lse = oracle(c)[1]
    more = float(np.max(lse_bound(c, lse), initial=0.0)) + bounds.rounding(2 * steps(c), 1.0, c.dtype)
    limit, scale = gradient_bounds(c, *g, weight_error=more)["k"]
    expect(total, np.zeros_like(total), max(c.S, 1) * limit, "sum of dk", scale)


@law(
    ID, "L15", needs=("vjp",), given=hidden.reach("empty_row"),
    kills=["gradient_by_multiplying"], passes_null=["zeros"],
)  # fmt: skip
def invisible_junk_has_no_gradient(impl, c, expect):
    """NaN, inf or 1e30 in unseen keys and values, and in queries that see no key, changes no bit of any gradient;
    their own gradients are exactly 0."""
    g = cotangents(c)
    clean, junk = impl.vjp(c, g), impl.vjp(junk_everywhere(c), g)
    for name in "qkv":
        expect.same(junk[name], clean[name], f"d{name}")
    unseen, empty = unseen_keys(c), ~c.keep.any(-1)
    expect.same(clean["k"][unseen], np.zeros((int(unseen.sum()), c.d)), "dk of unseen keys")
    expect.same(clean["v"][unseen], np.zeros((int(unseen.sum()), c.e)), "dv of unseen keys")
    expect.same(clean["q"][empty], np.zeros((int(empty.sum()), c.d)), "dq of empty rows")


# Schedule and memory ---------------------------------------------------------------------------------


class Counting:
    """A mask rule that notes which tiles it was asked for."""

    kind = "mask"

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def columns(self, start, stop, T, S):
        return self.rule.columns(start, stop, T, S)

    def tile(self, xp, rows, cols, T, S):
        self.asked.append(tuple(int(x) for x in (rows[0], rows[-1] + 1, cols[0], cols[-1] + 1)))
        return self.rule.tile(xp, rows, cols, T, S)


@law(
    ID, "L16", closed_form=True, needs=("plan",),
    given=qkv.where(
        B=(), G=1, R=1, T=dims(1, 12), S=dims(2, 12), mask_kind=choose("bottom_right", "top_left", "window"),
        block_rows=choose(1, 2, 3, 5), block_cols=choose(1, 2, 3, 5), has_bias=False, several_tiles=True,
    ),
    kills=["nothing_is_skipped", "everything_at_once"],
)  # fmt: skip
def each_visible_tile_is_met_once(impl, c, expect):
    """A block of B_r rows that sees columns low to high meets ceil((high - low) / B_c) tiles of B_c columns (one
    more if low is not on their grid), disjoint, each with a column it sees; a block that sees none meets none."""
    rule = Counting(c.mask)
    impl(c.replace(mask=rule))
    met = {}
    for start, stop, low, high in rule.asked:
        met.setdefault((start, stop), []).append((low, high))
    seen = {}
    for start in range(0, c.T, c.block_rows):
        stop = min(start + c.block_rows, c.T)
        columns = np.flatnonzero(c.keep[0, start:stop].any(0))
        if columns.size:
            seen[start, stop] = (int(columns[0]), int(columns[-1]) + 1)
    expect.holds(met.keys() == seen.keys(), f"blocks of rows {sorted(met)}, wanted {sorted(seen)}")
    for rows, (low, high) in seen.items():
        tiles = sorted(met[rows])
        inside = [max(0, min(b, high) - max(a, low)) for a, b in tiles]
        expect.holds(all(inside), f"rows {rows} see columns {low} to {high}; a tile lies outside: {tiles}")
        expect.holds(sum(inside) == high - low, f"rows {rows} see columns {low} to {high}; the tiles: {tiles}")
        expect.holds(all(b - a <= c.block_cols for a, b in tiles), f"a tile is wider than {c.block_cols}: {tiles}")
        fewest = -(-(high - low) // c.block_cols)
        on_grid = -(-high // c.block_cols) - low // c.block_cols
        expect.holds(len(tiles) in (fewest, on_grid), f"{len(tiles)} tiles for {high - low} columns: {tiles}")


big = qkv.where(
    B=(), G=1, R=1, T=256, S=choose(256, 200), d=dims(1, 2), e=dims(1, 2), block_rows=256, block_cols=128,
    has_bias=False, mask_kind=choose("none", "bottom_right"), values=("normal",),
)  # fmt: skip


def tiles_held(c, call):
    """The most memory that NumPy held at once during the call, on one thread, in tiles of the case's dtype."""
    call(c.replace(q=c.q[..., :1, :].copy(), T=1))  # what is loaded once and kept is not counted
    with threads(1):
        tracemalloc.start()
        try:
            call(c)
            return tracemalloc.get_traced_memory()[1] / (c.block_rows * c.block_cols * c.dtype.itemsize)
        finally:
            tracemalloc.stop()


@law(
    ID, "L17", given=big, kills=["everything_at_once"], dtypes=("float64",),
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def forward_holds_one_tile(impl, c, expect):
    """B_r B_c numbers at once, twice as many truth values, and O((B_r + B_c) (d + e)) numbers more: here less than
    half a tile."""
    expect.at_most(tiles_held(c, impl), 1.5 + 2 / c.dtype.itemsize, "tiles held by the forward")


@law(
    ID, "L18", needs=("vjp",), given=big, kills=["backward_all_at_once"], dtypes=("float64",),
    passes_null=["zeros", "constant", "identity", "nan"],
)  # fmt: skip
def backward_holds_two_tiles(impl, c, expect):
    "Two tiles instead of one, the same truth values; the rest, with the gradients, less than three quarters of a tile."
    held = tiles_held(c, lambda c: impl.vjp(c, cotangents(c)))
    expect.at_most(held, 2.75 + 2 / c.dtype.itemsize, "tiles held by the backward")


# Mutants: one plausible edit each --------------------------------------------------------------------


def _columns(mask, start, stop, T, S):
    return mask.columns(start, stop, T, S) if hasattr(mask, "columns") else (0, S)


def _piece(source, rows, cols, T, S):
    if hasattr(source, "tile"):
        return source.tile(np, np.arange(rows.start, rows.stop), np.arange(cols.start, cols.stop), T, S)
    return np.broadcast_to(source, (*source.shape[:-2], T, S))[..., rows, cols]


def _shaped(s, softcap, bias, keep):
    """Softcap, bias and mask, in place: a second tile would be one too many."""
    if softcap is not None:
        s /= softcap
        np.tanh(s, out=s)
        s *= softcap
    s += bias
    np.copyto(s, -np.inf, where=~keep)
    return s


def _base(m):
    return np.where(np.isneginf(m), 0, m)


def tiled(q, k, v, *, mask=None, bias=None, softcap=None, scale=None, block_rows=None, block_cols=None, **edit):
    """Alg. 1 in NumPy with one of its parts replaced by an edit of the same name."""
    T, S, H = q.shape[-2], k.shape[-2], q.shape[-3]
    k, v = (edit.get("repeat", lambda x, R: np.repeat(x, R, -3))(x, H // max(x.shape[-3], 1)) for x in (k, v))
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    mask = np.ones((1, 1), bool) if mask is None else mask
    bias = np.zeros((1, 1), q.dtype) if bias is None else bias
    piece, base, shaped = edit.get("piece", _piece), edit.get("base", _base), edit.get("shaped", _shaped)
    columns, top = edit.get("columns", _columns), edit.get("top", np.maximum)
    finish = edit.get("finish", lambda l, last: np.where(l == 0, 1, l))  # noqa: E741  the paper's letter
    o, lse = np.zeros((*q.shape[:-1], v.shape[-1]), q.dtype), np.full(q.shape[:-1], -np.inf, q.dtype)
    B_r, B_c = block_rows or max(T, 1), block_cols or max(S, 1)
    for i in range(0, edit.get("rows", lambda T, B_r: T)(T, B_r), B_r):
        rows = slice(i, min(i + B_r, T))
        low, high = columns(mask, rows.start, rows.stop, T, S)
        m = np.full((*q.shape[:-2], rows.stop - i, 1), -np.inf, q.dtype)
        l, acc, last = np.zeros_like(m), 0 * o[..., rows, :], False  # noqa: E741
        for j in range(0, S, B_c):
            cols = slice(j, min(j + B_c, S))
            if cols.start >= high or cols.stop <= low:
                continue
            keep = np.broadcast_to(piece(mask, rows, cols, T, S), (*q.shape[:-2], rows.stop - i, cols.stop - j))
            V = v[..., cols, :]
            V = np.where(keep.any(-2)[..., None], V, 0) if edit.get("select", True) else V
            s = q[..., rows, :] * scale @ np.swapaxes(k[..., cols, :], -1, -2)
            p = shaped(s, softcap, piece(bias, rows, cols, T, S), keep)
            new = top(m, np.max(p, -1, keepdims=True))
            p -= base(new)
            np.exp(p, out=p)
            a = np.exp(m - base(new))
            extra = edit.get("extra", lambda missing, new: 0)(B_c - (cols.stop - j), new)
            one, rescale = np.ones_like(a), edit.get("rescale", "lo")
            l = (a if "l" in rescale else one) * l + p.sum(-1, keepdims=True) + extra  # noqa: E741
            acc = (a if "o" in rescale else one) * acc + p @ V
            m, last = new, last or cols.stop == S
            del s, p  # or the next tile would be a second one
        o[..., rows, :] = acc / finish(l, last)
        lse_of = edit.get("lse", lambda m, l, scale: m + np.log(l))  # noqa: E741
        lse[..., rows] = lse_of(m, np.where(l == 0, 1, l), scale)[..., 0]
    return o, lse


def _first_head(bias):
    return bias if bias is None or bias.ndim == 2 or not bias.size else bias.reshape(-1, *bias.shape[-2:])[0]


def edit_of(name, doc, default_case, *, thread=None, change=None, **edit):
    """Register `tiled` with an edit, or with changed options, as a mutant."""

    def function(q, k, v, **options):
        return tiled(q, k, v, **(change(options) if change else options), **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=default_case)(function)


edit_of("o_not_rescaled", "O is not multiplied by e^{m - m'}: right for one tile.", square(4), rescale="l")
edit_of("l_not_rescaled", "l is not multiplied by e^{m - m'}: right for one tile.", square(4), rescale="o")
edit_of(
    "lse_in_base_two", "L = m + log2 l, a kernel's own unit: right for one key.", square(1),
    lse=lambda m, l, scale: m + np.log2(l),  # noqa: E741
)  # fmt: skip
edit_of(
    "maximum_not_scaled", "m is kept in units of q . k and not scaled on the way out.", square(4, scale=1.0),
    lse=lambda m, l, scale: m / scale + np.log(l),  # noqa: E741
)  # fmt: skip
edit_of(
    "undivided_after_a_skip", "The division stands in the step of the last tile, which a causal mask may skip.",
    square(4, mask=causal()), finish=lambda l, last: np.where(l == 0, 1, l) if last else np.ones_like(l),  # noqa: E741
)  # fmt: skip
edit_of(
    "padding_counted", "The last tile is filled up with keys of logit 0.", square(4, block_rows=2, block_cols=2),
    extra=lambda missing, new: missing * np.exp(-_base(new)),
)  # fmt: skip
edit_of(
    "skip_is_off_by_one", "The last column that a causal block sees is thought to be out of its sight.",
    square(4, mask=causal(), block_rows=4, block_cols=4),
    columns=lambda mask, *span: (lambda low, high: (low, high - hasattr(mask, "align")))(*_columns(mask, *span)),
)  # fmt: skip
edit_of(
    "window_of_the_last_row", "The first tile of a block of rows is the first that its last row sees.",
    square(4, mask=window(1, 0)),
    columns=lambda mask, start, stop, *sizes: (
        _columns(mask, stop - 1, stop, *sizes)[0], _columns(mask, start, stop, *sizes)[1]
    ),
)  # fmt: skip
edit_of(
    "mask_from_the_corner", "A tile of an array mask or bias is cut from the array's first columns.", square(4),
    piece=lambda x, rows, cols, T, S: _piece(
        x, rows, cols if hasattr(x, "tile") else slice(0, cols.stop - cols.start), T, S
    ),
)  # fmt: skip
edit_of("heads_tiled", "Head h reads key head h mod G.", square(4), thread="onnx PR#7274, jax-js#180",
        repeat=lambda x, R: np.concatenate([x] * R, -3))  # fmt: skip
edit_of(
    "ragged_rows_dropped", "T // B_r blocks: the last, ragged one is never computed.", square(4, block_rows=2),
    rows=lambda T, B_r: T // B_r * B_r,
)  # fmt: skip
edit_of(
    "no_maximum", "exp without the maximum: overflows.", square(4),
    top=lambda m, new: 0 * np.where(new > -np.inf, new, 0),
)  # fmt: skip
edit_of(
    "maximum_of_the_latest_tile", "m' = rowmax S of this tile alone: right until e^{m - m'} overflows.", square(4),
    top=lambda m, new: new,
)  # fmt: skip
edit_of(
    "empty_row_is_nan", "(-inf) - (-inf).", square(4, mask=causal()), thread="mlx#2608, pytorch#103963",
    base=lambda m: m,
)  # fmt: skip
edit_of(
    "empty_row_is_uniform", "The lowest finite number instead of -inf.", square(4), thread="pytorch#41508",
    shaped=lambda s, cap, bias, keep: np.maximum(_shaped(s, cap, bias, keep), np.finfo(s.dtype).min),
)  # fmt: skip
edit_of(
    "filled_with_minus_1e4", "Dropped logits are -1e4: above visible ones that lie lower.", square(4, mask=causal()),
    shaped=lambda s, cap, bias, keep: np.where(
        keep, _shaped(s, cap, bias, keep), np.where(keep.any(-1, keepdims=True), s.dtype.type(-1e4), -np.inf)
    ),
)  # fmt: skip
edit_of("masked_by_multiplying", "A dropped weight is zero, and zero times NaN is NaN.", square(4), select=False)
edit_of(
    "causal_top_left", "A bottom-right causal mask aligned top left.", square(4, mask=causal()),
    thread="flash-attention#282, cutlass#2336",
    piece=lambda x, *place: _piece(causal("top_left") if hasattr(x, "align") else x, *place),
    columns=lambda mask, *span: _columns(causal("top_left") if hasattr(mask, "align") else mask, *span),
)  # fmt: skip
edit_of(
    "bias_before_cap", "The bias inside the softcap.", square(4),
    shaped=lambda s, cap, bias, keep: _shaped(s + bias, cap, 0, keep),
)  # fmt: skip
edit_of(
    "bias_ignored", "The bias is accepted and dropped.", square(4), change=lambda options: {**options, "bias": None}
)
edit_of(
    "scale_of_zero_is_none", "`scale or 1 / sqrt(d)`: 0 is taken for not given.", square(4),
    change=lambda options: {**options, "scale": options.get("scale") or None},
)  # fmt: skip
edit_of(
    "bias_of_the_first_head", "A bias by heads (ALiBi) is cut down to [T S].", square(4),
    change=lambda options: {**options, "bias": _first_head(options.get("bias"))},
)  # fmt: skip
edit_of(
    "nothing_is_skipped", "Every tile is computed, whatever the rule says.", square(4, mask=causal()),
    columns=lambda mask, start, stop, T, S: (0, S),
)  # fmt: skip
edit_of(
    "everything_at_once", "One tile of all rows and columns: plain attention under another name.", square(4),
    change=lambda options: {**options, "block_rows": None, "block_cols": None},
)  # fmt: skip


def _backward(name, doc, *, delta=None, slope=True, with_lse=True, heads=None, last_tile=False, guard=True):
    """Register the right forward with an edited Alg. 2 as a mutant."""

    def vjp(g, q, k, v, *, mask=None, bias=None, softcap=None, scale=None, block_rows=None, block_cols=None):
        options = {"mask": mask, "bias": bias, "softcap": softcap, "scale": scale}
        p, s, kk, vv = dense(q, k, v, **options)
        if not guard:
            p = np.where(p.sum(-1, keepdims=True) == 0, np.nan, p)
        dp = g[0] @ np.swapaxes(vv, -1, -2)
        B_c = block_cols or max(k.shape[-2], 1)
        ds = p * (dp - (delta or _delta)(p, dp, B_c) + (g[1][..., None] if with_lse else 0))
        ds = ds * (1 if softcap is None or not slope else 1 - (s / softcap) ** 2)
        ds = (ds * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)).astype(q.dtype)
        dk, dv = np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ g[0]
        start = (k.shape[-2] - 1) // B_c * B_c if last_tile and k.shape[-2] else 0
        dq = ds[..., start:] @ kk[..., start:, :]
        return dq, *((heads or sum_groups)(x, k.shape[-3]).astype(q.dtype) for x in (dk, dv))

    def function(q, k, v, **options):
        return tiled(q, k, v, **options)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=square(4))(function)


def _delta(p, dp, B_c):
    return np.sum(p * dp, -1, keepdims=True)


def _delta_of_tile(p, dp, B_c):
    parts = [np.s_[..., j : j + B_c] for j in range(0, p.shape[-1], B_c)]
    return np.concatenate([0 * p[at] + _delta(p[at], dp[at], B_c) for at in parts], -1) if parts else 0


_backward("delta_of_one_tile", "D = rowsum(P * dP) over the tile at hand: right for one tile.", delta=_delta_of_tile)
_backward("cap_has_slope_one", "The backward forgets 1 - (s / cap)^2.", slope=False)
_backward("lse_cotangent_ignored", "The cotangent of lse is accepted and dropped.", with_lse=False)
_backward(
    "last_head_of_a_group", "dk and dv of a group's last head, not the sum.",
    heads=lambda x, G: x[..., x.shape[-3] // max(G, 1) - 1 :: max(x.shape[-3] // max(G, 1), 1), :, :],
)  # fmt: skip
_backward("dq_of_the_last_tile", "dQ is overwritten by each tile of keys, not added to.", last_tile=True)
_backward("backward_of_an_empty_row_is_nan", "exp(S - L) is not guarded where S and L are -inf.", guard=False)
_backward("gradient_by_multiplying", "Junk in unseen slots times zero is NaN.")


@mutant(
    ID, default_case=square(4),
    vjp=lambda g, q, k, v, *, block_rows=None, block_cols=None, **options: dense_vjp(
        g[0], q, k, v, g_lse=g[1], **options
    ),
)  # fmt: skip
def backward_all_at_once(q, k, v, **options):
    "All weights at once in the backward."
    return tiled(q, k, v, **options)
