"""Laws and mutants of scaled dot-product attention."""

from __future__ import annotations

import math

import numpy as np

from ref.attention.common_laws import (
    attention_space,
    dense,
    dense_vjp,
    f64,
    far_from_hidden,
    gradient_bounds,
    output_bound,
    relative_weight_error,
    square,
    sum_groups,
    value_size,
    with_junk,
)
from ref.attention.rules import causal
from ref.attention.sdpa import sdpa
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, dims, none_or

ID = "attention.sdpa"
qkv = attention_space(ID)
plain = qkv.where(mask_kind="none", has_bias=False, scale=None)

@law(ID, "L1", closed_form=True, given=qkv.where(S=1, mask_kind="none"), kills=["eps_in_the_denominator"])
def one_key_is_its_value(impl, c, expect):
    "S = 1: every row of head h is v of its key head, whatever q and k are."
    (v,) = f64(c, "v")
    wanted = np.broadcast_to(v, (*v.shape[:-2], c.T, c.e))
    expect(impl(c), wanted, output_bound(c))


@law(
    ID, "L2", closed_form=True, given=plain.where(S=2, e=1, T=1, softcap=none_or(1.0, 4.0)).reach("wide_values"),
    kills=["scale_from_value_width", "eps_in_the_denominator"],
)  # fmt: skip
def two_keys_are_a_logistic(impl, c, expect):
    "S = 2, v = (0, 1): out = sigma(cap(s_1) - cap(s_0)), s = q . k / sqrt(d), cap(s) = c tanh(s / c)."
    c = c.replace(v=np.broadcast_to(np.array([[0.0], [1.0]], c.dtype), c.v.shape).copy())
    s = _two_logits(c)
    expect(impl(c)[..., 0], 1 / (1 + np.exp(s[..., 0] - s[..., 1])), output_bound(c), scale=1.0)


def _two_logits(c):
    q, k = f64(c, "q", "k")
    s = (q @ np.swapaxes(k, -1, -2)) / math.sqrt(c.d)
    return s if c.softcap is None else c.softcap * np.tanh(s / c.softcap)


@law(
    ID, "L3", closed_form=True, given=qkv.where(has_bias=False).reach("empty_row", "uneven"),
    kills=["masked_without_renormalising"],
)  # fmt: skip
def equal_keys_average_the_values(impl, c, expect):
    "All keys equal: each row is the plain mean of the values it sees (zeros if it sees none)."
    c = c.replace(k=np.broadcast_to(c.k[..., :1, :], c.k.shape).copy())
    (v,) = f64(c, "v")
    keep = c.keep.astype(np.float64)
    wanted = keep @ v / np.maximum(keep.sum(-1, keepdims=True), 1)
    expect(impl(c), wanted, output_bound(c), scale=value_size(c))


