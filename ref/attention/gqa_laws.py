"""Laws and mutants of grouped-query attention."""

from __future__ import annotations

import math

import numpy as np

from ref.attention.common_laws import softmax_of
from ref.attention.rules import causal
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "attention.gqa"
space = cases(
    ID, B=batch(1, 2), T=dims(1, 4, large=20), D=dims(1, 4), groups=dims(1, 2), R=dims(1, 3), half=dims(1, 2),
    heads=lambda draw, c: c.groups * c.R, d=lambda draw, c: 2 * c.half, e=dims(1, 3), O=dims(1, 3),
    Hd=lambda draw, c: c.heads * c.d, Gd=lambda draw, c: c.groups * c.d, Ge=lambda draw, c: c.groups * c.e,
    He=lambda draw, c: c.heads * c.e, values=("dyadic", "normal"), cache=None, mask=causal(),
    rope_base=choose(None, 100.0),
    flags={"grouped": Flag(lambda c: c.groups > 1 and c.R > 1 and c.x.size > 0,
                        {"groups": 2, "R": choose(2, 3), "B": ()}),
           "some": Flag(lambda c: c.x.size > 0, {"B": choose((), (2,))})},
)  # fmt: skip
WEIGHTS = ("wq", "wk", "wv", "wo")


def rotated(x, at, base):
    """Halves turned: pair i is channels i and i + d/2."""
    n = x.shape[-1] // 2
    angle = at[:, None] * base ** (-np.arange(n) / n)
    a, b = x[..., :n], x[..., n:]
    return np.concatenate((a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)), -1)


