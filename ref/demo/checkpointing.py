"""Memory against recomputation: one chain of layers under every checkpointing policy, measured and in closed form.

A layer is y = (tanh(h) sigmoid(h)) V, h = x W, with d channels and 4 d hidden ones. Its tape is x, tanh(h),
sigmoid(h) and their product: 13 units, a unit being the bytes of x; what runs again is counted in products of
matrices, 2 a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autodiff import (
    Spill,
    checkpoint,
    checkpoint_schedule,
    checkpoint_selective,
    checkpoint_sequential,
    counted,
    namespace,
    saved_bytes,
    tensor,
)
from autodiff.ops import sigmoid
from autodiff.primitive import TABLE, Primitive
from ref.demo.charts import blank
from ref.training.checkpoint_segments import checkpoint_segments
from ref.training.revolve import extra_steps, revolve

HIDDEN = 4  # units of one hidden value
TAPE = 1 + 3 * HIDDEN  # units of a layer's tape, its input included


class Policy(NamedTuple):
    """How to run a chain, `run(layers, x, spill)`, and its closed forms: units on the tape at the peak, and runs of
    layers beyond the first of each.
    """

    run: Callable
    units: int
    again: int


class Measured(NamedTuple):
    """What the engine did: units on the tape at the peak, runs of layers beyond the first, units written to a file,
    and the gradients of x and of the weights.
    """

    units: float
    again: float
    offloaded: float
    gradients: list


def policies(n, snapshots):
    """{name: Policy} for a chain of n layers; Revolve with each number of snapshots."""
    found = {
        "keep everything": Policy(_plain, TAPE * n, 0),
        "recompute each layer": Policy(_each, n + TAPE - 1, n),
        "keep the products": Policy(_selective("save"), (1 + HIDDEN) * n + TAPE, 0),
        "products to a file": Policy(_selective("offload"), n + TAPE - 1, 0),
    }
    for kind in ("uniform", "decreasing"):
        lengths = checkpoint_segments(n, kind=kind)
        units = max(j + TAPE * length for j, length in enumerate(lengths))
        found[f"segments, {kind}"] = Policy(_segments(lengths), units, n - lengths[-1])
    for s in snapshots:
        found[f"Revolve, {s}"] = Policy(_revolve(n, s), min(s, n - 1) + TAPE, extra_steps(n, s))
    return found


def _plain(layers, x, spill):
    for f in layers:
        x = f(x)
    return x


def _each(layers, x, spill):
    for f in layers:
        x = checkpoint(f, x)
    return x


def _selective(choice):
    def run(layers, x, spill):
        for f in layers:
            x = checkpoint_selective(f, x, policy={"matmul": choice}, spill=spill)
        return x

    return run


def _segments(lengths):
    return lambda layers, x, spill: checkpoint_sequential(layers, x, lengths)


def _revolve(n, s):
    return lambda layers, x, spill: checkpoint_schedule(layers, x, revolve(n, s))


def measure(policy, n, *, rows=4, channels=4, seed=0):
    """Run a chain of n layers forward and backward under a policy.

    Parameters
    ----------
    policy : Policy
    n : int
    rows, channels : int
        Shape of x.
    seed : int
        Of the weights, which differ by layer.

    Returns
    -------
    Measured
    """
    rng = np.random.default_rng(seed)
    x = tensor(rng.standard_normal((rows, channels)), requires_grad=True)
    shapes = ((channels, HIDDEN * channels), (HIDDEN * channels, channels))
    weights = [[tensor(rng.standard_normal(s) / channels**0.5, requires_grad=True) for s in shapes] for _ in range(n)]
    parameters = [w for pair in weights for w in pair]
    seen, spill, unit = {"peak": 0}, Spill(), x.data.nbytes

    def rule(xp, g, node):
        # The first of a layer to ask for what was saved: from here its whole tape is there.
        seen["peak"] = max(seen["peak"], saved_bytes(seen["out"], besides=parameters))
        return TABLE["matmul"].vjp(xp, g, node)

    last = Primitive("matmul", rule, ((1,), (0,)))

    def layer(w, v):
        def run(x):
            h = namespace(x).matmul(x, w)
            return last(namespace(h).tanh(h) * sigmoid(h), v)

        return run

    with counted() as counts:
        seen["out"] = policy.run([layer(*pair) for pair in weights], x, spill)
        seen["out"].backward(np.ones((rows, channels)))
    gradients = [t.grad for t in (x, *parameters)]
    return Measured(seen["peak"] / unit, counts["matmul"] / 2 - n, spill.written / unit, gradients)


def picture(path, n, measured, snapshots) -> Path:
    """Draw units on the tape against runs of layers beyond the first, with the optimum of each number of snapshots.

    Parameters
    ----------
    path : path
        Where the PNG goes; its folder exists.
    n : int
        Layers of the chain.
    measured : {name: (units, runs again)}
    snapshots : sequence of int
        Drawn as the closed form's curve.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        No point, a number that is not finite, or n or a number of snapshots below 1.
    """
    points = {name: np.asarray(point, float) for name, point in measured.items()}
    if not points or not all(p.shape == (2,) and np.isfinite(p).all() for p in points.values()):
        raise ValueError(f"picture: measured has {dict(measured)}; needed finite pairs (units, runs again)")
    if n < 1 or not len(snapshots) or min(snapshots) < 1:
        raise ValueError(f"picture: n={n}, snapshots={list(snapshots)}; needed numbers of at least 1")

    figure, save = blank((8, 5))
    axes = figure.add_subplot()
    curve = [(extra_steps(n, s) / n, min(s, n - 1) + TAPE) for s in snapshots]
    axes.plot(*np.array(curve).T, color="C0", linewidth=1, label="optimum: s states kept, t(n, s) runs again")
    others = [name for name in points if not name.startswith("Revolve")]
    revolved = np.array([points[name] for name in points if name not in others]).reshape(-1, 2)
    axes.plot(revolved[:, 1] / n, revolved[:, 0], "o", color="C0", label="Revolve, measured")
    for i, name in enumerate(others, 1):
        units, again = points[name]
        axes.plot([again / n], [units], "s", color=f"C{i}", label=f"{name}: {units:.0f} units")
    axes.set_xlabel(f"runs of a layer beyond the first, in runs of the whole chain of {n}")
    axes.set_ylabel("saved values at the peak (units of one layer's input)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return save(path)
