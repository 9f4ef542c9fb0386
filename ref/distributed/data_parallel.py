"""Data parallelism: every rank has the model, each takes a part of the batch, gradients are summed on the way.

Source: Li et al. 2020, PyTorch Distributed (VLDB 13:12, 2006.15704) sec. 3.2; the division by tokens: the fix of 2024
in transformers (#34191) and its distributed twin (#35121).

    L = sum_r S_r / sum_r N_r                 S_r = sum of rank r's losses, N_r = how many there are
    g = sum_r dS_r/dw / sum_r N_r             reduced bucket by bucket while backward goes on, divided once

    start      names, shapes, dtypes compared by a hash; parameters and buffers of rank 0 sent to all
    forward    on this rank's part; no communication
    backward   a hook a parameter copies its finished gradient into its bucket; a full bucket's all-reduce begins as
               soon as those before it have begun; parameters that the loss does not reach count as finished at once
    end        wait for the buckets in order, divide by the number of terms of all ranks

Notation
    n -> comm.size, r -> comm.rank, P -> parameters, S_r, N_r -> what `loss` returns, b -> `gradient_buckets`.

Conventions
    C1  The mean is over all terms of all ranks. torch's DDP averages over ranks, so a mean of means: another number as
        soon as ranks have different counts. A rank without a term adds nothing.
    C2  Buckets are begun strictly in their order on every rank, whichever is full first: the k-th all-reduce of one
        rank meets the k-th of the others.
    C3  A parameter that a rank does not use adds zeros there. One that no rank uses has no gradient (None), so that
        an optimizer leaves it alone, its decay and moments too.
    C4  Under `no_sync` gradients add up on the rank; the next `backward` reduces all.
    C5  algorithm="canonical" folds in rank order: bits do not depend on buckets, and ZeRO has the same. None takes
        the fastest, whose bits depend on where an element stands.
    C6  Buffers are sent at the start alone; torch sends them before each forward.

Laws
    L1 mean_and_gradient_are_those_of_all_terms   L2 any_cut_is_one_rank_with_the_whole_batch
    L3 ranks_may_use_different_parameters         L4 every_rank_has_the_same_bits
    L5 bytes_are_two_for_each_gradient            L6 buckets_change_no_bit
"""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np

from autodiff import register_post_accumulate_grad_hook, tensor
from backends.communicators import Mismatch, on_ranks
from ref.distributed.all_reduce import all_reduce
from ref.distributed.binomial_broadcast import binomial_broadcast
from ref.distributed.gradient_buckets import MIB, gradient_buckets
from ref.spec import spec


