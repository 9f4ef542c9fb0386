"""Pictures as PNG files: a blank figure, curves over steps, the loss curve of a training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


def blank(size):
    """(an empty figure of so many inches, a function that writes it as PNG and gives the path).

    The same drawing gives the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")

    def save(path):
        FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})
        return Path(path)

    return figure, save


def curves(path, lines, levels, x, y, *, log=False) -> Path:
    """Draw lines, and horizontal levels.

    Parameters
    ----------
    path : path
        Where the PNG goes; its folder exists.
    lines : {label: sequence of (x, y)}
        Fewer than 30 points are marked.
    levels : {label: y}
    x, y : str
        Labels of the axes.
    log : bool
        Logarithmic axes.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        No line, one without points, or a number that is not finite.
    """
    numbers = [v for points in lines.values() for p in points for v in p] + list(levels.values())
    if not lines or not all(map(len, lines.values())) or not np.isfinite(numbers).all():
        raise ValueError(f"curves: lines are {list(lines)}; needed at least one, of finite points")
    figure, save = blank((8, 5))
    axes = figure.add_subplot()
    for k, (name, points) in enumerate(lines.items()):
        style = {"marker": ".", "markersize": 8} if len(points) < 30 else {"linewidth": 1}
        axes.plot(*np.asarray(points, float).T, color=f"C{k % 10}", label=name, **style)
    for k, (name, value) in enumerate(levels.items()):
        axes.axhline(value, color=f"C{(len(lines) + k) % 10}", linestyle="--", label=f"{name}: {value:.6g}")
    if log:
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return save(path)


def loss_curve(
    path,
    train: Sequence[tuple[float, float]],
    heldout: Sequence[tuple[float, float]],
    baselines: Mapping[str, float],
) -> Path:
    """Draw training loss, held-out loss and the baselines over training steps, as PNG.

    Parameters
    ----------
    path : path
        Where the PNG goes; its folder exists.
    train, heldout : sequence of (step, bits per byte)
        Drawn as a line, and as points joined by a line.
    baselines : mapping of str to float
        Bits per byte on the held-out text, each a dashed line with its name and value.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        A curve that is not pairs, or a number that is not finite.
    """
    both = {"train": _curve("train", train), "heldout": _curve("heldout", heldout)}
    bad = [name for name, value in baselines.items() if not np.isfinite(value)]
    if bad:
        raise ValueError(f"loss_curve: baselines {bad} are not finite")

    figure, save = blank((8, 5))
    axes = figure.add_subplot()
    axes.plot(*both["train"], color="C0", linewidth=1, label="training text")
    axes.plot(*both["heldout"], "o-", color="C1", label="held-out text")
    for i, (name, value) in enumerate(baselines.items()):
        axes.axhline(value, color=f"C{2 + i}", linestyle="--", label=f"{name}: {value:.3f}")
    axes.set_xlabel("training step")
    axes.set_ylabel("loss (bits per byte)")
    axes.set_ylim(bottom=0, top=_top(both, baselines))
    axes.grid(alpha=0.3)
    axes.legend()
    return save(path)


def _curve(name, points):
    array = np.asarray(points, dtype=float) if len(points) else np.empty((0, 2))
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise ValueError(
            f"loss_curve: {name} has shape {array.shape}; finite pairs (step, bits per byte) "
            "are needed"
        )
    return array.T


def _top(curves, baselines):
    """Leave out the first steps' heights, which would flatten all that follows."""
    heights = [*curves["heldout"][1], *baselines.values()]
    heights += [np.quantile(curves["train"][1], 0.98)] if curves["train"].size else []
    return 1.15 * max(heights, default=8)
