"""A data-parallel training step of the language model: two ranks, half the batch each, against one with all of it.

    python -m bench.ddp [--rounds N]

Twice: with a batch of 16, and with one of 2, where the reductions weigh more against the products.

One job of two ranks, pinned one a core, one BLAS thread each. In a round rank 0 takes the step alone on the whole
batch, then both take it together, or the other way about; a step is forward, backward, reduction, AdamW, and lasts as
long as its slowest rank. Before and after each round both ranks multiply two matrices, untimed the first time, since a
step leaves cold caches: a round in which that took 10 % longer than at best had a core that others used, and is left
out and counted. Where hardly a round is clean, the fastest tenth of each side is compared, and the row says so.

Hidden: how much of the time that the reductions take by themselves does not lengthen the step,
1 - (step - step without reductions) / reductions alone, the difference taken round by round. Below 0 the step is longer
by more than the reductions take: by the buckets' copies, the division, and the wait for the slower rank. It is told
where the standard error of that median, about its quartiles' distance by the root of the rounds, is less than half of
what the reductions take.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bench.common import print_table, save

CASES = {16: (40, 0.65), 2: (160, None)}  # batch -> rounds and the largest ratio; the small one says what is hidden
CLEAN = 5  # rounds that a median needs
SIZES = {"channels": 128, "layers": 3, "heads": 4, "hidden": 344}
CONTEXT, VOCABULARY = 128, 1280
BUSY = 1.10  # of the calibration's best time


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help=argparse.SUPPRESS)  # of `make bench ARGS`
    parser.add_argument("--job", type=int, metavar="BATCH", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.job:
        return job(args.job, args.rounds)
    rows = []
    for batch, (rounds, _) in CASES.items():
        found = started(batch, args.rounds or rounds)
        rows.append(row_of(batch, found))
        print_table(rows[-1:], head=len(rows) == 1)
        hidden = "not to be told here" if found["hidden"] is None else f"{found['hidden']:.0%}"
        print(f"{found['left_out']} of {found['rounds']} rounds left out: a core was busy; communication "
              f"{found['communication'] * 1e3:.2f} ms by itself, the step is longer by {found['longer'] * 1e3:.2f} "
              f"+- {found['error'] * 1e3:.2f} ms with it, hidden: {hidden}")  # fmt: skip
    save("bench.ddp", 1, rows)
    return 0


def started(batch, rounds):
    """What the job of two ranks found."""
    root = Path(__file__).resolve().parents[1]
    launcher = str(Path(sys.executable).parent / "mpiexec")
    command = [launcher, "-n", "2", sys.executable, "-m", "mpi4py", "-m", "bench.ddp"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(root),
           "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # fmt: skip
    done = subprocess.run([*command, "--job", str(batch), "--rounds", str(rounds)], env=env, cwd=root, timeout=1200,
                          stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def row_of(batch, found):
    ratio, (_, target) = found["ratio"], CASES[batch]
    work = f"DDP step, 2 ranks, batch {batch}" + (", on a busy machine" if found["busy"] else "")
    return {
        "work": work, "peer": "one rank, whole batch", "threads": 1, "unit": "s", "ours": found["ours"],
        "theirs": found["theirs"], "ratio": ratio, "target": target, "met": None if target is None else ratio <= target,
        "rounds": found["rounds"], "left_out": found["left_out"], "communication": found["communication"],
        "longer": found["longer"], "error": found["error"], "hidden": found["hidden"],
    }  # fmt: skip


class Step:
    """A step on a communicator, this rank's part of the batch: the model, its gradients, AdamW."""

    def __init__(self, comm, batch):
        from autodiff import tensor
        from ref.demo.train import initial
        from ref.distributed.data_parallel import DataParallel
        from ref.models.llama import Config

        self.config = Config(vocabulary=VOCABULARY, rope_layout="interleaved", tied=True, **SIZES)
        values = initial(self.config, np.random.default_rng(0))
        self.params = {name: tensor(a, requires_grad=True) for name, a in values.items()}
        self.ddp = DataParallel(comm, self.params, algorithm=None)
        self.m, self.v = ([np.zeros(a.size, a.dtype) for a in values.values()] for _ in range(2))
        tokens = np.random.default_rng(1).integers(0, VOCABULARY, (batch, CONTEXT + 1))
        self.tokens, self.t = np.array_split(tokens, comm.size)[comm.rank], 0

    def __call__(self, reduced=True):
        from backends.fused.steps import adamw_
        from ref.losses.softmax_cross_entropy import softmax_cross_entropy
        from ref.models.llama import llama

        out = llama(self.params, self.tokens[:, :-1], self.config)
        loss = softmax_cross_entropy(out, self.tokens[:, 1:]).sum()
        with contextlib.nullcontext() if reduced else self.ddp.no_sync():
            self.ddp.backward(loss, self.tokens[:, 1:].size)
        if not reduced:
            self.ddp.sums[...] = 0
        self.t += 1
        grads = [t.grad.reshape(-1) for t in self.params.values()]
        adamw_([t.data.reshape(-1) for t in self.params.values()], grads, self.m, self.v, self.t,
               lr=1e-4, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=0.1)  # fmt: skip
        for t in self.params.values():
            t.grad = None

    def communication(self):
        """The reductions of a step, and nothing else."""
        for plan in self.ddp.plans:
            plan.start()
        for plan in self.ddp.plans:
            plan.wait()


