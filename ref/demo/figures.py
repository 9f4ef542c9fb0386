"""`closedform figures`: textbook pictures, drawn from the algorithms.

    robbins_monro     the root of tanh(w - 1) through noise, by three sequences of rates
    mean_estimation   SGD, mini-batch and batch descent on the mean of points in a square
    least_squares     the same three on a line through noisy points
    weight_decay      what decay leaves of a weight, by the size of its gradients: Adam + L2 against AdamW

Each figure is a function that returns its panels, numbers that a test can read; `draw` makes a PNG of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console

from ref.demo.charts import blank
from ref.optim.adam_l2 import adam_l2
from ref.optim.adamw import adamw, start
from ref.optim.minibatch_descent import minibatch_descent
from ref.optim.robbins_monro import robbins_monro


class Panel(NamedTuple):
    """One pair of axes: lines {label: (x, y)}, dashed levels {label: y}, and which axes are logarithmic."""

    title: str
    x: str
    y: str
    lines: dict
    levels: dict
    log: str = ""


def robbins_monro_panels(steps=200, seed=0):
    """tanh(w - 1) from w = 3 under standard normal noise: 1 / k converges, a constant rate does not settle,
    1 / (k + 1)^2 stops short."""
    k = np.arange(1, steps + 1)
    noise = np.random.default_rng(seed).standard_normal(steps)
    rates = {"a = 1 / k": 1 / k, "a = 0.2": np.full(steps, 0.2), "a = 1 / (k + 1)^2": 1 / (k + 1.0) ** 2}
    panels = []
    for title, eta in (("no noise", np.zeros(steps)), ("standard normal noise", noise)):
        paths = {
            label: robbins_monro(np.array(3.0), a, eta, function=lambda w: np.tanh(w - 1)) for label, a in rates.items()
        }
        lines = {label: (np.arange(steps + 1), np.append(3.0, w)) for label, w in paths.items()}
        panels.append(Panel(f"root of tanh(w - 1), {title}", "step", "estimate w", lines, {"root": 1.0}))
    return panels


def _drawn(rng, n, steps, m):
    """steps x m points: all of them in order where m = n, else drawn with replacement."""
    return np.tile(np.arange(n), (steps, 1)) if m == n else rng.integers(0, n, (steps, m))


def mean_estimation_panels(steps=30, n=100, runs=100, seed=0):
    """n points uniform in a square of side 20 about the origin, from (20, 20), a_k = 1 / k.

    Drawn with replacement, k batches of m leave a mean square distance of s^2 / (k m) to the sample mean.
    """
    rng = np.random.default_rng(seed)
    points = rng.uniform(-10, 10, (n, 2))
    mean, spread = points.mean(0), points.var(0).sum()
    X, first, k = np.ones((n, 1)), np.full((1, 2), 20.0), np.arange(1, steps + 1)
    paths, gaps = {"points": (points[:, 0], points[:, 1])}, {}
    for label, m in (("SGD, m = 1", 1), ("MBGD, m = 5", 5), ("MBGD, m = 50", 50), (f"BGD, m = {n}", n)):
        ws = [minibatch_descent(X, points, first, 1 / k, _drawn(rng, n, steps, m))[:, 0] for _ in range(runs)]
        w = np.concatenate([first, ws[0]])
        paths[label] = (w[:, 0], w[:, 1])
        if m < n:
            gaps[label] = (k, np.sqrt(np.mean(np.sum((np.array(ws) - mean) ** 2, axis=-1), axis=0)))
            gaps[f"s / sqrt({m} k)"] = (k, np.sqrt(spread / (m * k)))
    return [
        Panel("mean of points in a square", "x", "y", paths, {}),
        Panel(f"distance to the sample mean, RMS of {runs} runs", "step", "distance", gaps, {}, "xy"),
    ]


def least_squares_panels(steps=300, n=200, seed=0):
    """y = 2 x - 1 + noise: loss above the least, and the weights, for three sizes of batches at one constant rate."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    X, Y = np.stack([x, np.ones(n)], axis=1), (2 * x - 1 + 0.3 * rng.standard_normal(n))[:, None]
    best = np.linalg.lstsq(X, Y, rcond=None)[0]
    least = np.mean((X @ best - Y) ** 2) / 2
    losses, paths = {}, {}
    for label, m in (("SGD, m = 1", 1), ("MBGD, m = 20", 20), (f"BGD, m = {n}", n)):
        W = minibatch_descent(X, Y, np.zeros((2, 1)), np.full(steps, 0.3), _drawn(rng, n, steps, m))
        losses[label] = (np.arange(1, steps + 1), np.mean((X @ W - Y) ** 2, axis=(1, 2)) / 2 - least + 1e-17)
        paths[label] = (W[:, 0, 0], W[:, 1, 0])
    return [
        Panel("least squares, constant rate 0.3", "step", "loss above the least", losses, {}, "y"),
        Panel("weights", "slope", "intercept", paths, {}),
    ]


