"""ZeRO: data parallelism in which each rank keeps a share of the optimizer's state, the gradients, the weights.

Source: Rajbhandari et al. 2020 (1910.02054) sec. 3 and 5; the state in slower memory: Ren et al. 2021, ZeRO-Offload
(2101.06840); weights gathered a unit at a time: Zhao et al. 2023, PyTorch FSDP (2304.11277).

                            held by rank r of N, bytes                sent, in (N - 1)/N P numbers
    stage 0  all ranks all  (2 + 2 + 12) P                            2   all-reduce of gradients
    stage 1  state          (2 + 2) P + 12 P/N                        2   reduce-scatter, all-gather of weights
    stage 2  and gradients  2 P + (2 + 12) P/N                        2   the same, gradients freed unit by unit
    stage 3  and weights    (2 + 2 + 12) P/N                          3   weights gathered for forward and for backward

    g = sum_r dS_r/dw / sum_r N_r,  clipped by its norm over all ranks,  then AdamW on the rank's own rows

Notation
    P -> parameters; a unit's are laid out in rows of B = `block` numbers, the last padded with zeros; rank r has rows
    K r // N .. K (r + 1) // N of each unit's K. S_r, N_r -> sum and number of losses, what `loss` returns.

Conventions
    C1  12 bytes are master, m and v in float32, where the weights are float16. Wider weights are their own masters:
        float32 has 4 + 4 + 8, float64 8 + 8 + 16.
    C2  Sums over ranks are folded in rank order and the norm is taken row by row, so stages 1, 2 and 3 have the bits of
        stage 0, which is plain data parallelism, on the same units. Other units are other rows: the norm may differ in
        its last bit, and so may a gradient that is clipped by it; nothing else does.
    C3  Stage 3 gathers a unit when an operation takes one of its parameters, or when backward asks for it, and lets go
        of it when another is taken: one unit at a time. So the weights of the last unit are still there when backward
        begins, and a unit whose weights backward does not need is not gathered again; 3 is what the others cost. Every
        rank must use the same units in the same order.
    C4  A parameter that no rank uses is left alone: no decay, its moments stay. Steps are counted once for all.
    C5  `offload` keeps the optimizer's state in files of a folder, mapped into memory as they are read and written.

Laws
    L1 first_step_in_closed_form             L2 all_stages_have_the_same_bits
    L3 any_cut_is_one_rank                   L4 bytes_held_are_the_formula
    L5 bytes_sent_are_the_formula            L6 later_steps_are_adamw
    L7 masters_add_small_steps_up
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from autodiff import raw, saved_tensors_hooks, tensor
from autodiff.tape import STATE, Interceptor, intercepting, storage
from autodiff.tensor import Tensor
from backends.communicators import bounds, on_ranks
from backends.fused.steps import adamw_
from ref.distributed.canonical_all_reduce import canonical_all_reduce
from ref.distributed.canonical_norm import norm_of_rows, row_squares
from ref.distributed.canonical_reduce_scatter import canonical_reduce_scatter
from ref.distributed.data_parallel import Arrivals, check_alike, reached, run_backward, send_to_all
from ref.distributed.gradient_buckets import gradient_buckets
from ref.distributed.ring_all_gather import ring_all_gather
from ref.spec import spec

SHAPES_ALONE = ("nn.embedding",)  # operations whose backward reads the shape of their weights and not the values


class Unit:
    """Parameters that travel together: where each stands in rows of `block` numbers, and what this rank keeps."""

    def __init__(self, comm, arrays, block):
        self.names, self.places, at = list(arrays), {}, 0
        for name, a in arrays.items():
            self.places[name] = (at, a.size, a.shape)
            at += a.size
        self.rows, self.block = -(-at // block), block
        cut = bounds(self.rows, comm.size)
        self.own = slice(cut[comm.rank], cut[comm.rank + 1])
        self.full = None  # stage 3: all weights, while they are needed
        self.partial = None  # stages 2 and 3: this rank's gradients, until they are reduced

    def view(self, flat, name):
        """The part of rows [rows block] that is a parameter."""
        at, size, shape = self.places[name]
        return flat.reshape(-1)[at : at + size].reshape(shape)

    def segments(self, names, rows):
        """[(start, stop)] of the named parameters within the rows of a slice, as numbers of a flat array of these."""
        low, high = rows.start * self.block, rows.stop * self.block
        cuts = [(max(at, low) - low, min(at + size, high) - low) for at, size, _ in map(self.places.get, names)]
        return [(a, b) for a, b in cuts if a < b]


class Zero:
    """A model's parameters, gradients and AdamW over the ranks of a communicator.

    Parameters
    ----------
    comm : Communicator
    params : {name: float array}
        Rank 0's count.
    stage : 0, 1, 2 or 3
    units : list of lists of str, optional
        Parameters that are gathered and reduced together, in the order of the forward.
    block : int
        Numbers in a row.
    plain : sequence of str
        Parameters without decay.
    offload : path, optional
        Folder for the optimizer's state (C5).
    """

    def __init__(self, comm, params, *, stage, units=None, block=1024, plain=(), offload=None):
        arrays = {name: np.array(a, order="C") for name, a in params.items()}
        _check(arrays, stage, units, block, plain)
        check_alike(comm, "Zero", arrays)
        send_to_all(comm, arrays.values())
        self.comm, self.stage, self.plain, self.steps = comm, stage, set(plain), 0
        dtype = next(iter(arrays.values())).dtype
        self.low = dtype.itemsize < 4
        if units is None:
            order = list(arrays)
            units = [[order[i] for i in b[::-1]] for b in gradient_buckets([a.nbytes for a in arrays.values()])[::-1]]
        self.units = [Unit(comm, {name: arrays[name] for name in names}, block) for names in units]
        self.unit_of = {name: unit for unit in self.units for name in unit.names}
        for k, unit in enumerate(self.units):
            full = np.zeros((unit.rows, block), dtype)
            for name in unit.names:
                unit.view(full, name)[...] = arrays[name]
            unit.weights = full[unit.own].copy() if stage >= 3 else full
            unit.gradients = np.zeros_like(full[self._held(unit, 2)])
            rows, wide = full[self._held(unit, 1)], np.float32 if self.low else dtype
            state = {n: _state(offload, f"rank{comm.rank}-unit{k}-{n}", rows.shape, wide)
                     for n in ("m", "v", "master")[: 2 + self.low]}  # fmt: skip
            unit.m, unit.v, unit.master = state["m"], state["v"], state.get("master")
            if self.low:
                unit.master[...] = rows
        # A value that is read while its unit is elsewhere must not pass for one.
        empty = np.array(np.nan, dtype)
        views = {n: np.broadcast_to(empty, unit.places[n][2]) if stage >= 3 else unit.view(unit.weights, n)
                 for n, unit in self.unit_of.items()}  # fmt: skip
        self.params = {name: tensor(views[name], requires_grad=True) for name in arrays}
        self.empty = {name: t.data for name, t in self.params.items()}
        self.elsewhere = _Elsewhere(self) if stage >= 3 else None
        self.order = self.units[::-1]
        self.arrivals = Arrivals(self.params, [u.names for u in self.order], self._fill, self._reduce)

    def _held(self, unit, stage):
        """The rows that a rank holds of what is sharded from `stage` on."""
        return unit.own if self.stage >= stage else slice(0, unit.rows)

    def step(self, loss, batch, *, lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01, max_norm=math.inf):
        """Forward, backward and one step of AdamW; the mean loss over all ranks, a float.

        Raises
        ------
        ValueError
            No rank has a term; on every rank.
        FloatingPointError
            The gradient is not finite; on every rank.
        """
        mean, used = self._gradients(loss, batch)
        self._clip(max_norm)
        self.steps += 1
        for decay, group in ((weight_decay, used - self.plain), (0.0, used & self.plain)):
            self._update(group, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
        self._renew_weights()
        return mean

    def _gradients(self, loss, batch):
        """(mean loss over all ranks, names that some rank uses); the mean's gradient lies in this rank's rows."""
        with ExitStack() as stack:
            for mode in self.elsewhere.modes() if self.elsewhere else ():
                stack.enter_context(mode)
            value, count = loss(self.params, batch)
        used = reached(value)
        sums = np.array([float(value), count, *(t.node.seq in used for t in self.params.values())], np.float64)
        canonical_all_reduce(self.comm, sums, out=sums)
        total, count, *users = sums.tolist()
        if not count:
            raise ValueError("Zero: no rank has a term to average over; needed a count > 0")
        self.arrivals.expect(used)
        run_backward(value)
        if self.elsewhere:
            self.elsewhere.take(None)
        self._divide(count)
        return total / count, {name for name, n in zip(self.params, users, strict=True) if n}

    def _divide(self, count):
        for unit in self.units:
            np.divide(self._reduced(unit), count, out=self._reduced(unit))

    def _clip(self, max_norm):
        norm = self.norm()
        if not math.isfinite(norm):
            raise FloatingPointError(f"Zero: the gradient of step {self.steps} has norm {norm}")
        if norm > max_norm:
            for g in map(self._reduced, self.units):
                np.multiply(g, max_norm / norm, out=g)

    def norm(self):
        """Norm of the gradient, the same bits on every rank."""
        first = np.cumsum([0, *(unit.rows for unit in self.units)])
        pairs = np.zeros((first[-1], 2))
        for at, unit in zip(first, self.units, strict=False):
            rows = self._held(unit, 1)
            pairs[at + rows.start : at + rows.stop] = row_squares(self._reduced(unit))
        if self.stage >= 1:
            canonical_all_reduce(self.comm, pairs, out=pairs)
        return float(norm_of_rows(pairs))

    def _reduced(self, unit):
        """The rows of the gradient that this rank steps with."""
        return unit.gradients[unit.own] if self.stage == 1 else unit.gradients

    def _fill(self, name):
        unit, t = self.unit_of[name], self.params[name]
        if self.stage >= 2 and unit.partial is None:
            unit.partial = np.zeros((unit.rows, unit.block), t.dtype)
        unit.view(unit.partial if self.stage >= 2 else unit.gradients, name)[...] = 0 if t.grad is None else t.grad
        t.grad = None

    def _reduce(self, k):
        unit = self.order[k]
        if self.stage == 0:
            canonical_all_reduce(self.comm, unit.gradients, out=unit.gradients)
        else:
            whole = unit.partial if self.stage >= 2 else unit.gradients
            canonical_reduce_scatter(self.comm, whole, out=self._reduced(unit))
            unit.partial = None

    def _update(self, names, **rates):
        """AdamW on this rank's rows of the named parameters."""
        params, grads, ms, vs = [], [], [], []
        for unit in self.units:
            rows = self._held(unit, 1)
            weights = unit.weights if self.stage == 0 or self.stage >= 3 else unit.weights[unit.own]
            param, g = (unit.master if self.low else weights).reshape(-1), self._reduced(unit).reshape(-1)
            for a, b in unit.segments([n for n in unit.names if n in names], rows):
                params.append(param[a:b])
                grads.append(g[a:b].astype(param.dtype, copy=False))
                ms.append(unit.m.reshape(-1)[a:b])
                vs.append(unit.v.reshape(-1)[a:b])
        adamw_(params, grads, ms, vs, self.steps, **rates)

    def _renew_weights(self):
        """Low weights from their masters; stages 1 and 2: everybody's rows to all."""
        for unit in self.units:
            if self.low:
                (unit.weights if self.stage >= 3 else unit.weights[self._held(unit, 1)])[...] = unit.master
            if self.stage in (1, 2):
                ring_all_gather(self.comm, unit.weights[unit.own], length=unit.rows, out=unit.weights)

    def gathered(self):
        """{name: array} of all parameters, as copies; every rank calls it."""
        found = {}
        for unit in self.units:
            full = self.gather(unit) if self.stage >= 3 else unit.weights
            found |= {name: unit.view(full, name).copy() for name in unit.names}
        return {name: found[name] for name in self.params}

    def gather(self, unit):
        """All weights of a unit, in new memory."""
        return ring_all_gather(
            self.comm, unit.weights, length=unit.rows, out=np.empty((unit.rows, unit.block), unit.weights.dtype)
        )

    def held(self):
        """{"weights", "gradients", "optimizer": arrays} that this rank holds between steps."""
        state = [a for u in self.units for a in (u.m, u.v, u.master) if a is not None]
        return {"weights": [u.weights for u in self.units], "gradients": [u.gradients for u in self.units],
                "optimizer": state}  # fmt: skip


    def shards(self):
        """({name: this rank's rows}, {name: rows of all}) of what the next step needs, whatever the stage; no copies.

        The gradients are not part of it. `restore` takes it back, on any number of ranks (`reshard`).
        """
        found, rows = {}, {}
        for k, unit in enumerate(self.units):
            for kind, a, stage in self._kept(unit):
                found[f"unit{k}.{kind}"] = a[unit.own] if self.stage < stage else a
                rows[f"unit{k}.{kind}"] = unit.rows
        return found, rows

    def restore(self, found, steps):
        """Go on from this rank's rows of each array of `shards`, after so many steps; every rank calls it."""
        for k, unit in enumerate(self.units):
            for kind, a, stage in self._kept(unit):
                mine = found[f"unit{k}.{kind}"]
                if self.stage < stage:
                    ring_all_gather(self.comm, mine, length=unit.rows, out=a)
                else:
                    a[...] = mine
        self.steps = steps

    def _kept(self, unit):
        """(name, array, stage from which on it is this rank's rows alone) of a unit's arrays."""
        state = [("m", unit.m, 1), ("v", unit.v, 1)] + ([("master", unit.master, 1)] if self.low else [])
        return [("weights", unit.weights, 3), *state]


