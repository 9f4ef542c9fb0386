"""Multi-head latent attention: keys and values from one small vector a token.

Source: DeepSeek-AI 2024 (2405.04434, DeepSeek-V2) sec. 2.1, Eq. 9-19 and App. C; YaRN's scale and the norms' eps:
DeepSeek's modeling code, which Hugging Face's follows.

    [c^KV | k^R] = W_kv_a x,   c = RMSNorm(c^KV),   k^R <- RoPE(k^R)        one k^R for all heads, not normed
    c^Q = RMSNorm(W_q_a x),  q = W_q_b c^Q          or q = W_q x where there is no query latent
    q_h = [q^C | q^R],   q^R <- RoPE(q^R);          W_kv_b has rows [W^UK_h | W^UV_h] for each head h
    s_h = a^2 (q^C_h . W^UK_h c + q^R_h . k^R) / sqrt(d_h + d_r)
    o_h = sum_j p_hj W^UV_h c_j,   y = W_o concat o_h

The cache holds c and k^R, d_c + d_r numbers a token and layer. Expanded, keys and values are made of it again.
Absorbed, W^UK moves to the query and W^UV behind the sum:

    q~_h = W^UK_h^T q^C_h,   s_h = a^2 (q~_h . c + q^R_h . k^R) / sqrt(d_h + d_r),   o_h = W^UV_h sum_j p_hj c_j

so that a decoded token is one query of d_c + d_r channels a head over a single key head, and no key is ever made.

Notation
    D channels; H -> heads; d_h -> nope, d_r -> rope, d_v -> value, d_c -> latent, d_c' -> query_latent channels; a ->
    `magnitude(factor, mscale_all_dim)` of `rope_yarn`, 1 without YaRN.

Conventions
    C1  The scale is 1 / sqrt(d_h + d_r) in both forms, not 1 / sqrt(d_c + d_r).
    C2  Cached are c after its norm and k^R after RoPE, as one array.
    C3  RoPE is on d_r channels that no latent makes: on all of the key it would stand between W^UK and q^C and the
        absorbed form would be another function.
    C4  DeepSeek's weights pair channels (2 i, 2 i + 1). Norms have eps 1e-6, whatever the model's other norms have.
    C5  YaRN: frequencies of `rope_yarn`, its quotient on cosines and sines, a^2 on the scale (only where
        mscale_all_dim is set and factor > 1).

Laws
    L1 one_token_reads_its_own_latent       L2 the_equations_written_out
    L3 absorbed_is_expanded                 L4 cached_decoding_is_the_whole
    L5 the_cache_is_counted                 L6 gradient_of_one_token
    L7 gradients_of_both_forms_agree
"""

from __future__ import annotations

import math
from typing import NamedTuple

from autodiff import namespace
from ref.attention.flash import flash
from ref.attention.gqa import join, split
from ref.attention.rules import causal
from ref.nn.linear import linear
from ref.nn.rms_norm import rms_norm
from ref.nn.rope import frequencies, rope
from ref.nn.rope_yarn import magnitude, rope_yarn
from ref.spec import bind, spec
from ref.spec.signature import dtype_name

EPS = 1e-6


class Yarn(NamedTuple):
    """A stretched context, as DeepSeek's configs have it."""

    factor: float
    trained_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0


class Config(NamedTuple):
    """Sizes of a layer; `query_latent` None is a plain projection of queries (q_lora_rank: null)."""

    heads: int
    nope: int
    rope: int
    value: int
    latent: int
    query_latent: int | None = None
    rope_base: float = 10000.0
    yarn: Yarn | None = None


