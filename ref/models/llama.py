"""LLaMA: a decoder of pre-normalised attention and gated feed-forward layers.

Source: Touvron et al. 2023 (2302.13971) sec. 2.2; grouped heads: LLaMA 2 (2307.09288) sec. 2.2; the names of the
parameters are those of Hugging Face.

    x_t = E[token_t]
    x <- x + W_o Attention(RoPE(W_q n), RoPE(W_k n), W_v n),   n = RMSNorm(x) g_1          causal
    x <- x + W_down (silu(W_gate n) * W_up n),                 n = RMSNorm(x) g_2
    logits = W_head (RMSNorm(x) g)
    F = m ceil(floor(a floor(8 d / 3)) / m)                    hidden channels; m multiple_of, a multiplier

Notation
    d -> config.channels, H -> heads, G -> groups (key heads), F -> hidden, V -> vocabulary; a head has d / H
    channels. Parameters: {name: array}, a linear layer's weight is [out in].

Conventions
    C1  No biases and no dropout of its own. A tied head has no `lm_head.weight`: E is the head.
    C2  Query head h reads key head floor(h / (H / G)).
    C3  rope_layout "half" is Hugging Face's, "interleaved" the paper's and Meta's; their weights differ by a
        permutation of the rows of W_q and W_k.
    C4  E is not scaled by sqrt(d) (Gemma does so), and attention is scaled by 1 / sqrt(d / H).
    C5  With `checkpointed` a layer keeps its input for the backward and is run again there: the same bits.

Laws
    L1 without_layers_a_bigram              L2 silent_branches_change_nothing
    L3 one_token_reads_its_own_value        L4 later_tokens_are_invisible
    L5 a_shift_of_all_positions_is_invisible
    L6 logits_are_the_equations_written_out L7 a_sequence_is_its_own
    L8 gradient_of_the_bigram               L9 gradient_is_the_slope
    L10 recomputed_layers_give_the_same_bits
"""

from __future__ import annotations

import math
from typing import NamedTuple

from autodiff import checkpoint, namespace
from ref.attention.flash import flash
from ref.attention.rules import causal
from ref.nn.embedding import embedding
from ref.nn.linear import linear
from ref.nn.rms_norm import rms_norm
from ref.nn.rope import rope
from ref.nn.swiglu import swiglu
from ref.spec import bind, spec
from ref.spec.signature import dtype_name, kind_of


class Config(NamedTuple):
    """Sizes and constants of a model; `groups` 0 is one key head for each query head."""

    vocabulary: int = 32000
    channels: int = 4096
    layers: int = 32
    heads: int = 32
    groups: int = 0
    hidden: int = 11008
    eps: float = 1e-5
    rope_base: float = 10000.0
    rope_layout: str = "half"
    tied: bool = False


LAYER = {
    "input_layernorm.weight": ("d",),
    "self_attn.q_proj.weight": ("H e", "d"),
    "self_attn.k_proj.weight": ("G e", "d"),
    "self_attn.v_proj.weight": ("G e", "d"),
    "self_attn.o_proj.weight": ("d", "H e"),
    "post_attention_layernorm.weight": ("d",),
    "mlp.gate_proj.weight": ("F", "d"),
    "mlp.up_proj.weight": ("F", "d"),
    "mlp.down_proj.weight": ("d", "F"),
}


