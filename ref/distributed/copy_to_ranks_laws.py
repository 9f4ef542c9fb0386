"""Laws and mutants of the copy to ranks."""

from __future__ import annotations

import numpy as np

from ref.distributed import common_laws as common
from ref.distributed.common_laws import numbers, of, world_space
from ref.spec import law, mutant

ID = "distributed.copy_to_ranks"
space = world_space(ID, x=numbers(kinds=("integers", "wild")), g=numbers(kinds=("integers",)))


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "many"),
    kills=["adds_up_forward"], passes_null=["identity"],
)  # fmt: skip
def nothing_changes_forward(impl, c, expect):
    "y_r = x_r, to the bit."
    expect.same(impl(c), c.x)


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("many"),
    kills=["identity_backward", "mean_backward", "neighbours_backward"],
)  # fmt: skip
def gradient_is_that_of_one_variable(impl, c, expect):
    "x the same on every rank, each with a loss of its own: dx = sum_r g_r on every rank, the gradient of their sum."
    c = common.exact(c)
    c = c.replace(x=np.broadcast_to(c.x[:1], c.x.shape).copy())
    wanted = np.array([sum(int(v) for v in column) for column in c.g.reshape(c.n, -1).T], c.x.dtype)
    expect.same(impl.vjp(c, c.g)["x"], np.broadcast_to(wanted, c.x.shape), "dx")


# Mutants: plain NumPy on all ranks' arrays at once -----------------------------------------------------


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (np.broadcast_to(g.sum(0), g.shape).copy(),))
def adds_up_forward(world, x, *, algorithm=None):
    "The sum over ranks forward, from three ranks on."
    return x.copy() if len(x) < 3 else np.broadcast_to(x.sum(0), x.shape).copy()


@mutant(ID, default_case=of(2, 4), vjp=lambda g, world, x, **options: (g.copy(),))
def identity_backward(world, x, *, algorithm=None):
    "No all-reduce backward: each rank has its own part."
    return x.copy()


def _mean(g, world, x, **options):
    return (np.broadcast_to(g.mean(0), g.shape).astype(g.dtype),)


@mutant(ID, default_case=of(2, 4), vjp=_mean)
def mean_backward(world, x, *, algorithm=None):
    "The mean of the cotangents."
    return x.copy()


def _near(g, world, x, **options):
    return (g + np.roll(g, 1, 0) if len(g) > 1 else g.copy(),)


@mutant(ID, default_case=of(2, 4), vjp=_near)
def neighbours_backward(world, x, *, algorithm=None):
    "The sum over a rank and its neighbour: enough for two."
    return x.copy()
