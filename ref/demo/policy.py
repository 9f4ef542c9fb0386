"""A small causal transformer over tokens, as policy, critic or reward model, by our own engine.

    x = E[token] + P[place];   x <- GPT block, a few times;   out = W LayerNorm(x) + b

All parameters are one flat float32 array, cut into layers where they are used. `out` has a row a token: the scores of
the next token for a policy, one number for a critic or a reward model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from autodiff import namespace, value_and_grad
from ref.mdp.rollout import draw
from ref.models.gpt_block import SHAPES, gpt_block
from ref.nn.embedding import embedding
from ref.nn.layer_norm import layer_norm
from ref.nn.linear import linear
from ref.optim.adam import adam
from ref.optim.adamw import start
from ref.optim.clip_by_global_norm import clip_by_global_norm
from ref.rl.token_log_probs import token_log_probs


class Sizes(NamedTuple):
    """Of a transformer; `out` is the vocabulary for a policy, 1 for a value."""

    vocabulary: int
    places: int
    out: int
    channels: int = 64
    layers: int = 2
    heads: int = 4


class Network:
    """Parameters of one transformer with Adam's state; `step` is the only way in which they change."""

    def __init__(self, sizes, rng):
        self.sizes = sizes
        self.shapes = _shapes(sizes)
        self.flat = np.concatenate([_initial(n, s, rng).reshape(-1) for n, s in self.shapes.items()])
        self.reset()

    def reset(self):
        """Forget Adam's moments."""
        self.state = start(self.flat)

    def copy(self):
        """Another network with the same parameters and fresh moments."""
        other = object.__new__(Network)
        other.sizes, other.shapes, other.flat = self.sizes, self.shapes, self.flat.copy()
        other.reset()
        return other

    def layers(self):
        """{name: array}: views of the flat one."""
        return cut(self.flat, self.shapes)

    def step(self, loss, lr, max_norm=1.0):
        """One step of Adam on `loss(layers)`, its gradient clipped by its norm; returns the loss."""
        value, found = value_and_grad(loss)(self.layers())
        gradient = np.concatenate([found[n].reshape(-1) for n in self.shapes])
        (gradient,), _ = clip_by_global_norm([gradient], max_norm)
        self.flat, self.state = adam(self.flat, gradient, self.state, lr=lr)
        return float(value)


def cut(flat, shapes):
    """{name: array} of the shapes, in their order, cut from the flat one."""
    ends = np.cumsum([math.prod(s) for s in shapes.values()])
    return {n: a.reshape(s) for (n, s), a in zip(shapes.items(), np.split(flat, ends[:-1]), strict=True)}


def critic_of(network, rng):
    """A network that values each token, with the body of `network` and a fresh head near 0."""
    sizes = network.sizes._replace(out=1)
    critic = Network(sizes, rng)
    mine, layers = critic.layers(), network.layers()
    for name, a in mine.items():
        a[...] = a * np.float32(0.1) if name.startswith("head") else layers[name]
    return critic


def _shapes(sizes):
    d = sizes.channels
    width = {"d": d, "D": d, "F": 4 * d}
    blocks = {
        f"{i}.{name}": tuple(width[a] for a in axes) for i in range(sizes.layers) for name, axes in SHAPES.items()
    }
    return {
        "tokens": (sizes.vocabulary, d), "places": (sizes.places, d), **blocks, "norm.weight": (d,), "norm.bias": (d,),
        "head.weight": (sizes.out, d), "head.bias": (sizes.out,),
    }  # fmt: skip


def _initial(name, shape, rng):
    """Embeddings N(0, 1), matrices N(0, 1 / in), gains 1, biases 0."""
    if len(shape) == 1:
        return np.full(shape, float(name.endswith("weight")), np.float32)
    scale = 1.0 if name in ("tokens", "places") else shape[-1] ** -0.5
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def outputs(layers, sizes, tokens):
    """float[B T out] for tokens int[B T]; `layers` may carry gradients."""
    x = embedding(layers["tokens"], tokens) + layers["places"][: tokens.shape[1]]
    for i in range(sizes.layers):
        x = gpt_block(x, {name: layers[f"{i}.{name}"] for name in SHAPES}, heads=sizes.heads)
    x = layer_norm(x, layers["norm.weight"], layers["norm.bias"])
    return linear(x, layers["head.weight"], layers["head.bias"])


def log_probs(layers, sizes, tokens, mask):
    """float[B T]: of the tokens that the mask counts, 0 elsewhere."""
    return token_log_probs(outputs(layers, sizes, tokens), tokens, mask)


def values(layers, sizes, tokens):
    """float[B T]: the value of what stands before each token (0 for the first, before which nothing does)."""
    out = outputs(layers, sizes, tokens[:, :-1])[:, :, 0]
    xp = namespace(out)
    return xp.concat([xp.zeros((tokens.shape[0], 1), dtype=out.dtype), out], axis=1)


def sample(network, prompts, most, end, rng):
    """Responses of at most `most` tokens to prompts int[B P]: a pass a place, over every different beginning once.

    Returns
    -------
    tokens : int[B P + most]
        After the token `end` it is repeated.
    mask : bool[B P + most]
        The response's own tokens, `end` included.
    """
    tokens, layers, (B, P) = prompts, network.layers(), prompts.shape
    going, kept = np.ones(B, bool), [np.zeros((B, P), bool)]
    for _ in range(most):
        different, which = np.unique(tokens, axis=0, return_inverse=True)
        scores = outputs(layers, network.sizes, different)[:, -1].astype(np.float64)
        p = np.exp(scores - scores.max(1, keepdims=True))
        new = np.where(going, draw((p / p.sum(1, keepdims=True))[which], rng.random(B)), end)
        tokens = np.concatenate([tokens, new[:, None]], 1)
        kept.append(going[:, None])
        going = going & (new != end)
    return tokens, np.concatenate(kept, 1)
