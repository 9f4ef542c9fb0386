"""A communicator of one rank: what a program gets when it runs alone."""

from __future__ import annotations

from backends.communicators.threads import ThreadWorld, _Run, _ThreadCommunicator


class SelfCommunicator(_ThreadCommunicator):
    """Rank 0 of 1. It may send to itself; a receive that nothing was sent for is a `Deadlock` at once.

    >>> import numpy as np
    >>> comm, out = SelfCommunicator(), np.empty(1)
    >>> comm.sendrecv(np.array([5.0]), 0, out, 0)
    >>> out
    array([5.])
    """

    def __init__(self, *, debug=False):
        super().__init__(_Alone(ThreadWorld(1)), 0, 1, "self", debug=debug)


class _Alone(_Run):
    """A run without threads; an error ends a call, not the run."""

    def hand_over(self, r):
        if not self.ready[r]():
            from backends.communicators.core import Deadlock

            self.ready[r], words = (lambda: True), self.waits[r]()
            raise Deadlock(f"alone, and waiting for {words}")