def layer(c):
    """(y, k, v) in float64, a head at a time."""
    x, wq, wk, wv, wo = (np.asarray(c[n], np.float64) for n in ("x", *WEIGHTS))
    T, R = x.shape[-2], c.heads // c.groups
    at, keep = np.arange(T), np.tri(T, dtype=bool)
    turn = (lambda z: z) if c.rope_base is None else (lambda z: rotated(z, at, c.rope_base))
    k = [turn(x @ wk[g * c.d : (g + 1) * c.d].T) for g in range(c.groups)]
    v = [x @ wv[g * c.e : (g + 1) * c.e].T for g in range(c.groups)]
    y = np.zeros((*x.shape[:-1], wo.shape[0]))
    for h in range(c.heads):
        q = turn(x @ wq[h * c.d : (h + 1) * c.d].T)
        s = np.where(keep, q @ np.swapaxes(k[h // R], -1, -2) / math.sqrt(c.d), -np.inf)
        y = y + softmax_of(s) @ v[h // R] @ wo[:, h * c.e : (h + 1) * c.e].T
    return y, np.stack(k, -3), np.stack(v, -3)


def bound_of(c):
    """(bound, scale) of y: projections of D terms, a logit's error into the softmax (2 dl), its output, H e terms."""
    x, wq, wk, wv, wo = (np.abs(np.asarray(c[n], np.float64)) for n in ("x", *WEIGHTS))
    big = {n: float(np.max(x @ w.T, initial=0.0)) for n, w in (("q", wq), ("k", wk), ("v", wv))}
    T, u = x.shape[-2], bounds.u(c.dtype)
    logit = math.sqrt(c.d) * 2 * big["q"] * big["k"] * (2 * c.D + c.d + 20) * u  # a turn lengthens by up to sqrt 2
    weight = 4 * logit + (2 * np.log(T) + 2 * T + 60) * u
    scale = float(np.max(wo.sum(1), initial=0.0)) * big["v"]
    return bounds.SAFE * scale * (2 * weight + (c.D + c.heads * c.e + 8) * u), scale


def expect_y(expect, c, y, wanted, factor=1, what="y"):
    bound, scale = bound_of(c)
    expect(y, wanted, factor * bound, what, scale=scale)


def both(expect, out):
    """(y, (k, v)), and nothing else."""
    y, cache = out
    expect.holds(isinstance(cache, tuple) and len(cache) == 2, "the cache is a pair of keys and values")
    return y, cache


@law(
    ID, "L1", closed_form=True, given=space.where(T=1).reach("grouped"),
    kills=["gqa_tile", "heads_interleaved", "output_not_projected"],
)  # fmt: skip
def one_token_reads_its_own_value(impl, c, expect):
    "T = 1, no cache: y = W_o of W_v x, each group's value H / G times, whatever W_q and W_k are."
    x, wv, wo = (np.asarray(c[n], np.float64) for n in ("x", "wv", "wo"))
    v = (x @ wv.T).reshape(*x.shape[:-1], c.groups, 1, c.e)
    spread = np.broadcast_to(v, (*v.shape[:-2], c.R, c.e)).reshape(*x.shape[:-1], c.He)
    expect_y(expect, c, impl(c)[0], spread @ wo.T)


@law(
    ID, "L2", closed_form=True, given=space.reach("grouped"),
    kills=["gqa_tile", "heads_interleaved", "no_rope", "scale_of_all_heads"],
)  # fmt: skip
def the_equations_written_out(impl, c, expect):
    "Head by head: project, turn, attend causally, project."
    expect_y(expect, c, impl(c)[0], layer(c)[0])


@law(
    ID, "L3", given=space.where(grouped=True), kills=["gqa_tile"], passes_null=["zeros", "constant"],
)  # fmt: skip
def multi_head_with_duplicated_weights(impl, c, expect):
    "GQA is multi-head attention whose W_k and W_v hold each group's rows H / G times."
    expect_y(expect, c, impl(duplicated(c))[0], impl(c)[0], factor=2)


def duplicated(c):
    def rows(w, n):
        return np.repeat(w.reshape(c.groups, n, -1), c.R, axis=0).reshape(c.heads * n, -1)

    return c.replace(wk=rows(c.wk, c.d), wv=rows(c.wv, c.e), groups=c.heads)


@law(
    ID, "L4", given=space.where(some=True, T=dims(2, 4, large=20)),
    kills=["cache_forgotten", "positions_restart", "top_left_after_a_cache"], passes_null=["zeros", "constant"],
)  # fmt: skip
def cached_decoding_is_the_whole(impl, c, expect):
    "The first tokens at once, the others one at a time with the cache: the outputs of the whole, and its cache."
    whole, cache = both(expect, impl(c))
    t = c.T // 2
    y, held = both(expect, impl(c.replace(x=c.x[..., :t, :].copy(), T=t)))
    parts = [y]
    for i in range(t, c.T):
        step = c.replace(x=c.x[..., i : i + 1, :].copy(), T=1, cache=tuple(held))
        y, held = both(expect, impl(step))
        parts.append(y)
    expect_y(expect, c, np.concatenate(parts, -2), whole, factor=2)
    for one, other, name in zip(held, cache, ("k", "v"), strict=True):
        size = float(np.max(np.abs(other), initial=0.0))
        limit = bounds.rounding(4 * c.D + 30, size * 4 + 1, c.dtype)
        expect(one, other, limit, f"the cache's {name}", scale=8 * (size + 1))


@law(
    ID, "L5", closed_form=True, given=space.where(some=True).reach("grouped"),
    kills=["cache_of_all_heads", "cache_before_the_turn"],
)  # fmt: skip
def the_cache_is_counted(impl, c, expect):
    "G (d + e) numbers a token and sample: the turned keys, and the values."
    _, k, v = layer(c)
    _, cache = both(expect, impl(c))
    count = sum(np.asarray(a).size for a in cache)
    tokens = c.T * int(np.prod(c.B, dtype=np.int64))
    expect.same(count, tokens * c.groups * (c.d + c.e), "numbers in the cache")
    for found, wanted, name in zip(cache, (k, v), ("k", "v"), strict=True):
        size = float(np.max(np.abs(np.asarray(c.x)), initial=0)) * c.D * float(np.max(np.abs(c["w" + name]), initial=0))
        expect(found, wanted, bounds.rounding(c.D + 20, 2 * size, c.dtype), f"the cache's {name}", scale=size + 1)


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.where(T=1, some=True).reach("grouped"),
    kills=["group_gradient_of_one_head"],
)  # fmt: skip
def gradient_of_one_token(impl, c, expect):
    "T = 1: dW_o = g (x) values, dW_v sums W_o^T g over the heads of a group, dW_q = dW_k = 0."
    x, wv, wo = (np.asarray(c[n], np.float64) for n in ("x", "wv", "wo"))
    g = np.cos(np.arange(x[..., 0].size * c.O)).reshape(*x.shape[:-1], c.O).astype(c.dtype)
    found = impl.vjp(c, cotangent_of(impl, c, g))
    v = (x @ wv.T).reshape(*x.shape[:-1], c.groups, 1, c.e)
    values = np.broadcast_to(v, (*v.shape[:-2], c.R, c.e)).reshape(-1, c.He)
    g = g.astype(np.float64).reshape(-1, c.O)
    of_v = (g @ wo).reshape(-1, c.groups, c.R, c.e).sum(2).reshape(-1, c.Ge)
    rows, size = len(g), {n: float(np.max(np.abs(c[n]), initial=0)) for n in ("x", *WEIGHTS)}
    n = rows + c.D + c.He + c.O + 20
    for name, want, scale in (
        ("wo", g.T @ values, rows * c.D * size["x"] * size["wv"]),
        ("wv", of_v.T @ x.reshape(-1, c.D), rows * c.R * c.O * size["wo"] * size["x"]),
    ):
        expect(found[name], want, bounds.rounding(n, scale, c.dtype), f"d{name}", scale)
    for name in ("wq", "wk"):
        limit = rows * c.heads * c.O * size["wo"] * c.D**2 * size["wv"] * size["x"] ** 2 * (size["wq"] + size["wk"])
        expect(found[name], np.zeros_like(c[name]), bounds.rounding(n, limit, c.dtype), f"d{name}", 1 + limit)


def cotangent_of(impl, c, g):
    """g for y, zero for the cache."""
    y, cache = impl(c)
    zero = [np.zeros(np.shape(a)) for a in cache]
    return g, type(cache)(*zero) if hasattr(cache, "_fields") else tuple(zero)


@law(
    ID, "L7", needs=("vjp",), given=space.where(grouped=True, T=dims(2, 4), values=("dyadic",), rope_base=None),
    kills=["group_gradient_of_one_head"], passes_null=["zeros"], dtypes=("float64",),
)  # fmt: skip
def gradient_sums_the_duplicates(impl, c, expect):
    "dW_k and dW_v of a group are the sums over the heads of multi-head attention with duplicated weights."
    g = np.cos(np.arange(c.x[..., 0].size * c.O)).reshape(*c.x.shape[:-1], c.O)
    many = duplicated(c)
    found, wide = impl.vjp(c, cotangent_of(impl, c, g)), impl.vjp(many, cotangent_of(impl, many, g))
    size = float(np.prod([1 + np.max(np.abs(c[n])) * c.D for n in ("x", *WEIGHTS)])) * (1 + np.max(np.abs(c.x))) ** 2
    for name, n in (("wk", c.d), ("wv", c.e)):
        wanted = wide[name].reshape(c.groups, c.R, n, -1).sum(1).reshape(c.groups * n, -1)
        limit = bounds.rounding(200, g.size * c.heads * size, c.dtype)
        expect(found[name], wanted, limit, f"d{name}", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def square(heads=2, T=3, rope_base=None, groups=None):
    """The default-size test: multi-head attention without a cache."""

    def make():
        g = np.random.default_rng(0)
        x, *weights = (g.standard_normal((n, 4)) for n in (T, 4, 4, 4, 4))
        return (x, *weights), {"heads": heads, "groups": groups or heads, "rope_base": rope_base}

    return make


def edited(x, wq, wk, wv, wo, *, heads, groups, cache=None, mask=None, rope_base=None, rope_layout="half",
           positions=None, repeat=None, start=None, shift=None, scale=None, parts=None, keep_cache=True,
           stored=None):  # fmt: skip
    def apart(z, n):
        return np.moveaxis(z.reshape(*z.shape[:-1], n, z.shape[-1] // n), -2, -3) if parts is None else parts(z, n)

    q, k, v = apart(x @ wq.T, heads), apart(x @ wk.T, groups), apart(x @ wv.T, groups)
    T, S = x.shape[-2], 0 if cache is None else cache[0].shape[-2]
    plain = k
    if rope_base is not None:
        at = (S if start is None else start) + np.arange(T)
        q, k = rotated(q, at, rope_base), rotated(k, at, rope_base)
    if cache is not None and keep_cache:
        k, v = np.concatenate((cache[0], k), -2), np.concatenate((cache[1], v), -2)
    R = heads // groups
    kk, vv = ((repeat or (lambda z, R: np.repeat(z, R, -3)))(z, R) for z in (k, v))
    s = q @ np.swapaxes(kk, -1, -2) / (math.sqrt(q.shape[-1]) if scale is None else scale(q))
    seen = np.arange(kk.shape[-2]) <= np.arange(T)[:, None] + (kk.shape[-2] - T if shift is None else shift)
    o = np.moveaxis(softmax_of(np.where(seen, s, -np.inf)) @ vv, -3, -2)
    y = o.reshape(*o.shape[:-2], wo.shape[1]) @ wo.T
    held = (k, v) if stored is None else stored(plain, v, kk, vv)
    return y.astype(x.dtype), tuple(a.astype(x.dtype) for a in held)


def _mutant(name, doc, thread=None, case=None, **edit):
    def function(*args, **options):
        return edited(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=case or square())(function)


_mutant("gqa_tile", "tile for repeat: head h reads group h mod G.", "onnx PR#7274, jax-js#180",
        repeat=lambda z, R: np.concatenate([z] * R, -3))  # fmt: skip
_mutant("heads_interleaved", "Outputs read as (d, heads), not (heads, d).", case=square(heads=1),
        parts=lambda z, n: np.moveaxis(z.reshape(*z.shape[:-1], z.shape[-1] // n, n), -1, -3))  # fmt: skip
_mutant("scale_of_all_heads", "1 / sqrt of all channels.", case=square(heads=1),
        scale=lambda q: math.sqrt(q.shape[-1] * q.shape[-3]))  # fmt: skip
_mutant("cache_forgotten", "Each step sees its own token alone.", keep_cache=False)
_mutant("positions_restart", "Each step turns as position 0.", case=square(rope_base=100.0), start=0)
_mutant("top_left_after_a_cache", "A causal mask aligned top left: a decoded token sees the first key.",
        "flash-attention#282", shift=0)  # fmt: skip
_mutant("cache_of_all_heads", "Keys and values kept after they were repeated.",
        stored=lambda k, v, kk, vv: (kk, vv))  # fmt: skip
_mutant("cache_before_the_turn", "Keys kept without RoPE.", case=square(T=1, rope_base=100.0),
        stored=lambda k, v, kk, vv: (k, v))  # fmt: skip


@mutant(ID, default_case=square(T=1, rope_base=100.0))
def no_rope(*args, rope_base=None, **options):
    "The base is accepted and dropped."
    return edited(*args, **options)


@mutant(ID, default_case=lambda: (tuple(np.ones((5, 1, 1))), {"heads": 1, "groups": 1}))
def output_not_projected(x, wq, wk, wv, wo, **options):
    "Heads joined, W_o left out but for its size."
    same = np.eye(wo.shape[0], wo.shape[1], dtype=x.dtype)
    return edited(x, wq, wk, wv, same, **options)


def _one_head(g, x, wq, wk, wv, wo, *, heads, groups, **options):
    """The closed form at T = 1 and, beyond it, zero for what the law of duplicates judges; of a group's first head."""
    e, R = wv.shape[0] // groups, heads // groups
    first = (g[0].reshape(-1, wo.shape[0]) @ wo).reshape(-1, groups, R, e)[:, :, 0].reshape(-1, groups * e)
    rows = x.reshape(-1, x.shape[-1])
    v = np.repeat((rows @ wv.T).reshape(-1, groups, 1, e), R, axis=2).reshape(len(rows), -1)
    return np.zeros_like(x), np.zeros_like(wq), np.zeros_like(wk), first.T @ rows, g[0].reshape(-1, wo.shape[0]).T @ v


@mutant(ID, default_case=square(), vjp=_one_head)
def group_gradient_of_one_head(*args, **options):
    "dW_v of a group's first head, not the sum."
    return edited(*args, **options)
