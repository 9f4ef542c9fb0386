"""Least squares in bfloat16, with and without float32 masters: where the updates fall below half a gap, it stalls.

    loss = |X w - y|^2 / (2 N),   y = X w*,   w <- w - lr dloss/dw

X, y and every product are bfloat16 (stored so, computed in float32, rounded); what differs is how w is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from autodiff import autocast, namespace, raw, tensor
from backends import get
from backends.stochastic import stochastic_bf16
from ref.demo.charts import blank

KINDS = ("float32", "float32 masters", "bfloat16, stochastic", "bfloat16")
ROWS, CHANNELS, RATE = 256, 8, 2.0**-6


class Run(NamedTuple):
    """Loss before each step and after the last, in float64; steps at the end in which no weight moved; the weights."""

    losses: list
    still: int
    weights: np.ndarray


def problem(seed=0):
    """(X[N d], w*[d]): bfloat16 numbers, so that no run starts from other data."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-8, 9, (ROWS, CHANNELS)) / 8.0
    return X, 1 + rng.integers(0, 128, CHANNELS) / 128


def train(kind, steps=1500, seed=0):
    """Gradient descent from w = 4 on the problem.

    Parameters
    ----------
    kind : one of KINDS
        How the weights are kept, and for "float32" what everything runs in.
    steps : int
    seed : int
        Of the problem and of the rounding noise.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        Unknown kind, or steps < 1.
    """
    if kind not in KINDS or steps < 1:
        raise ValueError(f"train: kind={kind!r}, steps={steps}; needed one of {KINDS} and at least 1 step")
    xp, rng = get("rounded"), np.random.default_rng(seed)
    X, target = problem(seed)
    low = "bfloat16" in kind
    store = xp.bfloat16 if low else xp.float32
    Xs, ys, w = (xp.astype(xp.from_numpy(a), store) for a in (X, X @ target, np.full(CHANNELS, 4.0)))
    losses, still = [], 0
    for _ in range(steps):
        losses.append(_loss(X, target, w, xp))
        w, before = _step(kind, Xs, ys, w, xp, rng), w
        still = still + 1 if np.array_equal(xp.to_numpy(w), xp.to_numpy(before)) else 0
    return Run([*losses, _loss(X, target, w, xp)], still, xp.to_numpy(w))


def _loss(X, target, w, xp):
    return float(np.mean((X @ (xp.to_numpy(w).astype(np.float64) - target)) ** 2) / 2)


def _step(kind, X, y, w, xp, rng):
    """The weights after one step of gradient descent."""
    t = tensor(w, requires_grad=True)

    def loss():
        off = namespace(t).matmul(X, t) - y
        return namespace(off).sum(off * off) * (0.5 / ROWS)

    if kind == "float32 masters":
        with autocast(xp.bfloat16):
            out = loss()
    else:
        out = loss()
    out.backward()
    update = raw(t.grad) * -RATE
    if kind != "bfloat16, stochastic":
        return w + update
    total = xp.to_numpy(w) + xp.to_numpy(update)
    return xp.astype(xp.from_numpy(stochastic_bf16(total, rng.integers(0, 1 << 16, total.shape, np.uint16))), w.dtype)


def picture(path, losses) -> Path:
    """Draw the losses of runs over steps, on a logarithmic scale, as PNG.

    Parameters
    ----------
    path : path
        Its folder exists.
    losses : {name: sequence of float}

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        No run, or a loss that is not a finite number of at least 0.
    """
    curves = {name: np.asarray(values, float) for name, values in losses.items()}
    if not curves or not all(c.ndim == 1 and c.size and np.isfinite(c).all() and c.min() >= 0 for c in curves.values()):
        raise ValueError(f"picture: losses has runs {list(losses)}; needed at least one, of finite losses >= 0")

    figure, save = blank((8, 5))
    axes = figure.add_subplot()
    for i, (name, curve) in enumerate(curves.items()):
        axes.semilogy(np.maximum(curve, 1e-16), color=f"C{i}", linewidth=1, label=f"{name}: {curve[-1]:.1e}")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (mean squared error / 2)")
    axes.grid(alpha=0.3)
    axes.legend()
    return save(path)
