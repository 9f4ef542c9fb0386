"""A simulator: what a program sends, and how long it would take by a model, with nothing sent.

    model = Model(alpha=2e-6, beta=1 / 12e9, gamma=1 / 20e9, topology=Nodes(8, alpha=5e-7, beta=1 / 200e9))
    forecast = simulate(64, lambda comm: ring_all_reduce(comm, Phantom(1 << 20)), model)
    forecast.seconds, forecast.counts            # of each rank

Every rank's program is written down once by a `Recorder`, on arrays without numbers; then an event queue runs all of
them. A few hundred ranks take seconds; `ref.distributed.forecast` knows the collectives' rounds and goes to 10^5.

The model (Hockney 1994 with a port model; gamma after Thakur, Rabenseifner & Gropp 2005)
    A message of m bytes begins when sender and receiver have both posted it, the sender's port is free to send and the
    receiver's to receive; it ends (alpha + m beta) s later, s the greater of the two ranks' factors `slow`. Both ports
    are taken until then; a rank sends and receives at the same time. Ports take what is ready first.
    A combination of m bytes takes m gamma s, a copy m `copy` s, `compute(t)` takes t s. Posting takes no time.
    A rank that dies at time t begins nothing after t, and what it has under way never ends; who waits for it hangs.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from backends.communicators.plan import Recorder


class Phantom:
    """An array without numbers: a shape and a dtype, to be sliced along axis 0, reshaped, sent and combined."""

    __slots__ = ("shape", "dtype", "size", "itemsize", "nbytes")

    def __init__(self, shape, dtype=np.float32):
        self.shape = (int(shape),) if np.ndim(shape) == 0 else tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self.size, self.itemsize = math.prod(self.shape), self.dtype.itemsize
        self.nbytes = self.size * self.itemsize

    ndim = property(lambda self: len(self.shape))
    flags = type("Contiguous", (), {"c_contiguous": True})

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, part):
        if not isinstance(part, slice):
            raise TypeError(f"Phantom: [{part!r}]; it takes a slice along axis 0")
        return Phantom((len(range(*part.indices(self.shape[0]))), *self.shape[1:]), self.dtype)

    def reshape(self, *shape):
        shape = shape[0] if len(shape) == 1 else shape
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if -1 in shape:
            rest = math.prod(n for n in shape if n != -1)
            shape = tuple(self.size // rest if n == -1 else n for n in shape)
        return Phantom(shape, self.dtype)


class Nodes(NamedTuple):
    """Machines of `size` consecutive ranks each, with faster links inside."""

    size: int
    alpha: float
    beta: float

    def links(self, alpha, beta, source, dest):
        """(alpha, beta) of the links source -> dest, numbers or arrays."""
        inside = source // self.size == dest // self.size
        return np.where(inside, self.alpha, alpha), np.where(inside, self.beta, beta)


class Torus(NamedTuple):
    """Ranks on a grid of the given sides, wrapped around; `hop` seconds for each step of the way after the first."""

    sides: tuple
    hop: float

    def links(self, alpha, beta, source, dest):
        """(alpha, beta) of the links source -> dest, numbers or arrays."""
        hops, rest = 0, (np.asarray(source), np.asarray(dest))
        for side in reversed(self.sides):
            apart = np.abs(rest[0] % side - rest[1] % side)
            hops = hops + np.minimum(apart, side - apart)
            rest = rest[0] // side, rest[1] // side
        return alpha + self.hop * np.maximum(hops - 1, 0), beta + np.zeros(np.shape(hops))


@dataclass(frozen=True)
class Model:
    """What links and ranks cost; see the module's docstring.

    Parameters
    ----------
    alpha, beta, gamma : float
        Seconds a message, a byte sent, a byte combined.
    copy : float
        Seconds a byte that a rank copies from one array to another; the textbooks' 0 if not given.
    topology : Nodes or Torus, optional
        Other alphas and betas by link.
    slow : array, optional
        A factor of at least 1 a rank: the stragglers.
    dies : dict
        {rank: second}.
    """

    alpha: float
    beta: float
    gamma: float = 0.0
    copy: float = 0.0
    topology: Any = None
    slow: Any = None
    dies: dict = field(default_factory=dict)

    def links(self, source, dest):
        """(alpha, beta) of the links source -> dest."""
        if self.topology is None:
            return self.alpha, self.beta
        return self.topology.links(self.alpha, self.beta, source, dest)

    def factors(self, size):
        """`slow` as an array."""
        slow = np.ones(size) if self.slow is None else np.asarray(self.slow, float)
        if slow.shape != (size,) or slow.size and slow.min() < 1:
            raise ValueError(f"Model: slow has shape {slow.shape}; needed {size} factors of at least 1")
        return slow


class Forecast(NamedTuple):
    """Seconds until each rank ends (inf: it hangs or dies), its `Count`, and what hanging ranks wait for."""

    seconds: np.ndarray
    counts: tuple
    hangs: dict


class _Transfer:
    __slots__ = ("source", "dest", "size", "posted", "end", "waiting")

    def __init__(self, source, dest, size):
        self.source, self.dest, self.size = source, dest, size
        self.posted, self.end, self.waiting = 0, None, []


def record(size, program, rank):
    """(steps, Count) of one rank of a program."""
    comm = _Simulated(rank, size)
    program(comm)
    return comm.steps, comm.traffic.count()


class _Simulated(Recorder):
    """A `Recorder` for phantoms."""

    def empty(self, like, size):
        return Phantom(size, like.dtype)

    def _subset(self, ranks, name):
        made = super()._subset(ranks, name)
        made.__class__ = _Simulated
        return made


def simulate(size, program, model):
    """Run program(comm) on every rank of a simulated world.

    Parameters
    ----------
    size : int
        Ranks.
    program : callable
        Of a communicator; its arrays are `Phantom`s.
    model : Model

    Returns
    -------
    Forecast

    Examples
    --------
    >>> def program(comm):
    ...     comm.sendrecv(Phantom(10), 1 - comm.rank, Phantom(10), 1 - comm.rank)
    >>> simulate(2, program, Model(alpha=1.0, beta=0.5)).seconds
    array([21., 21.])
    """
    return _Simulation(size, [record(size, program, r) for r in range(size)], model).run()


class _Simulation:
    def __init__(self, size, recorded, model):
        self.size, self.model, self.slow = size, model, model.factors(size).tolist()
        self.rates = {"combine": model.gamma, "copy": model.copy, "compute": 1.0}
        self.steps, self.counts = [steps for steps, _ in recorded], tuple(count for _, count in recorded)
        self.at, self.ended = [0] * size, [math.inf] * size
        self.dies = [model.dies.get(r, math.inf) for r in range(size)]
        self.sends_at, self.receives_at = [0.0] * size, [0.0] * size  # when a port is free again
        self.messages = [{} for _ in range(size)]  # number -> transfer, of each rank
        self.open = defaultdict(lambda: (deque(), deque()))  # channel -> (sends, receives) without a partner
        self.queue = [(0.0, r) for r in range(size)]
        self.hangs = {}

    def run(self):
        while self.queue:
            self._go_on(*heapq.heappop(self.queue))
        return Forecast(np.array(self.ended), self.counts, self.hangs)

    def _go_on(self, now, r):
        """Rank r's steps from `now` on, up to one that takes time or has to wait."""
        steps = self.steps[r]
        while True:
            if now > self.dies[r]:
                self.hangs[r] = "died"
                return
            if self.at[r] == len(steps):
                self.ended[r] = now
                return
            step = steps[self.at[r]]
            self.at[r] += 1
            if step.kind in ("send", "recv"):
                self._post(now, r, step)
            elif step.kind == "wait":
                transfer = self.messages[r][step.message]
                if transfer.end is None:
                    transfer.waiting.append(r)
                    other = transfer.dest if transfer.source == r else transfer.source
                    self.hangs[r] = f"waits for rank {other}"
                    return
                if transfer.end > now:
                    return self._later(transfer.end, r)
            else:
                took = step.size * self.rates[step.kind] * self.slow[r]
                if took:
                    return self._later(now + took, r)

    def _later(self, time, r):
        self.hangs.pop(r, None)
        if time < math.inf:
            heapq.heappush(self.queue, (time, r))
        else:
            self.hangs[r] = "waits for a message of a rank that died"

    def _post(self, now, r, step):
        sending = step.kind == "send"
        source, dest = (r, step.peer) if sending else (step.peer, r)
        mine, theirs = (pair := self.open[source, dest, step.channel])[not sending], pair[sending]
        if theirs:
            transfer = theirs.popleft()
            if transfer.size != step.size:
                raise ValueError(
                    f"simulate: rank {source} and rank {dest} post a message of {transfer.size} and {step.size} bytes"
                )
            self._begin(now, transfer)
        else:
            mine.append(transfer := _Transfer(source, dest, step.size))
        self.messages[r][step.message] = transfer

    def _begin(self, now, transfer):
        i, j = transfer.source, transfer.dest
        alpha, beta = self.model.links(i, j)
        start = max(now, self.sends_at[i], self.receives_at[j])
        end = start + float(alpha + transfer.size * beta) * max(self.slow[i], self.slow[j])
        if end > min(self.dies[i], self.dies[j]):
            end = math.inf
        transfer.end = self.sends_at[i] = self.receives_at[j] = end
        for r in transfer.waiting:
            self._later(end, r)
