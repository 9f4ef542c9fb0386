"""The noise predictor of the digits: a residual perceptron of three blocks, told time and class.

    h = W_i x + W_t sinusoid(50 t / T) + W_c E[label] + b;   three times  h <- h + W_2 silu(W_1 LN(h) + b_1) + b_2
    eps = W_o h + b_o

    E has a row more than there are classes: the null class, for a model that is told none. The sinusoid's highest
    frequency turns by 1/4 a step (T = 200): between steps, where solvers ask, the network is as smooth as at them.
"""

from __future__ import annotations

import numpy as np

from ref.demo.digits import CLASSES, PIXELS
from ref.nn.embedding import embedding
from ref.nn.layer_norm import layer_norm
from ref.nn.linear import linear
from ref.nn.silu import silu
from ref.nn.sinusoidal_embedding import sinusoidal_embedding

HIDDEN = 256
EMBEDDED = 64
BLOCKS = 3
TURNS = 50.0  # radians of the highest frequency over all steps


def parameter_shapes(hidden=HIDDEN):
    """{name: shape}.

    >>> sum(int(np.prod(s)) for s in parameter_shapes().values())
    463360
    """
    shapes = {"class.weight": (CLASSES + 1, EMBEDDED)}
    for name, before in (("in", PIXELS), ("time", EMBEDDED), ("label", EMBEDDED)):
        shapes |= _linear(name, before, hidden)
    for k in range(BLOCKS):
        shapes |= {f"block.{k}.norm.weight": (hidden,), f"block.{k}.norm.bias": (hidden,)}
        shapes |= _linear(f"block.{k}.1", hidden, hidden) | _linear(f"block.{k}.2", hidden, hidden)
    return shapes | _linear("out", hidden, PIXELS)


def _linear(name, before, after):
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}


def initial(rng, hidden=HIDDEN):
    """{name: float32 array}: uniform in +-1 / sqrt(fan-in), embeddings N(0, 1), norms 1 and 0."""
    shapes, values = parameter_shapes(hidden), {}
    for name, shape in shapes.items():
        if "norm" in name:
            a = np.full(shape, float(name.endswith("weight")))
        elif name == "class.weight":
            a = rng.standard_normal(shape)
        else:
            a = rng.uniform(-1, 1, shape) / shapes[f"{name.rpartition('.')[0]}.weight"][1] ** 0.5
        values[name] = a.astype(np.float32)
    return values


def network(x, t, labels, p, *, steps):
    """eps[N 64] for noisy images x[N 64] at times t (a number, or float[N]) in [0, steps]; labels int[N]."""
    h = linear(x, p["in.weight"], p["in.bias"]) + conditions(t, labels, p, steps, x)
    for k in range(BLOCKS):
        b = f"block.{k}"
        n = layer_norm(h, p[f"{b}.norm.weight"], p[f"{b}.norm.bias"])
        n = silu(linear(n, p[f"{b}.1.weight"], p[f"{b}.1.bias"]))
        h = h + linear(n, p[f"{b}.2.weight"], p[f"{b}.2.bias"])
    return linear(h, p["out.weight"], p["out.bias"])


def conditions(t, labels, p, steps, x):
    """What time and class add behind the first layer: [N hidden]."""
    times = np.full(1, t) if np.ndim(t) == 0 else t
    s = sinusoidal_embedding((times * (TURNS / steps)).astype(x.dtype), channels=EMBEDDED, convention="ddpm")
    e = linear(s, p["time.weight"], p["time.bias"])
    return e + linear(embedding(p["class.weight"], labels), p["label.weight"], p["label.bias"])
