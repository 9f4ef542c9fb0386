"""What the laws of the U-Net and of ControlNet share: the equations at once in plain NumPy, small sizes, bounds."""

from __future__ import annotations

import math

import numpy as np

from ref.models.unet import Config, parameter_shapes
from ref.spec import bounds
from ref.spec.cases import rng

WHOLE = ("float64",)


def draw_config(draw, c):
    return Config(image_channels=c.c, channels=4, multipliers=c.multipliers, attends=c.attends, blocks=c.blocks,
                  heads=c.heads, groups=c.groups, classes=2)  # fmt: skip


def draw_arrays(g, shapes):
    """Matrices of variance near 1 / fan-in, norms near 1, small biases; all of them float16 numbers."""
    made = {}
    for name, shape in shapes.items():
        a = np.clip(np.round(g.standard_normal(shape) * 16), -48, 48) / 16
        if len(shape) == 1:
            made[name] = 1 + a / 8 if "norm" in name and name.endswith("weight") else a / 4
        else:
            made[name] = a * 2.0 ** -round(math.log2(math.prod(shape[1:])) / 2)
    return made


def draw_params(draw, c):
    return draw_arrays(rng(draw), parameter_shapes(c.config))


def draw_images(draw, c):
    """Numbers near 1, far from constant over the places, so that group norm is well conditioned."""
    shape = (c.N, c.c, c.Y, c.X)
    return np.round(rng(draw).standard_normal(shape) * 32) / 32 + np.arange(c.X) % 2


# The network said again ------------------------------------------------------------------------------


def silu(h):
    return h / (1 + np.exp(-h))