class DataParallel:
    """Tensors whose gradients are the mean over all ranks.

    Parameters
    ----------
    comm : Communicator
    params : {name: Tensor}
        Leaves that require grad; the values become rank 0's.
    buffers : {name: array}
        The same without gradient.
    first, size : int
        Bytes of the first bucket and of the others.
    algorithm : str, optional
        Of `all_reduce`.

    Raises
    ------
    Mismatch
        Ranks have other names, shapes or dtypes; the message names two that differ.
    """

    def __init__(self, comm, params, *, buffers=None, first=MIB, size=25 * MIB, algorithm="canonical"):
        self.comm, self.params, self.quiet = comm, params, False
        arrays = {**{name: t.data for name, t in params.items()}, **(buffers or {})}
        check_alike(comm, "DataParallel", arrays)
        send_to_all(comm, arrays.values())
        names, tensors = list(params), list(params.values())
        groups = gradient_buckets(
            [t.data.nbytes for t in tensors], kinds=[t.dtype for t in tensors], first=first, size=size
        )
        self.buckets = [[names[i] for i in group] for group in groups]
        self.slots, flats = {}, []
        for bucket in self.buckets:
            flats.append(flat_with_slots({name: params[name].data for name in bucket}, self.slots))
        self.sums = np.zeros(2 + len(names))  # of losses, of counts, of ranks that use each parameter
        self.flats = flats
        self.plans = [comm.plan(all_reduce, a, algorithm=algorithm, out=a) for a in (self.sums, *flats)]
        self.arrivals = Arrivals(params, self.buckets, self._fill, self._begin)

    @contextlib.contextmanager
    def no_sync(self):
        """Backwards in this block add up on the rank (C4)."""
        self.quiet = True
        try:
            yield
        finally:
            self.quiet = False

    def backward(self, loss, count):
        """Gradients of a part of the batch, and of those before it under `no_sync`.

        Parameters
        ----------
        loss : Tensor
            Sum of this rank's losses; a number where no parameter has a part in it.
        count : number
            Of its terms.

        Returns
        -------
        float
            Mean loss over all ranks; None under `no_sync`. Then `params[name].grad` is the mean's gradient.

        Raises
        ------
        ValueError
            No rank has a term; on every rank.
        """
        self.sums[0] += float(loss)
        self.sums[1] += count
        if self.quiet:
            run_backward(loss)
            return None
        used = reached(loss)
        self.sums[2:] = [t.grad is not None or t.node.seq in used for t in self.params.values()]
        self.plans[0].start()
        self.arrivals.expect(used)
        run_backward(loss)
        for plan in self.plans:
            plan.wait()
        total, count, *users = self.sums.tolist()
        self.sums[...] = 0
        if not count:
            raise ValueError("DataParallel: no rank has a term to average over; needed a count > 0")
        for flat in self.flats:
            np.divide(flat, count, out=flat)
        for (name, t), n in zip(self.params.items(), users, strict=True):
            t.grad = self.slots[name] if n else None
        return total / count

    def _fill(self, name):
        t = self.params[name]
        self.slots[name][...] = 0 if t.grad is None else t.grad
        t.grad = None
        for plan in self.plans:
            plan.progress()

    def _begin(self, k):
        self.plans[1 + k].start()


class Arrivals:
    """Which gradients of a backward have come: calls fill(name) for each, begin(k) for each full group, in order."""

    def __init__(self, params, groups, fill, begin):
        self.params, self.groups, self.fill, self.begin = params, groups, fill, begin
        self.group_of = {name: k for k, group in enumerate(groups) for name in group}
        self.missing = None
        for name, t in params.items():
            register_post_accumulate_grad_hook(t, lambda _, name=name: self._arrived(name))

    def expect(self, used):
        """A backward is about to begin that reaches the leaves `used`; the others have arrived."""
        self.missing, self.next = [len(group) for group in self.groups], 0
        for name, t in self.params.items():
            if t.node.seq not in used:
                self._arrived(name)

    def _arrived(self, name):
        if self.missing is None:  # a backward that is not ours to reduce
            return
        self.fill(name)
        self.missing[self.group_of[name]] -= 1
        while self.next < len(self.groups) and not self.missing[self.next]:
            self.next += 1
            self.begin(self.next - 1)
        if self.next == len(self.groups):
            self.missing = None


def reached(loss):
    """The leaves that a backward from `loss` comes to, by the numbers of their nodes."""
    root = getattr(loss, "node", None)
    stack, seen, leaves = [root] if root is not None else [], set(), set()
    while stack:
        node = stack.pop()
        if node.prim is None:
            leaves.add(node.seq)
        for edge in node.edges:
            if edge is not None and edge.seq not in seen:
                seen.add(edge.seq)
                stack.append(edge)
    return leaves


def run_backward(loss):
    """Backward, if there is anything to go back to."""
    if getattr(loss, "node", None) is not None:
        loss.backward()


def flat_with_slots(arrays, slots):
    """One flat array of zeros; `slots[name]` becomes the view of it that has the shape of arrays[name]."""
    sizes = [a.size for a in arrays.values()]
    flat = np.zeros(sum(sizes), next(iter(arrays.values())).dtype)
    at = 0
    for (name, a), size in zip(arrays.items(), sizes, strict=True):
        slots[name] = flat[at : at + size].reshape(a.shape)
        at += size
    return flat


