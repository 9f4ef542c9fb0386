"""The loss curve of a training run as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


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
    curves = {"train": _curve("train", train), "heldout": _curve("heldout", heldout)}
    bad = [name for name, value in baselines.items() if not np.isfinite(value)]
    if bad:
        raise ValueError(f"loss_curve: baselines {bad} are not finite")

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*curves["train"], color="C0", linewidth=1, label="training text")
    axes.plot(*curves["heldout"], "o-", color="C1", label="held-out text")
    for i, (name, value) in enumerate(baselines.items()):
        axes.axhline(value, color=f"C{2 + i}", linestyle="--", label=f"{name}: {value:.3f}")
    axes.set_xlabel("training step")
    axes.set_ylabel("loss (bits per byte)")
    axes.set_ylim(bottom=0, top=_top(curves, baselines))
    axes.grid(alpha=0.3)
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})
    return Path(path)


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