@law(
    ID, "L4", given=qkv.where(mask_kind=choose("none", "bottom_right")).reach("grouped"), kills=["gqa_tile"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def a_head_is_its_own_attention(impl, c, expect):
    "Head h of the output is attention of head h alone with key head floor(h / (H / G))."
    out = impl(c)
    for h in range(c.H):
        g = slice(h // c.R, h // c.R + 1)
        alone = c.replace(
            q=c.q[..., h : h + 1, :, :].copy(), k=c.k[..., g, :, :].copy(), v=c.v[..., g, :, :].copy(), H=1, G=1,
            bias=c.bias if c.bias is None or c.bias.ndim == 2 else c.bias[..., h : h + 1, :, :].copy(),
        )  # fmt: skip
        expect(out[..., h : h + 1, :, :], impl(alone), 2 * output_bound(c), scale=value_size(c))


@law(ID, "L5", given=qkv.reach("empty_row", "grouped"), kills=["masked_without_renormalising"])
def output_is_a_mean_of_visible_values(impl, c, expect):
    "min v <= out <= max v over the keys a row sees, for values between 1 and 2."
    c = c.replace(v=(1 + np.abs(c.v) / 8).astype(c.dtype))
    (v,) = f64(c, "v")
    keep = c.keep[..., None]
    v = v[..., None, :, :]
    out = impl(c).astype(np.float64)
    slack = output_bound(c)
    seeing = c.keep.any(-1)[..., None]
    low = np.where(seeing, np.min(np.where(keep, v, np.inf), -2, initial=np.inf), 0)
    high = np.where(seeing, np.max(np.where(keep, v, -np.inf), -2, initial=-np.inf), 0)
    expect.at_most(low - slack, out, "the least visible value")
    expect.at_most(out, high + slack, "the output")


@law(
    ID, "L6", given=qkv.where(mask_kind=choose("none", "padding")), kills=["ragged_tail_dropped"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def key_order_is_immaterial(impl, c, expect):
    "Reversing keys, values, mask and bias together leaves the output."
    back = {"k": c.k[..., ::-1, :].copy(), "v": c.v[..., ::-1, :].copy(), "keep": c.keep[..., ::-1]}
    if c.mask is not None:
        back["mask"] = c.mask[..., ::-1].copy()
    if c.bias is not None:
        back["bias"] = c.bias[..., ::-1].copy()
    expect(impl(c.replace(**back)), impl(c), 2 * output_bound(c), scale=value_size(c))


@law(
    ID, "L7",
    given=qkv.where(S=dims(1, 6, 140), T=dims(1, 6, 140), mask_kind=choose("full", "rows", "bottom_right")),
    kills=["mask_then_cap"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def masked_keys_are_invisible(impl, c, expect):
    """Another finite key, and a value of 2^60, at column j change nothing in the rows that do not see j.

    Not to the bit: a kernel may shift logits by a maximum that it guessed from keys it does not weigh. But a weight
    of e^-50 would show.
    """
    out, j = impl(c), c.S // 2
    k, v = c.k.copy(), c.v.copy()
    k[..., j, :] += 0.5
    v[..., j, :] = 2.0**60
    blind = ~c.keep[..., j]
    found = impl(c.replace(k=k, v=v))
    expect(found[blind], out[blind], 2 * output_bound(c), "rows that do not see the changed key", scale=value_size(c))


@law(
    ID, "L17", given=qkv.where(unseen_key=True), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def unseen_junk_is_invisible(impl, c, expect):
    "NaN, infinities or 1e30 in keys and values that no row sees change no bit of the output."
    expect.same(impl(with_junk(c)), impl(c))


@law(
    ID, "L8", closed_form=True, given=qkv.where(empty_row=True), kills=["empty_row_is_uniform", "empty_row_is_nan"],
    passes_null=["zeros"],
)  # fmt: skip
def a_row_without_keys_is_zero(impl, c, expect):
    "A row that sees no key gives exactly zeros."
    empty = ~c.keep.any(-1)
    expect.same(impl(c)[empty], np.zeros((int(empty.sum()), c.e)))


@law(
    ID, "L9", given=qkv.where(has_bias=False, some=True), kills=["bias_before_cap"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_shift_of_a_row_of_logits_is_invisible(impl, c, expect):
    "A bias that is constant along each row leaves the output, softcap or not."
    shift = np.arange(c.T)[:, None] * np.ones((1, c.S)) * 0.75 - 1.5
    shifted = c.replace(bias=shift.astype(c.dtype))
    expect(impl(shifted), impl(c), output_bound(c) + output_bound(shifted), scale=value_size(c))


@law(
    ID, "L10", given=qkv.where(mask_kind="bottom_right", has_bias=False, T=dims(1, 6, large=140)).reach("uneven"),
    kills=["causal_top_left"], passes_null=["zeros", "constant"],
)  # fmt: skip
def a_chunk_is_the_tail(impl, c, expect):
    "Causal, bottom right: attention of the last t queries is the last t rows of the full output."
    t = (c.T + 1) // 2
    tail = impl(c.replace(q=c.q[..., c.T - t :, :].copy(), T=t))
    expect(tail, impl(c)[..., c.T - t :, :], 2 * output_bound(c), scale=value_size(c))


@law(
    ID, "L11", closed_form=True, given=plain.where(d=1, T=1, softcap=None, S=dims(1, 6, large=140), B=()),
    kills=["no_max_subtraction"],
)  # fmt: skip
def large_logits_pick_the_largest(impl, c, expect):
    "Logits 0, 1e4, 2e4, ...: the output is the value of the last key, and so for negative ones."
    steps = (100.0 * np.arange(c.S)).reshape(c.S, 1)
    for sign in (1.0, -1.0):
        far = c.replace(
            q=np.full(c.q.shape, 100.0, c.dtype),
            k=np.broadcast_to(steps - (sign < 0) * steps[-1], c.k.shape).astype(c.dtype),
        )
        (v,) = f64(far, "v")
        expect(impl(far), v[..., -1:, :], bounds.rounding(c.S + 9, value_size(c), c.dtype))


@law(
    ID, "L19", given=qkv.where(some=True, T=dims(1, 6, 140), S=dims(1, 6, 140)).reach("grouped", "head_bias", "flat"),
    kills=["scale_of_zero_is_none", "bias_of_the_first_head", "bias_before_cap", "gqa_tile"],
)  # fmt: skip
def weights_are_the_softmax_of_the_logits(impl, c, expect):
    "All options together: out = softmax(S) V, S in the order scale, softcap, bias, mask, in plain float64."
    q, k, v = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v))
    bias = None if c.bias is None else np.asarray(c.bias, np.float64)
    p, _, _, vv = dense(q, k, v, mask=c.keep, bias=bias, softcap=c.softcap, scale=c.scale)
    expect(impl(c), p @ vv, output_bound(c), scale=value_size(c))


@law(
    ID, "L20", closed_form=True,
    given=qkv.where(d=1, T=dims(1, 3, 20), S=dims(2, 6, 140), mask_kind="padding", has_bias=False, softcap=None,
                    scale=1.0),
    kills=["filled_with_minus_1e4"],
)  # fmt: skip
def far_keys_outweigh_hidden_ones(impl, c, expect):
    "Visible keys at logits -1e5, -2e5, .. and hidden ones at 0: the output is the value of the first visible key."
    far, wanted = far_from_hidden(c)
    expect(impl(far), wanted, bounds.rounding(c.S + 9, value_size(c), c.dtype), scale=value_size(c))


@law(
    ID, "L12", closed_form=True, given=plain.where(softcap=none_or(50.0), T=dims(1, 4, 20), S=dims(1, 6, 140)),
    kills=["bias_scaled", "bias_ignored"],
)  # fmt: skip
def a_bias_is_a_log_weight(impl, c, expect):
    "Equal keys and bias_j = log w_j: out = sum w_j v_j / sum w_j."
    weights = 2.0 ** (np.arange(c.S) % 4)
    bias = np.log(weights)[None, :] * np.ones((c.T, 1))
    c = c.replace(bias=bias.astype(c.dtype), k=np.broadcast_to(c.k[..., :1, :], c.k.shape).copy())
    (v,) = f64(c, "v")
    mean = np.einsum("s,...se->...e", weights / weights.sum(), v)
    wanted = np.broadcast_to(mean[..., None, :], (*c.q.shape[:-1], c.e))
    rounded_bias = 4 * bounds.u(c.dtype) * value_size(c)
    expect(impl(c), wanted, output_bound(c) + rounded_bias, scale=value_size(c))


# Gradients -------------------------------------------------------------------------------------------


@law(
    ID, "L13", closed_form=True, needs=("vjp",), given=plain.where(S=2, e=1, T=1, R=1, softcap=none_or(1.0, 4.0)),
    kills=["cap_has_slope_one", "gradient_without_delta"],
)  # fmt: skip
def gradient_of_two_keys(impl, c, expect):
    """S = 2, v = (0, 1), g = 1: dv = (1 - p, p) and dq = p (1 - p) (c_1 k_1 - c_0 k_0) / sqrt(d), with the
    softcap's slope c_j = 1 - (s_j / cap)^2."""
    c = c.replace(v=np.broadcast_to(np.array([[0.0], [1.0]], c.dtype), c.v.shape).copy())
    q, k = f64(c, "q", "k")
    raw = (q @ np.swapaxes(k, -1, -2)) / math.sqrt(c.d)
    s = _two_logits(c)
    slope = np.ones_like(raw) if c.softcap is None else 1 - (s / c.softcap) ** 2
    p = 1 / (1 + np.exp(s[..., :1] - s[..., 1:]))
    toward = np.array([-1.0, 1.0]) * slope
    wanted_q = p * (1 - p) * (toward @ k) / math.sqrt(c.d)
    g = np.ones((*c.q.shape[:-1], 1))
    found, bound = impl.vjp(c, g), gradient_bounds(c, g)
    expect(found["v"], np.swapaxes(np.concatenate((1 - p, p), -1), -1, -2), *_with_scale(bound["v"], "dv"))
    expect(found["q"], wanted_q, *_with_scale(bound["q"], "dq"))


def _with_scale(bound_and_scale, what):
    bound, scale = bound_and_scale
    return bound, what, scale


@law(
    ID, "L14", needs=("vjp",), given=qkv.reach("grouped", "empty_row", "no_keys", "no_rows"),
    kills=["cap_has_slope_one", "gradient_without_delta", "last_head_of_a_group"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dV = P^T g, dS = P (g V^T - D) (1 - (s / cap)^2), dQ = scale dS K, dK = scale dS^T Q, summed over a group."
    g = np.cos(np.arange(c.q[..., 0].size * c.e)).reshape(*c.q.shape[:-1], c.e).astype(c.dtype)
    q, k, v, g64 = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v, g))
    bias = None if c.bias is None else np.asarray(c.bias, np.float64)
    wanted = dense_vjp(g64, q, k, v, mask=c.keep, bias=bias, softcap=c.softcap, scale=c.scale)
    found, bound = impl.vjp(c, g), gradient_bounds(c, g)
    for name, want in zip("qkv", wanted, strict=True):
        expect(found[name], want, *_with_scale(bound[name], f"d{name}"))


@law(
    ID, "L15", needs=("vjp",), given=qkv.where(unseen_key=True).reach("empty_row"),
    kills=["gradient_by_multiplying"], passes_null=["zeros"],
)  # fmt: skip
def invisible_junk_has_no_gradient(impl, c, expect):
    "NaN, inf or 1e30 in unseen keys and values changes no bit of any gradient; theirs, and dq of empty rows, are 0."
    g = np.ones((*c.q.shape[:-1], c.e))
    clean, junk = impl.vjp(c, g), impl.vjp(with_junk(c), g)
    for name in "qkv":
        expect.same(junk[name], clean[name], f"d{name}")
    grouped = c.keep.reshape(*c.B, c.G, c.R, c.T, c.S)
    unseen = ~grouped.any(axis=(-3, -2))
    expect.same(clean["k"][unseen], np.zeros((int(unseen.sum()), c.d)), "dk of unseen keys")
    empty = ~c.keep.any(-1)
    expect.same(clean["q"][empty], np.zeros((int(empty.sum()), c.d)), "dq of empty rows")


@law(
    ID, "L16", closed_form=True, needs=("vjp",), given=qkv.where(softcap=None), kills=["gradient_without_delta"],
    passes_null=["zeros"],
)  # fmt: skip
def key_gradients_cancel(impl, c, expect):
    "Without a softcap a shift of all keys is invisible (sum_j dS_ij = 0): dk sums to zero over the keys."
    g = np.ones((*c.q.shape[:-1], c.e)) * (1 + np.arange(c.e))
    found, bound = impl.vjp(c, g), gradient_bounds(c, g)
    total = np.sum(found["k"].astype(np.float64), axis=-2)
    limit, scale = bound["k"]
    expect(total, np.zeros_like(total), max(c.S, 1) * limit, "sum of dk", scale)


@law(
    ID, "L18", closed_form=True, needs=("vjp",), given=qkv.where(has_bias=True).reach("grouped", "empty_row"),
    kills=["bias_gradient_is_scaled", "bias_gradient_of_one_head"],
)  # fmt: skip
def gradient_of_a_bias(impl, c, expect):
    """dbias_ij = sum of p_ij (g_i . v_j - g_i . o_i) over the batches and heads that share the bias, whatever the
    softcap and the scale are."""
    g = np.cos(np.arange(c.q[..., 0].size * c.e)).reshape(*c.q.shape[:-1], c.e).astype(c.dtype)
    q, k, v, g64, bias = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v, g, c.bias))
    p, _, _, vv = dense(q, k, v, mask=c.keep, bias=bias, softcap=c.softcap, scale=c.scale)
    wanted = bias_gradient(g64, p, vv, bias.ndim)
    shared = p.shape[: p.ndim - bias.ndim]
    M, n = c.e * float(np.max(np.abs(g), initial=0.0)) * value_size(c), int(np.prod(shared, dtype=np.int64))
    # As `gradient_bounds` has dS, summed over n heads.
    one = bounds.SAFE * M * (4 * relative_weight_error(c) + (3 * c.e + 3 * c.S + c.d + 8 + n) * bounds.u(c.dtype))
    expect(impl.vjp(c, g)["bias"], wanted, n * one, "dbias", scale=2 * n * M)


def bias_gradient(g, p, v, axes):
    """Of a bias of so many axes, the last ones of the logits."""
    dp = g @ np.swapaxes(v, -1, -2)
    ds = p * (dp - np.sum(p * dp, -1, keepdims=True))
    return ds.sum(tuple(range(ds.ndim - axes)))


# Mutants: one plausible edit each --------------------------------------------------------------------


def edited(q, k, v, *, mask=None, bias=None, softcap=None, scale=None, **edit):
    """Dense attention whose steps an edit replaces: repeat, logits(s, ...), fill, weights(x, keep), out(p, v)."""
    T, S, H = q.shape[-2], k.shape[-2], q.shape[-3]
    repeat = edit.get("repeat", lambda x: np.repeat(x, H // x.shape[-3], axis=-3))
    k, v = repeat(k), repeat(v)
    keep = np.ones((T, S), bool) if mask is None else mask
    keep = keep.tile(np, np.arange(T), np.arange(S), T, S) if hasattr(keep, "tile") else keep
    s = q @ np.swapaxes(k, -1, -2)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    bias = np.zeros((1, 1), q.dtype) if bias is None else bias
    x = edit.get("logits", _logits)(s, scale, softcap, bias, keep)
    p = edit.get("weights", _weights)(x, keep)
    return edit.get("out", _out)(p, v, keep).astype(q.dtype)


def _cap(s, softcap):
    return s if softcap is None else softcap * np.tanh(s / softcap)


def _logits(s, scale, softcap, bias, keep):
    return np.where(keep, _cap(s * scale, softcap) + bias, -np.inf)


def _weights(x, keep):
    m = np.max(x, -1, keepdims=True, initial=-np.inf)
    p = np.exp(x - np.where(np.isinf(m), 0, m))
    total = p.sum(-1, keepdims=True)
    return p / np.where(total == 0, 1, total)


def _out(p, v, keep):
    return p @ np.where(keep.any(-2)[..., None], v, 0)


@mutant(ID, thread="onnx#7865", default_case=square(4))
def mask_then_cap(q, k, v, **options):
    "The mask before the softcap: a dropped key keeps e^{-cap}."
    return edited(
        q, k, v, **options, out=lambda p, v, keep: p @ v,
        logits=lambda s, a, cap, b, keep: _cap(np.where(keep, s * a + b, -np.inf), cap),
    )  # fmt: skip


@mutant(ID, thread="onnx PR#7274, jax-js#180", default_case=square(4))
def gqa_tile(q, k, v, **options):
    "tile instead of repeat: head h reads key head h mod G."
    return edited(q, k, v, **options, repeat=lambda x: np.concatenate([x] * (q.shape[-3] // x.shape[-3]), -3))


@mutant(ID, thread="flash-attention#282, cutlass#2336", default_case=square(4, mask=causal()))
def causal_top_left(q, k, v, *, mask=None, **options):
    "A bottom-right causal mask aligned top left."
    return sdpa(q, k, v, mask=causal("top_left") if mask == causal() else mask, **options)


@mutant(ID, thread="pytorch#41508", default_case=square(4))
def empty_row_is_uniform(q, k, v, **options):
    "The lowest finite number instead of -inf: a row without keys averages all values."
    low = np.finfo(q.dtype).min
    return edited(
        q, k, v, **options, logits=lambda s, a, cap, b, keep: np.where(keep, _cap(s * a, cap) + b, low),
        out=lambda p, v, keep: p @ v,
    )  # fmt: skip


@mutant(ID, thread="mlx#2608, pytorch#103963", default_case=square(4, mask=causal()))
def empty_row_is_nan(q, k, v, **options):
    "A plain softmax: (-inf) - (-inf)."
    def weights(x, keep):
        p = np.exp(x - np.max(x, -1, keepdims=True, initial=-np.inf))
        return p / p.sum(-1, keepdims=True)

    return edited(q, k, v, **options, weights=weights)


@mutant(ID, default_case=square(4))
def scale_from_value_width(q, k, v, *, scale=None, **options):
    "1 / sqrt(e) instead of 1 / sqrt(d)."
    return edited(q, k, v, scale=1 / math.sqrt(v.shape[-1]) if scale is None else scale, **options)


@mutant(ID, default_case=square(4))
def bias_before_cap(q, k, v, **options):
    "The bias inside the softcap."
    return edited(
        q, k, v, **options, logits=lambda s, a, cap, b, keep: np.where(keep, _cap(s * a + b, cap), -np.inf)
    )


@mutant(ID, default_case=square(4))
def bias_scaled(q, k, v, **options):
    "The bias added before the scale."
    return edited(
        q, k, v, **options, logits=lambda s, a, cap, b, keep: np.where(keep, _cap((s + b) * a, cap), -np.inf)
    )


@mutant(ID, default_case=square(4))
def bias_ignored(q, k, v, *, bias=None, **options):
    "The bias is accepted and dropped."
    return edited(q, k, v, **options)


@mutant(ID, default_case=square(4, mask=causal()))
def filled_with_minus_1e4(q, k, v, **options):
    "Dropped logits are -1e4, as half precision needs: above visible ones that lie lower."
    def logits(s, a, cap, b, keep):
        return np.where(keep, _cap(s * a, cap) + b, np.where(keep.any(-1, keepdims=True), s.dtype.type(-1e4), -np.inf))

    return edited(q, k, v, **options, logits=logits)


@mutant(ID, default_case=square(4))
def scale_of_zero_is_none(q, k, v, *, scale=None, **options):
    "`scale or 1 / sqrt(d)`: 0 is taken for not given."
    return edited(q, k, v, scale=scale or None, **options)


@mutant(ID, default_case=square(4))
def bias_of_the_first_head(q, k, v, *, bias=None, **options):
    "A bias by heads (ALiBi) is cut down to [T S]."
    bias = bias if bias is None or bias.ndim == 2 or not bias.size else bias.reshape(-1, *bias.shape[-2:])[0]
    return edited(q, k, v, bias=bias, **options)


@mutant(ID, default_case=square(4))
def no_max_subtraction(q, k, v, **options):
    "exp without the row maximum: overflows at large logits."
    def weights(x, keep):
        p = np.exp(x)
        total = p.sum(-1, keepdims=True)
        return p / np.where(total == 0, 1, total)

    return edited(q, k, v, **options, weights=weights)


@mutant(ID, default_case=square(4))
def masked_by_multiplying(q, k, v, **options):
    "Dropped weights are zero, and zero times NaN is NaN."
    return edited(q, k, v, **options, out=lambda p, v, keep: p @ v)


@mutant(ID, default_case=square(4))
def masked_without_renormalising(q, k, v, **options):
    "Softmax over all keys, then the mask: rows sum to less than one."
    def logits(s, a, cap, b, keep):
        return _cap(s * a, cap) + b

    return edited(q, k, v, **options, logits=logits, weights=lambda x, keep: np.where(keep, _weights(x, keep), 0))


@mutant(ID, default_case=square(4))
def ragged_tail_dropped(q, k, v, *, mask=None, bias=None, **options):
    "Keys in blocks of two, the last odd one forgotten."
    n = k.shape[-2] - k.shape[-2] % 2
    if mask is not None and not hasattr(mask, "tile"):
        mask = mask[..., :n]
    bias = None if bias is None else bias[..., :n]
    return edited(q, k[..., :n, :], v[..., :n, :], mask=mask, bias=bias, **options)


@mutant(ID, default_case=square(4))
def eps_in_the_denominator(q, k, v, **options):
    "p / (sum + 1e-6): invisible at a tolerance of 1e-5."
    def weights(x, keep):
        m = np.max(x, -1, keepdims=True, initial=-np.inf)
        p = np.exp(x - np.where(np.isinf(m), 0, m))
        return p / (p.sum(-1, keepdims=True) + 1e-6)

    return edited(q, k, v, **options, weights=weights)


def _vjp_mutant(name, doc, vjp):
    def function(q, k, v, **options):
        return sdpa(q, k, v, **options)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=square(4))(function)


def _without_slope(g, q, k, v, *, softcap=None, **options):
    p, _, kk, vv = dense(q, k, v, softcap=softcap, **options)
    return _from_weights(g, q, k, p, kk, vv, options.get("scale"), delta=True)


def _without_delta(g, q, k, v, **options):
    p, _, kk, vv = dense(q, k, v, **options)
    return _from_weights(g, q, k, p, kk, vv, options.get("scale"), delta=False)


def _from_weights(g, q, k, p, kk, vv, scale, *, delta):
    dp = g @ np.swapaxes(vv, -1, -2)
    ds = p * (dp - np.sum(p * dp, -1, keepdims=True) if delta else dp)
    ds = ds * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    dk, dv = np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ g
    return ds @ kk, sum_groups(dk, k.shape[-3]), sum_groups(dv, k.shape[-3])


def _last_head(g, q, k, v, **options):
    R = q.shape[-3] // k.shape[-3]
    repeated = [np.repeat(x, R, axis=-3) for x in (k, v)]
    dq, dk, dv = dense_vjp(g, q, *repeated, **options)
    return dq, dk[..., R - 1 :: R, :, :].copy(), dv[..., R - 1 :: R, :, :].copy()


def _by_multiplying(g, q, k, v, **options):
    return dense_vjp(g, q, k, v, **options)


def _bias_mutant(name, doc, change):
    def vjp(g, q, k, v, *, bias=None, **options):
        p, _, _, vv = dense(q, k, v, bias=bias, **options)
        found = dense_vjp(g, q, k, v, bias=bias, **options)
        return found if bias is None else (*found, change(g, p, vv, q.shape[-1], bias.ndim).astype(q.dtype))

    _vjp_mutant(name, doc, vjp)


_bias_mutant("bias_gradient_is_scaled", "dbias takes the scale that dq takes.",
             lambda g, p, v, d, axes: bias_gradient(g, p, v, axes) / math.sqrt(2 * d))  # fmt: skip
_bias_mutant("bias_gradient_of_one_head", "dbias of the first head, not the sum, where the heads share the bias.",
             lambda g, p, v, d, axes: bias_gradient(
                 *(x[..., : 1 if axes == 2 else None, :, :] for x in (g, p, v)), axes))  # fmt: skip
_vjp_mutant("cap_has_slope_one", "The backward forgets 1 - (s / cap)^2.", _without_slope)
_vjp_mutant("gradient_without_delta", "dS = P dP: the row sum D is not subtracted.", _without_delta)
_vjp_mutant("last_head_of_a_group", "dk and dv of a group's last head, not the sum.", _last_head)
_vjp_mutant("gradient_by_multiplying", "Junk in unseen slots times zero is NaN.", _by_multiplying)
