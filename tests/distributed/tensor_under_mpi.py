"""A small model cut over real ranks: mpiexec -n N python -m mpi4py -m tests.distributed.tensor_under_mpi WAYS FOLDER

Every process also trains it alone; the losses must be equal within 1e-11, what it sends the formula, and what it saves
be read again to the same bits.
"""

import sys

import numpy as np

from backends.communicators import MpiCommunicator, SelfCommunicator
from ref.demo import bpe
from ref.demo.parallel import ParallelRun
from ref.demo.tensor_parallel import TensorParallelRun
from ref.demo.train import Plan
from ref.models.llama import Config

TEXT = b"the quick brown fox jumps over the lazy dog. " * 20
CONFIG = Config(vocabulary=259, channels=16, layers=1, heads=4, groups=2, hidden=13, tied=True)
PLAN = Plan(steps=2, batch=3, context=8, lr=1e-2, max_norm=0.5)


def main(ways, folder):
    comm, merges, wrong = MpiCommunicator(), bpe.learn(TEXT, 259), []
    alone = ParallelRun(SelfCommunicator(), TEXT, merges, CONFIG, PLAN, mode="ddp", dtype=np.float64)
    run, again = (
        TensorParallelRun(comm, TEXT, merges, CONFIG, PLAN, ways=ways, dtype=np.float64) for _ in range(2)
    )  # fmt: skip
    comm.traffic.reset()
    for _ in range(2):
        alone.advance()
        run.advance()
    if comm.traffic.count().bytes_sent != 2 * run.sent_by_formula():
        wrong.append(f"rank {comm.rank} sent other bytes than the formula")
    if not np.allclose(run.losses, alone.losses, rtol=0, atol=1e-11):
        wrong.append(f"rank {comm.rank}: losses {run.losses}, alone {alone.losses}")
    run.save(folder)
    again.resume(folder)
    saved, read = run.collect(), again.collect()
    if not all(np.array_equal(a, saved[name]) for name, a in read.items()):
        wrong.append(f"rank {comm.rank} reads other parameters than were saved")
    said = [w for one in comm.share(wrong) for w in one]
    if comm.rank == 0:
        print(*said, f"{comm.size} ranks, {len(said)} wrong", sep="\n")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
