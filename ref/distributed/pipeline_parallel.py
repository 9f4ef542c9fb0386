"""Pipeline parallelism: every rank has a stage of the model, micro-batches go through them one behind the other.

Source: Huang et al. 2019, GPipe (1811.06965) sec. 2.3; Narayanan et al. 2021 (2006.09503) sec. 3.2, 1F1B; the sum over
tied weights: Shoeybi et al. 2019, Megatron-LM, as of its pipeline version (2104.04473).

    y_0,k = f_0(x_k),  y_r,k = f_r(y_{r-1},k)          forward: stage r sends y_r,k to rank r + 1
    L = sum_k S_k / sum_k N_k                          (S_k, N_k) = loss of y_{p-1},k: a sum and the number of its terms
    g_r,k = g_{r+1},k dy_{r+1},k / dy_r,k              backward: stage r sends g_{r-1},k to rank r - 1
    dL/dw_r = sum_k g_r,k dy_r,k / dw_r / sum_k N_k    divided once, after the last micro-batch

Notation
    p -> comm.size, r -> comm.rank, k -> index in batches, f_r -> stage(params, x, r), m -> len(batches).

Conventions
    C1  The mean is over all terms of all micro-batches, so not a mean of means where these are of different sizes.
    C2  Gradients add up in the order of the backwards, which gpipe and 1f1b have in opposite directions: with
        rounding their last bits differ.
    C3  A tied parameter has its name on several ranks and equal values there; its gradient is the sum over them,
        folded in rank order, with the same bits on each. The same name without `tied` is a parameter of each rank.
    C4  A send is begun and not waited for until the buffer is needed: neighbours that send to each other at once, as
        under 1f1b, do not block, however little the transport buffers.
    C5  In flight is what a rank keeps to go back from: a forward begun, its backward not ended.

Laws
    L1 mean_and_gradients_are_those_of_one_rank  L2 curved_stages_are_one_chain_rule
    L3 no_more_in_flight_than_the_schedule_has   L4 bytes_are_an_activation_each_way
    L5 owners_of_a_tied_weight_have_the_same_bits
"""

from __future__ import annotations

import hashlib

import numpy as np

from autodiff import raw, tensor
from backends.communicators import Mismatch, on_ranks
from ref.distributed.binomial_broadcast import binomial_broadcast
from ref.distributed.canonical_all_reduce import canonical_all_reduce
from ref.distributed.pipeline_schedule import pipeline_schedule
from ref.spec import spec

FORWARD, BACKWARD = 0, 1  # tags


@spec("distributed.pipeline_parallel", "comm:tree, params:tree, batches:tree -> :tree", backends=("numpy",))
@on_ranks
def pipeline_parallel(comm, params, batches, *, stage, loss, shape=None, schedule="1f1b", tied=()):
    """Mean loss over all micro-batches, and the gradient of this rank's stage.

    Parameters
    ----------
    comm : Communicator
        Of the pipeline, rank r for stage r; or a world, with params and batches one a rank.
    params : {name: array}
        This stage's; one float dtype in the whole pipeline.
    batches : list of tuple
        Micro-batches, as many on every rank. The first stage is called on entry 0 of each; `loss` gets the whole tuple.
    stage : function (params, x, rank) -> y
        Of Tensors.
    loss : function (params, y, batch) -> (sum, count)
        On the last rank.
    shape : function (batch) -> tuple, optional
        Of what goes from stage to stage; that of entry 0 if not given.
    schedule : str
        Of `pipeline_schedule`.
    tied : sequence of str
        Parameters that several ranks share (C3).

    Returns
    -------
    (float, {name: array or None}, int)
        The mean, on every rank; its gradient, None for what no loss reaches; micro-batches in flight at most (C5).

    Raises
    ------
    ValueError
        No micro-batches, no terms, or a stage whose result has another shape or dtype than announced; ranks with
        different numbers of micro-batches or with tied parameters that differ (Mismatch).

    Complexity: an activation sent and one received each way, a micro-batch and boundary.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> params = [{"w": np.array([2.0])}, {"w": np.array([3.0])}]
    >>> batches = [[(np.ones((1, 1)),), (np.ones((2, 1)),)]] * 2
    >>> means, gradients, peaks = pipeline_parallel(
    ...     ThreadWorld(2), params, batches,
    ...     stage=lambda own, x, rank: x * own["w"], loss=lambda own, y, batch: (y.sum(), y.shape[0]),
    ... )
    >>> means, [g["w"] for g in gradients], peaks
    (array([6., 6.]), [array([3.]), array([2.])], array([2, 1]))
    """
    owners, dtype = _meet(comm, params, len(batches), tied)
    leaves = {name: tensor(np.array(a), requires_grad=True) for name, a in params.items()}
    run = _Stage(comm, leaves, batches, stage, loss, shape or (lambda batch: batch[0].shape), dtype)
    for work in pipeline_schedule(comm.size, len(batches), name=schedule):
        if work.rank == comm.rank:
            (run.forward if work.kind == "forward" else run.backward)(work.micro)
    run.finish()
    total, count = binomial_broadcast(comm, run.sums, root=comm.size - 1).tolist()
    if not count:
        raise ValueError("pipeline_parallel: no term to average over; needed a count > 0")
    grads = {name: t.grad for name, t in leaves.items()}
    for name in tied:
        if name in grads:
            grads[name] = _summed(comm.subset(owners[name]), grads[name], leaves[name].data)
    grads = {name: None if g is None else g / g.dtype.type(count) for name, g in grads.items()}
    return np.float64(total / count), grads, np.int64(run.peak)


