"""Ranks as threads of one process, one running at a time.

    ThreadWorld(4).run(program)      # [program(comm) of rank 0, .. of rank 3]

A rank runs until it must wait, then hands over to another, so a run is the same each time, a deadlock is seen the
moment it happens, and no two ranks ever run at once: what they share needs no lock. For speed take processes and MPI.

Conventions
  C1  `buffered=True`: a send is copied when it is posted and never blocks, as MPI does with small messages.
      `buffered=False`: a send waits for its receive, and bytes move as late as MPI allows: a buffer written too early
      or read too early shows, as does a program that leans on buffering. Until then the receiver's buffer holds junk.
  C2  `order` seeds who runs next; None goes round by rank. What a program computes must not depend on it.
  C3  The first error of a rank reaches all: whoever waits gets RankFailed, and `run` raises the error itself.
  C4  A rank calls its communicator from its own thread only.
"""

from __future__ import annotations

import contextvars
import os
import pickle
import random
import threading
from collections import defaultdict, deque

import numpy as np

from backends.communicators.core import Communicator, Deadlock, Mismatch, RankFailed, Request

_POLLS = 1000  # failed tests in a row, a rank, before polling counts as a deadlock


class ThreadWorld:
    """A number of ranks in this process.

    Parameters
    ----------
    size : int
        At least 1.
    buffered : bool
        C1.
    order : int, optional
        C2.
    debug : bool
        Communicators compare their collectives before each.
    planned : bool
        A collective called on this world is run as a plan that was made on other numbers.

    Examples
    --------
    >>> import numpy as np
    >>> def program(comm):
    ...     out = np.empty(1)
    ...     comm.sendrecv(np.array([10.0 * comm.rank]), (comm.rank + 1) % comm.size, out, (comm.rank - 1) % comm.size)
    ...     return float(out[0])
    >>> ThreadWorld(3).run(program)
    [20.0, 0.0, 10.0]
    """

    def __init__(self, size, *, buffered=True, order=None, debug=False, planned=False):
        if size < 1:
            raise ValueError(f"ThreadWorld: {size} ranks; needed at least 1")
        self.size, self.buffered, self.order, self.debug = int(size), buffered, order, debug
        self.planned, self.traffic = planned, ()

    def run(self, program):
        """Call program(comm) on every rank; the results in rank order. `traffic` then holds a `Count` a rank.

        Raises
        ------
        Exception
            What the first failing rank raised, with a note that says which rank.
        """
        run = _Run(self)
        comms = [_ThreadCommunicator(run, r, self.size, debug=self.debug) for r in range(self.size)]
        self.traffic = ()
        try:
            return run.all(program, comms)
        finally:
            self.traffic = tuple(c.traffic.count() for c in comms)

    def with_plans(self):
        """The same world, `planned`."""
        return ThreadWorld(self.size, buffered=self.buffered, order=self.order, debug=self.debug, planned=True)

    def check_same(self, value):
        """There is one process: every rank has the same world's arrays."""

    def __repr__(self):
        options = {"buffered": (self.buffered, True), "order": (self.order, None), "planned": (self.planned, False)}
        said = "".join(f", {name}={value}" for name, (value, usual) in options.items() if value != usual)
        return f"ThreadWorld({self.size}{said})"


class _Run:
    """One run of a program: who waits for what, messages posted, and the baton."""

    def __init__(self, world):
        n = world.size
        self.size, self.buffered = n, world.buffered
        self.random = None if world.order is None else random.Random(world.order)
        self.ready = [_always] * n  # what a rank waits for: () -> bool
        self.waits = [_its_turn] * n  # the same in words: () -> str
        self.ended, self.results = [False] * n, [None] * n
        self.failure, self.polls = None, 0
        self.posted = defaultdict(lambda: (deque(), deque()))  # channel -> (sends, receives) without a partner
        self.shared = {}
        self.workers, self.finished = [], threading.Lock()

    def all(self, program, comms):
        if self.size == 1:
            self._rank(program, comms[0], 0)
        else:
            self.finished.acquire()
            context = contextvars.copy_context()
            self.workers = [_worker() for _ in comms]
            for r, worker in enumerate(self.workers):
                worker.job = lambda r=r: context.copy().run(self._thread, program, comms[r], r)
            self.workers[0].go.release()
            try:
                self.finished.acquire()
            except BaseException as error:  # an interrupt reaches the ranks when they next wait
                self.failure = self.failure or (None, error)
                raise
        if self.failure:
            rank, error = self.failure
            if self.size > 1:
                error.add_note(f"on rank {rank} of {self.size}")
            raise error
        return self.results

    def _thread(self, program, comm, r):
        self._rank(program, comm, r)
        following = self._next(r)
        _idle.append(self.workers[r])
        (self.finished if following is None else self.workers[following].go).release()

    def _rank(self, program, comm, r):
        try:
            self.results[r] = program(comm)
        except BaseException as error:
            self.failure = self.failure or (r, error)
        self.ended[r] = True
        self.polls = 0

    def _next(self, r):
        """The next rank that can run, this one last; None if there is none."""
        able = [
            q
            for q in (*range(r + 1, self.size), *range(r + 1))
            if not self.ended[q] and (self.failure or self.ready[q]())
        ]
        if self.random is not None and able:
            return self.random.choice(able)
        return able[0] if able else self._stuck()

    def _stuck(self):
        """Nobody can run: wake a waiting rank, which raises the deadlock; None if all have ended."""
        left = [q for q in range(self.size) if not self.ended[q]]
        if not left:
            return None
        self.failure = (left[0], Deadlock(self._who_waits()))
        return left[0]

    def _who_waits(self):
        return "; ".join(
            f"rank {q} has ended" if self.ended[q] else f"rank {q} waits for {self.waits[q]()}"
            for q in range(self.size)
        )

    def wait(self, r, ready, words):
        """Return once ready() is true, other ranks running meanwhile."""
        self.check()
        if ready() and (self.random is None or self.random.random() < 0.75):
            return
        self.ready[r], self.waits[r] = ready, words
        self.hand_over(r)
        self.ready[r], self.waits[r] = _always, _its_turn  # `words` would keep a message alive, with its buffers

    def hand_over(self, r):
        following = self._next(r)
        if following != r:
            self.workers[following].go.release()
            self.workers[r].go.acquire()
        self.check()

    def check(self):
        if self.failure:
            rank, error = self.failure
            raise RankFailed(f"rank {rank} raised {type(error).__name__}: {error}")

    def polled(self, r):
        """A test failed: let the others run; a deadlock if nobody has got anywhere for long."""
        self.check()
        self.polls += 1
        if self.polls > _POLLS * self.size:
            raise Deadlock(f"every rank waits or polls, and nothing moves; rank {r} polls; {self._who_waits()}")
        self.waits[r] = _its_turn
        self.hand_over(r)


