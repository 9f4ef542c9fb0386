"""The input space, oracles and bounds that the laws of attention share."""

from __future__ import annotations

import math

import numpy as np

from ref.attention.rules import causal, window
from ref.spec import bounds
from ref.spec.cases import Flag, batch, cases, choose, dims, draw_bools, none_or, rng

MASKS = ("none", "full", "rows", "padding", "bottom_right", "top_left", "window")


def keep_matrix(kind, T, S):
    """The rules of `ref.attention.rules`, said again in plain loops: the laws lean on no code of ours."""
    shift = S - T
    sees = {
        "bottom_right": lambda i, j: j <= i + shift,
        "top_left": lambda i, j: j <= i,
        "window": lambda i, j: i + shift - 1 <= j <= i + shift,
    }[kind]
    return np.array([[sees(i, j) for j in range(S)] for i in range(T)], bool).reshape(T, S)


def _keep(draw, c):
    T, S, kind = c.T, c.S, c.mask_kind
    shapes = {"full": (*c.B, c.H, T, S), "rows": (T, S), "padding": (*c.B, 1, 1, S)}
    if kind == "none":
        return np.ones((*c.B, c.H, T, S), bool)
    if kind in shapes:
        return np.broadcast_to(draw_bools(draw, shapes[kind]), (*c.B, c.H, T, S))
    return np.broadcast_to(keep_matrix(kind, T, S), (*c.B, c.H, T, S))


def sparse_keep(draw, c):
    """A `keep` with a row that sees nothing and a key that nobody sees, where the kind of mask allows it."""
    keep = _keep(draw, c).copy()
    if c.mask_kind in ("full", "rows") and c.T:
        keep[..., int(rng(draw).integers(c.T)), :] = False
    if c.mask_kind in ("full", "rows", "padding") and c.S:
        keep[..., int(rng(draw).integers(c.S))] = False
    return keep


def _mask(draw, c):
    rules = {"bottom_right": causal(), "top_left": causal("top_left"), "window": window(1, 0), "none": None}
    if c.mask_kind in rules:
        return rules[c.mask_kind]
    if c.mask_kind == "rows":
        return c.keep.reshape(-1, c.T, c.S)[0] if c.keep.size else np.ones((c.T, c.S), bool)
    return c.keep[..., :1, :1, :] if c.mask_kind == "padding" else c.keep.copy()


def _bias(draw, c):
    if not c.has_bias:
        return None
    shape = draw(choose((c.T, c.S), (c.H, c.T, c.S), (*c.B, c.H, c.T, c.S)))
    return rng(draw).integers(-8, 9, shape) / 4.0


def _head_bias(draw, c):
    return rng(draw).integers(-8, 9, (c.H, c.T, c.S)) / 4.0


def attention_space(id, **fields):
    """The inputs of an attention function `id`: grouped heads, ragged sizes, masks of every kind."""
    return cases(id, **{**FIELDS, **fields}, flags=FLAGS, unset=UNSET)


FIELDS = dict(
    B=batch(2, 2),
    G=dims(1, 2, large=3),
    R=dims(1, 3),
    H=lambda draw, c: c.G * c.R,
    T=dims(0, 6, large=140),
    S=dims(0, 6, large=140),
    d=dims(1, 5, large=160),
    e=dims(1, 4, large=160),
    mask_kind=choose(*MASKS),
    keep=_keep,
    mask=_mask,
    has_bias=choose(False, True),
    bias=_bias,
    softcap=none_or(1.0, 50.0),
    scale=none_or(0.25, 2.0, 0.0),
)
UNSET = {"mask": {"mask_kind": "none", "mask": None}, "bias": {"has_bias": False, "bias": None}}
FLAGS = {
    "no_keys": Flag(lambda c: c.S == 0, {"S": 0}),
    "no_rows": Flag(lambda c: c.T == 0, {"T": 0}),
    "some": Flag(lambda c: min(c.T, c.S, *c.B, 1) > 0),
    "empty_row": Flag(lambda c: c.T > 0 and not c.keep.any(-1).all()),
    "unseen_key": Flag(
        lambda c: c.S > 0 and not c.keep.any(-2).all(), {"mask_kind": choose("padding", "full")}
    ),
    "grouped": Flag(lambda c: c.G > 1 and c.R > 1, {"G": 2, "R": 2}),
    "head_bias": Flag(
        lambda c: c.bias is not None and c.bias.ndim > 2 and c.H > 1, {"has_bias": True, "R": 2, "bias": _head_bias}
    ),
    "flat": Flag(lambda c: c.scale == 0, {"scale": 0.0}),
    "uneven": Flag(lambda c: c.T != c.S),
    "wide_values": Flag(lambda c: c.e != c.d),
}


