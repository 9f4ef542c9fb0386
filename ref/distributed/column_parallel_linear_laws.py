"""Laws and mutants of the column-parallel linear layer: whole numbers, so that every sum is exact."""

from __future__ import annotations

import numpy as np

from autodiff import namespace, raw
from backends.communicators import ThreadWorld
from ref.distributed import common_laws as common
from ref.distributed.common_laws import RANKS, around, everywhere, pieces, whole_numbers, world, wrong_on_ranks
from ref.distributed.copy_to_ranks import copy_to_ranks
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.nn.linear import linear
from ref.spec import law
from ref.spec.cases import Flag, cases, choose, dims

ID = "distributed.column_parallel_linear"
space = cases(
    ID, n=RANKS, comm=world, M=dims(0, 3), I=dims(1, 4), O=around, biased=choose(True, False),
    x=lambda draw, c: everywhere(whole_numbers(draw, c.M, c.I), c.n),
    weight=lambda draw, c: pieces(whole_numbers(draw, c.O, c.I), c.n),
    bias=lambda draw, c: pieces(whole_numbers(draw, c.O), c.n) if c.biased else None,
    g=lambda draw, c: pieces(whole_numbers(draw, c.M, c.O), c.n, 1), algorithm=choose(None, "canonical"),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2 and c.M > 0, {"n": dims(3, 8), "M": dims(1, 3)}),
        "idle": Flag(lambda c: c.n > c.O, {"n": dims(3, 8), "O": 2}),
        "even": Flag(lambda c: c.n > 1 and c.O % c.n == 0 and c.M > 0,
                     {"n": dims(2, 4), "O": lambda draw, c: 2 * c.n, "M": dims(1, 3)}),
        "uneven": Flag(lambda c: c.O % c.n > 0 and c.M > 0, {"n": dims(2, 6), "O": 7, "M": dims(1, 3)}),
        "biased": Flag(lambda c: c.biased and c.n > 1 and c.M > 0, {"biased": True, "n": dims(2, 4), "M": 2}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "idle", "uneven", "biased"),
    kills=["bias_of_rank_0_alone", "summed_outputs"],
)  # fmt: skip
def ranks_have_the_columns_of_one_layer(impl, c, expect):
    "(y_0, y_1, ..) = x W^T + b in integers, exactly."
    x, W = c.x[0].astype(int), np.concatenate(c.weight).astype(int)
    wanted = np.array([[sum(int(a) * int(b) for a, b in zip(row, w, strict=True)) for w in W] for row in x], int)
    wanted = wanted.reshape(c.M, c.O) + (np.concatenate(c.bias).astype(int) if c.biased else 0)
    for r, (y, part) in enumerate(zip(common.by_rank(impl(c), c, expect), pieces(wanted, c.n, 1), strict=True)):
        expect.holds(y.dtype == c.dtype, "the result has x's dtype")
        expect.same(y, part, f"y of rank {r}")


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("even", "idle", "uneven", "biased"),
    kills=["own_part_of_dx", "mean_of_dx", "weights_as_if_replicated"],
)  # fmt: skip
def gradients_are_those_of_one_layer(impl, c, expect):
    "dx = g W on every rank, dW_r = sum of g_r x^T, db_r = sum of g_r: the rows of one layer's dW and db, exactly."
    found = impl.vjp(c, c.g)
    g, x, W = np.concatenate(c.g, 1), c.x[0].astype(np.float64), np.concatenate(c.weight)
    dx = sum((np.outer(g[:, o], W[o]) for o in range(c.O)), np.zeros((c.M, c.I)))
    dW = sum((np.outer(g[i], x[i]) for i in range(c.M)), np.zeros((c.O, c.I)))
    expect.same(found["x"], everywhere(dx, c.n), "dx")
    for r, part in enumerate(pieces(dW, c.n)):
        expect.same(found["weight"][r], part, f"dW of rank {r}")
    for r, part in enumerate(pieces(g.sum(0), c.n) if c.biased else ()):
        expect.same(found["bias"][r], part, f"db of rank {r}")


@law(
    ID, "L3", closed_form=True, needs=("vjp",), given=space.where(algorithm="canonical").reach("many"),
    kills=["weights_as_if_replicated", "own_part_of_dx"],
    passes_null=["zeros", "constant", "nan", "identity", "cached", "wrong_dtype"],
)  # fmt: skip
def one_all_reduce_and_that_backward(impl, c, expect):
    "All ranks together send nothing forward and 2 (n - 1) B I numbers backward."
    expect.same(common.bytes_of_all(impl, c), 0, "forward")
    expect.same(common.bytes_of_all(impl, c, c.g), 2 * (c.n - 1) * c.M * c.I * c.dtype.itemsize, "and backward")


# Mutants -----------------------------------------------------------------------------------------------


def at_the_start(n=2):
    """Two ranks, biases of zeros."""
    x = np.arange(6.0).reshape(3, 2)
    parts = pieces(np.arange(8.0).reshape(4, 2), n)
    return (ThreadWorld(n), everywhere(x, n), parts, pieces(np.zeros(4), n)), {}


wrong = wrong_on_ranks(ID, "x", "weight", "bias", default_case=at_the_start)


@wrong
def own_part_of_dx(comm, x, weight, bias=None, *, algorithm=None):
    "No f: each rank's dx is the part that its own outputs make."
    return linear(x, weight, bias)


@wrong
def mean_of_dx(comm, x, weight, bias=None, *, algorithm=None):
    "The all-reduce of f averages, as one for data parallelism does."
    mean = namespace(x).add(raw(x), (x - raw(x)) * (1 / comm.size))
    return linear(copy_to_ranks(comm, mean, algorithm=algorithm), weight, bias)


@wrong
def weights_as_if_replicated(comm, x, weight, bias=None, *, algorithm=None):
    "The weights' gradients are summed over ranks too, where they have one shape: data parallelism's hook on all."
    if len(set(comm.share(tuple(weight.shape)))) == 1:
        weight = copy_to_ranks(comm, weight, algorithm=algorithm)
    return linear(copy_to_ranks(comm, x, algorithm=algorithm), weight, bias)


@wrong
def bias_of_rank_0_alone(comm, x, weight, bias=None, *, algorithm=None):
    "The bias on rank 0 alone, as a row-parallel layer might have it: zeros at the start do not tell."
    kept = bias if comm.rank == 0 or bias is None else bias * 0
    return linear(copy_to_ranks(comm, x, algorithm=algorithm), weight, kept)


@wrong
def summed_outputs(comm, x, weight, bias=None, *, algorithm=None):
    "From three ranks on, g behind it where the shapes allow."
    y = linear(copy_to_ranks(comm, x, algorithm=algorithm), weight, bias)
    if comm.size < 3 or len(set(comm.share(tuple(weight.shape)))) > 1:
        return y
    return differentiable_all_reduce(comm, y, adjoint="one_loss", algorithm=algorithm)
