"""Training the language model on many ranks: data parallelism and ZeRO under mpiexec.

    mpiexec -n 4 python -m mpi4py -m ref.cli train --parallel zero3

Every rank draws the whole batch from the same generator and computes its rows of it; what differs between the modes is
who holds weights, gradients and AdamW's state, and what goes over the wire. Gradients are folded in rank order and the
norm is taken row by row, so all modes have the same bits. Checkpoints are sharded, and any mode on any number of ranks
goes on from them. Tensor parallelism, `--parallel tp`, stands in `tensor_parallel`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from backends.communicators import CommError, MpiCommunicator, SelfCommunicator, bounds
from ref.demo import sharded_file
from ref.demo.train import Run
from ref.demo.train import train as run_to_the_end
from ref.distributed.data_parallel import DataParallel
from ref.distributed.zero import Zero
from ref.optim.parameter_groups import parameter_groups

MODES = {"ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3}
NAMES = (*MODES, "tp")
PLAN = {"batch": 8, "context": 128, "lr": 4e-3}
LAUNCHED = ("PMI_SIZE", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE")  # what an mpiexec tells its processes
MOST_DIFFERENCE = 1e-10


class Replicated(Zero):
    """`DataParallel` with ZeRO's optimizer: everything on every rank, gradients reduced while backward goes on."""

    def __init__(self, comm, params, **layout):
        super().__init__(comm, params, stage=0, **layout)
        self.ddp = DataParallel(comm, self.params)

    def _gradients(self, loss, batch):
        mean = self.ddp.backward(*loss(self.params, batch))
        used = {name for name, t in self.params.items() if t.grad is not None}
        for name, t in self.params.items():
            unit = self.unit_of[name]
            unit.view(unit.gradients, name)[...] = t.grad if name in used else 0
            t.grad = None
        return mean, used


def units(names):
    """One unit for each layer; embedding, last norm and head in the first."""
    groups = {}
    for name in names:
        part = name.split(".")
        groups.setdefault(part[2] if name.startswith("model.layers.") else "root", []).append(name)
    return [groups.pop("root"), *groups.values()]


def layout(values):
    """What `Zero` is told of the parameters: their units, and which have no decay."""
    return {"units": units(values), "plain": parameter_groups({n: a.shape for n, a in values.items()})["no_decay"]}


class ParallelRun(Run):
    """A `Run` of which this rank computes its part; after `collect` the parameters can be looked at.

    `copies` of the model share the batch: as many as there are ranks if not given.
    """

    modes = tuple(MODES)

    def __init__(self, comm, text, merges, config, plan, *, mode, dtype=np.float32, copies=None):
        copies = comm.size if copies is None else copies
        if mode not in self.modes:
            raise ValueError(f"ParallelRun: mode {mode!r}; needed one of {', '.join(self.modes)}")
        if plan.batch < copies:
            raise ValueError(f"ParallelRun: a batch of {plan.batch} for {copies} ranks; needed a sequence each")
        self.comm, self.mode, self.dtype, self.losses = comm, mode, np.dtype(dtype), []
        self.sent = 0  # bytes of the steps of this process; checkpoints are not steps
        super().__init__(text, merges, config, plan)

    def _make(self, values):
        self.model = self._model({name: a.astype(self.dtype) for name, a in values.items()})
        self.params = None

    def _model(self, values):
        if self.mode == "ddp":
            return Replicated(self.comm, values, **layout(values))
        return Zero(self.comm, values, stage=MODES[self.mode], **layout(values))

    def _rows(self):
        """The sequences of the batch that this rank has."""
        copies = self.model.comm
        return np.array_split(np.arange(self.plan.batch), copies.size)[copies.rank]

    def _advance(self):
        plan, before = self.plan, self.comm.traffic.bytes_sent
        window, keeps = self._drawn()
        rows = self._rows()

        def loss(params, batch):
            tokens, masks = batch
            return self._loss(params, tokens, masks, 1), tokens[:, 1:].size

        self.step += 1
        mean = self.model.step(
            loss, (window[rows], keeps[:, rows]), lr=self._rate(), beta1=plan.beta1, beta2=plan.beta2, eps=1e-8,
            weight_decay=plan.weight_decay, max_norm=plan.max_norm,
        )  # fmt: skip
        self.losses.append(mean)
        self.sent += self.comm.traffic.bytes_sent - before
        return self._noted(mean, window)

    def collect(self):
        """All parameters on every rank, as `params`; every rank calls it."""
        self.params = self.model.gathered()
        return self.params

    def save(self, folder):
        """Write a checkpoint of all ranks; every rank calls it."""
        return sharded_file.save(self.comm, folder, *self.model.shards(), {
            "step": self.step,
            "rng": self.rng.bit_generator.state,
            "losses": self.losses,
            "curve": self.curve,
            **self._identity(),
        })  # fmt: skip

    def _identity(self):
        """What a checkpoint must share with the run that goes on from it."""
        return {"config": self.config._asdict(), "plan": self.plan._asdict(), "merges": self.merges.tolist(),
                "dtype": str(self.dtype)}  # fmt: skip

    def resume(self, folder):
        """Take up the committed checkpoint of `folder`, if there is one; returns whether there was.

        Raises
        ------
        ValueError
            It is of another configuration, plan, dtype or vocabulary; on every rank.
        """
        found = sharded_file.load(self.comm, folder)
        if found is None:
            return False
        for name, mine in self._identity().items():
            if found.state[name] != mine:
                saved = "" if name == "merges" else f" {found.state[name]}; this run has {mine}"
                raise ValueError(f"resume: {folder} has another {name}{saved}")
        self.model.restore(found.arrays, found.state["step"])
        self.step, self.losses, self.curve = found.state["step"], found.state["losses"], found.state["curve"]
        self.rng.bit_generator.state = found.state["rng"]
        return True

    def sent_by_formula(self):
        """Bytes that this rank sends a step, by the formulas of the collectives."""
        r, names = self.comm.rank, len(self.model.params)

        def but(length, item, *chunks):
            return all_but(self.comm, length, item, *chunks)

        item, total = self.dtype.itemsize, but(2 + names, 8, r, r + 1)  # losses, counts, who uses what
        if self.mode == "ddp":
            return total + sum(but(flat.size, item, r, r + 1) for flat in self.model.ddp.flats)
        total += but(2 * sum(u.rows for u in self.model.units), 8, r, r + 1)  # the norm
        gathers = 2 if self.mode == "zero3" else 1
        return total + sum(but(u.rows, u.block * item, r, *[r + 1] * gathers) for u in self.model.units)


