"""Pictures of the digits' diffusion models: rows of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ref.demo.charts import blank
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
    figure, save = blank((0.55 * counts.pop() + 3, 0.55 * len(images) + 0.6))
    axes = figure.add_subplot()
    axes.imshow(sheet, cmap="gray_r", vmin=-1, vmax=1)
    axes.set_yticks([(k + 0.5) * (SIDE + 2) - 0.5 for k in range(len(images))], list(images))
    axes.set_xticks([])
    axes.set_title(title)
    return save(path)
