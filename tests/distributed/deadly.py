"""A training run of a small language model in which one rank goes wrong in one phase.

    mpiexec -n 3 python -m mpi4py -m tests.distributed.deadly FOLDER MODE PHASE RANK HOW

HOW is "kill" (SIGKILL), "raise" (an exception), "disk" (no space left, at the next write), or "none". The run goes on
from the checkpoint in FOLDER, if there is one, and prints its losses. `PHASES` says what each rank is about to do when
it is struck, in the third step where the phase has one. The moment is left in FOLDER.struck.
"""

import errno
import os
import signal
import sys
import time
from pathlib import Path

from backends.communicators import MpiCommunicator
from ref.demo import bpe, checkpoint_file, parallel, sharded_file
from ref.demo.parallel import ParallelRun
from ref.demo.train import Plan, train
from ref.distributed import data_parallel, zero
from ref.models.llama import Config

TEXT = b"the quick brown fox jumps over the lazy dog. " * 20
TINY = Config(vocabulary=264, channels=16, layers=2, heads=2, groups=1, hidden=24, tied=True)
PLAN = Plan(steps=6, batch=3, context=12, lr=1e-2, save_every=2, max_norm=0.5)
# phase -> (where, the name of what is about to be called, which call of it on the rank)
PHASES = {
    "start": (zero, "send_to_all", 1),
    "forward": (ParallelRun, "_loss", 3),
    "backward": (data_parallel.Arrivals, "_arrived", 70),
    "reduce": (data_parallel.Arrivals, "expect", 3),
    "clip": (zero.Zero, "_clip", 3),
    "update": (zero.Zero, "_update", 5),
    "gather": (zero.Zero, "_renew_weights", 3),
    "save": (sharded_file, "save", 1),
    "write": (checkpoint_file, "_write", 1),
    "sync": (checkpoint_file, "_sync_folder", 1),
    "commit": (sharded_file, "_commit", 1),
    "committed": (sharded_file, "_sweep", 2),
    "end": (parallel.ParallelRun, "collect", 1),
}
ONLY_RANK_0 = ("commit", "committed")
RESUMING = {"load": (sharded_file, "_read", 1), "restore": (zero.Zero, "restore", 1)}


def strike(folder, how):
    Path(f"{folder}.struck").write_text(str(time.time()))
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise ArithmeticError("boom")


def arm(folder, phase, how):
    where, name, number = {**PHASES, **RESUMING}[phase]
    real, calls = getattr(where, name), 0

    def call(*args, **options):
        nonlocal calls
        calls += 1
        if calls == number:
            strike(folder, how)
        return real(*args, **options)

    setattr(where, name, call)


def main(folder, mode, phase, rank, how):
    comm = MpiCommunicator()
    if how != "none" and comm.rank == int(rank):
        arm(folder, phase, how)
    run = ParallelRun(comm, TEXT, bpe.learn(TEXT, 264), TINY, PLAN, mode=mode)
    run.resume(folder)
    train(run, folder)
    run.collect()
    comm.barrier()
    if comm.rank == 0:
        print("losses", *map(repr, run.losses), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