class _Message(Request):
    """A send and its receive, once they have met."""

    __slots__ = ("source", "dest", "tag", "data", "out", "moved")

    def __init__(self, source, dest, tag):
        self.source, self.dest, self.tag = source, dest, tag
        self.data = self.out = None
        self.moved = False

    def met(self):
        return self.data is not None and self.out is not None

    def move(self):
        if not self.moved:
            self.out[...] = self.data
            self.moved = True


class _End(Request):
    """One rank's end of a message."""

    __slots__ = ("comm", "message", "sending")

    def __init__(self, comm, message, sending):
        self.comm, self.message, self.sending = comm, message, sending

    def _done(self):
        return (self.sending and self.comm.run.buffered) or self.message.met()

    def wait(self):
        self.comm.run.wait(self.comm.place, self._done, self._words)
        if self.message.met():
            self.message.move()

    def test(self):
        if self._done():
            return True
        self.comm.run.polled(self.comm.place)
        return self._done()

    def _words(self):
        m, where = self.message, self.comm.now
        what = f"rank {m.dest} to receive" if self.sending else f"a message of rank {m.source}"
        return f"{what} (tag {m.tag}) on {self.comm.name}" + (f" in {where} #{self.comm.calls}" if where else "")


class _ThreadCommunicator(Communicator):
    """A rank of a `ThreadWorld`."""

    def __init__(self, run, rank, size, name="world", parent=None, debug=False, context=(), place=None):
        super().__init__(rank, size, name, parent, debug)
        self.run, self.context, self.place = run, context, rank if place is None else place
        self.shares, self.groups = 0, defaultdict(int)

    def _isend(self, x, dest, tag):
        message = self._meet(self.rank, dest, tag, 0)
        message.data = x.copy() if self.run.buffered else x
        return self._end(message, True)

    def _irecv(self, out, source, tag):
        message = self._meet(source, self.rank, tag, 1)
        message.out = out
        if not self.run.buffered:
            out.reshape(-1).view(np.uint8)[...] = 0xA5  # junk, until the message has come
        return self._end(message, False)

    def _meet(self, source, dest, tag, side):
        """The message that the other side has posted, or a new one."""
        self.run.check()
        mine, theirs = (posted := self.run.posted[self.context, source, dest, tag])[side], posted[1 - side]
        if theirs:
            self.run.polls = 0
            return theirs.popleft()
        mine.append(message := _Message(source, dest, tag))
        return message

    def _end(self, message, sending):
        if message.met():
            data, out = message.data, message.out
            if data.size != out.size or data.dtype != out.dtype:
                raise Mismatch(
                    f"rank {message.source} sent {data.size} {data.dtype} to rank {message.dest}, which waits for "
                    f"{out.size} {out.dtype} (tag {message.tag}, {self.name}{_during(self)})"
                )
            message.data = data.reshape(out.shape)
        return _End(self, message, sending)

    def _share(self, value):
        self.shares += 1
        slot = self.run.shared.setdefault((self.context, self.shares), {})
        slot[self.rank] = pickle.dumps(value)
        self.run.polls = 0

        def words():
            absent = [str(r) for r in range(self.size) if r not in slot]
            return f"rank{'s' * (len(absent) > 1)} {', '.join(absent)} to call ({value[0]}{_during(self)})"

        self.run.wait(self.place, lambda: len(slot) == self.size, words)
        return [pickle.loads(slot[r]) for r in range(self.size)]

    def _subset(self, ranks, name):
        key = tuple(ranks)
        self.groups[key] += 1
        return _ThreadCommunicator(
            self.run, ranks.index(self.rank), len(ranks), name, self,
            context=(self.context, key, self.groups[key]), place=self.place,
        )  # fmt: skip


def _during(comm):
    return f", {comm.now} #{comm.calls}" if comm.now else ""


def _always():
    return True


def _its_turn():
    return "its turn"


# Threads that have served a run wait for the next.
_idle = deque()


class _Worker(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True, name="rank")
        self.go, self.job = threading.Lock(), None
        self.go.acquire()
        self.start()

    def run(self):
        while True:
            self.go.acquire()
            job, self.job = self.job, None
            job()
            del job


def _worker():
    try:
        return _idle.popleft()
    except IndexError:
        return _Worker()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork
