"""Pictures of reinforcement learning: values with the policy's arrows, errors over iterations, a frontier."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ref.demo.charts import blank

# Up, right, down, left on the map, by the actions of the environment: (column step, row step).
ARROWS = {
    "frozenlake": ((-1, 0), (0, 1), (1, 0), (0, -1)),  # left, down, right, up
    "frozenlake8x8": ((-1, 0), (0, 1), (1, 0), (0, -1)),
    "cliffwalking": ((0, -1), (1, 0), (0, 1), (-1, 0)),  # up, right, down, left
}


def value_map(path, task, table, values, policy) -> Path:
    """Draw the map with each state's value and an arrow for its best action.

    Parameters
    ----------
    path : path
        Where the PNG goes; its folder exists.
    task : str
    table : Table
    values : float[S+1]
    policy : float[S+1 A]

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        A value that is not finite, or another number of states than the map has.
    """
    rows, columns = table.shape
    if len(values) != rows * columns + 1 or not np.isfinite(values).all():
        raise ValueError(f"value_map: values has {len(values)} entries; needed {rows * columns + 1} finite ones")
    figure, save = blank((1.1 * columns + 1, 1.1 * rows + 0.5))
    axes = figure.add_subplot()
    grid = np.asarray(values[:-1]).reshape(rows, columns)
    shown = axes.imshow(grid, cmap="viridis")
    middle = (grid.max() + grid.min()) / 2
    for i, j in np.ndindex(rows, columns):
        s, ink = i * columns + j, "white" if grid[i, j] < middle else "black"
        letter = table.letters[i, j] if table.letters is not None else ""
        axes.text(j, i + 0.38, f"{letter} {grid[i, j]:.3g}", ha="center", va="center", color=ink, fontsize=8)
        if _over(table, s):
            continue
        for a, (right, down) in enumerate(ARROWS[task]):
            if policy[s, a] > 1 / len(ARROWS[task]) + 1e-9:
                axes.arrow(j - 0.2 * right, i - 0.2 * down - 0.08, 0.25 * right, 0.25 * down, color=ink, head_width=0.1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.figure.colorbar(shown, ax=axes, shrink=0.7)
    return save(path)


def _over(table, s):
    """Whether nothing is to be chosen in s: a hole, a goal, or a cell that no step leads to (the cliff)."""
    if table.letters is not None:
        return table.letters.reshape(-1)[s] in "HG"
    return not (table.P[:-1, :, s] > 0).any() and table.start[s] == 0


def error_curve(path, curve, gamma, unit) -> Path:
    """Draw errors over iterations, on a logarithmic scale, with the line gamma^k times the first one.

    Parameters
    ----------
    path : path
        Where the PNG goes; its folder exists.
    curve : sequence of (k, error, ...)
    gamma : float
    unit : str
        What k counts.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        No point, or an error that is not finite.
    """
    k, error = (np.array([point[i] for point in curve], float) for i in (0, 1))
    if not k.size or not np.isfinite(error).all():
        raise ValueError("error_curve: needed at least one point, and finite errors")
    figure, save = blank((7, 4.5))
    axes = figure.add_subplot()
    axes.semilogy(k, np.maximum(error, 1e-16), ".-", label="largest error of a value")
    axes.semilogy(
        k, np.maximum(error[0] * gamma**k, 1e-16), "--", color="0.4", label="gamma^k, the bound of value iteration"
    )
    axes.set(xlabel=unit, ylabel="max |v - v*|")
    axes.grid(alpha=0.3)
    axes.legend()
    return save(path)


def frontier(path, line, paths, x, y) -> Path:
    """Draw an exact frontier and where runs are beside it.

    Parameters
    ----------
    path : path
        Where the PNG goes; its folder exists.
    line : sequence of (x, y)
        The frontier.
    paths : {label: sequence of (x, y)}
        Points of a run in their order, joined by a thin line.
    x, y : str

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        No point of the frontier, or a number that is not finite.
    """
    if not len(line) or not all(np.isfinite(np.asarray(p, float)).all() for p in (line, *paths.values())):
        raise ValueError(f"frontier: {len(line)} points and {list(paths)}; needed at least one, all finite")
    figure, save = blank((7, 4.5))
    axes = figure.add_subplot()
    axes.plot(*np.asarray(sorted(line), float).T, color="black", linewidth=1.5, label="exact frontier")
    for i, (label, points) in enumerate(paths.items()):
        axes.plot(*np.asarray(points, float).T, "o-", color=f"C{i}", linewidth=0.7, markersize=4, label=label)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend()
    return save(path)
