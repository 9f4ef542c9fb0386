"""Grid world: a robot among forbidden cells, on the way to a target.

Source: Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 1.1-1.4, 2.5 and Figure 3.4.

    actions 0 .. 4: up, right, down, left, stay
    a step to a cell pays r_target if it is the target, r_forbidden if it is forbidden, else r_other;
    a step off the grid leaves the robot where it is and pays r_boundary

Notation
    rows, columns; state s = row * columns + column; the results P[S A S], R[S A], S = rows * columns, A = 5.

Conventions
    C1  Cells are (row, column) from 0; the book counts from 1.
    C2  Forbidden cells can be entered, at a price, as in the book; they are not walls.
    C3  The target is a cell like any other: who stays pays in r_target again, so v* = r_target / (1 - gamma) there.
        `absorbing` ends the task at the target instead: it then pays once, on the way in.
    C4  Bumping into the boundary pays r_boundary alone, from the target and from forbidden cells too.

Laws
    L1 every_step_by_hand                    L2 published_values
    L3 value_falls_with_the_distance         L4 mirrored_grid
"""

from __future__ import annotations

import numpy as np

from ref.mdp.model import check_count
from ref.spec import spec

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))


@spec("mdp.grid_world", "rows:int[], columns:int[] -> P:tree, R:tree", backends=("numpy",))
def grid_world(
    rows,
    columns,
    *,
    target,
    forbidden=(),
    r_target=1.0,
    r_forbidden=-1.0,
    r_boundary=-1.0,
    r_other=0.0,
    absorbing=False,
):
    """The model of a grid with a target and forbidden cells.

    Parameters
    ----------
    rows, columns : int
        At least 1.
    target : (row, column)
    forbidden : sequence of (row, column)
    r_target, r_forbidden, r_boundary, r_other : float
        Rewards of a step.
    absorbing : bool
        The task ends at the target.

    Returns
    -------
    P : float64[S 5 S]
    R : float64[S 5]

    Raises
    ------
    ValueError
        A size below 1, a cell off the grid, or a target that is forbidden.
    TypeError
        A size is no integer.

    Complexity: 5 S^2 for the zeros of P.

    >>> P, R = grid_world(1, 2, target=(0, 1))
    >>> P[0].argmax(-1), R[0]
    (array([0, 1, 0, 0, 0]), array([-1.,  1., -1., -1.,  0.]))
    """
    check_count("grid_world", 1, rows=rows, columns=columns)
    rows, columns = int(rows), int(columns)
    target, forbidden = tuple(target), {tuple(cell) for cell in forbidden}
    for name, cells in (("target", [target]), ("forbidden", sorted(forbidden))):
        off = [c for c in cells if not (len(c) == 2 and 0 <= c[0] < rows and 0 <= c[1] < columns)]
        if off:
            raise ValueError(f"grid_world: {name} {off[0]} is off the grid; needed (row, column) in {rows} x {columns}")
    if target in forbidden:
        raise ValueError(f"grid_world: target {target} is forbidden; needed another cell")
    S = rows * columns
    P, R = np.zeros((S, len(MOVES), S)), np.zeros((S, len(MOVES)))
    for s in range(S):
        cell = divmod(s, columns)
        for a, move in enumerate(MOVES):
            to = cell[0] + move[0], cell[1] + move[1]
            if absorbing and cell == target:
                P[s, a, s] = 1
            elif not (0 <= to[0] < rows and 0 <= to[1] < columns):
                P[s, a, s], R[s, a] = 1, r_boundary
            else:
                P[s, a, to[0] * columns + to[1]] = 1
                R[s, a] = r_target if to == target else r_forbidden if to in forbidden else r_other
    return P, R
