"""Programs in which one rank goes wrong: mpiexec -n 3 python -m mpi4py -m tests.distributed.faulty NAME"""

import sys
import time

import numpy as np

from backends.communicators import MpiCommunicator, mpi_world
from ref.distributed.ring_all_gather import ring_all_gather
from ref.distributed.ring_all_reduce import ring_all_reduce

X = np.arange(12.0)


def another_collective():
    comm = MpiCommunicator(debug=True)
    for _ in range(16):
        ring_all_reduce(comm, X)
    (ring_all_gather if comm.rank == 2 else ring_all_reduce)(comm, X)


def another_length():
    comm = MpiCommunicator(debug=True)
    ring_all_reduce(comm, X[:9] if comm.rank == 1 else X)


def another_length_unseen():
    comm = MpiCommunicator()
    ring_all_reduce(comm, X[:9] if comm.rank == 1 else X)


def absent():
    comm = MpiCommunicator(timeout=0.5)
    ring_all_reduce(comm, X)
    if comm.rank == 1:
        time.sleep(60)
    ring_all_reduce(comm, X)


def absent_from_a_plan():
    comm = MpiCommunicator(timeout=0.5)
    plan = comm.plan(ring_all_reduce, X.copy())
    plan()
    if comm.rank == 1:
        time.sleep(60)
    plan()


def absent_from_a_barrier():
    comm = MpiCommunicator(timeout=0.5)
    if comm.rank == 1:
        time.sleep(60)
    comm.barrier()


def raises():
    comm = MpiCommunicator()
    if comm.rank == 1:
        raise ValueError("boom")
    ring_all_reduce(comm, X)


def raises_together():
    """An error that one rank has before any message: all raise, in order."""

    def program(comm):
        if comm.rank == 1:
            raise ValueError("boom")

    mpi_world().run(program)


def raises_between_messages():
    """An error that leaves the others waiting: the rank that has it ends the job."""
    world = mpi_world()
    world.PATIENCE = 0.5

    def program(comm):
        if comm.rank == 1:
            raise ValueError("boom")
        ring_all_reduce(comm, X)

    world.run(program)


def disagrees():
    """A phase that fails on one rank fails on all, and the message says where."""
    comm = MpiCommunicator()
    comm.agree(OSError("disk full") if comm.rank == 1 else None)


def other_examples():
    """Ranks that drew other examples are told so before they run."""
    world = mpi_world()
    ring_all_reduce(world, np.full((world.size, 4), float(MpiCommunicator().rank)))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