def weight_decay_panels(steps=400, copies=64, seed=0):
    """Weights of 1 whose gradients are noise of standard deviation s: what 400 steps of decay leave of them."""
    sizes = 10.0 ** np.linspace(-3, 2, 21)
    options = {"lr": 0.01, "weight_decay": 0.5, "beta2": 0.99}
    kept, paths = {}, {}
    for label, step in (("Adam + L2", adam_l2), ("AdamW", adamw)):
        rng = np.random.default_rng(seed)
        th = np.ones((sizes.size, copies))
        state, means = start(th), [np.ones(sizes.size)]
        for _ in range(steps):
            th, state = step(th, sizes[:, None] * rng.standard_normal(th.shape), state, **options)
            means.append(th.mean(1))
        kept[label] = (sizes, means[-1])
        for i in (4, 16):
            paths[f"{label}, s = {sizes[i]:.2g}"] = (np.arange(steps + 1), np.array(means)[:, i])
    left = (1 - options["lr"] * options["weight_decay"]) ** steps
    level = {"(1 - lr wd)^t": left}
    return [
        Panel(f"mean weight after {steps} steps", "standard deviation s of the gradient", "weight", kept, level, "x"),
        Panel("on the way", "step", "mean weight", paths, level),
    ]


FIGURES = {
    "robbins_monro": robbins_monro_panels,
    "mean_estimation": mean_estimation_panels,
    "least_squares": least_squares_panels,
    "weight_decay": weight_decay_panels,
}


def draw(path, panels):
    """Draw panels side by side as a PNG; returns its path.

    Raises
    ------
    ValueError
        A number that is not finite, or not positive on a logarithmic axis.
    """
    for panel in panels:
        for label, xy in panel.lines.items():
            for axis, values in zip("xy", map(np.asarray, xy), strict=True):
                if not np.isfinite(values).all() or (axis in panel.log and not (values > 0).all()):
                    raise ValueError(f"draw: {label!r} of {panel.title!r} has {axis} that cannot be drawn")

    figure, save = blank((6 * len(panels), 4.5))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for label, (x, y) in panel.lines.items():
            style = {"marker": ".", "linestyle": "", "alpha": 0.4} if label == "points" else {"linewidth": 1.2}
            style |= {"color": "0.5", "linestyle": ":"} if label.startswith("s / ") else {}
            axes.plot(x, y, label=label, **style)
        for label, y in panel.levels.items():
            axes.axhline(y, color="0.3", linestyle="--", label=f"{label}: {y:.3f}")
        axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        axes.set_xscale("log" if "x" in panel.log else "linear")
        axes.set_yscale("log" if "y" in panel.log else "linear")
        axes.grid(alpha=0.3)
        axes.legend()
    return save(path)


def figures(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(FIGURES)}; all if none is named.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("closedform-figures"),
):
    """Textbook pictures, drawn from the algorithms."""
    unknown = [name for name in names or () if name not in FIGURES]
    if unknown:
        Console(stderr=True).print(f"closedform: no figure {unknown[0]!r}; there are {', '.join(FIGURES)}")
        raise typer.Exit(2)
    out.mkdir(parents=True, exist_ok=True)
    for name in names or FIGURES:
        print(draw(out / f"{name}.png", FIGURES[name]()))