def hidden_channels(channels, *, multiplier=1.0, multiple_of=256):
    """Hidden channels of the feed-forward layers, as Meta's code has them.

    >>> hidden_channels(4096), hidden_channels(8192, multiplier=1.3, multiple_of=4096)
    (11008, 28672)
    """
    return multiple_of * math.ceil(math.floor(multiplier * (8 * channels // 3)) / multiple_of)


def parameter_shapes(config):
    """{name: shape} of every parameter, in the order of the layers.

    Raises
    ------
    ValueError
        The heads do not divide the channels, or the groups the heads, or a head has an odd number of channels.
    """
    d, e, G = _sizes(config)
    sizes = {"d": d, "F": config.hidden, "H e": config.heads * e, "G e": G * e}
    shapes = {"model.embed_tokens.weight": (config.vocabulary, d)}
    for i in range(config.layers):
        shapes |= {f"model.layers.{i}.{name}": tuple(sizes[a] for a in axes) for name, axes in LAYER.items()}
    shapes["model.norm.weight"] = (d,)
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocabulary, d)
    return shapes


def parameter_count(config):
    """Number of parameters: V d (twice if untied) + layers (2 d^2 + 2 d G e + 3 d F + 2 d) + d.

    >>> parameter_count(Config())
    6738415616
    >>> parameter_count(Config(channels=8192, layers=80, heads=64, groups=8, hidden=28672))
    68976648192
    """
    d, e, G = _sizes(config)
    layer = 2 * d * d + 2 * d * G * e + 3 * d * config.hidden + 2 * d
    return config.vocabulary * d * (1 if config.tied else 2) + config.layers * layer + d


def _sizes(config):
    """(channels d, channels of a head e, groups G)."""
    d, H, G = config.channels, config.heads, config.groups or config.heads
    if d % H or H % G or (d // H) % 2:
        raise ValueError(
            f"llama: config has channels={d}, heads={H}, groups={G}; heads must divide channels into even "
            "shares, and groups must divide heads"
        )
    return d, d // H, G


@spec("models.llama", "params:tree, tokens:int[*B T], config:tree -> [*B T vocabulary]", grads=("params",))
def llama(params, tokens, config, *, positions=None, checkpointed=False, drop=None):
    """Logits of the next token at every position.

    Parameters
    ----------
    params : {str: float array}
        As `parameter_shapes(config)` has them.
    tokens : int[*B T]
    config : Config
    positions : int[T] or int[*B T], optional
        0 .. T - 1 if not given.
    checkpointed : bool
        Recompute each layer in the backward instead of keeping it (C5).
    drop : callable, optional
        `drop(x, site)` stands for dropout at site 0, the embedded tokens, and at sites 1, 2, .. 2 layers, what each
        branch adds. The same site must drop the same elements again (C5).

    Returns
    -------
    float[*B T V]

    Raises
    ------
    ValueError
        Parameters are missing, unexpected or of another shape (the message names them), a token is out of
        range, or the sizes of the config do not divide.
    TypeError
        The tokens are not int, or a parameter is not float or of another dtype or backend than the first.

    Complexity: 2 B T (parameters without E) + 2 B T^2 d layers multiply-adds.

    >>> import numpy as np
    >>> tiny = Config(vocabulary=3, channels=2, layers=0, heads=1, hidden=2, eps=0.0, tied=True)
    >>> E = np.array([[1.0, -1.0], [3.0, 3.0], [0.0, 2.0]])
    >>> llama({"model.embed_tokens.weight": E, "model.norm.weight": np.ones(2)}, np.array([1]), tiny)
    array([[0., 6., 2.]])
    """
    check(params, tokens, config)
    xp = namespace(tokens, *params.values())
    if positions is None:
        positions = xp.arange(tokens.shape[-1])
    drop = drop or _keep_all
    x = drop(embedding(params["model.embed_tokens.weight"], tokens), 0)
    for i in range(config.layers):
        mine = {name: params[f"model.layers.{i}.{name}"] for name in LAYER}
        call = (layer, x, mine, positions, config, drop, i)
        x = checkpoint(*call) if checkpointed else call[0](*call[1:])
    x = rms_norm(x, params["model.norm.weight"], eps=config.eps)
    return linear(x, params["model.embed_tokens.weight" if config.tied else "lm_head.weight"])


def _keep_all(x, site):
    return x


def layer(x, p, positions, config, drop, i):
    """x[*B T d] after layer i with the parameters {name without its prefix: array}."""
    n = rms_norm(x, p["input_layernorm.weight"], eps=config.eps)
    x = x + drop(attention(n, p, positions, config), 2 * i + 1)
    n = rms_norm(x, p["post_attention_layernorm.weight"], eps=config.eps)
    hidden = swiglu(linear(n, p["mlp.gate_proj.weight"]), linear(n, p["mlp.up_proj.weight"]))
    return x + drop(linear(hidden, p["mlp.down_proj.weight"]), 2 * i + 2)


def attention(n, p, positions, config):
    """Causal self-attention of n[*B T d], its four projections included."""
    xp = namespace(n, *p.values())
    turn = {"layout": config.rope_layout, "base": config.rope_base}
    q, k, v = (_heads(xp, linear(n, p[f"self_attn.{name}_proj.weight"]), config) for name in "qkv")
    o, _ = flash(rope(q, positions, **turn), rope(k, positions, **turn), v, mask=causal())
    o = xp.moveaxis(o, -3, -2)
    return linear(xp.reshape(o, (*o.shape[:-2], config.channels)), p["self_attn.o_proj.weight"])


def _heads(xp, x, config):
    """x[*B T (h e)] -> [*B h T e]."""
    e = config.channels // config.heads
    return xp.moveaxis(xp.reshape(x, (*x.shape[:-1], x.shape[-1] // e, e)), -2, -3)


def check(params, tokens, config):
    """Validate what `llama` is given."""
    bind("llama", "tokens:int[*B T]", tokens=tokens)
    shapes = parameter_shapes(config)
    missing, extra = sorted(shapes.keys() - params.keys()), sorted(params.keys() - shapes.keys())
    if missing or extra:
        raise ValueError(f"llama: params lack {missing} and have unexpected {extra}")
    first = next(iter(shapes))
    for name, shape in shapes.items():
        if tuple(params[name].shape) != shape:
            raise ValueError(f"llama: {name} has shape {tuple(params[name].shape)}; needed {shape}")
        dtype, wanted = params[name].dtype, params[first].dtype
        if dtype != wanted or (name == first and kind_of(dtype) != "float"):
            raise TypeError(
                f"llama: {name} is {dtype_name(dtype)}, {first} is {dtype_name(wanted)}; all must share a float dtype"
            )
