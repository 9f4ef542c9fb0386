"""The interface of a communicator, and what all transports share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backends.communicators import staging

OPS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
USER_TAGS = 1000  # tags 0 .. 999 are the caller's
COLLECTIVE = 1000  # base of the tags of a collective; a plan has a base of its own
_TAGS_OF_A_PLAN, _MOST_PLANS = 8, 3700  # every MPI has tags up to 32767; the last ones are the watchdog's


class CommError(RuntimeError):
    """A message did not come about."""


class RankFailed(CommError):
    """Another rank raised; the message names it and what it raised."""


class RankAbsent(CommError):
    """Ranks that were waited for did not come; the message names them."""


class Deadlock(RankAbsent):
    """No rank can go on: each waits for a message that nobody will send."""


class Mismatch(CommError, ValueError):
    """Two ranks disagree on what they do: calls, counts or dtypes; the message names both."""


class Count(NamedTuple):
    """What one rank has sent, received and combined, in whole messages and bytes."""

    messages_sent: int = 0
    bytes_sent: int = 0
    messages_received: int = 0
    bytes_received: int = 0
    bytes_combined: int = 0


class Traffic:
    """Counters of one rank on one communicator; a sub-communicator's count in its parent's too.

    Messages are the algorithms' own: what `share`, `barrier`, `split` and the debug mode exchange is not counted. An
    empty message counts as one message of no bytes.
    """

    __slots__ = (*Count._fields, "parent")

    def __init__(self, parent=None):
        self.parent = parent
        self.reset()

    def reset(self):
        """Set all counters to zero (not the parent's)."""
        for name in Count._fields:
            setattr(self, name, 0)

    def sent(self, size):
        while self is not None:
            self.messages_sent += 1
            self.bytes_sent += size
            self = self.parent

    def received(self, size):
        while self is not None:
            self.messages_received += 1
            self.bytes_received += size
            self = self.parent

    def combined(self, size):
        while self is not None:
            self.bytes_combined += size
            self = self.parent

    def add(self, count):
        """Add a whole `Count`."""
        messages_sent, bytes_sent, messages_received, bytes_received, bytes_combined = count
        while self is not None:
            self.messages_sent += messages_sent
            self.bytes_sent += bytes_sent
            self.messages_received += messages_received
            self.bytes_received += bytes_received
            self.bytes_combined += bytes_combined
            self = self.parent

    def count(self):
        """The counters as a `Count`."""
        return Count(*(getattr(self, name) for name in Count._fields))


class Request:
    """A message under way. The buffer of a send must not be written, that of a receive not be read, before `wait`."""

    def wait(self):
        """Return when the buffer may be used again; CommError if it cannot come about."""
        raise NotImplementedError

    def test(self):
        """Whether `wait` would return at once."""
        raise NotImplementedError


class Persistent(Request):
    """A message that is described once and begun many times by `start`; for plans."""

    def __init__(self, post):
        self._post, self._current = post, None

    def start(self):
        self._current = self._post()

    def wait(self):
        self._current.wait()

    def test(self):
        return self._current.test()

    def free(self):
        self._post = self._current = None


class Grid(NamedTuple):
    """A rank's place in a grid of ranks: communicators along its row and its column, and its indices."""

    row: Communicator
    column: Communicator
    i: int
    j: int


class Communicator:
    """Ranks 0 .. size - 1 that exchange messages; one object a rank. See the package's docstring for the whole picture.

    A transport supplies `_isend`, `_irecv`, `_subset`, `_share`, and may replace what it does faster.

    Attributes
    ----------
    rank, size : int
    name : str
        For messages.
    traffic : Traffic
    calls : int
        Collectives begun so far.
    debug : bool
        Every collective first compares its name, dtype and count with the other ranks'.
    """

    def __init__(self, rank, size, name="world", parent=None, debug=False):
        self.rank, self.size, self.name = rank, size, name
        self.traffic = Traffic(parent.traffic if parent is not None else None)
        self.debug = parent.debug if parent is not None else debug
        self.calls, self.plans, self.base, self.now = 0, 0, 0, None

    # --- point to point -----------------------------------------------------------------------

    def send(self, x, dest, tag=0):
        """Send a contiguous array; returns when x may be written again (perhaps before it arrives)."""
        self.isend(x, dest, tag).wait()

    def recv(self, out, source, tag=0):
        """Receive into a contiguous array of exactly the size that was sent."""
        self.irecv(out, source, tag).wait()

    def sendrecv(self, x, dest, out, source, tag=0):
        """Send x and receive into out, both at once: no order of ranks can block it."""
        arriving = self.irecv(out, source, tag)
        leaving = self.isend(x, dest, tag)
        arriving.wait()
        leaving.wait()

    def isend(self, x, dest, tag=0):
        """Begin to send a contiguous array; x must not be written before the request's `wait`.

        Parameters
        ----------
        x : array
            NumPy, or of a device (then copied to the host once the device's stream has done its work).
        dest : int
        tag : int
            0 .. 999. Messages of one tag between two ranks arrive in the order sent.

        Returns
        -------
        Request

        Raises
        ------
        ValueError
            No such rank or tag, x not contiguous.
        TypeError
            x is no array.
        """
        tag = self._checked("isend", x, dest, tag)
        self.traffic.sent(x.nbytes)
        return self._isend(_plain(staging.host_copy(x)), dest, tag)

    def irecv(self, out, source, tag=0):
        """Begin to receive; out must not be read before the request's `wait`. As `isend` otherwise."""
        tag = self._checked("irecv", out, source, tag)
        self.traffic.received(out.nbytes)
        return staging.arriving(out, lambda host: self._irecv(_plain(host), source, tag))

    # --- local work that plans and simulations must see -------------------------------------------

    def combine(self, op, left, right, out):
        """out = op(left, right), elementwise; `op` is a name in `OPS` or a function (left, right, *, out)."""
        self.traffic.combined(out.nbytes)
        (OPS[op] if isinstance(op, str) else op)(left, right, out=out)

    def copy(self, source, out):
        """out[...] = source."""
        out[...] = source

    def empty(self, like, size):
        """An uninitialised flat array of the dtype and the device of `like`."""
        return np.empty_like(like, shape=(size,))

    def compute(self, seconds):
        """Time that a simulation lets pass here; nothing elsewhere."""

    # --- objects, groups, agreement ------------------------------------------------------------

    def share(self, value):
        """Every rank's value (anything that pickles), as a list in rank order, on every rank. Not counted."""
        return self._met("shared", value)

    def barrier(self):
        """Return when every rank has called. Not counted."""
        self._met("was in a barrier")

    def agree(self, error=None):
        """End a phase together: every rank passes its exception or None, and all return or all raise.

        Raises
        ------
        Exception
            The rank's own error, or RankFailed that names the ranks which passed one.
        """
        said = self._met("agreed", None if error is None else f"{type(error).__name__}: {error}")
        failed = [f"rank {r} raised {text}" for r, text in enumerate(said) if text is not None]
        if error is not None:
            raise error
        if failed:
            raise RankFailed("; ".join(failed))

    def subset(self, ranks, name=None):
        """A communicator of some ranks, in the order given; every one of them calls it with the same list.

        Raises
        ------
        ValueError
            This rank is not in it, or a rank is there twice or does not exist.
        """
        ranks = [int(r) for r in ranks]
        if self.rank not in ranks or len(set(ranks)) < len(ranks) or not all(0 <= r < self.size for r in ranks):
            raise ValueError(
                f"subset: ranks {ranks} on rank {self.rank} of {self.size}; needed distinct ranks, this one among them"
            )
        return self._subset(ranks, name or f"{self.name}{ranks}")

    def split(self, color, key=0, name=None):
        """A communicator of the ranks that pass the same color, ordered by (key, rank); None for color None.

        Every rank must call it.
        """
        said = self._met("split", (color, key))
        if color is None:
            return None
        mine = sorted((k, r) for r, (c, k) in enumerate(said) if c == color)
        return self.subset([r for _, r in mine], name)

    def grid(self, rows, columns):
        """This rank's row and column of a grid, rank = i columns + j (neighbours share a row).

        Raises
        ------
        ValueError
            rows x columns is not the number of ranks.
        """
        if rows * columns != self.size:
            raise ValueError(f"grid: {rows} x {columns} ranks, the communicator has {self.size}; they must agree")
        i, j = divmod(self.rank, columns)
        row = self.subset(range(i * columns, (i + 1) * columns), f"{self.name} row {i}")
        return Grid(row, self.subset(range(j, self.size, columns), f"{self.name} column {j}"), i, j)

    def plan(self, function, *arrays, **options):
        """A `Plan`: a collective on these very arrays, ready to be run many times, or in the background."""
        from backends.communicators.plan import Plan

        return Plan(self, function, *arrays, **options)

    def abort(self, code=1):
        """End every rank of the job."""
        raise SystemExit(code)

    # --- for transports and collectives ----------------------------------------------------------

    def next_base(self):
        """Base of the tags of a new plan; all ranks make their plans in the same order."""
        self.plans += 1
        return COLLECTIVE + _TAGS_OF_A_PLAN * (1 + (self.plans - 1) % _MOST_PLANS)

    def begin(self, call):
        """Note that a collective starts; in debug mode compare it with what the other ranks call."""
        self.calls += 1
        if self.debug:
            self._met(f"called {call}", number=self.calls)

    def _met(self, what, value=None, number=None):
        """Every rank's value, once all ranks are seen to be in the same call; Mismatch names two that are not."""
        said = self._share((what, number, value))
        for r, (other, at, _) in enumerate(said):
            if (other, at) != said[0][:2]:
                first, number = said[0][:2]
                place = "" if number is None else f" at #{number}"
                place = place if at in (None, number) or number is None else f"{place}, its own #{at}"
                raise Mismatch(f"rank {r} {other} while rank 0 {first}{place}")
        return [value for _, _, value in said]

    def _checked(self, function, x, peer, tag):
        """The tag on the wire, once the arguments are seen to be right."""
        if not 0 <= peer < self.size:
            raise ValueError(f"{function}: rank {peer}; the communicator {self.name} has ranks 0..{self.size - 1}")
        if not 0 <= tag < USER_TAGS:
            raise ValueError(f"{function}: tag {tag}; needed 0..{USER_TAGS - 1}")
        if not hasattr(x, "nbytes"):
            raise TypeError(f"{function}: got a {type(x).__name__}; needed an array")
        flags = getattr(x, "flags", None)
        if flags is not None and not flags.c_contiguous:
            raise ValueError(f"{function}: an array of shape {x.shape} that is not contiguous; copy it first")
        return self.base + tag

    def _isend(self, x, dest, tag):
        raise NotImplementedError

    def _irecv(self, out, source, tag):
        raise NotImplementedError

    def _send_init(self, x, dest, tag):
        return Persistent(lambda: self._isend(_plain(staging.host_copy(x)), dest, tag))

    def _recv_init(self, out, source, tag):
        return Persistent(lambda: staging.arriving(out, lambda host: self._irecv(_plain(host), source, tag)))

    def _subset(self, ranks, name):
        raise NotImplementedError

    def _share(self, value):
        raise NotImplementedError

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}: rank {self.rank} of {self.size}>"


def wait_all(requests):
    """Wait for every request."""
    for request in requests:
        request.wait()


def bounds(length, parts):
    """Where `length` elements are cut into `parts` chunks: chunk i is [bounds[i], bounds[i + 1]); some may be empty.

    >>> bounds(7, 3)
    [0, 2, 4, 7]
    """
    return [length * i // parts for i in range(parts + 1)]


def chunks(flat, parts):
    """The chunks of a flat array, as views."""
    cut = bounds(flat.shape[0], parts)
    return [flat[a:b] for a, b in zip(cut, cut[1:], strict=False)]


def _plain(x):
    """The array, in a dtype that every transport knows (bfloat16 and its kind travel as bytes)."""
    return x if x.dtype.kind in "biufc" else x.view(np.uint8)