def linear(h, p, name):
    return h @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def convolved(h, p, name, stride=1):
    """The image moved by every tap, and one sum over channels and taps."""
    w = p[f"{name}.weight"]
    k, (N, C, Y, X) = w.shape[-1], h.shape
    wide = np.zeros((N, C, Y + k - 1, X + k - 1), h.dtype)
    wide[:, :, k // 2 : k // 2 + Y, k // 2 : k // 2 + X] = h
    taps = np.stack([wide[:, :, i : i + Y : stride, j : j + X : stride] for i in range(k) for j in range(k)])
    out = np.tensordot(w.reshape(*w.shape[:2], k * k), taps, ((1, 2), (2, 0)))
    return np.moveaxis(out, 0, 1) + p[f"{name}.bias"][:, None, None]


def normed(h, p, name, groups):
    N, C, Y, X = h.shape
    z = h.reshape(N, groups, -1)
    z = z - z.sum(-1, keepdims=True) / z.shape[-1]
    u = (z / np.sqrt((z * z).sum(-1, keepdims=True) / z.shape[-1] + z.dtype.type(1e-5))).reshape(h.shape)
    return u * p[f"{name}.weight"][:, None, None] + p[f"{name}.bias"][:, None, None]


def sinusoid(t, channels):
    half = channels // 2
    f = np.array([math.exp(-math.log(10000) * i / (half - 1)) for i in range(half)]).astype(t.dtype)
    return np.concatenate([np.sin(t[:, None] * f), np.cos(t[:, None] * f)], -1)


class Written:
    """The U-Net in NumPy of any kind of number, whose parts an edit replaces."""

    def __init__(self, config, *, take=lambda skips: skips.pop(), joined=lambda h, s: [h, s], scale=lambda e, C: e,
                 groups=None, timed=True, acts=True, residual=True, classed=lambda E, labels: E[labels], shortcut=True,
                 larger_first=False, heads_apart=True):  # fmt: skip
        self.config, self.take, self.joined, self.scale = config, take, joined, scale
        self.groups, self.timed, self.acts = groups or config.groups, timed, acts
        self.residual, self.classed, self.shortcut, self.larger_first = residual, classed, shortcut, larger_first
        self.heads_apart = heads_apart

    def embedded(self, t, labels, p):
        hidden = silu(linear(sinusoid(t, self.config.channels), p, "time.0"))
        return linear(hidden, p, "time.1") + self.classed(p["class.weight"], labels)

    def stage(self, h, e, p, name, attends):
        n = convolved(silu(normed(h, p, f"{name}.norm_1", self.groups)), p, f"{name}.conv_1")
        if self.timed:
            n = n + linear(silu(e) if self.acts else e, p, f"{name}.time")[..., None, None]
        n = convolved(silu(normed(n, p, f"{name}.norm_2", self.groups)), p, f"{name}.conv_2")
        if f"{name}.shortcut.weight" in p:
            wide = np.concatenate([h, h], 1)[:, : n.shape[1]]
            h = convolved(h, p, f"{name}.shortcut") if self.shortcut else wide
        h = h + n
        return self.attended(h, p, f"{name}.attention") if attends else h

    def attended(self, h, p, name):
        N, C, Y, X = h.shape
        rows = np.moveaxis(normed(h, p, f"{name}.norm", self.groups).reshape(N, C, -1), 1, 2)
        q, k, v = np.split(linear(rows, p, f"{name}.qkv"), 3, -1)
        heads = self.config.heads if self.heads_apart else 1
        out, e = np.zeros(q.shape, q.dtype), C // heads
        for a in range(heads):
            part = slice(a * e, (a + 1) * e)
            s = np.einsum("nte,nse->nts", q[..., part], k[..., part]) / np.sqrt(q.dtype.type(self.scale(e, C)))
            w = np.exp(s - s.real.max(-1, keepdims=True))
            out[..., part] = np.einsum("nts,nse->nte", w / w.sum(-1, keepdims=True), v[..., part])
        out = np.moveaxis(linear(out, p, f"{name}.out"), 1, 2).reshape(h.shape)
        return h + out if self.residual else out

    def encoded(self, x, e, p, hint=0):
        h = convolved(x, p, "in") + hint
        skips, config = [h], self.config
        for level, attends in enumerate(config.attends):
            for block in range(config.blocks):
                h = self.stage(h, e, p, f"down.{level}.{block}", attends)
                skips.append(h)
            if level < len(config.multipliers) - 1:
                h = convolved(h, p, f"down.{level}.smaller", stride=2)
                skips.append(h)
        h = self.stage(h, e, p, "middle.0", True)
        return self.stage(h, e, p, "middle.1", False), skips

    def decoded(self, h, skips, e, p):
        skips, config = list(skips), self.config
        for level in reversed(range(len(config.multipliers))):
            for block in range(config.blocks + 1):
                h = np.concatenate(self.joined(h, self.take(skips)), 1)
                h = self.stage(h, e, p, f"up.{level}.{block}", config.attends[level])
            if level and self.larger_first:
                h = convolved(h, p, f"up.{level}.larger").repeat(2, 2).repeat(2, 3)
            elif level:
                h = convolved(h.repeat(2, 2).repeat(2, 3), p, f"up.{level}.larger")
        return convolved(silu(normed(h, p, "out.norm", self.groups)), p, "out")

    def __call__(self, x, t, labels, p):
        e = self.embedded(t, labels, p)
        return self.decoded(*self.encoded(x, e, p), e, p)


def cast(tree, kind):
    return {n: a.astype(kind) for n, a in tree.items()}


def kinds(dtype):
    """(the dtype itself, a wider one)."""
    return (np.float64, np.longdouble) if np.dtype(dtype) == np.float64 else (np.float32, np.float64)


def bound_of(at_dtype, wide, dtype, roundings, gain=1.0):
    """Twice what the plain form loses at this precision, and as many roundings of the largest output."""
    lost = float(np.max(np.abs(at_dtype.astype(wide.dtype) - wide), initial=0))
    size = 1 + float(np.max(np.abs(wide), initial=0))
    return 8 * lost + bounds.rounding(roundings, gain * size, dtype)