def parameter_shapes(config, channels):
    """{name: shape}: the names of DeepSeek and Moonlight after `model.layers.N.self_attn.`."""
    H, c = config.heads, config
    queries = {"q_proj.weight": (H * (c.nope + c.rope), channels)}
    if c.query_latent is not None:
        queries = {
            "q_a_proj.weight": (c.query_latent, channels),
            "q_a_layernorm.weight": (c.query_latent,),
            "q_b_proj.weight": (H * (c.nope + c.rope), c.query_latent),
        }
    return {
        **queries,
        "kv_a_proj_with_mqa.weight": (c.latent + c.rope, channels),
        "kv_a_layernorm.weight": (c.latent,),
        "kv_b_proj.weight": (H * (c.nope + c.value), c.latent),
        "o_proj.weight": (channels, H * c.value),
    }


def of_layer(params, n, prefix="model.layers"):
    """The parameters of layer n out of a checkpoint's, under `parameter_shapes`' names.

    Raises
    ------
    ValueError
        There are none (the message says what was looked for).
    """
    start = f"{prefix}.{n}.self_attn."
    found = {name[len(start) :]: array for name, array in params.items() if name.startswith(start)}
    if not found:
        raise ValueError(f"mla: no parameter begins with {start!r}; there are {sorted(params)[:3]}, ..")
    return found


@spec("attention.mla", "params:tree, x[*B T D], config:tree -> y[*B T D], grown:tree", grads=("params", "x"))
def mla(params, x, config, *, cache=None, absorbed=False, positions=None):
    """The layer's output for T tokens, causal, and the cache with them.

    Parameters
    ----------
    params : {str: float array}
        As `parameter_shapes(config, D)` has them.
    x : float[*B T D]
    config : Config
    cache : float[*B S latent+rope], optional
        Latents and rotated shared keys of the tokens before.
    absorbed : bool
        W^UK and W^UV on the query's side, meant for few tokens.
    positions : int[T] or int[*B T], optional
        S .. S + T - 1 if not given.

    Returns
    -------
    y : float[*B T D]
    cache : float[*B S+T latent+rope]

    Raises
    ------
    ValueError
        Parameters are missing, unexpected or of another shape (the message names them), rope is odd, or the cache
        has another shape.
    TypeError
        x or a parameter is not float, or dtypes or backends differ.

    Complexity: of attention alone, expanded H T S (d_h + d_r + d_v), with H S d_c (d_h + d_v) for keys and values;
    absorbed H T S (2 d_c + d_r) multiply-adds.

    >>> import numpy as np
    >>> config = Config(heads=1, nope=1, rope=2, value=1, latent=1)
    >>> params = {name: np.ones(shape) for name, shape in parameter_shapes(config, 1).items()}
    >>> y, cache = mla(params, np.array([[2.0]]), config)
    >>> y.round(4), cache.shape
    (array([[1.]]), (1, 3))
    """
    S = _check(params, x, config, cache)
    xp = namespace(x, cache, *params.values())
    at = xp.arange(S, S + x.shape[-2]) if positions is None else positions
    turn = _turn(xp, config)
    nope, rotated = _queries(xp, params, x, config)
    rotated = rope(rotated, at, **turn)

    kv = linear(x, params["kv_a_proj_with_mqa.weight"])
    c = rms_norm(kv[..., : config.latent], params["kv_a_layernorm.weight"], eps=EPS)
    shared = rope(kv[..., None, :, config.latent :], at, **turn)[..., 0, :, :]
    new = xp.concat((c, shared), axis=-1)
    cache = new if cache is None else xp.concat((cache, new), axis=-2)

    attend = attend_absorbed if absorbed else attend_expanded
    o = attend(nope, rotated, cache, params["kv_b_proj.weight"], config)
    return linear(join(xp, o), params["o_proj.weight"]), cache


def attend_expanded(nope, rotated, cache, kv_b, config):
    """o[*B H T value] of queries [*B H T nope] and [*B H T rope] over a cache, its keys and values made."""
    xp = namespace(nope, rotated, cache, kv_b)
    k, v = expand(cache, kv_b, config)
    q = xp.concat((nope, rotated), axis=-1)
    return flash(q, k, v, mask=causal(), scale=scale_of(config))[0]


