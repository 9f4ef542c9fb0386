"""Laws and mutants of multi-head latent attention."""

from __future__ import annotations

import math

import numpy as np

from ref.attention.common_laws import softmax_of
from ref.attention.mla import Config, Yarn
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "attention.mla"
EPS = 1e-6


def shapes_of(f, D):
    """DeepSeek's names and shapes, said again."""
    queries = {"q_proj.weight": (f.heads * (f.nope + f.rope), D)}
    if f.query_latent is not None:
        queries = {"q_a_proj.weight": (f.query_latent, D), "q_a_layernorm.weight": (f.query_latent,),
                   "q_b_proj.weight": (f.heads * (f.nope + f.rope), f.query_latent)}  # fmt: skip
    return queries | {
        "kv_a_proj_with_mqa.weight": (f.latent + f.rope, D), "kv_a_layernorm.weight": (f.latent,),
        "kv_b_proj.weight": (f.heads * (f.nope + f.value), f.latent), "o_proj.weight": (D, f.heads * f.value),
    }  # fmt: skip


def _params(draw, c):
    g = rng(draw)
    return {name: g.integers(-8, 9, shape) / 8.0 for name, shape in shapes_of(c.config, c.D).items()}


space = cases(
    ID, B=batch(1, 2), T=dims(1, 3, large=9), D=dims(2, 4), heads=dims(1, 3), nope=dims(1, 3), half=dims(1, 2),
    value=dims(1, 3), latent=dims(1, 4), query_latent=choose(None, 3),
    yarn=choose(None, Yarn(4.0, 16), Yarn(40.0, 64, 32.0, 1.0, 0.707, 0.707), Yarn(40.0, 16, 8.0, 1.0, 1.0, 0.5)),
    config=lambda draw, c: Config(c.heads, c.nope, 2 * c.half, c.value, c.latent, c.query_latent, 100.0, c.yarn),
    params=_params, absorbed=choose(False, True), cache=None, values=("normal",),
    flags={
        "some": Flag(lambda c: c.x.size > 0, {"B": choose((), (2,))}),
        "rich": Flag(lambda c: c.heads > 1 and c.nope != c.value and c.x.size > 0 and c.T > 1,
                     {"heads": choose(2, 3), "nope": 2, "value": choose(1, 3), "T": dims(2, 3), "B": ()}),
        "stretched": Flag(lambda c: c.yarn is not None and c.yarn.mscale_all_dim > 0 and c.x.size > 0 and c.T > 1,
                          {"yarn": Yarn(40.0, 16, 8.0, 1.0, 1.0, 0.5), "T": dims(2, 3), "B": ()}),
    },
)  # fmt: skip


# The layer, a head at a time -------------------------------------------------------------------------


def normed(z, weight):
    return z / np.sqrt((z * z).mean(-1, keepdims=True) + EPS) * weight


def turned(z, at, f):
    """Pairs (2 i, 2 i + 1) by position times frequency, with YaRN's ramp over pairs and its quotient."""
    n, y = f.rope // 2, f.yarn
    theta, a = f.rope_base ** (-np.arange(n) / n), 1.0
    if y is not None:
        low, high = (n * math.log(y.trained_length / (2 * math.pi * b)) / math.log(f.rope_base)
                     for b in (y.beta_fast, y.beta_slow))  # fmt: skip
        low, high = max(math.floor(low), 0), min(math.ceil(high), 2 * n - 1)
        keep = 1 - np.clip((np.arange(n) - low) / ((high - low) or 0.001), 0, 1)
        theta = theta * (keep + (1 - keep) / y.factor)
        a = logarithm(y, y.mscale) / logarithm(y, y.mscale_all_dim)
    w = (z[..., ::2] + 1j * z[..., 1::2]) * np.exp(1j * at[:, None] * theta) * a
    return np.stack((w.real, w.imag), -1).reshape(z.shape)


def logarithm(yarn, scale):
    return 1 + scale * math.log(yarn.factor) / 10 if yarn.factor > 1 else 1.0


