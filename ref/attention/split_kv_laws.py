"""Laws and mutants of split-KV decoding."""

from __future__ import annotations

import math

import numpy as np

from ref.attention.common_laws import (
    attention_space,
    dense,
    dense_lse,
    dense_vjp,
    f64,
    gradient_bounds,
    logit_error,
    output_bound,
    scale_of,
    square,
    value_size,
    with_junk,
)
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, choose, dims

ID = "attention.split_kv"
space = attention_space(ID, splits=choose(2, 1, 5), T=dims(0, 2, large=9))
space.flags.update(
    cut_rule=Flag(lambda c: hasattr(c.mask, "tile") and 1 < c.splits <= c.S and min(c.T, *c.B, 1) > 0,
                  {"mask_kind": choose("window", "top_left"), "splits": 2, "S": dims(3, 6), "T": dims(1, 2), "B": ()}),
)  # fmt: skip
plain = space.where(mask_kind="none", has_bias=False, softcap=None)


def expect_both(expect, c, found, wanted, factor=1):
    """Plain attention's bounds; a part adds an exponential, two products and a sum to numerator and denominator."""
    steps = bounds.rounding(24 * c.splits, 1.0, c.dtype)
    expect(found[0], wanted[0], factor * (output_bound(c) * 2 + steps * value_size(c)), "o", scale=value_size(c))
    size = 1 + np.abs(np.nan_to_num(wanted[1], neginf=0))
    limit = 2 * logit_error(c) + bounds.rounding(c.S + 24 + 12 * c.splits, size, c.dtype)
    expect(found[1], wanted[1], factor * limit, "lse", scale=size)


def options_of(c):
    bias = None if c.bias is None else np.asarray(c.bias, np.float64)
    return {"mask": c.keep, "bias": bias, "softcap": c.softcap, "scale": c.scale}


@law(
    ID, "L1", closed_form=True, given=plain.where(S=dims(1, 5), d=1).reach("grouped"),
    kills=["plain_average", "weights_of_the_lengths"],
)  # fmt: skip
def a_part_for_each_key(impl, c, expect):
    "Logits s_j = log w_j, as many parts as keys: o = sum w_j v_j / sum w_j, lse = log sum w_j."
    w = 2.0 ** (np.arange(c.S) * 3 % 4)
    k = np.broadcast_to(np.log(w)[:, None], c.k.shape).astype(c.dtype)
    c = c.replace(q=np.ones_like(c.q), k=k, splits=c.S, scale=1.0)
    (v,) = f64(c, "v")
    mean = np.einsum("s,...se->...e", w / w.sum(), v)[..., None, :]
    wanted = np.broadcast_to(mean, (*c.q.shape[:-1], c.e)), np.full(c.q.shape[:-1], math.log(w.sum()))
    expect_both(expect, c, impl(c), wanted, factor=2)


@law(
    ID, "L2", closed_form=True, given=plain.where(S=2, e=1, splits=2), kills=["plain_average", "lse_in_base_two"],
)  # fmt: skip
def two_parts_are_a_logistic(impl, c, expect):
    "One key a part, v = (0, 1): o = sigma(s_1 - s_0), lse = s_0 + log(1 + e^{s_1 - s_0})."
    c = c.replace(v=np.broadcast_to(np.array([[0.0], [1.0]], c.dtype), c.v.shape).copy())
    q, k = f64(c, "q", "k")
    s = (q @ np.swapaxes(k, -1, -2)) * scale_of(c)
    gap = s[..., 1] - s[..., 0]
    expect_both(expect, c, impl(c), (1 / (1 + np.exp(-gap))[..., None], s[..., 0] + np.log1p(np.exp(gap))))


@law(
    ID, "L3", closed_form=True, given=space.reach("empty_row", "no_keys", "cut_rule"),
    kills=["plain_average", "last_part_dropped", "lse_in_base_two", "empty_part_is_nan", "weights_of_the_lengths",
           "rule_of_each_part"],
)  # fmt: skip
def parts_are_immaterial(impl, c, expect):
    "Any number of parts, more than keys too: softmax(S) V and logsumexp S of all keys."
    q, k, v = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v))
    p, _, _, vv = dense(q, k, v, **options_of(c))
    expect_both(expect, c, impl(c), (p @ vv, dense_lse(q, k, v, **options_of(c))))


