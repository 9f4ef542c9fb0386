"""The watchdog: a wait that has lasted too long says who has not come.

A rank whose wait runs out tells all others, and reads what they tell: those that speak wait too, the silent ones are
absent. A rank that waits and is told joins in at once, so all who wait give up together, with the same names.
"""

from __future__ import annotations

import time

from backends.communicators.core import RankAbsent

SHARED = 31000  # tags of shared values under a timeout, 500 of them
_NOTICE = 32000
_SPINS = 200  # polls before a wait begins to sleep between them
_PAUSE = 1e-4


class Watchdog:
    """Of one process, for all its communicators; ranks are those of the first one."""

    def __init__(self, comm, MPI, timeout):
        self.comm, self.MPI, self.timeout = comm, MPI, timeout

    def poll(self, test, words):
        """Return once test() is true.

        Raises
        ------
        RankAbsent
            Not within the timeout, or another rank has given up; the message names the absent.
        """
        started, spins = time.monotonic(), 0
        while not test():
            spins += 1
            if spins < _SPINS:
                continue
            waited = time.monotonic() - started
            if waited > self.timeout or self.comm.iprobe(self.MPI.ANY_SOURCE, _NOTICE):
                raise RankAbsent(self._report(waited, words()))
            time.sleep(_PAUSE)

    def _report(self, waited, words):
        comm = self.comm
        others = [r for r in range(comm.size) if r != comm.rank]
        for r in others:
            comm.isend(words, r, _NOTICE)
        waiting, end = {}, time.monotonic() + min(self.timeout, 2.0)
        while time.monotonic() < end and len(waiting) < len(others):
            if comm.iprobe(self.MPI.ANY_SOURCE, _NOTICE):
                status = self.MPI.Status()
                said = comm.recv(source=self.MPI.ANY_SOURCE, tag=_NOTICE, status=status)
                waiting[status.Get_source()] = said
            else:
                time.sleep(_PAUSE)
        absent = [str(r) for r in others if r not in waiting]
        also = "".join(f"; rank {r} waits {said}" for r, said in sorted(waiting.items()))
        who = f"absent: rank{'s' * (len(absent) > 1)} {', '.join(absent)}" if absent else "no rank is absent"
        return f"rank {comm.rank} waited {waited:.1f} s {words}; {who}{also}"
