"""Plans: a collective written down once, then run many times on the same buffers, or in the background.

    plan = comm.plan(ring_all_reduce, x, out=x)      # every rank, in the same order
    plan()                                           # what x holds now is reduced, in place
    plan.start(); ...; plan.progress(); ...; plan.wait()

A collective's sends, receives and combinations depend on rank, size and length alone, not on what the arrays hold. So
one call on a `Recorder`, which moves nothing, gives the list of steps; the plan runs the list on persistent requests,
without the Python in between. Whatever else the function computed it would compute once, while it is recorded: a
collective works through the communicator (`send`, `recv`, `combine`, `copy`), and on nothing else.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from backends.communicators.core import OPS, Communicator, Request


class Step(NamedTuple):
    """What a rank does: "send" and "recv" begin, "wait" ends one, "combine", "copy" and "compute" are local.

    `message` counts this rank's sends and receives; `peer` is a rank of the communicator that the record began on;
    `channel` is (group, tag): () or the ranks of a sub-communicator. `size` is bytes, of "compute" seconds.
    """

    kind: str
    message: int = -1
    peer: int = -1
    channel: tuple = ()
    size: float = 0
    arrays: tuple = ()
    op: Any = None


class Recorder(Communicator):
    """A rank whose sends and receives are written down, and moved by nobody."""

    def __init__(self, rank, size, name="world", parent=None, ranks=None):
        super().__init__(rank, size, name, parent)
        self.steps = parent.steps if parent else []
        self.last = parent.last if parent else [-1]  # the last message's number, shared
        self.ranks = ranks or tuple(range(size))
        self.group = ranks or ()
        self.call = None

    def isend(self, x, dest, tag=0):
        self.traffic.sent(x.nbytes)
        return self._note("send", x, dest, tag)

    def irecv(self, out, source, tag=0):
        self.traffic.received(out.nbytes)
        return self._note("recv", out, source, tag)

    def _note(self, kind, x, peer, tag):
        channel = (self.group, self._checked(f"i{kind}", x, peer, tag) - self.base)
        self.last[0] += 1
        self.steps.append(Step(kind, self.last[0], self.ranks[peer], channel, x.nbytes, (x,)))
        return _Noted(self.steps, self.last[0])

    def combine(self, op, left, right, out):
        self.traffic.combined(out.nbytes)
        self.steps.append(Step("combine", size=out.nbytes, arrays=(left, right, out), op=op))

    def copy(self, source, out):
        self.steps.append(Step("copy", size=out.nbytes, arrays=(source, out)))

    def compute(self, seconds):
        self.steps.append(Step("compute", size=seconds))

    def begin(self, call):
        self.call = self.call or call

    def _share(self, value):
        raise ValueError(
            "Recorder: share, barrier, agree and split depend on what other ranks say; use subset or grid here"
        )

    def _subset(self, ranks, name):
        group = tuple(self.ranks[r] for r in ranks)
        return Recorder(ranks.index(self.rank), len(ranks), name, self, group)


class _Noted(Request):
    def __init__(self, steps, message):
        self.steps, self.message = steps, message

    def wait(self):
        self.steps.append(Step("wait", self.message))

    def test(self):
        raise ValueError("Recorder: what test says depends on time; use wait here")


class Plan:
    """A recorded collective, on one communicator and on the arrays it was made with.

    Every rank makes its plans in the same order. Several may be under way at once.

    Attributes
    ----------
    result : array
        What the function returned: the same array at each run.
    count : Count
        Traffic of one run.
    """

    def __init__(self, comm, function, *arrays, **options):
        recorder = Recorder(comm.rank, comm.size, comm.name)
        self.result = function(recorder, *arrays, **options)
        self.comm, self.call, self.count = comm, recorder.call or function, recorder.traffic.count()
        self._requests, self._at = {}, None
        self._do, self._ask = [], []  # the steps, and what a step waits for
        base, comm.base = comm.base, comm.next_base()
        try:
            for step in recorder.steps:
                self._add(step)
        finally:
            comm.base = base
        weakref.finalize(self, _free, self._requests)

    def _add(self, step):
        """Append a step as a callable, with what to ask before it can be done without waiting."""
        ask = None
        if step.kind in ("send", "recv"):
            group, tag = step.channel
            if group or tag >= 8:
                raise ValueError(f"plan: channel {step.channel}; a plan has one communicator and tags 0..7")
            init = self.comm._send_init if step.kind == "send" else self.comm._recv_init
            request = init(step.arrays[0], step.peer, self.comm.base + tag)
            self._requests[step.message] = request
            do = request.start
        elif step.kind == "wait":
            request = self._requests[step.message]
            do, ask = request.wait, request.test
        elif step.kind == "combine":
            ufunc = OPS[step.op] if isinstance(step.op, str) else step.op
            left, right, out = step.arrays
            do = partial(ufunc, left, right, out=out)
        elif step.kind == "copy":
            source, out = step.arrays
            do = partial(np.copyto, out, source)
        else:
            return
        self._do.append(do)
        self._ask.append(ask)

    def __call__(self):
        """Run it; returns `result`."""
        self._begin()
        for do in self._do:
            do()
        self._at = None
        return self.result

    def start(self):
        """Begin a run; the arrays are the plan's until `wait`.

        Raises
        ------
        RuntimeError
            It is under way, or freed.
        """
        self._begin()
        self.progress()

    def _begin(self):
        if self._at is not None or self._do is None:
            raise RuntimeError(f"plan {self.call}: " + ("freed" if self._do is None else "it is already under way"))
        self._at = 0
        self.comm.begin(self.call)
        self.comm.traffic.add(self.count)

    def progress(self):
        """Go on as far as no message must be waited for; whether the run is complete."""
        if self._at is None:
            return True
        while self._at < len(self._do):
            ask = self._ask[self._at]
            if ask is not None and not ask():
                return False
            self._do[self._at]()
            self._at += 1
        return True

    def wait(self):
        """Complete the run that was started; returns `result`."""
        if self._at is None:
            raise RuntimeError(f"plan {self.call}: not started")
        for do in self._do[self._at :]:
            do()
        self._at = None
        return self.result

    def free(self):
        """Give the persistent requests back (those of a run under way cannot be); the plan is of no use afterwards."""
        _free(self._requests, () if self._at is None else self._requests)
        self._do, self._at = None, None


def _free(requests, kept=()):
    if not kept:
        for request in requests.values():
            request.free()
    requests.clear()