@law(
    ID, "L4", given=space.where(unseen_key=True), kills=["junk_of_a_part"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def unseen_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in keys and values that no row sees, a whole part of them too, change no bit."
    for one, other, name in zip(impl(with_junk(c)), impl(c), ("o", "lse"), strict=True):
        expect.same(one, other, name)


@law(
    ID, "L5", closed_form=True, needs=("vjp",), given=space.where(T=dims(1, 2)).reach("grouped"),
    kills=["parts_have_fixed_weights"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dq, dk, dv of plain attention and its log-sum-exp: the merge's weights have their share."
    g = np.cos(np.arange(c.q[..., 0].size * c.e)).reshape(*c.q.shape[:-1], c.e)
    g = g.astype(c.dtype), np.sin(1.0 + np.arange(c.q[..., 0].size)).reshape(c.q.shape[:-1]).astype(c.dtype)
    q, k, v, g_o, g_l = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v, *g))
    wanted = dense_vjp(g_o, q, k, v, g_lse=g_l, **options_of(c))
    found = impl.vjp(c, g)
    limits = gradient_bounds(c, *g, weight_error=2 * logit_error(c) + bounds.rounding(24 * c.splits, 1.0, c.dtype))
    for name, want in zip("qkv", wanted, strict=True):
        bound, scale = limits[name]
        expect(found[name], want, 2 * bound, f"d{name}", scale)


# Mutants ---------------------------------------------------------------------------------------------


def edited(q, k, v, *, splits, mask=None, bias=None, softcap=None, scale=None, weight=None, cut=None,
           tile=None, clean=True):  # fmt: skip
    T, S = q.shape[-2], k.shape[-2]
    keep = np.ones((T, S), bool) if mask is None else mask
    keep = keep.tile(np, np.arange(T), np.arange(S), T, S) if hasattr(keep, "tile") else keep
    parts = []
    for p in range(splits):
        cols = cut(p, S, splits) if cut else slice(p * S // splits, (p + 1) * S // splits)
        own = keep[..., cols] if keep.shape[-1] == S else keep
        own = own if tile is None else tile(mask, own, T)
        kk, vv = k[..., cols, :], v[..., cols, :]
        if clean:
            kk, vv = (np.where(np.abs(x) < 1e20, x, 0) for x in (kk, vv))
        own_bias = None if bias is None else bias[..., cols]
        options = {"mask": own, "bias": own_bias, "softcap": softcap, "scale": scale}
        weights, _, _, vv = dense(q, kk, vv, **options)
        parts.append((weights @ vv, dense_lse(q, kk, vv, **options), kk.shape[-2]))
    o, lse = (weight or _weights)(parts)
    return o.astype(q.dtype), lse.astype(q.dtype)


def _weights(parts, power=np.exp):
    lse = np.logaddexp.reduce([s for _, s, _ in parts], 0)
    base = np.where(np.isinf(lse), 0, lse)
    return sum(power(s - base)[..., None] * o for o, s, _ in parts), lse


def _average(parts):
    return sum(o for o, _, _ in parts) / len(parts), _weights(parts)[1]


def _by_length(parts):
    total = max(sum(n for *_, n in parts), 1)
    return sum(o * n for o, _, n in parts) / total, _weights(parts)[1]


def _unguarded(parts):
    lse = np.logaddexp.reduce([s for _, s, _ in parts], 0)
    return sum(np.exp(s - lse)[..., None] * o for o, s, _ in parts), lse


def _mutant(name, doc, thread=None, case=None, **edit):
    def function(*args, **options):
        return edited(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=case or square(4, splits=1))(function)


_mutant("plain_average", "The mean of the parts.", weight=_average)
_mutant("weights_of_the_lengths", "Parts weighted by how many keys they have.", weight=_by_length)
_mutant("lse_in_base_two", "2^{L_p - L} with natural L.", weight=lambda parts: _weights(parts, np.exp2))
_mutant("empty_part_is_nan", "(-inf) - (-inf) in rows that see no key.", thread="pytorch#103963", weight=_unguarded)
_mutant("last_part_dropped", "Parts of floor(S / P) keys: what is left over is forgotten.",
        cut=lambda p, S, P: slice(p * (S // P), (p + 1) * (S // P)))  # fmt: skip
_mutant("rule_of_each_part", "A rule asked anew with the part's own S.",
        tile=lambda mask, own, T: own if not hasattr(mask, "tile") else mask.tile(
            np, np.arange(T), np.arange(own.shape[-1]), T, own.shape[-1]))  # fmt: skip
_mutant("junk_of_a_part", "Parts weighted by zero, and zero times NaN is NaN.", clean=False)


def _fixed(g, q, k, v, *, splits, mask=None, bias=None, **options):
    """Each part's own closed form, its cotangent scaled by its weight."""
    T, S = q.shape[-2], k.shape[-2]
    keep = np.ones((T, S), bool) if mask is None else mask
    keep = keep.tile(np, np.arange(T), np.arange(S), T, S) if hasattr(keep, "tile") else keep
    keep, bias = np.broadcast_to(keep, (*keep.shape[:-1], S)), np.zeros((1, S)) if bias is None else bias
    lse = dense_lse(q, k, v, mask=keep, bias=bias, **options)
    out = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    for p in range(splits):
        cols = slice(p * S // splits, (p + 1) * S // splits)
        part = {"mask": keep[..., cols], "bias": bias[..., cols], **options}
        share = np.exp(dense_lse(q, k[..., cols, :], v[..., cols, :], **part) - np.where(np.isinf(lse), 0, lse))
        found = dense_vjp(g[0] * share[..., None], q, k[..., cols, :], v[..., cols, :], g_lse=g[1] * share, **part)
        out[0][...] += found[0]
        out[1][..., cols, :], out[2][..., cols, :] = found[1:]
    return tuple(x.astype(q.dtype) for x in out)


@mutant(ID, vjp=_fixed, default_case=square(4, splits=1))
def parts_have_fixed_weights(*args, **options):
    "The weights e^{L_p - L} taken as constants."
    return edited(*args, **options)
