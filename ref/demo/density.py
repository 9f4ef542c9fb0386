"""Density models of binarised digits: what is fitted, on which part, and how it is chosen.

    bits      scikit-learn's 1797 digits of 8 x 8, a pixel is 1 above 8, in the order of default_rng(0).permutation
    parts     1200 to fit, 200 to choose the epoch (as they chose the sizes, rates and decays below), 397 to test, once
    models    independent bits, naive Bayes (a class for each digit), FVSBN, NADE, MADE
    every epoch   mini-batches of 50, AdamW at a rate that falls linearly to 0; the epoch of the least loss on the
                  selection part is kept

All losses are nats an image, -log p(x). A run is a function of its seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from autodiff import value_and_grad
from backends.threads import blas_threads
from ref.density.autoregressive_sample import autoregressive_sample
from ref.density.fvsbn import fvsbn
from ref.density.made import made, parameter_shapes
from ref.density.made_masks import made_masks, sequential_degrees
from ref.density.nade import nade
from ref.density.naive_bayes import naive_bayes
from ref.density.naive_bayes_fit import naive_bayes_fit
from ref.optim.adamw import adamw, start

SIDE = 8
PIXELS = SIDE * SIDE
THRESHOLD = 8
PARTS = (1200, 200, 397)
BATCH = 50


class Digits(NamedTuple):
    """Bits float32[N 64] and labels of the three parts."""

    fitting: np.ndarray
    selection: np.ndarray
    test: np.ndarray
    labels: np.ndarray  # of the fitting part


class Model(NamedTuple):
    """A model to be trained: call(x, params) gives (log p, logits); what it starts from, how many numbers count."""

    name: str
    call: Callable
    params: dict
    numbers: int
    lr: float
    weight_decay: float

    def log_prob(self, x, params):
        return self.call(x, params)[0]

    def logits(self, x, params):
        return self.call(x, params)[1]


class Fitted(NamedTuple):
    """What came of it: the parameters of the best epoch, losses by epoch on two parts, the epoch, CPU seconds."""

    params: dict
    fitting: list
    selection: list
    epoch: int
    seconds: float


def load():
    """The digits, binarised and split."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    bits, labels = (images[order] > THRESHOLD).astype(np.float32), labels[order]
    ends = np.cumsum(PARTS)
    return Digits(bits[: ends[0]], bits[ends[0] : ends[1]], bits[ends[1] : ends[2]], labels[: ends[0]])


def counted(digits):
    """{name: (prior, theta)} of the models that need no gradient; counts smoothed by one."""
    alike = np.zeros(len(digits.fitting), np.int64)
    return {
        "independent bits": naive_bayes_fit(digits.fitting, alike, classes=1),
        "naive Bayes": naive_bayes_fit(digits.fitting, digits.labels, classes=10),
    }


def counted_loss(x, prior, theta):
    """Nats an image, the class summed out."""
    return float(-naive_bayes(x, prior, theta)[1].mean())


def models(digits, *, hidden=128, width=512, seed=0):
    """The models to be trained, each starting as independent bits."""
    g = np.random.default_rng(seed)
    _, theta = naive_bayes_fit(digits.fitting, np.zeros(len(digits.fitting), np.int64), classes=1)
    bias = np.log(theta[0] / (1 - theta[0]))
    degrees = sequential_degrees(PIXELS, (width,))
    masked = {
        name: g.standard_normal(shape) * (0.1 if name == "layers.1.weight" else 1) / math.sqrt(shape[-1])
        if len(shape) == 2 else np.zeros(shape)
        for name, shape in parameter_shapes(degrees).items()
    }  # fmt: skip
    found = (
        Model("FVSBN", lambda x, p: fvsbn(x, p["weight"], p["bias"]),
              {"weight": np.zeros((PIXELS, PIXELS)), "bias": bias}, math.comb(PIXELS, 2) + PIXELS, 1e-2, 0.0),
        Model("NADE", lambda x, p: nade(x, p["weight"], p["hidden_bias"], p["output_weight"], p["bias"]),
              {"weight": 0.05 * g.standard_normal((hidden, PIXELS)), "hidden_bias": np.zeros(hidden),
               "output_weight": 0.05 * g.standard_normal((PIXELS, hidden)), "bias": bias},
              2 * PIXELS * hidden + PIXELS, 8e-3, 0.03),
        Model("MADE", lambda x, p: made(x, p, degrees), {**masked, "layers.1.bias": bias},
              sum(int(m.sum()) for m in made_masks(degrees)) + width + PIXELS, 3e-3, 0.1),
    )  # fmt: skip
    return [m._replace(params={n: a.astype(np.float32) for n, a in m.params.items()}) for m in found]


def fit(model, digits, *, epochs=60, seed=0, watch=lambda epoch, fitting, selection: None):
    """Train a model; `watch` is told the two losses after every epoch."""
    g, params = np.random.default_rng(seed), dict(model.params)
    states = {name: start(a) for name, a in params.items()}
    step = value_and_grad(lambda p, x: -model.log_prob(x, p).mean())
    count, total = 0, epochs * (len(digits.fitting) // BATCH)
    curves, best, started = ([], []), (math.inf, 0, params), time.process_time()
    with blas_threads(1):  # the same bits on every machine of one kind
        for epoch in range(1, epochs + 1):
            for rows in np.split(g.permutation(len(digits.fitting)), len(digits.fitting) // BATCH):
                _, gradients = step(params, digits.fitting[rows])
                rate = model.lr * (1 - count / total)
                count += 1
                for name, a in params.items():
                    decay = model.weight_decay if a.ndim > 1 else 0.0
                    params[name], states[name] = adamw(a, gradients[name], states[name], lr=rate, weight_decay=decay)
            losses = [loss(model, x, params) for x in (digits.fitting, digits.selection)]
            for curve, value in zip(curves, losses, strict=True):
                curve.append(value)
            if losses[1] < best[0]:
                best = (losses[1], epoch, dict(params))
            watch(epoch, *losses)
    return Fitted(best[2], *curves, best[1], time.process_time() - started)


def loss(model, x, params):
    """Nats an image."""
    return float(-np.asarray(model.log_prob(x, params), np.float64).mean())


def samples(model, params, count, seed=0):
    """float[count 8 8] of zeros and ones."""
    u = np.random.default_rng(seed).random((count, PIXELS), dtype=np.float32)
    x = autoregressive_sample(u, conditional=lambda x: model.logits(x, params))
    return x.reshape(count, SIDE, SIDE)


def sampled_counts(prior, theta, count, seed=0):
    """float[count 8 8] of a model of `counted`: a class, then its bits."""
    g = np.random.default_rng(seed)
    classes = g.choice(len(prior), count, p=prior / prior.sum())
    return (g.random((count, PIXELS)) < theta[classes]).astype(np.float32).reshape(count, SIDE, SIDE)