class _Elsewhere(Interceptor):
    """Brings a unit's weights when a primitive takes one, or when backward wants what the tape kept of it.

    The tape keeps where a value stood in its unit, not the value, so that nothing but `unit.full` holds the weights.
    """

    def __init__(self, zero):
        self.zero, self.now, self.prim = zero, None, None
        self.name_of = {id(t): name for name, t in zero.params.items()}
        self.name_of_empty = {id(a): name for name, a in zero.empty.items()}

    def modes(self):
        self.outer = STATE.interceptor
        return intercepting(self), saved_tensors_hooks(self.pack, self.unpack)

    def arguments(self, prim, args):
        self.prim = prim
        for a in args:
            if isinstance(a, Tensor) and (name := self.name_of.get(id(a))) is not None:
                self.take(self.zero.unit_of[name])
        return super().arguments(prim, args)

    def again(self):
        return self

    def take(self, unit):
        """Have this unit here and no other."""
        if self.now is unit:
            return
        for old, bring in ((self.now, False), (unit, True)):
            if old is not None:
                old.full = self.zero.gather(old) if bring else None
                for name in old.names:
                    self.zero.params[name].data = old.view(old.full, name) if bring else self.zero.empty[name]
        self.now = unit

    def pack(self, a):
        if (name := self.name_of_empty.get(id(a))) is not None:  # what a checkpoint keeps of its arguments
            return _Place(self.zero.unit_of[name], name, None)
        here = self.now is not None and storage(a) is self.now.full
        if here and self.prim.name in SHAPES_ALONE:
            return np.broadcast_to(np.array(np.nan, a.dtype), a.shape)
        offset = a.__array_interface__["data"][0] - self.now.full.__array_interface__["data"][0] if here else 0
        return _Place(self.now, None, (a.shape, a.dtype, offset, a.strides)) if here else a

    def unpack(self, a):
        if not isinstance(a, _Place):
            return a
        self.take(a.unit)
        if a.name is not None:
            return a.unit.view(a.unit.full, a.name)
        shape, dtype, offset, strides = a.layout
        return np.ndarray(shape, dtype, a.unit.full, offset, strides)


