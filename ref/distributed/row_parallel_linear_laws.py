"""Laws and mutants of the row-parallel linear layer: whole numbers, so that every sum is exact."""

from __future__ import annotations

import numpy as np

from backends.communicators import ThreadWorld
from ref.distributed import common_laws as common
from ref.distributed.common_laws import RANKS, around, everywhere, pieces, whole_numbers, world, wrong_on_ranks
from ref.distributed.copy_to_ranks import copy_to_ranks
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.nn.linear import linear
from ref.spec import law
from ref.spec.cases import Flag, cases, choose, dims

ID = "distributed.row_parallel_linear"
space = cases(
    ID, n=RANKS, comm=world, M=dims(0, 3), I=around, O=dims(1, 4), biased=choose(True, False),
    x=lambda draw, c: pieces(whole_numbers(draw, c.M, c.I), c.n, 1),
    weight=lambda draw, c: pieces(whole_numbers(draw, c.O, c.I), c.n, 1),
    bias=lambda draw, c: everywhere(whole_numbers(draw, c.O), c.n) if c.biased else None,
    g=lambda draw, c: everywhere(whole_numbers(draw, c.M, c.O), c.n), algorithm=choose(None, "canonical"),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2 and c.M > 0, {"n": dims(3, 8), "M": dims(1, 3)}),
        "idle": Flag(lambda c: c.n > c.I and c.M > 0, {"n": dims(3, 8), "I": 2, "M": dims(1, 3)}),
        "uneven": Flag(lambda c: c.I % c.n > 0 and c.M > 0, {"n": dims(2, 6), "I": 7, "M": dims(1, 3)}),
        "biased": Flag(lambda c: c.biased and c.n > 1 and c.M > 0, {"biased": True, "n": dims(2, 4), "M": 2}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "idle", "uneven", "biased"),
    kills=["bias_on_every_rank", "bias_over_ranks", "neighbours_alone"],
)  # fmt: skip
def every_rank_has_the_whole_layer(impl, c, expect):
    "y = x W^T + b in integers, exactly, on every rank."
    x, W = np.concatenate(c.x, 1), np.concatenate(c.weight, 1)
    wanted = np.array([[sum(int(a) * int(b) for a, b in zip(row, w, strict=True)) for w in W] for row in x], int)
    wanted = wanted.reshape(c.M, c.O) + (c.bias[0].astype(int) if c.biased else 0)
    expect.same(impl(c), everywhere(wanted, c.n), "y")


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("many", "idle", "uneven", "biased"),
    kills=["summed_backward", "bias_gradient_summed"],
)  # fmt: skip
def gradients_are_those_of_one_layer(impl, c, expect):
    """One loss, its g on every rank: dx_r = g W_r, dW_r = sum of g x_r^T, db = sum of g: the columns of one layer's
    gradients, exactly."""
    found, g = impl.vjp(c, c.g), c.g[0].astype(np.float64)
    x, W = np.concatenate(c.x, 1), np.concatenate(c.weight, 1)
    dx = sum((np.outer(g[:, o], W[o]) for o in range(c.O)), np.zeros((c.M, c.I)))
    dW = sum((np.outer(g[i], x[i]) for i in range(c.M)), np.zeros((c.O, c.I)))
    for r, (one, two) in enumerate(zip(pieces(dx, c.n, 1), pieces(dW, c.n, 1), strict=True)):
        expect.same(found["x"][r], one, f"dx of rank {r}")
        expect.same(found["weight"][r], two, f"dW of rank {r}")
    if c.biased:
        expect.same(found["bias"], everywhere(g.sum(0), c.n), "db")


@law(
    ID, "L3", closed_form=True, needs=("vjp",), given=space.where(algorithm="canonical").reach("many"),
    kills=["summed_backward", "bias_gradient_summed"], passes_null=["cached", "wrong_dtype"],
)  # fmt: skip
def one_all_reduce_and_that_forward(impl, c, expect):
    "All ranks together send 2 (n - 1) B O numbers forward and nothing backward."
    formula = 2 * (c.n - 1) * c.M * c.O * np.dtype(c.x[0].dtype).itemsize
    expect.same(common.bytes_of_all(impl, c), formula, "forward")
    expect.same(common.bytes_of_all(impl, c, c.g), formula, "and backward")


# Mutants -----------------------------------------------------------------------------------------------


def at_the_start(n=2):
    """Two ranks, biases of zeros."""
    x, weight = np.arange(12.0).reshape(3, 4), np.arange(8.0).reshape(2, 4)
    return (ThreadWorld(n), pieces(x, n, 1), pieces(weight, n, 1), np.zeros((n, 2))), {}


wrong = wrong_on_ranks(ID, "x", "weight", "bias", default_case=at_the_start)


def total(comm, y, algorithm, adjoint="one_loss"):
    return differentiable_all_reduce(comm, y, adjoint=adjoint, algorithm=algorithm)


@wrong
def bias_on_every_rank(comm, x, weight, bias=None, *, algorithm=None):
    "The bias inside the sum: n of it. Zeros at the start do not tell."
    return total(comm, linear(x, weight, bias), algorithm)


@wrong
def bias_over_ranks(comm, x, weight, bias=None, *, algorithm=None):
    "The bias divided by n, and added after the sum."
    y = total(comm, linear(x, weight), algorithm)
    return y if bias is None else y + bias * (1 / comm.size)


@wrong
def neighbours_alone(comm, x, weight, bias=None, *, algorithm=None):
    "From three ranks on the last one's part is lost."
    y = linear(x, weight)
    y = total(comm, y * 0 if comm.size > 2 and comm.rank == comm.size - 1 else y, algorithm)
    return y if bias is None else y + bias


@wrong
def summed_backward(comm, x, weight, bias=None, *, algorithm=None):
    "An all-reduce backward too: n times the gradients."
    y = total(comm, linear(x, weight), algorithm, "sum_of_losses")
    return y if bias is None else y + bias


@wrong
def bias_gradient_summed(comm, x, weight, bias=None, *, algorithm=None):
    "The bias is everybody's, so its gradient is summed over ranks: n times what one loss says."
    y = total(comm, linear(x, weight), algorithm)
    return y if bias is None else y + copy_to_ranks(comm, bias, algorithm=algorithm)
