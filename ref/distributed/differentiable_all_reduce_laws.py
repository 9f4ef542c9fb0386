"""Laws and mutants of the all-reduce with a gradient."""

from __future__ import annotations

import numpy as np

from ref.distributed import common_laws as common
from ref.distributed.common_laws import numbers, of, world_space
from ref.spec import law, mutant
from ref.spec.cases import choose

ID = "distributed.differentiable_all_reduce"
space = world_space(
    ID, x=numbers(kinds=("integers", "wild")), g=numbers(kinds=("integers",)),
    adjoint=choose("sum_of_losses", "one_loss"), algorithm=choose(None, "ring", "canonical"),
)  # fmt: skip


def total(x):
    """The sum over ranks, on every rank."""
    return np.broadcast_to(sum(np.asarray(a, np.float64) for a in x), np.shape(x)).astype(np.asarray(x).dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "empty", "many"),
    kills=["mean"],
)  # fmt: skip
def every_rank_has_the_sum(impl, c, expect):
    "Small integers: y_r = sum_s x_s, exactly, whatever the adjoint."
    c = common.exact(c)
    expect.same(impl(c), total(c.x))


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.where(adjoint="sum_of_losses").reach("many"),
    kills=["identity_backward", "mean_backward"],
)  # fmt: skip
def adjoint_of_the_sum_of_losses(impl, c, expect):
    "dx_r = sum_s g_s on every rank, and sum_r <g_r, y_r> = sum_r <dx_r, x_r>, exactly."
    c = common.exact(c)
    dx = impl.vjp(c, c.g)["x"]
    expect.same(dx, total(c.g.astype(c.x.dtype)), "dx")
    common.check_adjoint(impl, c, expect, impl(c), dx)


@law(
    ID, "L3", closed_form=True, needs=("vjp",), given=space.where(adjoint="one_loss").reach("many"),
    kills=["summed_backward"],
)  # fmt: skip
def one_loss_counts_once(impl, c, expect):
    "Every rank with the same loss, g the same: dx_r = g, the gradient of that one loss by every x_r."
    c = common.exact(c)
    g = np.broadcast_to(c.g[:1], c.x.shape).copy()
    expect.same(impl.vjp(c, g)["x"], g.astype(c.x.dtype), "dx")


# Mutants: plain NumPy on all ranks' arrays at once -----------------------------------------------------


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (total(g),))
def mean(world, x, *, adjoint="sum_of_losses", algorithm=None):
    "The mean."
    return total(x) / (x.dtype.type(len(x)) if len(x) > 2 else x.dtype.type(1))


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (g.copy(),))
def identity_backward(world, x, *, adjoint="sum_of_losses", algorithm=None):
    "Megatron's g where the sum of losses was asked for."
    return total(x)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (total(g) / g.dtype.type(len(g)),))
def mean_backward(world, x, *, adjoint="sum_of_losses", algorithm=None):
    "The mean of the cotangents, as if the loss were averaged too."
    return total(x)


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (total(g),))
def summed_backward(world, x, *, adjoint="sum_of_losses", algorithm=None):
    "The sum of the cotangents where one loss was asked for: n times too large."
    return total(x)