def scale_of(f):
    a = logarithm(f.yarn, f.yarn.mscale_all_dim) if f.yarn is not None and f.yarn.mscale_all_dim else 1.0
    return a * a / math.sqrt(f.nope + f.rope)


def layer(p, x, f):
    """(y, cache) in float64."""
    p, x = {n: np.asarray(w, np.float64) for n, w in p.items()}, np.asarray(x, np.float64)
    at, keep = np.arange(x.shape[-2]), np.tri(x.shape[-2], dtype=bool)
    kv = x @ p["kv_a_proj_with_mqa.weight"].T
    c, shared = normed(kv[..., : f.latent], p["kv_a_layernorm.weight"]), turned(kv[..., f.latent :], at, f)
    if f.query_latent is None:
        q = x @ p["q_proj.weight"].T
    else:
        q = normed(x @ p["q_a_proj.weight"].T, p["q_a_layernorm.weight"]) @ p["q_b_proj.weight"].T
    y, d, up = 0.0, f.nope + f.rope, p["kv_b_proj.weight"].reshape(f.heads, f.nope + f.value, f.latent)
    for h in range(f.heads):
        own = q[..., h * d : (h + 1) * d]
        s = own[..., : f.nope] @ np.swapaxes(c @ up[h, : f.nope].T, -1, -2)
        s = (s + turned(own[..., f.nope :], at, f) @ np.swapaxes(shared, -1, -2)) * scale_of(f)
        o = softmax_of(np.where(keep, s, -np.inf)) @ (c @ up[h, f.nope :].T)
        y = y + o @ p["o_proj.weight"][:, h * f.value : (h + 1) * f.value].T
    return y, np.concatenate((c, shared), -1)


def magnitudes(c):
    """Sums of absolute values along the layer: latents, shared key, logits, output; and by how much norms amplify."""
    f, x = c.config, np.abs(np.asarray(c.x, np.float64))
    p = {n: np.abs(np.asarray(w, np.float64)) for n, w in c.params.items()}

    def norm(name, weight):
        true = np.asarray(c.x, np.float64) @ np.asarray(c.params[name], np.float64)[: len(p[weight])].T
        r = np.sqrt((true * true).mean(-1, keepdims=True) + EPS)
        size = x @ p[name][: len(p[weight])].T / r
        return size * p[weight], float(np.max(size, initial=1.0))

    latent, amp = norm("kv_a_proj_with_mqa.weight", "kv_a_layernorm.weight")
    q = x
    if f.query_latent is not None:
        q, other = norm("q_a_proj.weight", "q_a_layernorm.weight")
        amp = max(amp, other)
    q = q @ p["q_proj.weight" if f.query_latent is None else "q_b_proj.weight"].T
    shared = x @ p["kv_a_proj_with_mqa.weight"][f.latent :].T
    made = latent @ p["kv_b_proj.weight"].T
    big = [float(np.max(z, initial=0.0)) for z in (q, np.concatenate((made, shared), -1), made)]
    logit = 4 * scale_of(f) * (f.nope + f.rope) * big[0] * big[1] * 2  # a turn lengthens a channel by up to sqrt 2
    out = float(np.max(p["o_proj.weight"].sum(1), initial=0.0)) * big[2]
    return {"latent": float(np.max(latent, initial=0)), "shared": float(np.max(shared, initial=0)), "logit": logit,
            "y": out, "amp": amp}  # fmt: skip


def bound_of(c):
    """(bound, scale) of y: every sum's length in roundings, the norms' amplified; twice a logit's error in a weight."""
    f, m = c.config, magnitudes(c)
    n = (2 * c.D + 2 * (f.query_latent or 0) + 3 * f.latent + 40) * (1 + m["amp"]) + f.nope + f.rope
    u, T = bounds.u(c.dtype), c.x.shape[-2]
    weight = 2 * n * u * m["logit"] + (np.log(T) + 2 * T + 20) * u
    return bounds.SAFE * m["y"] * (4 * weight + (n + c.heads * c.value) * u), m["y"]