# Oracles and bounds ----------------------------------------------------------------------------------


def f64(c, *names):
    """Arrays of the case in float64, key-side ones repeated to query heads."""
    H = c.q.shape[-3]
    out = [np.asarray(c[n], np.float64) for n in names]
    return [x if n == "q" else np.repeat(x, H // x.shape[-3], axis=-3) for n, x in zip(names, out, strict=True)]


def scale_of(c):
    return 1 / math.sqrt(c.q.shape[-1]) if c.scale is None else c.scale


def logit_error(c):
    """A logit is a dot product of d terms, a scaling, a tanh and a sum: their roundings, added up.

    tanh(s / cap) cap has slope at most 1, so the softcap does not enlarge what came before.
    """
    if not (c.q.size and c.k.size):
        return 0.0
    q, k = (np.nan_to_num(x, posinf=0, neginf=0) for x in f64(c, "q", "k"))
    size = scale_of(c) * np.max(np.abs(q) @ np.abs(np.swapaxes(k, -1, -2)))
    error = bounds.rounding(c.q.shape[-1] + 2, size, c.dtype)
    if c.softcap is not None:
        size = min(size, c.softcap)
        error = error + bounds.elementary(size, c.dtype, calls=2)
    if c.bias is not None:
        size = size + np.max(np.abs(c.bias), initial=0.0)
    return error + bounds.rounding(1, size, c.dtype)


def value_size(c):
    v = np.abs(np.nan_to_num(np.asarray(c.v, np.float64), posinf=0, neginf=0))
    return float(np.max(v, initial=0.0))


def output_bound(c):
    return bounds.softmax_average(logit_error(c), c.k.shape[-2], value_size(c), c.dtype)


def relative_weight_error(c):
    """Relative error of one softmax weight (`bounds.softmax_average` derives it)."""
    n = max(c.k.shape[-2], 1)
    error = 2 * logit_error(c) + (np.log(n) + 8 + n) * bounds.u(c.dtype)
    if c.softcap is not None:  # the slope 1 - (s / cap)^2 is off by 2 dl / cap and a few roundings
        error = error + 2 * logit_error(c) / c.softcap + 16 * bounds.u(c.dtype)
    return error


def gradient_bounds(c, g, g_lse=None, weight_error=0.0):
    """{name: (bound, scale)} of the cotangents of q, k, v under `g`.

    |dP| <= M = e max|g| max|v| and |D| <= M, each with e + S roundings; dS = P (dP - D) carries the weight's
    relative error r on 2 M and theirs; a sum of p over keys is 1, over the T R rows of a group at most T R.
    The scale is the same product without its rounding errors. A cotangent of the log-sum-exp adds max |g_lse|
    to M, with one rounding; `weight_error` is what the weights are off besides.
    """
    u, n = bounds.u(c.dtype), c.k.shape[-2]
    rows = c.q.shape[-2] * (c.q.shape[-3] // max(c.k.shape[-3], 1))
    r, gmax = relative_weight_error(c) + weight_error, float(np.max(np.abs(g), initial=0.0))
    M = c.v.shape[-1] * gmax * value_size(c) + (0.0 if g_lse is None else float(np.max(np.abs(g_lse), initial=0.0)))
    ds = bounds.SAFE * M * (4 * r + (3 * c.v.shape[-1] + 3 * n + c.q.shape[-1] + 8) * u)
    size = {x: float(np.max(np.abs(np.nan_to_num(c[x])), initial=0.0)) for x in ("q", "k")}
    a = scale_of(c)
    return {
        "q": (a * ds * size["k"], 2 * a * M * size["k"]),
        "k": (a * (ds + 4 * rows * u * M) * size["q"] * rows, 2 * a * M * size["q"] * rows),
        "v": (bounds.SAFE * rows * gmax * (r + rows * u), rows * gmax),
    }


def dense(q, k, v, *, mask=None, bias=None, softcap=None, scale=None):
    """(weights, logits after the softcap, repeated k, repeated v) in plain NumPy, one line a convention."""
    x, s, k, v = _dense_logits(q, k, v, mask, bias, softcap, scale)
    m = np.max(x, -1, keepdims=True, initial=-np.inf)
    p = np.exp(x - np.where(np.isinf(m), 0, m))
    total = p.sum(-1, keepdims=True)
    return p / np.where(total == 0, 1, total), s, k, v


def dense_lse(q, k, v, *, mask=None, bias=None, softcap=None, scale=None):
    """The log-sum-exp of each row of logits, by pairs; -inf for a row that sees no key."""
    return np.logaddexp.reduce(_dense_logits(q, k, v, mask, bias, softcap, scale)[0], -1, initial=-np.inf)


def _dense_logits(q, k, v, mask, bias, softcap, scale):
    T, S, H = q.shape[-2], k.shape[-2], q.shape[-3]
    k, v = (np.repeat(x, H // x.shape[-3], axis=-3) for x in (k, v))
    keep = np.ones((T, S), bool) if mask is None else mask
    keep = keep.tile(np, np.arange(T), np.arange(S), T, S) if hasattr(keep, "tile") else keep
    s = q @ np.swapaxes(k, -1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    s = s if softcap is None else softcap * np.tanh(s / softcap)
    return np.where(keep, s if bias is None else s + bias, -np.inf), s, k, v


def dense_vjp(g, q, k, v, *, g_lse=None, mask=None, bias=None, softcap=None, scale=None):
    """The gradients by their closed form: dV = P^T g, dS = P (g V^T - D), D = rowsum(P (g V^T)).

    With a softcap dS takes the factor 1 - (s / cap)^2; dQ = scale dS K, dK = scale dS^T Q, and the key
    side sums over the query heads of a group. A cotangent of the log-sum-exp adds P g_lse to dS.
    """
    p, s, kk, vv = dense(q, k, v, mask=mask, bias=bias, softcap=softcap, scale=scale)
    dp = g @ np.swapaxes(vv, -1, -2)
    ds = p * (dp - np.sum(p * dp, -1, keepdims=True) + (0 if g_lse is None else g_lse[..., None]))
    if softcap is not None:
        ds = ds * (1 - (s / softcap) ** 2)
    ds = ds * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    dk, dv = np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ g
    return ds @ kk, sum_groups(dk, k.shape[-3]), sum_groups(dv, k.shape[-3])


def sum_groups(x, G):
    """x[*B H S d] -> [*B G S d], summed over the query heads of each group."""
    return x.reshape(*x.shape[:-3], G, x.shape[-3] // max(G, 1), *x.shape[-2:]).sum(-3)


def with_junk(c):
    """The case with NaN, inf and 1e30 in the keys and values that no row sees."""
    unseen = unseen_keys(c)[..., None]
    junk = np.array([np.nan, np.inf, -np.inf, 1e30])[np.arange(c.S) % 4][:, None].astype(c.dtype)
    return c.replace(k=np.where(unseen, junk, c.k), v=np.where(unseen, junk, c.v))


def unseen_keys(c):
    """bool[*B G S]: the keys that no row of their group sees."""
    return ~c.keep.reshape(*c.B, c.G, c.R, c.T, c.S).any(axis=(-3, -2))


def far_from_hidden(c):
    """(case, wanted output) of visible keys at logits -1e5, -2e5 .. -1e5 S and hidden ones at 0: d = 1, scale 1."""
    steps = -(1e3 * (1 + np.arange(c.S))).reshape(c.S, 1)
    seen = c.keep[..., 0, 0, :].reshape(*c.B, 1, c.S, 1)
    k = np.broadcast_to(np.where(seen, steps, 0.0), c.k.shape).astype(c.dtype)
    far = c.replace(q=np.full(c.q.shape, 100.0, c.dtype), k=k)
    first = np.argmax(seen, -2)[..., None, :]
    (v,) = f64(c, "v")
    wanted = np.take_along_axis(v, np.broadcast_to(first, (*v.shape[:-2], 1, c.e)), -2)
    wanted = np.where(seen.any(-2, keepdims=True), wanted, 0.0)
    return far, np.broadcast_to(wanted, (*c.q.shape[:-1], c.e))


def square(n, heads=2, **options):
    """The default-size test: two heads, n queries, keys and channels, nothing special."""

    def make():
        g = np.random.default_rng(0)
        q, k, v = (g.standard_normal((heads, n, n)) for _ in range(3))
        return (q, k, v), options

    return make


# Softmax over one axis: what `safe_softmax` and `online_softmax` both obey ---------------------------


def softmax_space(id):
    """Rows of n logits."""
    return cases(
        id, values=("dyadic", "normal", "extreme"), B=batch(2, 3, large=80), n=dims(0, 6, large=300),
        keep=lambda draw, c: draw_bools(draw, (c.n,)),
        flags={
            "empty": Flag(lambda c: c.n == 0 or 0 in c.B, {"n": choose(0, 1)}),
            "rows": Flag(lambda c: len(c.B) > 0 and np.prod(c.B) > 1, {"B": choose((2,), (3, 2))}),
        },
    )  # fmt: skip


def softmax_of(x):
    """Softmax in float64; zeros where all is -inf."""
    x = np.asarray(x, np.float64)
    m = np.max(x, -1, keepdims=True, initial=-np.inf)
    e = np.exp(x - np.where(np.isinf(m), 0, m))
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def softmax_error(c):
    """Absolute error of a weight: `bounds.softmax_average` with v = 1 and exact logits.

    An online sum meets a product and an exponential more in each of its n steps.
    """
    steps = 9 * c.x.shape[-1] if c.spec.id == "attention.online_softmax" else 0
    return bounds.softmax_average(0.0, c.x.shape[-1], 1.0, c.dtype) + bounds.rounding(2 * steps, 1.0, c.dtype)


def fractions(impl, c, expect):
    w = 2.0 ** (np.arange(c.n) * 3 % 5)
    x = np.broadcast_to(np.log(w), c.x.shape).astype(c.dtype)
    rounded = bounds.rounding(2, np.log(16), c.dtype)
    wanted = np.broadcast_to(w / max(w.sum(), 1), c.x.shape)
    expect(impl(c.replace(x=x)), wanted, softmax_error(c) + rounded)


def logistic(impl, c, expect):
    x = np.asarray(c.x, np.float64)
    p = 1 / (1 + np.exp(np.clip(x[..., 0] - x[..., 1], -700, 700)))
    expect(impl(c), np.stack((1 - p, p), -1), softmax_error(c))


def total_is_one(impl, c, expect):
    y = impl(c).astype(np.float64)
    expect.at_most(-y, 0.0, "minus a weight")
    expect(y.sum(-1), np.ones(y.shape[:-1]), c.n * softmax_error(c), "the sum of a row")


def shift_invariance(impl, c, expect):
    far = 8192.0 * (np.arange(int(np.prod(c.B, dtype=np.int64))).reshape(*c.B, 1) % 3 - 1)
    for shift in (far, -8192.0 + 0 * far):
        shifted = (c.x + shift).astype(c.dtype)
        back = (shifted - shift).astype(c.dtype)  # exactly: what the shift has rounded off belongs to neither
        expect(impl(c.replace(x=shifted)), impl(c.replace(x=back)), 2 * softmax_error(c), scale=1.0)


def largest_wins(impl, c, expect):
    steps = 1e4 * (np.arange(c.n) - (c.n // 2))
    for sign in (1.0, -1.0):
        x = np.broadcast_to(sign * steps, c.x.shape).astype(c.dtype)
        wanted = np.zeros(c.x.shape)
        wanted[..., -1 if sign > 0 else 0] = 1
        expect(impl(c.replace(x=x)), wanted, softmax_error(c))


def absence(impl, c, expect):
    y = impl(c.replace(x=np.where(c.keep, c.x, -np.inf).astype(c.dtype)))
    expect.same(y[..., ~c.keep], np.zeros(y[..., ~c.keep].shape), "weights at -inf")
    deleted = c.replace(x=c.x[..., c.keep].copy(), n=int(c.keep.sum()))
    expect(y[..., c.keep], impl(deleted), 2 * softmax_error(c), scale=1.0)


def nothing_is_zero(impl, c, expect):
    gone = np.arange(int(np.prod(c.B, dtype=np.int64))).reshape(c.B) % 2 == 0
    y = impl(c.replace(x=np.where(gone[..., None], -np.inf, c.x).astype(c.dtype)))
    expect.same(y[gone], np.zeros((int(gone.sum()), c.n)))
    expect(y[~gone], softmax_of(c.x)[~gone], softmax_error(c), scale=1.0)


def softmax_gradient(impl, c, expect):
    x = np.where(c.keep, c.x, -np.inf).astype(c.dtype)
    g = np.cos(np.arange(c.x.size)).reshape(c.x.shape)
    y = softmax_of(x)
    wanted = y * (g - (g * y).sum(-1, keepdims=True))
    # Two products of y, each y off by its error; a sum over the row; the maximum's own share, which cancels.
    bound = 6 * softmax_error(c) + bounds.rounding(4 * (c.n + 2), 1.0, c.dtype)
    expect(impl.vjp(c.replace(x=x), g)["x"], wanted, bound, "dx", scale=1.0)
