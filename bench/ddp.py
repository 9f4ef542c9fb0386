"""A data-parallel training step of the language model: two ranks, half the batch each, against one with all of it.

    python -m bench.ddp [--rounds N]

One job of two ranks, pinned one a core, one BLAS thread each. In a round rank 0 takes the step alone on the whole
batch, then both take it together, or the other way about; a step is forward, backward, reduction, AdamW, and lasts as
long as its slowest rank. Before and after each round both ranks multiply two matrices: a round in which that took 10 %
longer than at best had a core that others used, and is left out and counted. Where hardly a round is clean, the fastest
tenth of each side is compared, the row says so, and what is hidden is not reported.

Hidden: how much of the time that the reductions take by themselves does not lengthen the step,
1 - (step - step without reductions) / reductions alone.
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

TARGET = 0.65
CLEAN = 5  # rounds that a median needs
SIZES = {"channels": 128, "layers": 3, "heads": 4, "hidden": 344}
BATCH, CONTEXT, VOCABULARY = 16, 128, 1280
BUSY = 1.10  # of the calibration's best time


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help=argparse.SUPPRESS)  # of `make bench ARGS`
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.job:
        return job(args.rounds)
    root = Path(__file__).resolve().parents[1]
    launcher = str(Path(sys.executable).parent / "mpiexec")
    command = [launcher, "-n", "2", sys.executable, "-m", "mpi4py", "-m", "bench.ddp"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(root),
           "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # fmt: skip
    done = subprocess.run([*command, "--job", "--rounds", str(args.rounds)], env=env, cwd=root, timeout=1200,
                          stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    rows = rows_of(found)
    print_table(rows)
    hidden = "not to be told here" if found["hidden"] is None else f"{found['hidden']:.0%}"
    print(f"{found['left_out']} of {found['rounds']} rounds left out: a core was busy; "
          f"communication {found['communication'] * 1e3:.2f} ms by itself, hidden: {hidden}")  # fmt: skip
    save("bench.ddp", 1, rows)
    return 0


def rows_of(found):
    ratio = found["ratio"]
    return [{
        "work": "DDP step, 2 ranks" + (", on a busy machine" if found["busy"] else ""), "peer": "one rank, whole batch",
        "threads": 1, "unit": "s", "ours": found["ours"], "theirs": found["theirs"], "ratio": ratio,
        "target": TARGET, "met": ratio <= TARGET, "rounds": found["rounds"], "left_out": found["left_out"],
        "hidden": found["hidden"],
    }]  # fmt: skip


class Step:
    """A step on a communicator: the model, its gradients, AdamW."""

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
        tokens = np.random.default_rng(1).integers(0, VOCABULARY, (BATCH, CONTEXT + 1))
        self.tokens, self.t = np.array_split(tokens, comm.size)[comm.rank] if batch == "own" else tokens, 0

    def __call__(self, reduced=True):
        from backends.fused.numpy.adamw import adamw_
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


def job(rounds):
    from backends.communicators import MpiCommunicator, SelfCommunicator
    from backends.pages import keep_freed_pages

    comm = MpiCommunicator()
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[comm.rank % len(cores)]})
    keep_freed_pages()
    alone = Step(SelfCommunicator(), "whole") if comm.rank == 0 else None
    both = Step(comm, "own")
    a = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)

    def timed(f):
        comm.barrier()
        start = time.perf_counter()
        f()
        return max(comm.share(time.perf_counter() - start))

    def calibrated():
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
    clean = [seconds for seconds, fine in rows if fine]
    busy = len(clean) < CLEAN
    series = {name: [s[name] for s, _ in rows] if busy else [s[name] for s in clean] for name in rows[0][0]}
    tenth = lambda xs: statistics.mean(sorted(xs)[: max(1, len(xs) // 10)])  # noqa: E731
    middle = {name: tenth(xs) if busy else statistics.median(xs) for name, xs in series.items()}
    rounds = [a / b for a, b in zip(series["two"], series["one"], strict=True)]
    share = max(0.0, middle["two"] - middle["computing"]) / middle["communication"]
    return {
        "rounds": len(rows), "left_out": len(rows) - len(clean), "busy": busy, "ours": middle["two"],
        "theirs": middle["one"], "ratio": middle["two"] / middle["one"] if busy else statistics.median(rounds),
        "communication": middle["communication"], "hidden": None if busy else 1 - share,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