def expect_y(expect, c, y, wanted, factor=1):
    bound, scale = bound_of(c)
    expect(y, wanted, factor * bound, "y", scale=scale)


def expect_cache(expect, c, cache, wanted):
    m = magnitudes(c)
    n = (2 * c.D + c.latent + 40) * (1 + m["amp"])
    for part, size, name in ((slice(0, c.latent), m["latent"], "latent"), (slice(c.latent, None), m["shared"], "k^R")):
        limit = bounds.rounding(n, 2 * size, c.dtype)
        expect(np.asarray(cache)[..., part], wanted[..., part], limit, f"the cache's {name}", scale=2 * size + 1e-30)


# Laws ------------------------------------------------------------------------------------------------


@law(
    ID, "L1", closed_form=True, given=space.where(T=1).reach("some"),
    kills=["values_first", "keys_of_all_heads_first", "latent_not_normed"],
)  # fmt: skip
def one_token_reads_its_own_latent(impl, c, expect):
    "T = 1: y = W_o concat_h W^UV_h RMSNorm(W_kv_a x), whatever the queries are, in both forms."
    f, p = c.config, {n: np.asarray(w, np.float64) for n, w in c.params.items()}
    x = np.asarray(c.x, np.float64)
    latent = normed((x @ p["kv_a_proj_with_mqa.weight"].T)[..., : f.latent], p["kv_a_layernorm.weight"])
    rows = p["kv_b_proj.weight"].reshape(f.heads, f.nope + f.value, f.latent)[:, f.nope :].reshape(-1, f.latent)
    expect_y(expect, c, impl(c)[0], latent @ rows.T @ p["o_proj.weight"].T)


@law(
    ID, "L2", closed_form=True, given=space.reach("rich", "stretched"),
    kills=["shared_key_is_normed", "halves_paired", "scale_without_yarn", "query_latent_not_normed", "values_first",
           "rope_on_the_full_key", "yarn_factor_on_both"],
)  # fmt: skip
def the_equations_written_out(impl, c, expect):
    "Head by head: latents, one rotated key for all, logits over sqrt(d_h + d_r), a causal softmax, values of latents."
    expect_y(expect, c, impl(c)[0], layer(c.params, c.x, c.config)[0])


@law(
    ID, "L3", given=space.where(absorbed=False, some=True).reach("rich"),
    kills=["scale_of_the_latent", "rope_on_the_full_key"], passes_null=["zeros", "constant"],
)  # fmt: skip
def absorbed_is_expanded(impl, c, expect):
    "W^UK on the query and W^UV behind the sum: the same outputs, the same cache, with d_v != d_h too."
    y, cache = impl(c)
    other, held = impl(c.replace(absorbed=True))
    expect_y(expect, c, other, y, factor=2)
    expect.same(np.asarray(held), np.asarray(cache), "the cache")


