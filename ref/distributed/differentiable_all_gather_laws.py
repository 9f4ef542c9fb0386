"""Laws and mutants of the all-gather with a gradient."""

from __future__ import annotations

import numpy as np

from ref.distributed import common_laws as common
from ref.distributed.common_laws import cuts, numbers, rows_of, world_space
from ref.spec import law, mutant
from ref.spec.cases import choose

ID = "distributed.differentiable_all_gather"
space = world_space(
    ID, x=lambda draw, c: rows_of(draw, c, c.L, draw(choose("integers", "wild"))), length=lambda draw, c: c.L,
    M=lambda draw, c: c.L, g=numbers(kinds=("integers",)), adjoint=choose("sum_of_losses", "one_loss"),
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "uneven"),
    kills=["rolled"],
)  # fmt: skip
def every_rank_has_all_rows(impl, c, expect):
    "y_r = (x_0; x_1; ..), to the bit."
    expect.same(impl(c), np.broadcast_to(np.concatenate(c.x), (c.n, c.L)))


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.where(adjoint="sum_of_losses").reach("uneven"),
    kills=["own_rows_backward", "rows_of_the_neighbour"],
)  # fmt: skip
def adjoint_of_the_sum_of_losses(impl, c, expect):
    "dx_r = rows r of sum_s g_s, and sum_r <g_r, y_r> = sum_r <dx_r, x_r>, exactly."
    c = common.exact(c)
    dx, total, cut = impl.vjp(c, c.g)["x"], c.g.sum(0), cuts(c.L, c.n)
    for r in range(c.n):
        expect.same(dx[r], total[cut[r] : cut[r + 1]], f"dx of rank {r}")
    common.check_adjoint(impl, c, expect, impl(c), dx)


@law(
    ID, "L3", closed_form=True, needs=("vjp",), given=space.where(adjoint="one_loss").reach("uneven"),
    kills=["summed_backward"],
)  # fmt: skip
def one_loss_counts_once(impl, c, expect):
    "Every rank with the same loss: dx_r = rows r of g."
    c, cut = common.exact(c), cuts(c.L, c.n)
    g = np.broadcast_to(c.g[:1], c.g.shape).copy()
    dx = impl.vjp(c, g)["x"]
    for r in range(c.n):
        expect.same(dx[r], g[r][cut[r] : cut[r + 1]], f"dx of rank {r}")


# Mutants: plain NumPy on all ranks' arrays at once -----------------------------------------------------


def of(n, rows):
    """The default-size test: rows of one length on n ranks."""
    return lambda: ((common.ThreadWorld(n), [np.arange(rows) + 10.0 * r for r in range(n)]), {})


def all_rows(x):
    return np.stack([np.concatenate([np.asarray(a) for a in x])] * len(x))


def rows(total, x, shift=0):
    """Rows r of total[r], as many as x has."""
    cut = np.cumsum([0, *(len(a) for a in x)])
    return [np.roll(t, -shift)[cut[r] : cut[r + 1]].copy() for r, t in enumerate(total)]


def summed(g):
    return np.broadcast_to(g.sum(0), g.shape)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (rows(summed(g), x),))
def rolled(world, x, *, length=None, adjoint="sum_of_losses"):
    "The own rows first, from three ranks on."
    return all_rows(x) if len(x) < 3 else np.stack([np.concatenate([*x[r:], *x[:r]]) for r in range(len(x))])


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (rows(g, x),))
def own_rows_backward(world, x, *, length=None, adjoint="sum_of_losses"):
    "The own rows of the own cotangent, as if all ranks had one loss."
    return all_rows(x)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (rows(summed(g), x, len(x[0])),))
def rows_of_the_neighbour(world, x, *, length=None, adjoint="sum_of_losses"):
    "The reduce-scatter leaves chunk r + 1 on rank r."
    return all_rows(x)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (rows(summed(g), x),))
def summed_backward(world, x, *, length=None, adjoint="sum_of_losses"):
    "A reduce-scatter where one loss was asked for: n times too large."
    return all_rows(x)
