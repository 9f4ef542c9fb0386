"""ControlNet on edge maps: a small U-Net of the digits, locked, and a copy that steers it by the edges of an image.

    edges     |Sobel gradient| / 8 of an image whose border goes on, one channel
    base      `models.unet`, DDPM's loss as in `diffusion`; half of the labels replaced by the null class
    control   `models.controlnet` over it, the same loss; half of the labels dropped
    error     mean square between the edges of a sample and the condition, the edges of a held-out image; no sample is
              told a label; DDIM makes it from the same noise, the predicted x_0 kept in [-1, 1]
        base       samples of the base, which sees no condition
        control    with the condition that it is judged by
        shuffled   with the next image's condition, judged by its own: nothing but chance, as the base
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ref.demo.diffusion import Plan, T, descend, schedule
from ref.demo.digits import CLASSES, SIDE
from ref.diffusion.ddim import ddim
from ref.diffusion.simple_loss import simple_loss
from ref.diffusion.timesteps import timesteps
from ref.models.controlnet import controlnet
from ref.models.controlnet_init import controlnet_init
from ref.models.unet import Config, initial, unet

CONFIG = Config(channels=16, groups=4)
BASE = Plan(steps=1200, batch=32, lr=2e-3, decay=0.99)
CONTROL = Plan(steps=600, batch=32, lr=2e-3, decay=0.99)
DDIM_STEPS = 10


class Errors(NamedTuple):
    """Mean squared difference of edges, and the samples float[N 8 8] behind them."""

    base: float
    control: float
    shuffled: float
    images: dict


def edges(x):
    """[N 1 8 8] of images[N 64]: the size of Sobel's gradient, over 8.

    >>> step = np.where(np.arange(8) < 4, -1.0, 1.0)[None, :].repeat(8, 0)
    >>> edges(step.reshape(1, 64))[0, 0, 0]
    array([0., 0., 0., 1., 1., 0., 0., 0.])
    """
    images = np.pad(np.asarray(x).reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth = lambda a: a[..., :-2] + 2 * a[..., 1:-1] + a[..., 2:]  # noqa: E731
    slope = lambda a: a[..., 2:] - a[..., :-2]  # noqa: E731
    turned = images.swapaxes(-1, -2)
    across, down = (smooth(slope(a).swapaxes(-1, -2)).swapaxes(-1, -2) for a in (images, turned))
    return (np.hypot(across, down.swapaxes(-1, -2)) / 8)[:, None]


def square(x):
    """[N 1 8 8] of rows of 64."""
    return np.asarray(x).reshape(-1, 1, SIDE, SIDE)


def train_base(digits, plan=BASE, *, config=CONFIG, seed=0, watch=lambda step, losses: None):
    """The U-Net, told the label half of the time."""
    g = np.random.default_rng((seed, 5))

    def loss(params):
        _, x, labels, t, noise = _batch(digits, plan.batch, g)
        labels = np.where(g.random(plan.batch) < 0.5, CLASSES, labels)
        return simple_loss(x, t, noise, schedule(), model=_base(params, labels, config)).mean()

    return descend(initial(config, g), loss, plan, watch=watch)


def train_control(digits, base, plan=CONTROL, *, config=CONFIG, seed=0, watch=lambda step, losses: None):
    """The ControlNet over a trained base."""
    g, conditions = np.random.default_rng((seed, 6)), edges(digits.x).astype(np.float32)

    def loss(params):
        rows, x, labels, t, noise = _batch(digits, plan.batch, g)
        steered = _steered(base, params, conditions[rows], labels, config, drop=g.random(plan.batch) < 0.5)
        return simple_loss(x, t, noise, schedule(), model=steered).mean()

    return descend(controlnet_init(base, config, condition_channels=1), loss, plan, watch=watch)


def _batch(digits, count, g):
    rows = g.integers(0, len(digits.x), count)
    noise = g.standard_normal((count, 1, SIDE, SIDE), dtype=np.float32)
    return rows, square(digits.x[rows]), digits.labels[rows], g.integers(1, T + 1, count), noise


def _base(params, labels, config):
    return lambda x, t: unet(x, _each(t, x), labels, params, config)


def _steered(base, control, conditions, labels, config, drop=None):
    return lambda x, t: controlnet(x, _each(t, x), labels, conditions, base, control, config, drop=drop)


def _each(t, x):
    return np.broadcast_to(np.asarray(t, x.dtype), len(x))


def errors(base, control, held_x, *, config=CONFIG, steps=DDIM_STEPS, seed=0, tick=lambda name: None):
    """The three errors over held-out images."""
    conditions = edges(held_x).astype(np.float32)
    noise = np.random.default_rng((seed, 7)).standard_normal((len(held_x), 1, SIDE, SIDE), dtype=np.float32)
    nobody = np.full(len(held_x), CLASSES)
    models = {
        "base": _base(base, nobody, config),
        "control": _steered(base, control, conditions, nobody, config),
        "shuffled": _steered(base, control, np.roll(conditions, 1, axis=0), nobody, config),
    }
    images = {}
    for name, eps in models.items():
        x = ddim(noise, model=eps, alpha_bar=schedule(), steps=timesteps(T, steps, spacing="linspace"), clip=1.0)
        images[name] = np.clip(x[:, 0], -1, 1)
        tick(name)
    found = {name: float(np.mean((edges(x) - conditions) ** 2)) for name, x in images.items()}
    return Errors(**found, images=images)