class _Place:
    """Where an array stood in a unit's weights."""

    def __init__(self, unit, name, layout):
        self.unit, self.name, self.layout = unit, name, layout


def _state(folder, name, shape, dtype):
    """Zeros, in a file of `folder` if there is one."""
    if folder is None or not math.prod(shape):
        return np.zeros(shape, dtype)
    Path(folder).mkdir(parents=True, exist_ok=True)
    return np.memmap(Path(folder) / name, dtype, "w+", shape=shape).view(np.ndarray)


def _check(arrays, stage, units, block, plain):
    if stage not in (0, 1, 2, 3) or block < 1 or not arrays:
        raise ValueError(f"Zero: stage={stage!r}, block={block}, {len(arrays)} parameters; needed 0..3, >= 1, some")
    dtypes = {a.dtype for a in arrays.values()}
    if len(dtypes) > 1 or next(iter(dtypes)).kind != "f":
        raise TypeError(f"Zero: parameters are {', '.join(sorted(map(str, dtypes)))}; needed one float dtype")
    names = [name for unit in units or () for name in unit]
    if units is not None and sorted(names) != sorted(arrays):
        odd = sorted(set(names) ^ set(arrays)) or [n for n in arrays if names.count(n) > 1]
        raise ValueError(f"Zero: units must name every parameter once; {', '.join(odd)} is missing, unknown or twice")
    if unknown := sorted(set(plain) - set(arrays)):
        raise ValueError(f"Zero: plain names {', '.join(unknown)}, which is no parameter")


