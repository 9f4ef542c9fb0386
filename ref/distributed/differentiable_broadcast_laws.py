"""Laws and mutants of the broadcast with a gradient."""

from __future__ import annotations

import numpy as np

from ref.distributed import common_laws as common
from ref.distributed.common_laws import numbers, of, root, world_space
from ref.spec import law, mutant
from ref.spec.cases import choose

ID = "distributed.differentiable_broadcast"
space = world_space(
    ID, x=numbers(kinds=("integers", "wild")), g=numbers(kinds=("integers",)), root=root,
    adjoint=choose("sum_of_losses", "one_loss"),
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "many"),
    kills=["root_is_rank_0"],
)  # fmt: skip
def every_rank_has_the_root_s_array(impl, c, expect):
    "y_r = x_root, to the bit."
    expect.same(impl(c), np.broadcast_to(c.x[c.root], c.x.shape))


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.where(adjoint="sum_of_losses").reach("many"),
    kills=["identity_backward", "on_every_rank", "root_alone"],
)  # fmt: skip
def adjoint_of_the_sum_of_losses(impl, c, expect):
    "dx_root = sum_r g_r, zeros elsewhere, and sum_r <g_r, y_r> = sum_r <dx_r, x_r>, exactly."
    c = common.exact(c)
    dx, wanted = impl.vjp(c, c.g)["x"], np.zeros_like(c.x)
    wanted[c.root] = c.g.sum(0)
    expect.same(dx, wanted, "dx")
    common.check_adjoint(impl, c, expect, impl(c), dx)


@law(
    ID, "L3", closed_form=True, needs=("vjp",), given=space.where(adjoint="one_loss").reach("many"),
    kills=["summed_backward"],
)  # fmt: skip
def one_loss_counts_once(impl, c, expect):
    "Every rank with the same loss: dx_root = g, zeros elsewhere."
    c = common.exact(c)
    g, wanted = np.broadcast_to(c.g[:1], c.x.shape).copy(), np.zeros_like(c.x)
    wanted[c.root] = g[0]
    expect.same(impl.vjp(c, g)["x"], wanted, "dx")


# Mutants: plain NumPy on all ranks' arrays at once -----------------------------------------------------


def spread(x, root):
    return np.broadcast_to(x[root], x.shape).copy()


def at_root(value, x, root):
    """`value` on the root, zeros elsewhere."""
    dx = np.zeros_like(x)
    dx[root] = value
    return dx


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, *, root=0, adjoint=None: (at_root(g.sum(0), x, 0),))
def root_is_rank_0(world, x, *, root=0, adjoint="sum_of_losses"):
    "Rank 0 is the root, whoever was named."
    return spread(x, 0)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (g.copy(),))
def identity_backward(world, x, *, root=0, adjoint="sum_of_losses"):
    "Each rank keeps its own cotangent."
    return spread(x, root)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (np.broadcast_to(g.sum(0), g.shape).copy(),))
def on_every_rank(world, x, *, root=0, adjoint="sum_of_losses"):
    "The sum on every rank, an all-reduce."
    return spread(x, root)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, *, root=0, adjoint=None: (at_root(g[root], x, root),))
def root_alone(world, x, *, root=0, adjoint="sum_of_losses"):
    "The root's own cotangent, as if all ranks had one loss."
    return spread(x, root)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, *, root=0, adjoint=None: (at_root(g.sum(0), x, root),))
def summed_backward(world, x, *, root=0, adjoint="sum_of_losses"):
    "The sum where one loss was asked for: n times too large."
    return spread(x, root)