class _Stage:
    """This rank's part of the work, micro-batch by micro-batch."""

    def __init__(self, comm, leaves, batches, stage, loss, shape, dtype):
        self.comm, self.leaves, self.batches, self.stage, self.loss = comm, leaves, batches, stage, loss
        self.shape, self.dtype, self.last = shape, dtype, comm.rank == comm.size - 1
        self.held, self.peak, self.sums = {}, 0, np.zeros(2)
        self.leaving = None  # the cotangent under way to the stage before

    def forward(self, k):
        comm, batch, sent = self.comm, self.batches[k], None
        x = batch[0]
        if comm.rank:
            x = tensor(self._received(k, comm.rank - 1, FORWARD), requires_grad=True)
        y = self.stage(self.leaves, x, comm.rank)
        if not self.last:
            sent = comm.isend(self._announced(k, raw(y)), comm.rank + 1, FORWARD)
        else:
            y, count = self.loss(self.leaves, y, batch)
            self.sums += float(raw(y)), count
        self.held[k] = x, y, sent
        self.peak = max(self.peak, len(self.held))

    def backward(self, k):
        comm, (x, y, sent) = self.comm, self.held.pop(k)
        g = None if self.last else self._received(k, comm.rank + 1, BACKWARD)
        if sent is not None:
            sent.wait()
        if getattr(y, "node", None) is not None:
            y.backward(g)
        if comm.rank:
            back = np.zeros_like(x.data) if x.grad is None else np.ascontiguousarray(x.grad)
            self.finish()
            self.leaving = comm.isend(back, comm.rank - 1, BACKWARD)

    def finish(self):
        if self.leaving is not None:
            self.leaving.wait()
            self.leaving = None

    def _received(self, k, source, tag):
        out = np.empty(self.shape(self.batches[k]), self.dtype)
        self.comm.recv(out, source, tag)
        return out

    def _announced(self, k, y):
        wanted = tuple(self.shape(self.batches[k]))
        if y.shape != wanted or y.dtype != self.dtype:
            raise ValueError(
                f"pipeline_parallel: stage {self.comm.rank} made {y.dtype}{list(y.shape)} of micro-batch {k}; `shape` "
                f"and the parameters say {self.dtype}{list(wanted)}"
            )
        return np.ascontiguousarray(y)


def _meet(comm, params, count, tied):
    """({tied name: its ranks}, dtype of activations), once the ranks are seen to fit together."""
    prints = {
        name: (str(a.dtype), a.shape, hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest())
        for name, a in params.items() if name in tied
    }  # fmt: skip
    said = comm.share((count, prints, next((a.dtype.str for a in params.values()), None)))
    counts = [s[0] for s in said]
    if len(set(counts)) > 1 or not count:
        kind = Mismatch if len(set(counts)) > 1 else ValueError
        raise kind(f"pipeline_parallel: {counts} micro-batches by rank; needed the same number, at least 1, on each")
    owners = {name: [r for r, s in enumerate(said) if name in s[1]] for name in tied}
    for name, ranks in owners.items():
        if not ranks:
            raise ValueError(f"pipeline_parallel: tied names {name!r}, which no rank has")
        first = said[ranks[0]][1][name]
        if odd := [r for r in ranks if said[r][1][name] != first]:
            raise Mismatch(
                f"pipeline_parallel: {name!r} is tied, and differs between ranks {odd[0]} and {ranks[0]}; needed equal "
                f"values"
            )
    dtypes = {s[2] for s in said} - {None}
    if len(dtypes) != 1:
        raise Mismatch(f"pipeline_parallel: parameters of dtypes {sorted(dtypes)}; needed one in the whole pipeline")
    return owners, np.dtype(dtypes.pop())


def _summed(group, grad, like):
    """The sum over the group, in rank order; None where nobody has any."""
    if not any(group.share(grad is not None)):
        return None
    grad = np.zeros_like(like) if grad is None else np.ascontiguousarray(grad)
    return canonical_all_reduce(group, grad.reshape(-1)).reshape(like.shape)