@spec("distributed.zero", "comm:tree, params:tree, batches:tree -> :tree", backends=("numpy",))
@on_ranks
def zero(
    comm, params, batches, *, stage, loss, units=None, block=1024, plain=(), offload=None, lr=1e-3, beta1=0.9,
    beta2=0.999, eps=1e-8, weight_decay=0.01, max_norm=math.inf,
):  # fmt: skip
    """AdamW on the mean loss over all ranks, a step a batch.

    Parameters
    ----------
    comm : Communicator
        Or a world, with params and batches one a rank.
    params : {name: float array}
        Rank 0's count.
    batches : list
        This rank's part of each step.
    stage : 0, 1, 2 or 3
        What is sharded: nothing, the optimizer's state, the gradients too, the weights too.
    loss : function (params, batch) -> (sum, count)
        Of Tensors; the sum of the losses and their number.
    units : list of lists of str, optional
        Parameters that travel together, in the order of the forward; `gradient_buckets` if not given.
    block : int
        Numbers in a row; rows are never cut.
    plain : sequence of str
        Parameters without decay.
    offload : path, optional
        Folder that the optimizer's state is kept in.
    lr, beta1, beta2, eps, weight_decay : float
        As in `optim.adamw`.
    max_norm : float
        Gradients are clipped to this norm.

    Returns
    -------
    (float64[T], {name: array}, int64[3])
        Mean losses before each step, the parameters after the last, and bytes of weights, gradients and optimizer
        state that this rank holds between steps.

    Raises
    ------
    ValueError
        An unknown stage, units that do not name every parameter once, no terms on any rank, ranks that differ.
    TypeError
        Parameters of several dtypes or none of float.
    FloatingPointError
        A gradient that is not finite.

    Complexity: as the table says, and 2 (N - 1)/N (16 K + 8 (P names + 2)) bytes for the norm and the sums.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> params, batches = [{"w": np.ones(2)}] * 2, [[np.array([3.0, 5.0])], [np.array([1.0, -4.0])]]
    >>> def square(p, x):
    ...     return ((p["w"] - x) ** 2).sum(), 1
    >>> options = dict(loss=square, block=1, lr=0.25, eps=0.0, weight_decay=0.0)
    >>> losses, values, held = zero(ThreadWorld(2), params, batches, stage=3, **options)
    >>> losses[0], values[0]["w"], held[0]
    (array([22.5]), array([1.25, 0.75]), array([ 8,  8, 16]))
    """
    return run(Zero, comm, params, batches, loss, dict(stage=stage, units=units, block=block, plain=plain,
               offload=offload), dict(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay,
               max_norm=max_norm))  # fmt: skip


def run(kind, comm, params, batches, loss, layout, rates):
    """`zero` on an object of class `kind`."""
    model = kind(comm, params, **layout)
    losses = np.array([model.step(loss, batch, **rates) for batch in batches], np.float64)
    sizes = np.array([sum(a.nbytes for a in group) for group in model.held().values()], np.int64)
    return losses, {name: np.asarray(raw(a)) for name, a in model.gathered().items()}, sizes
