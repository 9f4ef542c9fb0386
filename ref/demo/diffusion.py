"""Diffusion models of the digits: how they are trained and sampled.

    every step   x, label of a batch;  t uniform on 1 .. T, eps ~ N(0, I)
                 L = mean |eps - eps_theta(sqrt(alpha_bar_t) x + sqrt(1 - alpha_bar_t) eps, t, label)|^2
                 AdamW without decay, at a rate that falls linearly to 0;  average <- average + (params - average) / 200

The average is what samples. A run is a function of its seed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autodiff import value_and_grad
from backends.fused.numpy.ema import ema_
from backends.fused.steps import adamw_
from backends.threads import blas_threads
from ref.demo import checkpoint_file, digits_net
from ref.demo.digits import PIXELS, SAMPLES, asked
from ref.diffusion.alpha_bar import alpha_bar
from ref.diffusion.ddpm import ddpm
from ref.diffusion.linear_schedule import linear_schedule
from ref.diffusion.simple_loss import simple_loss

T = 200
BETAS = (5e-4, 0.1)  # the paper's 1e-4 .. 0.02 of 1000 steps, times 1000 / T


class Plan(NamedTuple):
    """Steps, images a batch, the first rate, and the decay of the average."""

    steps: int = 6000
    batch: int = 128
    lr: float = 2e-3
    decay: float = 0.995


class Trained(NamedTuple):
    """The averaged parameters, the losses by step, CPU seconds."""

    params: dict
    losses: list
    seconds: float


def schedule():
    """alpha_bar_1 .. alpha_bar_T."""
    return alpha_bar(linear_schedule(T, first=BETAS[0], last=BETAS[1]))


def descend(params, loss, plan, *, watch=lambda step, losses: None):
    """Minimise loss(params), which draws its own batch; gives the averaged parameters.

    Raises
    ------
    ValueError
        A loss that is not finite; the message says at which step.
    """
    flat, views = flattened(params)
    gradient, slots = flattened(params)
    m, v, average = np.zeros_like(flat), np.zeros_like(flat), flat.copy()
    step, losses, started = value_and_grad(loss), [], time.process_time()
    with blas_threads(1):  # the same bits on every machine of one kind
        for k in range(plan.steps):
            value, found = step(views)
            losses.append(float(value))
            if not np.isfinite(losses[-1]):
                raise ValueError(f"descend: the loss at step {k + 1} is {losses[-1]}; a smaller rate is needed")
            for name, slot in slots.items():
                slot[...] = found[name]
            rate = plan.lr * (1 - k / plan.steps)
            adamw_([flat], [gradient], [m], [v], k + 1, lr=rate, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0)
            ema_(average, flat, decay=plan.decay)
            watch(k + 1, losses)
    return Trained(cut(average, params), losses, time.process_time() - started)


def flattened(values):
    """One flat copy of all arrays, and {name: the view of its part}."""
    flat = np.concatenate([a.reshape(-1) for a in values.values()])
    return flat, cut(flat, values)


def cut(flat, values):
    """{name: view} of the parts of a flat array, shaped as `values`."""
    ends = np.cumsum([a.size for a in values.values()])
    parts = np.split(flat, ends[:-1])
    return {name: p.reshape(a.shape) for (name, a), p in zip(values.items(), parts, strict=True)}


def train(digits, plan=None, *, seed=0, watch=lambda step, losses: None):
    """The class-conditional model of the digits."""
    plan, g, bars = plan or Plan(), np.random.default_rng(seed), schedule()

    def loss(params):
        rows = g.integers(0, len(digits.x), plan.batch)
        t = g.integers(1, T + 1, plan.batch)
        noise = g.standard_normal((plan.batch, PIXELS), dtype=np.float32)
        return simple_loss(digits.x[rows], t, noise, bars, model=model(params, digits.labels[rows])).mean()

    return descend(digits_net.initial(g), loss, plan, watch=watch)


def model(params, labels):
    """eps(x, t) for images of the given labels."""
    return lambda x, t: digits_net.network(x, t, labels, params, steps=T)


def start(count, seed):
    """A generator, and noise float32[count 64] drawn from it."""
    g = np.random.default_rng((seed, 1))
    return g, g.standard_normal((count, PIXELS), dtype=np.float32)


def samples(params, count=SAMPLES, seed=0):
    """Ancestral samples float32[count 64] of the digits that `asked` says."""
    g, x = start(count, seed)
    return ddpm(x, g, model=model(params, asked(count)), alpha_bar=schedule())


def losses_by_step(params, x, labels, *, draws=1, seed=0):
    """Mean loss at each of the steps 1 .. T, over all images of x and some draws of the noise."""
    g, bars, found = np.random.default_rng(seed), schedule(), []
    x, labels = np.repeat(x, draws, axis=0), np.repeat(labels, draws)
    noise = g.standard_normal(x.shape, dtype=np.float32)
    for t in range(1, T + 1):
        each = simple_loss(x, np.full(len(x), t), noise, bars, model=model(params, labels))
        found.append(float(each.mean()))
    return found


def strip(params, digit=None, *, shown=11, seed=0):
    """What ancestral sampling holds after equal parts of its steps, and the x_0 it predicts there.

    Returns
    -------
    (list of int, float[shown N 64], float[shown N 64])
        The steps that were left, the states, the predictions; N = 10, one of each digit (or of `digit`).
    """
    labels = asked(10) if digit is None else np.full(10, digit)
    bars, eps = schedule(), model(params, labels)
    seen = {}

    def spying(x, t):
        out = eps(x, t)
        seen[t] = x, (x - np.sqrt(1 - bars[t - 1]).astype(x.dtype) * out) / np.sqrt(bars[t - 1]).astype(x.dtype)
        return out

    g, x = start(10, seed)
    end = ddpm(x, g, model=spying, alpha_bar=bars)
    seen[0] = end, end
    left = [int(t) for t in np.round(np.linspace(T, 0, shown))]
    return left, *(np.stack([seen[t][k] for t in left]) for k in (0, 1))


def save(path, params, state):
    """Write parameters and what made them, as safetensors."""
    return checkpoint_file.save(Path(path), params, state, keep=1)
