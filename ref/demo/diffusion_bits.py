"""Bits per dimension of held-out digits, by the probability flow with its exact divergence.

    y = 2 (v + u) / 17 - 1,  v the pixel 0 .. 16, u uniform on [0, 1): in training anew at every step, and in the test
    ln(b^2 / a^2) = LOW + (HIGH - LOW) t,  a^2 + b^2 = 1,  0 <= t <= 1:  beta = -d ln a^2 / dt = (HIGH - LOW) b^2
    eps(y, t) = eps of N(m, S), exactly + a BOUND tanh(network / BOUND)
    bits = -log_2 p(y) / 64 - log_2(2 / 17)

m and S are those of the dequantised training images, so an untrained model has the bits of the Gaussian fit, and the
bound keeps every flow near the Gaussian's. In this time the simple loss, uniform over t, is the likelihood's own
(Kingma et al. 2021, 2107.00630, Eq. 18-19), and equal steps suit the solver. The model sees no labels.

p is the density of the flow that starts from a standard normal at t = 1 and ends at t = 0, where noise of deviation
exp(LOW / 2) would be left: whatever the network learned, p integrates to one. So bits of held-out images are honest,
and an upper bound of those of the pixels v.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from autodiff import namespace
from autodiff.special import sigmoid
from ref.demo import digits_net
from ref.demo.diffusion import Plan, descend
from ref.demo.digits import CLASSES, LARGEST, PIXELS
from ref.diffusion.ode_log_likelihood import ode_log_likelihood
from ref.diffusion.simple_loss import simple_loss
from ref.diffusion.vp import Coefficients

LOW, HIGH = -7.0, 9.0
LEVELS = LARGEST + 1
GRID = 4096  # levels of noise in training
HIDDEN, BOUND = 128, 3.0
PLAN = Plan(steps=4000, batch=128, lr=2e-3, decay=0.998)
STEPS = 16


class Gaussian(NamedTuple):
    """Mean[64], and the covariance's eigenvalues[64] and eigenvectors[64 64]."""

    mean: np.ndarray
    values: np.ndarray
    vectors: np.ndarray


class Bits(NamedTuple):
    """Bits per dimension of each image, by so many Runge-Kutta steps and by half as many."""

    each: np.ndarray
    half: np.ndarray

    @property
    def mean(self):
        """What is reported."""
        return float(self.each.mean())

    @property
    def solver_error(self):
        """How much doubling the steps changed the mean; of order 4, a sixteenth of it is left."""
        return float(abs((self.each - self.half).mean()))


def straight(t):
    """The SDE whose ln(std^2 / scale^2) is straight in t.

    >>> [round(v, 6) for v in straight(7 / 16)[2:]]      # as much noise as signal
    [0.707107, 0.707107]
    """
    log_ratio = LOW + (HIGH - LOW) * t
    noise = sigmoid(log_ratio) if hasattr(t, "shape") else 1 / (1 + math.exp(-log_ratio))
    beta = (HIGH - LOW) * noise
    return Coefficients(beta * -0.5, beta**0.5, (1 - noise) ** 0.5, noise**0.5)


def pixels(x):
    """The whole numbers 0 .. 16 of images in [-1, 1]."""
    return np.rint((np.asarray(x, np.float64) + 1) * (LARGEST / 2)).astype(int)


def dequantised(x, rng):
    """y float32[N 64] of images x in [-1, 1]."""
    return (2 * (pixels(x) + rng.random(x.shape)) / LEVELS - 1).astype(np.float32)


def gaussian(x):
    """The fit to dequantised images: the uniform adds 1/2 to every mean and 1/12 to every variance of the pixels."""
    v = pixels(x)
    cov = (np.cov(v.T) + np.eye(PIXELS) / 12) * (2 / LEVELS) ** 2
    return Gaussian(2 * (v.mean(0) + 0.5) / LEVELS - 1, *np.linalg.eigh(cov))