def check_alike(comm, function, arrays):
    """Raise unless every rank has these names, shapes and dtypes, in this order; one hash goes around."""
    mine = [f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items()]
    digests = comm.share(hashlib.sha256("\n".join(mine).encode()).hexdigest())
    if len(set(digests)) > 1:
        said = comm.share(mine)
        r = next(r for r, digest in enumerate(digests) if digest != digests[0])
        pairs = zip([*said[r], "nothing"], [*said[0], "nothing"], strict=False)
        other, first = next((a, b) for a, b in pairs if a != b)
        raise Mismatch(f"{function}: rank {r} has {other} where rank 0 has {first}; all ranks need the same model")


def send_to_all(comm, arrays):
    """Overwrite the arrays of every rank with rank 0's, one message a dtype."""
    by_dtype = {}
    for a in arrays:
        by_dtype.setdefault(a.dtype, []).append(a)
    for group in by_dtype.values():
        flat = np.concatenate([a.reshape(-1) for a in group])
        binomial_broadcast(comm, flat, out=flat)
        for a, part in zip(group, np.split(flat, np.cumsum([a.size for a in group])[:-1]), strict=True):
            a[...] = part.reshape(a.shape)


@spec("distributed.data_parallel", "comm:tree, params:tree, batches:tree -> :tree", backends=("numpy",))
@on_ranks
def data_parallel(comm, params, batches, *, loss, buffers=(), first=MIB, size=25 * MIB, algorithm="canonical"):
    """Mean loss and its gradient over the batches of all ranks.

    Parameters
    ----------
    comm : Communicator
        Or a world, with params and batches one a rank.
    params : {name: array}
        Rank 0's count.
    batches : list
        This rank's micro-batches; reduced after the last.
    loss : function (params, batch) -> (sum, count)
        Of Tensors; the sum of the batch's losses and their number.
    buffers : sequence of str
        Entries of params that have no gradient; `loss` gets them as arrays.
    first, size : int
        Bytes of the first bucket and of the others.
    algorithm : str, optional
        Of `all_reduce`.

    Returns
    -------
    (float, {name: array or None}, {name: array})
        The mean, its gradient, and the parameters and buffers that it was taken at; the same bits on every rank.

    Raises
    ------
    ValueError
        No batches, no terms on any rank; ranks whose names, shapes or dtypes differ (Mismatch).

    Complexity: 2 (n - 1)/n of the gradients' bytes sent a rank, once however many micro-batches.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> params = [{"w": np.array([1.0])}, {"w": np.array([7.0])}]
    >>> batches = [[np.array([4.0])], [np.array([0.0, 1.0])]]
    >>> def square(p, x):
    ...     return ((p["w"] - x) ** 2).sum(), x.size
    >>> means, gradients, _ = data_parallel(ThreadWorld(2), params, batches, loss=square)
    >>> means.round(3), [g["w"].round(3) for g in gradients]
    (array([3.333, 3.333]), [array([-1.333]), array([-1.333])])
    """
    if not len(batches):
        raise ValueError("data_parallel: no batches; needed at least one, which may hold no terms")
    values = {name: np.array(a) for name, a in params.items()}
    fixed = {name: values[name] for name in buffers}
    leaves = {name: tensor(a, requires_grad=True) for name, a in values.items() if name not in fixed}
    model = DataParallel(comm, leaves, buffers=fixed, first=first, size=size, algorithm=algorithm)
    with model.no_sync():
        for batch in batches[:-1]:
            model.backward(*loss({**leaves, **fixed}, batch))
    mean = model.backward(*loss({**leaves, **fixed}, batches[-1]))
    return np.float64(mean), {name: t.grad for name, t in leaves.items()}, values