def all_but(comm, length, item, *chunks):
    """Bytes of rounds in which a rank sends all chunks of `length` but the one named; nothing where it is alone."""
    cut, n = bounds(length, comm.size), comm.size
    return item * sum(length - (cut[k % n + 1] - cut[k % n]) for k in chunks)


def communicator():
    """The ranks that mpiexec started, or this process alone."""
    return MpiCommunicator() if any(name in os.environ for name in LAUNCHED) else SelfCommunicator()


def train(out, mode, *, steps, sizes, vocabulary, double, recompute, resume, against, ways=1):
    """`closedform train --parallel`: the run, its progress on rank 0, its traffic beside the formula."""
    from backends.pages import keep_freed_pages
    from ref.demo import bpe, corpus
    from ref.demo.tensor_parallel import TensorParallelRun, misfit
    from ref.demo.train import Plan
    from ref.models.llama import Config, parameter_count

    console = Console()
    if mode not in NAMES:
        console.print(f"closedform: --parallel {mode!r}; needed one of {', '.join(NAMES)}", soft_wrap=True)
        raise typer.Exit(2)
    keep_freed_pages()
    try:
        comm = communicator()
    except CommError as error:
        console.print(f"closedform: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    console.quiet = comm.rank > 0
    if mode == "tp" and (problem := misfit(comm.size, ways, sizes["heads"])):
        console.print(f"closedform: --tp: {problem}", soft_wrap=True)
        raise typer.Exit(2)
    if not resume and comm.share((out / sharded_file.MANIFEST).exists())[0]:
        console.print(f"closedform: {out} has a checkpoint; go on with --resume, or name another --out", soft_wrap=True)
        raise typer.Exit(2)
    text = corpus.load().fitting
    merges = comm.share(bpe.learn(text, vocabulary) if comm.rank == 0 else None)[0]
    config = Config(vocabulary=256 + len(merges), rope_layout="interleaved", tied=True, **sizes)
    plan = Plan(steps=steps or 50, save_every=25, checkpointed=recompute, **PLAN)
    kind, options = (TensorParallelRun, {"ways": ways}) if mode == "tp" else (ParallelRun, {})
    run = kind(comm, text, merges, config, plan, mode=mode, dtype=np.float64 if double else np.float32, **options)
    if resume:
        there = run.resume(out)
        console.print(f"going on from step {run.step}" if there else f"no checkpoint in {out}: starting anew")
    P = parameter_count(config)
    mode = f"tp {ways} x dp {comm.size // ways}" if mode == "tp" else mode
    console.print(f"{mode} on {comm.size} ranks, {run.dtype}; {P} parameters, {plan.batch} x {plan.context} tokens")
    first = run.step
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=comm.rank > 0) as bar:
        task = bar.add_task("training", total=plan.steps, completed=run.step)
        run_to_the_end(run, out, watch=lambda run, bits: bar.update(
            task, completed=run.step, description=f"loss {run.losses[-1]:.4f}, {bits:.3f} bits per byte"))  # fmt: skip
    rows = comm.share((run.sent / max(run.step - first, 1), run.sent_by_formula()))
    console.print(_traffic(rows, mode, comm.size, P * run.dtype.itemsize))
    console.print(f"loss of the last step: {run.losses[-1]!r}", highlight=False)
    if comm.rank == 0:
        record = {"mode": mode, "ranks": comm.size, "dtype": str(run.dtype), "losses": run.losses}
        (Path(out) / "losses.json").write_text(json.dumps(record))
    wrong = comm.share(_compared(console, run, against) if comm.rank == 0 and against else False)[0]
    if wrong or any(a != b for a, b in rows):
        raise typer.Exit(1)


def _traffic(rows, mode, n, whole):
    table = Table(title=f"bytes sent a step, {mode}", caption=f"x: in (N - 1)/N of {whole} bytes")
    for name in ("rank", "sent", "formula", "x"):
        table.add_column(name, justify="right")
    for r, (sent, formula) in enumerate(rows):
        table.add_row(str(r), f"{sent:.0f}", str(formula), f"{sent / max((n - 1) / n * whole, 1):.3f}")
    return table


def _compared(console, run, against):
    """Whether the losses differ from those of another run by more than they may; prints by how much."""
    other = json.loads(Path(against).read_text())
    if len(other["losses"]) != len(run.losses):
        console.print(f"{against} has {len(other['losses'])} steps, this run {len(run.losses)}")
        return True
    worst = max(abs(a - b) for a, b in zip(run.losses, other["losses"], strict=True))
    console.print(f"largest |loss difference| to {other['mode']} on {other['ranks']} ranks: {worst:.3g}")
    return worst > MOST_DIFFERENCE