def expand(cache, kv_b, config):
    """(k[*B H S nope+rope], v[*B H S value]) of a cache."""
    xp = namespace(cache, kv_b)
    made = split(xp, linear(cache[..., : config.latent], kv_b), config.heads)
    shared = cache[..., None, :, config.latent :]
    shared = xp.broadcast_to(shared, (*made.shape[:-1], config.rope))
    return xp.concat((made[..., : config.nope], shared), axis=-1), made[..., config.nope :]


def attend_absorbed(nope, rotated, cache, kv_b, config):
    """The same numbers from the cache itself, one key head for all heads' queries."""
    xp = namespace(nope, rotated, cache, kv_b)
    rows = xp.reshape(kv_b, (config.heads, config.nope + config.value, config.latent))
    up_k, up_v = rows[:, : config.nope, :], rows[:, config.nope :, :]
    q = xp.concat((xp.matmul(nope, up_k), rotated), axis=-1)
    k = cache[..., None, :, :]
    o = flash(q, k, k[..., : config.latent], mask=causal(), scale=scale_of(config))[0]
    return xp.matmul(o, xp.matrix_transpose(up_v))


def scale_of(config):
    """1 / sqrt(d_h + d_r), times a^2 (C5)."""
    yarn = config.yarn
    a = magnitude(yarn.factor, yarn.mscale_all_dim) if yarn is not None and yarn.mscale_all_dim else 1.0
    return a * a / math.sqrt(config.nope + config.rope)


def _turn(xp, config):
    """The options of `rope`."""
    yarn, base = config.yarn, config.rope_base
    if yarn is None:
        return {"base": base}
    theta, _ = rope_yarn(
        frequencies(xp, config.rope, base), factor=yarn.factor, trained_length=yarn.trained_length, base=base,
        beta_fast=yarn.beta_fast, beta_slow=yarn.beta_slow,
    )  # fmt: skip
    a = magnitude(yarn.factor, yarn.mscale) / magnitude(yarn.factor, yarn.mscale_all_dim)
    return {"theta": theta, "attention_factor": a}


def _queries(xp, params, x, config):
    """(q^C[*B H T nope], q^R[*B H T rope])."""
    if config.query_latent is None:
        q = linear(x, params["q_proj.weight"])
    else:
        low = rms_norm(linear(x, params["q_a_proj.weight"]), params["q_a_layernorm.weight"], eps=EPS)
        q = linear(low, params["q_b_proj.weight"])
    q = split(xp, q, config.heads)
    return q[..., : config.nope], q[..., config.nope :]


def _check(params, x, config, cache):
    """Validate; returns S, the tokens in the cache."""
    dims = bind("mla", "x[*B T D]", x=x)
    if config.rope % 2:
        raise ValueError(f"mla: config has rope={config.rope}; needed an even number of channels")
    shapes = parameter_shapes(config, dims["D"])
    missing, extra = sorted(shapes.keys() - params.keys()), sorted(params.keys() - shapes.keys())
    if missing or extra:
        raise ValueError(f"mla: params lack {missing} and have unexpected {extra}")
    for name, shape in shapes.items():
        if tuple(params[name].shape) != shape:
            raise ValueError(f"mla: {name} has shape {tuple(params[name].shape)}; needed {shape}")
        if params[name].dtype != x.dtype:
            raise TypeError(f"mla: {name} is {dtype_name(params[name].dtype)}, x is {dtype_name(x.dtype)}")
    if cache is None:
        return 0
    S = bind("mla", "x[*any], cache[*B S d]", x=x, cache=cache)["S"]
    wanted = (*dims["B"], S, config.latent + config.rope)
    if tuple(cache.shape) != wanted:
        raise ValueError(f"mla: cache has shape {tuple(cache.shape)}; needed {wanted}")
    return S
