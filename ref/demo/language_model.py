"""The demo's language model: a small LLaMA over bytes, composed of the algorithms of `ref`.

Source: Touvron et al. 2023 (2302.13971) sec. 2.2: pre-normalisation by RMSNorm, rotary positions, SwiGLU.

    x = E[tokens]
    x <- x + Attention(RMSNorm(x)) W_o          a layer: both residual branches
    x <- x + SwiGLU(RMSNorm(x)) W_down
    logits = RMSNorm(x) E^T                     the head is tied to the embedding
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autodiff import checkpoint, namespace
from ref.attention.rules import causal
from ref.attention.sdpa import sdpa
from ref.nn.embedding import embedding
from ref.nn.linear import linear
from ref.nn.rms_norm import rms_norm
from ref.nn.rope import rope
from ref.nn.swiglu import swiglu


class Config(NamedTuple):
    """Sizes: vocabulary V, channels d, layers, heads H, hidden channels F, context T."""

    vocabulary: int = 256
    channels: int = 128
    layers: int = 3
    heads: int = 4
    hidden: int = 344
    context: int = 128


def initial(config, rng):
    """{name: float32 array} of fresh parameters: N(0, 0.02), residual outputs scaled by 1 / sqrt(2 layers)."""
    d, F = config.channels, config.hidden
    small = 0.02 / np.sqrt(2 * config.layers)
    shapes = {"embedding": ((config.vocabulary, d), 0.02), "norm": ((d,), None)}
    for i in range(config.layers):
        shapes |= {
            f"layers.{i}.attention_norm": ((d,), None),
            f"layers.{i}.qkv": ((3 * d, d), 0.02),
            f"layers.{i}.o": ((d, d), small),
            f"layers.{i}.mlp_norm": ((d,), None),
            f"layers.{i}.gate": ((F, d), 0.02),
            f"layers.{i}.up": ((F, d), 0.02),
            f"layers.{i}.down": ((d, F), small),
        }
    return {
        name: np.ones(shape, np.float32) if std is None else (std * rng.standard_normal(shape)).astype(np.float32)
        for name, (shape, std) in shapes.items()
    }


def logits(params, tokens, config, *, checkpointed=False):
    """Logits float32[B T V] of int tokens[B T]; each layer is recomputed in the backward if `checkpointed`."""
    x = embedding(params["embedding"], tokens)
    for i in range(config.layers):
        mine = {name.split(".")[-1]: p for name, p in params.items() if name.startswith(f"layers.{i}.")}
        x = checkpoint(_layer, x, mine, config.heads) if checkpointed else _layer(x, mine, config.heads)
    return linear(rms_norm(x, params["norm"]), params["embedding"])


def _layer(x, p, heads):
    B, T, d = x.shape
    xp = namespace(x, p["o"])
    qkv = linear(rms_norm(x, p["attention_norm"]), p["qkv"])
    q, k, v = (_split(xp, qkv[..., i * d : (i + 1) * d], heads) for i in range(3))
    positions = np.arange(T)
    o = sdpa(rope(q, positions), rope(k, positions), v, mask=causal())
    x = x + linear(xp.reshape(xp.permute_dims(o, (0, 2, 1, 3)), (B, T, d)), p["o"])
    h = rms_norm(x, p["mlp_norm"])
    return x + linear(swiglu(linear(h, p["gate"]), linear(h, p["up"])), p["down"])


def _split(xp, x, heads):
    B, T, d = x.shape
    return xp.permute_dims(xp.reshape(x, (B, T, heads, d // heads)), (0, 2, 1, 3))