@law(
    ID, "L4", given=space.where(some=True, T=dims(2, 4, large=9)),
    kills=["cache_forgotten", "positions_restart"], passes_null=["zeros", "constant"],
)  # fmt: skip
def cached_decoding_is_the_whole(impl, c, expect):
    "The first tokens at once, the others one at a time, absorbed and not: the outputs of the whole, and its cache."
    whole, cache = impl(c)
    y, held = impl(c.replace(x=c.x[..., : c.T // 2, :].copy(), T=c.T // 2))
    parts = [y]
    for t in range(c.T // 2, c.T):
        step = c.replace(x=c.x[..., t : t + 1, :].copy(), T=1, cache=np.asarray(held), absorbed=t % 2 == 0)
        y, held = impl(step)
        parts.append(y)
    expect_y(expect, c, np.concatenate(parts, -2), whole, factor=2)
    expect_cache(expect, c, held, np.asarray(cache))


@law(
    ID, "L5", closed_form=True, given=space.where(some=True).reach("rich"),
    kills=["cache_before_the_norm", "cache_before_the_turn", "latent_not_normed"],
)  # fmt: skip
def the_cache_is_counted(impl, c, expect):
    "d_c + d_r numbers a token: the normed latent and the rotated shared key, whatever the number of heads."
    cache = np.asarray(impl(c)[1])
    tokens = c.T * int(np.prod(c.B, dtype=np.int64))
    expect.same(cache.size, tokens * (c.latent + 2 * c.half), "numbers in the cache")
    expect_cache(expect, c, cache, layer(c.params, c.x, c.config)[1])


def cotangents(c):
    g = np.cos(np.arange(c.x.size)).reshape(c.x.shape).astype(c.dtype)
    return g, np.zeros((*c.x.shape[:-1], c.latent + 2 * c.half))


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.where(T=1, some=True).reach("some"),
    kills=["gradient_in_the_rows_of_keys"],
)  # fmt: skip
def gradient_of_one_token(impl, c, expect):
    "T = 1: dW_o = g (x) o, dW^UV_h = (W_o^T g)_h (x) c; nothing reaches W^UK or the queries."
    g, _ = cotangents(c)
    found = impl.vjp(c, cotangents(c))["params"]
    of_o, of_kv = one_token_gradient(g, c.params, c.x, c.config)
    m, rows = magnitudes(c), max(c.x[..., 0].size, 1)
    n = (2 * c.D + 3 * c.latent + 60) * (1 + m["amp"]) + rows + c.heads * c.value
    wide = 1 + float(np.max(np.abs(c.params["o_proj.weight"])))
    for name, want, size in (("o_proj.weight", of_o, rows * m["y"]), ("kv_b_proj.weight", of_kv, rows * m["latent"])):
        scale = c.D * wide * size + float(np.max(np.abs(want), initial=0.0))
        expect(found[name], want, bounds.rounding(n, scale, c.dtype), f"d{name}", scale=scale)


def one_token_gradient(g, p, x, f):
    """(dW_o, dW_kv_b) of a single token, its softmax being 1."""
    p, x, g = {n: np.asarray(w, np.float64) for n, w in p.items()}, np.asarray(x, np.float64), np.asarray(g, np.float64)
    kv = x @ p["kv_a_proj_with_mqa.weight"].T
    c = normed(kv[..., : f.latent], p["kv_a_layernorm.weight"]).reshape(-1, f.latent)
    up = p["kv_b_proj.weight"].reshape(f.heads, f.nope + f.value, f.latent)
    o = np.einsum("hvc,nc->nhv", up[:, f.nope :], c).reshape(len(c), -1)
    g = g.reshape(len(c), g.shape[-1])
    back = (g @ p["o_proj.weight"]).reshape(len(c), f.heads, f.value)
    made = np.zeros_like(up)
    made[:, f.nope :] = np.einsum("nhv,nc->hvc", back, c)
    return g.T @ o, made.reshape(p["kv_b_proj.weight"].shape)


@law(
    ID, "L7", needs=("vjp",), given=space.where(absorbed=False, some=True).reach("rich"),
    kills=["absorbed_gradient_lost"], passes_null=["zeros", "constant"], dtypes=("float64",),
)  # fmt: skip
def gradients_of_both_forms_agree(impl, c, expect):
    "Every parameter's and x's gradient is the same whether the form is absorbed or expanded."
    one, other = (impl.vjp(z, cotangents(c)) for z in (c, c.replace(absorbed=True)))
    m = magnitudes(c)
    size = (1 + m["amp"]) ** 2 * (1 + m["logit"]) * (1 + m["y"]) * (1 + m["latent"]) * c.x.size
    for name, want in {**one["params"], "x": one["x"]}.items():
        found = other["x"] if name == "x" else other["params"][name]
        expect(found, want, bounds.rounding(400, size, c.dtype), f"d{name}", scale=1 + float(np.max(np.abs(want))))


# Mutants ---------------------------------------------------------------------------------------------


def plain(**options):
    """The default-size test: one head, one token, no cache, no query latent."""

    def make():
        f = Config(1, 2, 2, 2, 2)
        p = {n: np.random.default_rng(0).standard_normal(s) for n, s in shapes_of(f, 3).items()}
        return (p, np.random.default_rng(1).standard_normal((1, 3)), f), options

    return make


def edited(p, x, f, *, cache=None, absorbed=False, positions=None, norm=normed, turn=turned, scale=None, rows=None,
           keep_cache=True, restart=False, share=lambda z: z, full_turn=False, stored=None, query_norm=normed):
    S = 0 if cache is None else cache.shape[-2]
    at = (0 if restart else S) + np.arange(x.shape[-2])
    kv = x @ p["kv_a_proj_with_mqa.weight"].T
    c = norm(kv[..., : f.latent], p["kv_a_layernorm.weight"])
    new = np.concatenate((c, turn(share(kv[..., f.latent :]), at, f)), -1)
    held = new if cache is None or not keep_cache else np.concatenate((cache, new), -2)
    low = x if f.query_latent is None else query_norm(x @ p["q_a_proj.weight"].T, p["q_a_layernorm.weight"])
    q = low @ p["q_proj.weight" if f.query_latent is None else "q_b_proj.weight"].T
    d, keys = f.nope + f.rope, held.shape[-2]
    up = p["kv_b_proj.weight"].reshape(f.heads, f.nope + f.value, f.latent)
    up_k, up_v = (up[:, : f.nope], up[:, f.nope :]) if rows is None else rows(p["kv_b_proj.weight"], f)
    a = (scale or (lambda f, absorbed: scale_of(f)))(f, absorbed)
    y, seen = 0.0, np.arange(keys) <= np.arange(x.shape[-2])[:, None] + keys - x.shape[-2]
    latents, shared = held[..., : f.latent], held[..., f.latent :]
    for h in range(f.heads):
        own = q[..., h * d : (h + 1) * d]
        k, nope = latents @ up_k[h].T, own[..., : f.nope]
        if full_turn and not absorbed:
            k, nope = _turn_all(k, np.arange(keys)), _turn_all(nope, at)
        s = nope @ np.swapaxes(k, -1, -2) + turn(own[..., f.nope :], at, f) @ np.swapaxes(shared, -1, -2)
        o = softmax_of(np.where(seen, s * a, -np.inf)) @ (latents @ up_v[h].T)
        y = y + o @ p["o_proj.weight"][:, h * f.value : (h + 1) * f.value].T
    held = held if stored is None else stored(held, kv, at, f)
    return np.asarray(y, x.dtype), np.asarray(held, x.dtype)


def _turn_all(z, at):
    n = z.shape[-1] // 2
    w = (z[..., 0 : 2 * n : 2] + 1j * z[..., 1 : 2 * n : 2]) * np.exp(1j * at[:, None])
    return np.concatenate((np.stack((w.real, w.imag), -1).reshape(*z.shape[:-1], 2 * n), z[..., 2 * n :]), -1)


def _halves(z, at, f):
    order = np.arange(f.rope).reshape(2, -1).T.ravel()
    back = np.argsort(order)
    return turned(z[..., order], at, f)[..., back]


def _both_factors(z, at, f):
    y = f.yarn
    return turned(z, at, f) if y is None else turned(z, at, f) * logarithm(y, 1.0) / (
        logarithm(y, y.mscale) / logarithm(y, y.mscale_all_dim))  # fmt: skip


def _raw_latent(held, kv, at, f):
    return np.concatenate((held[..., : -kv.shape[-2], :], np.concatenate((kv[..., : f.latent],
                          held[..., -kv.shape[-2] :, f.latent :]), -1)), -2)  # fmt: skip


def _raw_key(held, kv, at, f):
    return np.concatenate((held[..., : -kv.shape[-2], :], np.concatenate((held[..., -kv.shape[-2] :, : f.latent],
                          kv[..., f.latent :]), -1)), -2)  # fmt: skip


def _mutant(name, doc, thread=None, case=None, **edit):
    def function(params, x, config, **options):
        return edited(params, x, config, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=case or plain())(function)


def _unit(**sizes):
    """A default-size test whose numbers are so plain that an edit does not show."""

    def make():
        f = Config(**{"heads": 1, "nope": 1, "rope": 2, "value": 1, "latent": 1, **sizes})
        return ({n: np.ones(s) for n, s in shapes_of(f, 1).items()}, np.ones((1, 1)), f), {}

    return make


_mutant("values_first", "Rows of W_kv_b read as [V | K].", case=_unit(),
        rows=lambda w, f: np.split(w.reshape(f.heads, -1, f.latent), [f.value], axis=1)[::-1])  # fmt: skip
_mutant("keys_of_all_heads_first", "W_kv_b read as the keys of all heads, then the values of all.",
        rows=lambda w, f: (w[: f.heads * f.nope].reshape(f.heads, f.nope, f.latent),
                           w[f.heads * f.nope :].reshape(f.heads, f.value, f.latent)))  # fmt: skip
_mutant("latent_not_normed", "The latent goes on without its norm.", case=_unit(), norm=lambda z, w: z * w)
_mutant("shared_key_is_normed", "The norm over all of W_kv_a x: k^R too.", case=_unit(),
        share=lambda z: normed(z, 1.0))  # fmt: skip
_mutant("halves_paired", "RoPE pairs (i, i + d_r / 2) on DeepSeek's weights.", "candle#3948", turn=_halves)
_mutant("scale_without_yarn", "a^2 missing from the scale.", scale=lambda f, absorbed: (f.nope + f.rope) ** -0.5)
_mutant("query_latent_not_normed", "The query's latent goes on without its norm.", query_norm=lambda z, w: z * w)
_mutant("rope_on_the_full_key", "RoPE on the part that W^UK makes too: it cannot be absorbed.", full_turn=True)
_mutant("yarn_factor_on_both", "0.1 ln s + 1 on cosines and sines, beside a^2 on the scale.", turn=_both_factors)
_mutant("scale_of_the_latent", "1 / sqrt(d_c + d_r) in the absorbed form.",
        scale=lambda f, absorbed: scale_of(f) * math.sqrt((f.nope + f.rope) / (f.latent + f.rope) if absorbed else 1))
_mutant("cache_forgotten", "Each step sees its own tokens alone.", keep_cache=False)
_mutant("positions_restart", "Each step begins at position 0.", restart=True)
_mutant("cache_before_the_norm", "The latent kept without its norm.", case=_unit(), stored=_raw_latent)
_mutant("cache_before_the_turn", "k^R kept without RoPE.", stored=_raw_key)


def _vjp(g, p, x, f, *, absorbed=False, lost=False, swapped=False, **options):
    of_o, of_kv = one_token_gradient(g[0], p, x, f)
    if swapped:
        of_kv = np.roll(of_kv.reshape(f.heads, -1, f.latent), f.value, axis=1).reshape(of_kv.shape)
    out = {n: np.zeros_like(w) for n, w in p.items()}
    out["o_proj.weight"] = of_o.astype(x.dtype)
    out["kv_b_proj.weight"] = (of_kv * (0 if lost and absorbed else 1)).astype(x.dtype)
    return {"params": out, "x": np.zeros_like(x)}


def _vjp_mutant(name, doc, **wrong):
    def function(params, x, config, **options):
        return edited(params, x, config, **options)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=lambda g, *args, **options: _vjp(g, *args, **options, **wrong), default_case=plain())(function)


_vjp_mutant("gradient_in_the_rows_of_keys", "dW_kv_b laid out as [V | K].", swapped=True)
_vjp_mutant("absorbed_gradient_lost", "W_kv_b taken as a constant once it is absorbed.", lost=True)
