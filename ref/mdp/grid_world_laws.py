"""Laws and mutants of the grid world."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import f64, shaped
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "mdp.grid_world"
ONE = {"dtypes": ("float64",)}


def _size(low, high):
    return lambda draw, c: np.array(draw(dims(low, high).strategy(False)))


def _cells(draw, c):
    """(target, forbidden cells): distinct cells."""
    g, n = rng(draw), int(c.rows) * int(c.columns)
    cells = [divmod(int(i), int(c.columns)) for i in g.permutation(n)]
    c["forbidden"] = tuple(cells[1 : 1 + int(g.integers(0, max(n - 1, 0) // 2 + 1))])
    return cells[0]


space = cases(
    ID, rows=_size(1, 4), columns=_size(1, 4), forbidden=(), target=_cells, r_target=choose(1.0, 0.5),
    r_forbidden=choose(-1.0, -10.0), r_boundary=choose(-1.0, -0.25), r_other=choose(0.0, -0.125),
    absorbing=choose(False, True), A=5, S=lambda draw, c: int(c.rows) * int(c.columns),
    flags={
        "one_cell": Flag(lambda c: c.S == 1, {"rows": _size(1, 1), "columns": _size(1, 1)}),
        "uneven": Flag(lambda c: c.rows != c.columns, {"rows": _size(1, 2), "columns": _size(3, 4)}),
        "ends": Flag(lambda c: c.absorbing, {"absorbing": True}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("one_cell", "uneven", "ends"), **ONE,
    kills=["columns_first", "rows_count_upwards", "a_torus", "forbidden_cells_are_walls", "reward_of_the_cell_left",
           "boundary_is_free", "target_ends_anyway", "boundary_in_the_target_pays_it", "turned_actions"],
)  # fmt: skip
def every_step_by_hand(impl, c, expect):
    "Each of the five moves from each cell, followed with a finger on the map."
    P, R = built_by(impl, c, expect)
    rows, columns = int(c.rows), int(c.columns)
    for i in range(rows):
        for j in range(columns):
            for a, (to, inside) in enumerate((
                ((i - 1, j), i > 0), ((i, j + 1), j < columns - 1), ((i + 1, j), i < rows - 1), ((i, j - 1), j > 0),
                ((i, j), True),
            )):  # fmt: skip
                pays = c.r_target if to == c.target else c.r_forbidden if to in c.forbidden else c.r_other
                pays = pays if inside else c.r_boundary
                to = to if inside else (i, j)
                if c.absorbing and (i, j) == c.target:
                    to, pays = (i, j), 0.0
                wanted = np.zeros((rows, columns))
                wanted[to] = 1
                expect.same(P[i * columns + j, a], wanted.reshape(-1), f"P at {(i, j)}, action {a}")
                expect.same(R[i * columns + j, a], np.array(pays), f"R at {(i, j)}, action {a}")


def built_by(impl, c, expect):
    return shaped(expect, impl(c), (np.float64, (c.S, 5, c.S)), (np.float64, (c.S, 5)))


def optimum(P, R, gamma=0.9, sweeps=300):
    P, R = f64(P, R)
    v = np.zeros(len(R))
    for _ in range(sweeps):
        v = (R + gamma * np.einsum("sat,t->sa", P, v)).max(1)
    return v


BOOK = {"rows": np.array(5), "columns": np.array(5), "target": (3, 2), "S": 25, "r_target": 1.0, "r_boundary": -1.0,
        "forbidden": ((1, 1), (1, 2), (2, 2), (3, 1), (3, 3), (4, 1)), "r_other": 0.0, "absorbing": False}  # fmt: skip
PUBLISHED = np.array([
    [5.8, 5.6, 6.2, 6.5, 5.8],
    [6.5, 7.2, 8.0, 7.2, 6.5],
    [7.2, 8.0, 10.0, 8.0, 7.2],
    [8.0, 10.0, 10.0, 10.0, 8.0],
    [7.2, 9.0, 10.0, 9.0, 8.1],
])  # fmt: skip


@law(
    ID, "L2", closed_form=True, given=space.where(rows=BOOK["rows"], columns=BOOK["columns"]), **ONE,
    kills=["columns_first", "forbidden_cells_are_walls", "target_ends_anyway"],
)  # fmt: skip
def published_values(impl, c, expect):
    """The book's 5 x 5 grid, gamma = .9: v* to one decimal as printed at r_forbidden = -1, and at -10 the first row
    3.5 3.9 4.3 4.8 5.3."""
    for price, wanted in ((-1.0, PUBLISHED), (-10.0, np.array([[3.5, 3.9, 4.3, 4.8, 5.3]]))):
        v = optimum(*built_by(impl, c.replace(**BOOK, r_forbidden=price), expect)).reshape(5, 5)[: len(wanted)]
        expect(v, wanted, 0.05 + 1e-9, f"v* at r_forbidden = {price}")


@law(
    ID, "L3", closed_form=True, given=space.where(r_other=0.0, r_target=1.0, uneven=True), **ONE,
    kills=["columns_first", "a_torus", "target_ends_anyway"],
)  # fmt: skip
def value_falls_with_the_distance(impl, c, expect):
    """Nothing forbidden, gamma = .9: d steps from the target v* = gamma^(d - 1) / (1 - gamma), on it 1 / (1 - gamma);
    with an end at the target gamma^(d - 1), and 0 on it."""
    v = optimum(*built_by(impl, c.replace(forbidden=()), expect)).reshape(int(c.rows), int(c.columns))
    i, j = np.indices(v.shape)
    d = np.abs(i - c.target[0]) + np.abs(j - c.target[1])
    wanted = 0.9 ** np.maximum(d - 1, 0)
    wanted = np.where(d == 0, 0.0, wanted) if c.absorbing else wanted / 0.1
    expect(v, wanted, 1e-9, scale=10.0)


@law(ID, "L4", given=space.reach("uneven"), **ONE, kills=["turned_actions", "boundary_in_the_target_pays_it"],
     passes_null=["zeros", "constant", "nan"])  # fmt: skip
def mirrored_grid(impl, c, expect):
    "The grid seen in a mirror, left for right, is the grid with right and left exchanged; and so top for bottom."
    P, R = built_by(impl, c, expect)
    rows, columns = int(c.rows), int(c.columns)
    cells = np.arange(c.S).reshape(rows, columns)
    for turned, moves, flip in (
        (cells[:, ::-1].reshape(-1), [0, 3, 2, 1, 4], lambda i, j: (i, columns - 1 - j)),
        (cells[::-1].reshape(-1), [2, 1, 0, 3, 4], lambda i, j: (rows - 1 - i, j)),
    ):
        other = c.replace(target=flip(*c.target), forbidden=tuple(flip(*x) for x in c.forbidden))
        Q, r = built_by(impl, other, expect)
        expect.same(Q, P[turned][:, moves][:, :, turned], "P")
        expect.same(r, R[turned][:, moves], "R")


# Mutants ---------------------------------------------------------------------------------------------


def single(**options):
    """The default-size test: one cell, which is the target."""
    return lambda: ((np.array(1), np.array(1)), {"target": (0, 0), "r_boundary": 1.0, **options})


MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))


def built(rows, columns, *, target, forbidden=(), r_target=1.0, r_forbidden=-1.0, r_boundary=-1.0, r_other=0.0,
          absorbing=False, **edit):  # fmt: skip
    """The grid in plain loops, whose parts an edit replaces."""
    rows, columns = int(rows), int(columns)
    number = edit.get("number", lambda i, j: i * columns + j)
    P, R = np.zeros((rows * columns, 5, rows * columns)), np.zeros((rows * columns, 5))
    for i in range(rows):
        for j in range(columns):
            for a, (di, dj) in enumerate(edit.get("moves", MOVES)):
                k, m = edit.get("wrap", lambda k, m: (k, m))(i + di, j + dj)
                seen = edit.get("seen", lambda old, new: new)((i, j), (k, m))
                pays = r_target if seen == target else r_forbidden if seen in forbidden else r_other
                if edit.get("ends", absorbing) and (i, j) == target:
                    (k, m), pays = (i, j), 0.0
                elif not (0 <= k < rows and 0 <= m < columns):
                    (k, m), pays = (i, j), edit.get("bump", lambda cell: r_boundary)((i, j))
                elif edit.get("walls") and (k, m) in forbidden:
                    (k, m), pays = (i, j), r_forbidden
                P[number(i, j), a, number(k, m)], R[number(i, j), a] = 1, pays
    return P, R


@mutant(ID, default_case=single())
def columns_first(rows, columns, **options):
    "State = column * rows + row."
    return built(rows, columns, **options, number=lambda i, j: j * int(rows) + i)


@mutant(ID, default_case=single())
def rows_count_upwards(rows, columns, **options):
    "y points up: up is row + 1."
    return built(rows, columns, **options, moves=((1, 0), (0, 1), (-1, 0), (0, -1), (0, 0)))


@mutant(ID, default_case=single())
def turned_actions(rows, columns, **options):
    "up, down, left, right, stay."
    return built(rows, columns, **options, moves=((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)))


@mutant(ID, default_case=single())
def a_torus(rows, columns, **options):
    "A negative index counts from the other side."
    return built(rows, columns, **options, wrap=lambda k, m: (k % int(rows), m % int(columns)))


@mutant(ID, default_case=single())
def forbidden_cells_are_walls(*args, **options):
    "A forbidden cell cannot be entered."
    return built(*args, **options, walls=True)


@mutant(ID, default_case=single())
def reward_of_the_cell_left(*args, **options):
    "The reward is that of the cell that is left."
    return built(*args, **options, seen=lambda old, new: old)


@mutant(ID, default_case=single(r_boundary=0.0))
def boundary_is_free(*args, r_boundary=-1.0, **options):
    "A bump costs nothing."
    return built(*args, **options, r_boundary=0.0)


@mutant(ID, default_case=single(absorbing=True))
def target_ends_anyway(*args, absorbing=False, **options):
    "The task ends at the target, whatever was said."
    return built(*args, **options, absorbing=True)


@mutant(ID, default_case=single())
def boundary_in_the_target_pays_it(*args, target, r_target=1.0, r_boundary=-1.0, **options):
    "A bump to the left in the target pays for the target."
    P, R = built(*args, target=target, r_target=r_target, r_boundary=r_boundary, **options)
    s = target[0] * int(args[1]) + target[1]
    if target[1] == 0 and not options.get("absorbing"):
        R[s, 3] = r_target
    return P, R
