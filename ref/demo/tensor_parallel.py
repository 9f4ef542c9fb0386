"""Training the language model with every matrix cut over ranks, and copies of the whole that share the batch.

    mpiexec -n 4 python -m mpi4py -m ref.cli train --parallel tp --tp 2        2 ranks a copy, 2 copies

The ranks are a grid, rank = i ways + j. A row has one copy of the model, rank j part j of every matrix: it computes one
loss together (`distributed.tensor_parallel_llama`). A column has one part, and a share of the batch each: its gradients
are summed as in data parallelism. The norm that gradients are clipped by is taken over a row, parts once, what all have
once. Checkpoints are those of the other modes, so any mode goes on from them, on any number of ranks.
"""

from __future__ import annotations

import numpy as np

from ref.demo.parallel import ParallelRun, Replicated, all_but, layout
from ref.distributed.canonical_all_reduce import canonical_all_reduce
from ref.distributed.canonical_norm import norm_of_rows, row_squares
from ref.distributed.ring_all_gather import ring_all_gather
from ref.distributed.tensor_parallel_llama import axis_of, shard, tensor_parallel_llama
from ref.distributed.vocabulary_parallel_cross_entropy import vocabulary_parallel_cross_entropy
from ref.distributed.zero import Unit

FOLD = {"algorithm": "canonical"}  # the same bits wherever an element stands, and bytes by a formula


class TensorParallel(Replicated):
    """The parts of a rank: its row's gradients and optimizer, kept alike along its column."""

    def __init__(self, comm, params, *, ways, units, plain, block=1024):
        self.world, self.grid = comm, comm.grid(comm.size // ways, ways)
        self.whole = [Unit(comm, {name: params[name] for name in names}, block) for names in units]
        self.shapes = {name: a.shape for name, a in params.items()}
        super().__init__(self.grid.column, self._part(params), units=units, plain=plain, block=block)

    def norm(self):
        """Norm of the whole gradient, the same bits on every rank."""
        row, pairs = self.grid.row, np.zeros((self.grid.row.size, len(self.params), 2))
        for k, name in enumerate(self.params):
            if axis_of(name) is not None or row.rank == 0:
                unit = self.unit_of[name]
                pairs[row.rank, k] = row_squares(unit.view(unit.gradients, name).reshape(1, -1))
        canonical_all_reduce(row, pairs, out=pairs)  # a number and zeros: exact
        return float(norm_of_rows(pairs.reshape(-1, 2)))

    def gathered(self):
        """{name: array} of the whole parameters, as copies; every rank calls it."""
        return {name: np.array(self._joined(name, t.data)) for name, t in self.params.items()}

    def shards(self):
        """As `Zero.shards`, of the whole model's units: rows of this rank among all ranks of the grid."""
        found, rows = {}, {}
        for k, (unit, part) in enumerate(zip(self.whole, self.units, strict=True)):
            for kind, a, _ in self._kept(part):
                full = np.zeros((unit.rows, unit.block), a.dtype)
                for name in unit.names:
                    unit.view(full, name)[...] = self._joined(name, part.view(a, name))
                found[f"unit{k}.{kind}"], rows[f"unit{k}.{kind}"] = full[unit.own].copy(), unit.rows
        return found, rows

    def restore(self, found, steps):
        """Take what `shards` of any mode gave, after so many steps; every rank calls it."""
        for k, (unit, part) in enumerate(zip(self.whole, self.units, strict=True)):
            for kind, a, _ in self._kept(part):
                full = ring_all_gather(self.world, found[f"unit{k}.{kind}"], length=unit.rows)
                for name, piece in self._part({name: unit.view(full, name) for name in unit.names}).items():
                    part.view(a, name)[...] = piece
        self.steps = steps

    def _part(self, params):
        return shard(params, self.grid.row.size, self.grid.j)

    def _joined(self, name, part):
        """The whole array of which each rank of the row has a part."""
        axis = axis_of(name)
        if axis is None:
            return part
        rows = np.ascontiguousarray(np.moveaxis(part, axis, 0))
        return np.moveaxis(ring_all_gather(self.grid.row, rows, length=self.shapes[name][axis]), 0, axis)


class TensorParallelRun(ParallelRun):
    """A `ParallelRun` on a grid of ranks, `ways` of which have a copy of the model."""

    modes = ("tp",)

    def __init__(self, comm, text, merges, config, plan, *, ways, mode="tp", dtype=np.float32):
        if problem := misfit(comm.size, ways, config.heads, config.groups):
            raise ValueError(f"TensorParallelRun: {problem}")
        self.ways = ways
        super().__init__(comm, text, merges, config, plan, mode=mode, dtype=dtype, copies=comm.size // ways)

    def _model(self, values):
        return TensorParallel(self.comm, values, ways=self.ways, **layout(values))

    def _loss(self, params, window, keeps, count):
        row, config = self.model.grid.row, self.config
        logits = tensor_parallel_llama(
            row, params, window[:, :-1], config=config, checkpointed=self.plan.checkpointed, drop=self._drop(keeps),
            **FOLD,
        )  # fmt: skip
        losses = vocabulary_parallel_cross_entropy(row, logits, window[:, 1:], vocabulary=config.vocabulary, **FOLD)
        return losses.sum() * (1 / count)

    def sent_by_formula(self):
        """Bytes that this rank sends a step: data parallelism's in its column, activations and the norm in its row."""
        row, column, names = self.model.grid.row, self.model.grid.column, len(self.model.params)
        item, layers = self.dtype.itemsize, self.config.layers
        tokens = len(self._rows()) * self.plan.context

        def reduced(comm, length, item):
            return all_but(comm, length, item, comm.rank, comm.rank + 1)

        passes = 2 * (2 * layers + 1) + (2 * layers if self.plan.checkpointed else 0)
        total = passes * reduced(row, tokens * self.config.channels, item)
        total += reduced(row, tokens, item) + reduced(row, 2 * tokens, item)  # maxima; sums and labels
        total += reduced(row, 2 * row.size * names, 8)  # the norm
        total += reduced(column, 2 + names, 8)  # losses, counts, who uses what
        return total + sum(reduced(column, flat.size, item) for flat in self.model.ddp.flats)


def misfit(ranks, ways, heads, groups=0):
    """Why so many ranks cannot cut a model in so many ways; None if they can."""
    if ways < 1 or ranks % ways:
        return f"{ranks} ranks for copies of {ways} ranks each; ways must divide the ranks"
    if (groups or heads) % ways:
        return f"{ways} ranks a copy for {groups or heads} key heads; ways must divide them"
    return None
