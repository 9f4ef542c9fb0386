"""Bad input: one line with the function, what arrived and what was needed."""

import importlib

import numpy as np
import pytest

from backends.communicators import Phantom, SelfCommunicator, ThreadWorld
from backends.communicators.simulator import Model, simulate
from ref.distributed.all_reduce import all_reduce
from ref.distributed.cost import cost
from ref.distributed.forecast import forecast
from ref.distributed.pairwise_all_to_all import pairwise_all_to_all
from ref.distributed.ring_all_gather import ring_all_gather
from ref.distributed.rounds import rounds
from ref.distributed.segmented_ring_all_reduce import segmented_ring_all_reduce
from ref.distributed.select import select

X = np.ones((2, 4))
REDUCTIONS = (
    "ring_all_reduce", "segmented_ring_all_reduce", "recursive_doubling_all_reduce", "halving_doubling_all_reduce",
    "canonical_all_reduce", "binomial_reduce", "ring_reduce_scatter", "canonical_reduce_scatter", "all_reduce",
)  # fmt: skip
WITH_OUT = (*REDUCTIONS, "binomial_broadcast", "scatter_gather_broadcast", "ring_all_gather", "bruck_all_gather",
            "pairwise_all_to_all")  # fmt: skip
ROOTED = ("binomial_broadcast", "scatter_gather_broadcast", "binomial_reduce", "differentiable_broadcast",
          "differentiable_reduce")  # fmt: skip


def function(name):
    return getattr(importlib.import_module(f"ref.distributed.{name}"), name)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_an_unknown_op(name):
    with pytest.raises(ValueError, match="op 'mean'; needed one of sum, prod, max, min, or a function"):
        function(name)(ThreadWorld(2), X, op="mean")


@pytest.mark.parametrize("name", WITH_OUT)
def test_what_is_no_array(name):
    with pytest.raises(TypeError, match=f"({name}|ring_all_reduce|recursive_doubling_all_reduce): x is a list"):
        function(name)(ThreadWorld(2), [[1.0], [2.0]])


@pytest.mark.parametrize("name", WITH_OUT)
def test_an_out_that_does_not_fit(name):
    with pytest.raises(ValueError, match=r"out has shape \(9,\); needed a contiguous array of shape"):
        function(name)(ThreadWorld(2), X, out=np.empty(9))
    shape = (8,) if "gather" in name and "scatter" not in name else (2,) if "reduce_scatter" in name else (4,)
    with pytest.raises(TypeError, match="out has dtype float32, x has float64; they must be the same"):
        function(name)(ThreadWorld(2), X, out=np.empty(shape, np.float32))
    with pytest.raises(ValueError, match="needed a contiguous array"):
        function(name)(ThreadWorld(2), X, out=np.empty((*shape, 2))[:, 0])


@pytest.mark.parametrize("name", ROOTED)
def test_a_root_that_is_no_rank(name):
    with pytest.raises(ValueError, match=r"root 2; the communicator has ranks 0\.\.1"):
        function(name)(ThreadWorld(2), X, root=2)


@pytest.mark.parametrize("name", ["differentiable_all_reduce", "differentiable_all_gather", "differentiable_broadcast"])
def test_an_unknown_adjoint(name):
    with pytest.raises(ValueError, match=f"{name}: adjoint 'megatron'; needed one of sum_of_losses, one_loss"):
        function(name)(ThreadWorld(2), X, adjoint="megatron")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda w: segmented_ring_all_reduce(w, X, segment=0), "segment=0 bytes; needed at least 1"),
        (lambda w: all_reduce(w, X, algorithm="mpi"), "algorithm 'mpi'; needed one of ring, segmented_ring"),
        (lambda w: ring_all_gather(w, X, length=9), r"x has 4 rows on rank 1 of 2; length=9 gives it 5"),
        (lambda w: ring_all_gather(w, X[:, 0]), "x has no axis to gather along"),
        (lambda w: function("ring_reduce_scatter")(w, X[:, 0]), "x has no axis to cut along"),
        (lambda w: pairwise_all_to_all(w, np.ones((2, 3))), r"x has shape \(3,\); its rows must divide by the 2 ranks"),
        (lambda w: pairwise_all_to_all(w, X, [[1, 3]] * 2), "one of send and receive is given; needed both or none"),
        (lambda w: pairwise_all_to_all(w, X, [[1, 1]] * 2, [[1, 1]] * 2), r"send=\[1, 1\].*x has 4 rows"),
        (lambda w: pairwise_all_to_all(w, X, [[5, -1]] * 2, [[1, 1]] * 2), "needed 2 counts each"),
        (lambda w: all_reduce(w, np.ones((3, 4))), "3 arrays for 2 ranks; needed one a rank"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit(call, said):
    with pytest.raises(ValueError, match=said):
        call(ThreadWorld(2))


def test_arguments_of_messages():
    comm, x = SelfCommunicator(), np.ones(4)
    for call, said in (
        (lambda: comm.isend(x, 1), r"isend: rank 1; the communicator self has ranks 0\.\.0"),
        (lambda: comm.irecv(x, -1), "irecv: rank -1"),
        (lambda: comm.isend(x, 0, tag=1000), r"isend: tag 1000; needed 0\.\.999"),
        (lambda: comm.isend(np.ones((4, 2))[:, 0], 0), r"isend: an array of shape \(4,\) that is not contiguous"),
        (lambda: comm.subset([1]), r"subset: ranks \[1\] on rank 0 of 1"),
        (lambda: comm.subset([0, 0]), "needed distinct ranks"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match="isend: got a list; needed an array"):
        comm.isend([1.0], 0)
    with pytest.raises(ValueError, match="ThreadWorld: 0 ranks; needed at least 1"):
        ThreadWorld(0)


def test_a_plan_or_a_simulation_cannot_ask_other_ranks():
    for call in (lambda comm: comm.share(1), lambda comm: comm.barrier(), lambda comm: comm.split(0)):
        with pytest.raises(ValueError, match="use subset or grid here"):
            simulate(2, call, Model(1.0, 1.0))
    with pytest.raises(ValueError, match="use wait here"):
        simulate(2, lambda comm: comm.isend(Phantom(1), 1 - comm.rank).test(), Model(1.0, 1.0))
    with pytest.raises(ValueError, match=r"tags 0\.\.7"):
        SelfCommunicator().plan(lambda comm, x: comm.isend(x, 0, tag=8).wait(), np.ones(1))


def test_models():
    rates = np.array([1.0, 1.0, 1.0])
    for call, said in (
        (lambda: select(0, 8), "n=0, size=8; needed n >= 1"),
        (lambda: select(2, 8, table={}), "the table has no rows"),
        (lambda: rounds(2, 8, name="telepathy"), "name 'telepathy'; needed one of ring_all_reduce"),
        (lambda: rounds(0, 8, name="ring_all_reduce"), "0 ranks, length 8"),
        (lambda: cost(2, 8, rates, name="telepathy"), "name 'telepathy'"),
        (lambda: cost(2, -1, rates, name="ring_all_reduce"), "size -1"),
        (lambda: forecast(2, 8, rates, name="ring_all_reduce", slow=np.ones(3)), r"slow has shape \(3,\); needed 2"),
        (lambda: forecast(2, 8, rates, name="ring_all_reduce", slow=np.array([0.5, 1])), "factors of at least 1"),
        (lambda: simulate(2, lambda comm: comm.send(Phantom(1), 1 - comm.rank), Model(1.0, 1.0, slow=np.ones(3))),
         "needed 2 factors"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            call()
    with pytest.raises(TypeError, match="it takes a slice along axis 0"):
        Phantom(3)[0]
