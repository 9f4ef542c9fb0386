"""Pictures of the digits' diffusion models: rows of images, and curves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ref.demo.digits import SIDE


def image_rows(path, rows, title="") -> Path:
    """Draw {name: images[N 64] or [N 8 8]}, a row each, -1 white and 1 black, as PNG.

    Parameters
    ----------
    path : path
        Its folder exists.
    rows : {str: float array}
        As many images in each.
    title : str

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        No rows, rows of different numbers of images, or a pixel that is not finite.
    """
    images = {name: np.asarray(x).reshape(-1, SIDE, SIDE) for name, x in rows.items()}
    counts = {len(x) for x in images.values()}
    if len(counts) != 1 or not all(np.isfinite(x).all() for x in images.values()):
        raise ValueError(
            f"image_rows: rows have {sorted(counts)} images; needed rows of one number of finite images"
        )
    bordered = [np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=0.0) for x in images.values()]
    sheet = np.concatenate([np.concatenate(x, axis=1) for x in bordered])
    axes, save = _axes((0.55 * counts.pop() + 3, 0.55 * len(images) + 0.6))
    axes.imshow(sheet, cmap="gray_r", vmin=-1, vmax=1)
    axes.set_yticks([(k + 0.5) * (SIDE + 2) - 0.5 for k in range(len(images))], list(images))
    axes.set_xticks([])
    axes.set_title(title)
    return save(path)


def curves(path, lines, levels, labels, *, log=False) -> Path:
    """Draw {name: [(x, y)]} and horizontal {name: y}, as PNG.

    Parameters
    ----------
    path : path
    lines : {str: sequence of (float, float)}
    levels : {str: float}
    labels : (str, str)
        Of the axes.
    log : bool
        Logarithmic axes.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        No lines, or a number that is not finite.
    """
    numbers = [v for points in lines.values() for p in points for v in p] + list(levels.values())
    if not lines or not np.isfinite(numbers).all():
        raise ValueError(f"curves: lines are {list(lines)}; needed at least one, with finite numbers")
    axes, save = _axes((8, 5))
    for k, (name, points) in enumerate(lines.items()):
        style = {"marker": ".", "markersize": 8} if len(points) < 30 else {"linewidth": 1}
        axes.plot(*np.asarray(points, float).T, color=f"C{k % 10}", label=name, **style)
    for k, (name, value) in enumerate(levels.items()):
        axes.axhline(value, color=f"C{(len(lines) + k) % 10}", linestyle="--", label=f"{name}: {value:.3g}")
    if log:
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return save(path)


def _axes(size):
    """(axes of a new figure, a function that writes it)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")

    def save(path):
        FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})
        return Path(path)

    return figure.add_subplot(), save
