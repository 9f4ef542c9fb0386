"""Communicators: ranks that exchange messages, over one small interface.

A program is one function that every rank runs on its own communicator:

    def program(comm):                                   # rank 0 .. size - 1 of the same code
        x = np.full(4, float(comm.rank))
        return ring_all_reduce(comm, x)                  # ref.distributed: collectives, over send and receive

    ThreadWorld(4).run(program)                          # here, in one process: results in rank order
    mpi_world().run(program)                             # under `mpiexec -n 4 python -m mpi4py ...`: one process a rank
    program(SelfCommunicator())                          # alone
    simulate(4, program, model)                          # nobody moves a byte: counts, and seconds by a model

Point to point (arrays are contiguous, sizes and dtypes of both sides equal; a tag is 0 .. 999):

    comm.send(x, dest)   comm.recv(out, source)          block until x may be written, out read
    comm.sendrecv(x, dest, out, source)                  both at once; what a ring does
    r = comm.isend(x, dest)   r = comm.irecv(out, source)   begin; then r.wait() or r.test(), `wait_all(requests)`

All together:

    comm.share(value)          every rank's value (any object), a list in rank order, on every rank
    comm.barrier()             nobody leaves before all have come
    comm.agree(error)          end of a phase: each rank passes its exception or None; all return, or all raise
    comm.split(color, key)     sub-communicator of the ranks with my color; None gives None
    comm.subset(ranks)         the same from a list that all its members know: no message
    comm.grid(rows, columns)   .row and .column: rank = i columns + j; tensor parallel along rows, data along columns

On the way:

    comm.traffic               messages and bytes sent and received, bytes combined: `.count()`, `.reset()`; a
                               sub-communicator's count in its parent's too; share and its kind are not counted
    comm.combine(op, l, r, out), comm.copy(a, out), comm.empty(like, n)    the local work of a collective
    comm.plan(f, x, ...)       collective f on these very buffers, written down once: plan() runs it again and again
                               without f's Python; plan.start(), plan.progress(), plan.wait() run it in the background,
                               several at once, each on tags of its own (all ranks make their plans in the same order)

    @collective                makes f(comm, *arrays, **options) announce itself, use tags of its own, and take a world
    @on_ranks                  in place of a communicator: f(world, xs) runs f on all ranks, rank r on xs[r], and stacks
                               the results; so whole distributed algorithms are functions of arrays, with laws

Data parallelism in ten lines:

    def step(comm, params, batch):                       # params as on every rank, batch this rank's own
        loss, grads = value_and_grad(loss_of)(params, batch)
        flat = np.concatenate([g.ravel() for g in grads])
        total = ring_all_reduce(comm, flat, op="sum")    # the same bits on every rank
        ...                                              # divide by the number of tokens of all ranks, update

    With overlap: one flat bucket array a plan, made once; a hook fills the bucket's slice of each gradient; when the
    bucket is full plan.start(), at each later hook progress() of those under way, after the backward wait() in order.

Conventions
  C1  A rank that raises ends all: under threads whoever waits gets RankFailed and `run` raises the error; under MPI
      start with `python -m mpi4py`, which aborts the job.
  C2  debug=True (CLOSEDFORM_COMM_DEBUG=1): before each collective the ranks compare its name, dtype, count and options;
      Mismatch names two that differ: "rank 2 called all_gather(f4, 12) while rank 0 called all_reduce(f4, 12) at #17".
  C3  timeout=seconds (CLOSEDFORM_COMM_TIMEOUT), MPI: who waits longer raises RankAbsent, which names the ranks that
      have not come. Threads need no clock: a deadlock is seen at once, and says who waits for whom.
  C4  Device arrays (CuPy) go through the host (`staging`).
  C5  Lost messages, shrinking jobs and re-joining ranks are not handled: a failed job starts again from its checkpoint.
"""

from backends.communicators.alone import SelfCommunicator
from backends.communicators.collective import Call, collective, on_ranks, on_world
from backends.communicators.core import (
    OPS,
    CommError,
    Communicator,
    Count,
    Deadlock,
    Grid,
    Mismatch,
    RankAbsent,
    RankFailed,
    Request,
    Traffic,
    bounds,
    chunks,
    wait_all,
)
from backends.communicators.mpi import MpiCommunicator, MpiWorld, mpi_world
from backends.communicators.plan import Plan, Recorder, Step
from backends.communicators.simulator import Forecast, Model, Nodes, Phantom, Torus, simulate
from backends.communicators.threads import ThreadWorld

__all__ = [
    "OPS",
    "Call",
    "CommError",
    "Communicator",
    "Count",
    "Deadlock",
    "Forecast",
    "Grid",
    "Mismatch",
    "Model",
    "MpiCommunicator",
    "MpiWorld",
    "Nodes",
    "Phantom",
    "Plan",
    "RankAbsent",
    "RankFailed",
    "Recorder",
    "Request",
    "SelfCommunicator",
    "Step",
    "ThreadWorld",
    "Torus",
    "Traffic",
    "bounds",
    "chunks",
    "collective",
    "mpi_world",
    "on_ranks",
    "on_world",
    "simulate",
    "wait_all",
]
