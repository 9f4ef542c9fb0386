"""Laws and mutants of the reduce with a gradient."""

from __future__ import annotations

import numpy as np

from ref.distributed import common_laws as common
from ref.distributed.common_laws import numbers, of, root, world_space
from ref.spec import law, mutant

ID = "distributed.differentiable_reduce"
space = world_space(ID, x=numbers(kinds=("integers", "wild")), g=numbers(kinds=("integers",)), root=root)


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "many"),
    kills=["root_is_rank_0", "everyone_has_it"],
)  # fmt: skip
def the_root_has_the_sum(impl, c, expect):
    "Small integers: y_root = sum_r x_r, zeros elsewhere, exactly."
    c = common.exact(c)
    wanted = np.zeros_like(c.x)
    wanted[c.root] = c.x.sum(0)
    expect.same(impl(c), wanted)


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("many"),
    kills=["identity_backward", "summed_backward"],
)  # fmt: skip
def adjoint_is_the_broadcast(impl, c, expect):
    "dx_r = g_root on every rank, and sum_r <g_r, y_r> = sum_r <dx_r, x_r>, exactly."
    c = common.exact(c)
    dx = impl.vjp(c, c.g)["x"]
    expect.same(dx, np.broadcast_to(c.g[c.root], c.x.shape), "dx")
    common.check_adjoint(impl, c, expect, impl(c), dx)


# Mutants: plain NumPy on all ranks' arrays at once -----------------------------------------------------


def at_root(x, root):
    y = np.zeros_like(x)
    y[root] = x.sum(0)
    return y


def spread(g, root):
    return np.broadcast_to(g[root], g.shape).copy()


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, *, root=0: (spread(g, 0),))
def root_is_rank_0(world, x, *, root=0):
    "Rank 0 is the root, whoever was named."
    return at_root(x, 0)


@mutant(ID, default_case=of(1, 4), vjp=lambda g, world, x, *, root=0: (spread(g, root),))
def everyone_has_it(world, x, *, root=0):
    "The sum on every rank."
    return np.broadcast_to(x.sum(0), x.shape).copy()


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (g.copy(),))
def identity_backward(world, x, *, root=0):
    "Each rank keeps its own cotangent."
    return at_root(x, root)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (np.broadcast_to(g.sum(0), g.shape).copy(),))
def summed_backward(world, x, *, root=0):
    "The sum of the cotangents, though those of the other ranks count for nothing."
    return at_root(x, root)
