"""Laws and mutants of the reduce-scatter with a gradient."""

from __future__ import annotations

import numpy as np

from ref.distributed import common_laws as common
from ref.distributed.common_laws import cuts, numbers, of, rows_of, world_space
from ref.spec import law, mutant
from ref.spec.cases import choose

ID = "distributed.differentiable_reduce_scatter"
space = world_space(
    ID, x=numbers(kinds=("integers", "wild")), g=lambda draw, c: rows_of(draw, c, c.L, "integers"),
    canonical=choose(False, True),
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "uneven"),
    kills=["rows_of_the_neighbour", "mean"],
)  # fmt: skip
def rank_r_has_its_rows_of_the_sum(impl, c, expect):
    "Small integers: y_r = rows L r // n .. L (r + 1) // n of the sum, exactly."
    c = common.exact(c)
    y, total, cut = common.by_rank(impl(c), c, expect), c.x.sum(0), cuts(c.L, c.n)
    for r in range(c.n):
        expect.same(y[r], total[cut[r] : cut[r + 1]], f"y of rank {r}")
        expect.holds(y[r].dtype == c.x.dtype, f"y has x's dtype {c.x.dtype}, it has {y[r].dtype}")


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("uneven", "many"),
    kills=["own_rows_backward", "mean_backward"],
)  # fmt: skip
def adjoint_is_the_all_gather(impl, c, expect):
    "dx_r = (g_0; g_1; ..) on every rank, and sum_r <g_r, y_r> = sum_r <dx_r, x_r>, exactly."
    c = common.exact(c)
    dx = impl.vjp(c, c.g)["x"]
    expect.same(dx, np.broadcast_to(np.concatenate(c.g), c.x.shape), "dx")
    common.check_adjoint(impl, c, expect, common.by_rank(impl(c), c, expect), dx)


# Mutants: plain NumPy on all ranks' arrays at once -----------------------------------------------------


def rows(x, shift=0):
    """Rows r + shift of the sum."""
    n, total = len(x), x.sum(0)
    cut = cuts(len(total), n)
    return [total[cut[(r + shift) % n] : cut[(r + shift) % n + 1]].copy() for r in range(n)]


def gathered(g, x):
    return np.broadcast_to(np.concatenate([np.asarray(a) for a in g]), x.shape).copy()


def alone(g, x):
    """Each rank's own rows, zeros elsewhere."""
    dx, cut = np.zeros_like(x), cuts(x.shape[1], len(x))
    for r, a in enumerate(g):
        dx[r, cut[r] : cut[r + 1]] = a
    return dx


@mutant(ID, default_case=of(1, 4), vjp=lambda g, world, x, **options: (gathered(g, x),))
def rows_of_the_neighbour(world, x, *, canonical=False):
    "Chunk r + 1 on rank r."
    return rows(x, 1)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (gathered(g, x),))
def mean(world, x, *, canonical=False):
    "The mean, from three ranks on."
    return [a / a.dtype.type(len(x) if len(x) > 2 else 1) for a in rows(x)]


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (alone(g, x),))
def own_rows_backward(world, x, *, canonical=False):
    "Each rank's own rows, zeros elsewhere."
    return rows(x)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (gathered(g, x) / x.dtype.type(len(x)),))
def mean_backward(world, x, *, canonical=False):
    "The all-gather over n."
    return rows(x)
