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
from ref.models.llama import Config

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


def test_parts_that_do_not_fit_their_rank():
    column, row, embedding, entropy, ring, block, llama = map(function, (
        "column_parallel_linear", "row_parallel_linear", "vocabulary_parallel_embedding",
        "vocabulary_parallel_cross_entropy", "ring_attention", "sequence_parallel", "tensor_parallel_llama",
    ))  # fmt: skip
    ids, q, W = np.array([[0, 3], [0, 3]]), np.ones((2, 2, 3, 4)), np.ones((2, 2, 4))
    config = Config(vocabulary=4, channels=8, layers=0, heads=2, groups=1, hidden=2, tied=True)
    params = [{"model.embed_tokens.weight": np.ones((2, 8)), "model.norm.weight": np.ones(8)}] * 2
    named = {"model.embed_tokens.weight": np.ones((3, 8)), "model.norm.weight": np.ones(8)}
    for call, said in (
        (lambda w: column(w, np.ones((2, 3)), W), "linear: .*I=4"),
        (lambda w: row(w, X, W, np.ones((2, 3))), "row_parallel_linear: bias has O=3, weight has O=2"),
        (lambda w: embedding(w, W, ids, vocabulary=3), "rank 0 of 2 has V_r=2 of vocabulary=3; needed 1"),
        (lambda w: embedding(w, W, ids + 1), r"ids hold 4, the vocabulary has 4; needed 0\.\.3"),
        (lambda w: embedding(w, W, ids - 1), "ids hold -1"),
        (lambda w: entropy(w, W, ids + 7, ignore_index=7), r"targets hold 10.*needed 0\.\.7 or ignore_index=7"),
        (lambda w: entropy(w, np.ones((2, 2, 0)), ids * 0), "a vocabulary of 0 classes; needed at least 1"),
        (lambda w: ring(w, q, q[:, :1], q[:, :1, :2]), "must share T"),
        (lambda w: ring(w, q, q, q, length=7), "rank 1 of 2 has T_r=3 of length=7; needed 4"),
        (lambda w: ring(w, q, q, q, length=7, striped=True), "rank 0 of 2 has T_r=3 of length=7, striped; .* 4"),
        (lambda w: ring(w, q, np.ones((2, 3, 3, 4)), np.ones((2, 3, 3, 4))), "q has H=2 heads, k has G=3"),
        (lambda w: block(w, X[:, :, None], *[np.ones((2, 1))] * 2, W[:, :, :1], W[:, :1], length=9), "length=9"),
        (lambda w: llama(w, params, ids, config=config), "2 ranks for G=1 key heads; n must divide G"),
        (lambda w: llama(w, [named] * 2, ids, config=config._replace(groups=2)),
         r"model.embed_tokens.weight has shape \(3, 8\) on rank . of 2; needed \(2, 8\)"),
        (lambda w: llama(w, params, ids, config=config._replace(groups=2, tied=False)), "lack .'lm_head.weight'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            call(ThreadWorld(2))
    with pytest.raises(TypeError, match="ids"):
        embedding(ThreadWorld(2), W, ids * 1.0)


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