def initial(rng, hidden=HIDDEN):
    """The network's parameters; it says 0 at the start."""
    params = digits_net.initial(rng, hidden)
    return {name: a * 0 if name.startswith("out.") else a for name, a in params.items()}


def eps(y, t, params, base):
    """The noise in y[N 64] at times t, a number or float[N] in [0, 1]."""
    xp = namespace(y, *params.values())
    kernel = straight(np.atleast_1d(np.asarray(t, np.float64)))
    a, b = kernel.scale[:, None], kernel.std[:, None]
    vectors, weights, middle, most = (
        np.asarray(v, y.dtype) for v in (base.vectors, b / (a * a * base.values + b * b), a * base.mean, a * BOUND)
    )
    exact = xp.matmul(xp.matmul(y - middle, vectors) * weights, vectors.T)
    found = digits_net.network(y, t, np.full(1, CLASSES), params, steps=1.0)
    return exact + xp.tanh(found * (1 / BOUND)) * most


def train(x, plan=PLAN, *, seed=0, hidden=HIDDEN, watch=lambda step, losses: None):
    """The unconditional model of dequantised images, and the Gaussian that it corrects."""
    g, base = np.random.default_rng((seed, 2)), gaussian(x)
    bars = straight(np.arange(1, GRID + 1) / GRID).scale ** 2

    def loss(params):
        y = dequantised(x[g.integers(0, len(x), plan.batch)], g)
        spread = (g.random() + np.arange(plan.batch) / plan.batch) % 1  # evenly over all times, from a random start
        t = 1 + (spread * GRID).astype(np.int64)
        noise = g.standard_normal(y.shape, dtype=np.float32)
        return simple_loss(y, t, noise, bars, model=lambda y, t: eps(y, t / GRID, params, base)).mean()

    return descend(initial(g, hidden), loss, plan, watch=watch), base


def bits_per_dimension(params, base, x, *, steps=STEPS, seed=0, part=100, watch=lambda done: None):
    """Bits of images x in [-1, 1], by the exact divergence; `watch` is told how many images are done.

    Raises
    ------
    ValueError
        An odd number of steps, which has no half.
    """
    if steps % 2 or steps < 2:
        raise ValueError(f"bits_per_dimension: steps={steps}; needed an even number, to halve it")
    y, found = dequantised(x, np.random.default_rng((seed, 3))), ([], [])

    def score(y, t):
        return eps(y, t, params, base) * (-1 / straight(t).std)

    for at in range(0, len(y), part):
        for k, count in enumerate((steps, steps // 2)):
            times = np.linspace(0, 1, count + 1)
            log_p, _ = ode_log_likelihood(y[at : at + part], score=score, sde=straight, times=times)
            found[k].append(-log_p / (PIXELS * math.log(2)) - math.log2(2 / LEVELS))
        watch(min(at + part, len(y)))
    return Bits(*(np.concatenate(f).astype(np.float64) for f in found))


def references(x, held):
    """{name: bits per dimension} of the held-out part without a network.

    The uniform density; the Gaussian fit to dequantised images, averaged over the uniform in closed form; a histogram
    of each pixel, its counts smoothed by one.
    """
    base, v = gaussian(x), pixels(held)
    off = (2 * (v + 0.5) / LEVELS - 1 - base.mean) @ base.vectors
    spread = (2 / LEVELS) ** 2 / 12  # of the uniform, along every direction
    nats = ((off**2 + spread) / base.values).sum(1).mean() + np.log(2 * np.pi * base.values).sum()
    counts = np.stack([np.bincount(column, minlength=LEVELS) for column in pixels(x).T]) + 1.0
    chances = counts / counts.sum(1, keepdims=True)
    return {
        "uniform": math.log2(LEVELS),
        "Gaussian fit": float(nats / 2 / (PIXELS * math.log(2)) - math.log2(2 / LEVELS)),
        "independent histograms": float(-np.log2(chances[np.arange(PIXELS), v]).mean()),
    }