def job(batch, rounds):
    from backends.communicators import MpiCommunicator, SelfCommunicator
    from backends.pages import keep_freed_pages

    comm = MpiCommunicator()
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[comm.rank % len(cores)]})
    keep_freed_pages()
    alone = Step(SelfCommunicator(), batch) if comm.rank == 0 else None
    both = Step(comm, batch)
    a = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)

    def timed(f):
        comm.barrier()
        start = time.perf_counter()
        f()
        return max(comm.share(time.perf_counter() - start))

    def calibrated():
        a @ a
        start = time.perf_counter()
        for _ in range(4):
            a @ a
        return time.perf_counter() - start

    parts = {
        "one": lambda: alone() if comm.rank == 0 else None,
        "two": both,
        "computing": lambda: both(reduced=False),
        "communication": both.communication,
    }
    best = min(comm.share(min(calibrated() for _ in range(50))))
    for f in parts.values():  # pages, caches
        timed(f)
    order, rows = np.random.default_rng(2), []
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        names = [list(parts)[i] for i in order.permutation(len(parts))]
        if comm.share(names)[0] != names:
            raise RuntimeError("ranks drew other orders")
        before, seconds = calibrated(), {}
        for name in names:
            seconds[name] = timed(parts[name])
        rows.append((seconds, max(comm.share(max(before, calibrated()))) <= BUSY * best))
        gc.collect()
    if comm.rank == 0:
        print(json.dumps(judged(rows)))
    return 0


def judged(rows):
    """The numbers of a run: medians over the clean rounds, or the fastest tenth of each part."""
    every, clean = [seconds for seconds, _ in rows], [seconds for seconds, fine in rows if fine]
    busy = len(clean) < CLEAN
    series = {name: [s[name] for s in (every if busy else clean)] for name in every[0]}
    tenth = lambda xs: statistics.mean(sorted(xs)[: max(1, len(xs) // 10)])  # noqa: E731
    middle = {name: tenth(xs) if busy else statistics.median(xs) for name, xs in series.items()}
    rounds = [a / b for a, b in zip(series["two"], series["one"], strict=True)]
    low, longer, high = statistics.quantiles((s["two"] - s["computing"] for s in (every if busy else clean)), n=4)
    error = (high - low) / len(rounds) ** 0.5
    told = not busy and error < middle["communication"] / 2
    return {
        "rounds": len(rows), "left_out": len(rows) - len(clean), "busy": busy, "ours": middle["two"],
        "theirs": middle["one"], "ratio": middle["two"] / middle["one"] if busy else statistics.median(rounds),
        "communication": middle["communication"], "longer": longer, "error": error,
        "hidden": 1 - longer / middle["communication"] if told else None,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
