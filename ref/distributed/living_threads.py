"""Which threads of this process live, what each does, and which of them will keep it from ending.

Source: the Python Language Reference, `threading` (daemon threads: the process ends when none but these are left) and
`sys._current_frames`.

    rows of all threads, the main one first, then by number; left over: alive, no daemon, not the main one, not known
    before

Notation
    since -> identifiers of the threads that were there before.

Conventions
    C1  What a thread does is the innermost line of Python that it stands in; inside C code (a lock, BLAS) it is the
        line that called. A line of `threading`, `queue` or the pool is passed over for who called it, and of the thread
        that asks it is said that it does.
    C2  A thread that was not started through `threading` has no name and counts as a daemon: nobody waits for it.
    C3  A moment's picture: a thread may have ended when the list is read.

Laws
    L1 every_thread_has_its_row             L2 left_over_are_the_new_ones_that_hold_the_process
    L3 an_ended_thread_is_gone
"""

from __future__ import annotations

import queue
import sys
import threading
from concurrent.futures import thread as pool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ref.spec import bind, spec

_WAITING = {threading.__file__, queue.__file__, pool.__file__}


class Row(NamedTuple):
    """One thread."""

    ident: int
    name: str
    daemon: bool
    main: bool
    doing: str  # "function (file.py:line)"
    left_over: bool


@spec("distributed.living_threads", "since:int[k] -> :tree", backends=("numpy",))
def living_threads(since=None):
    """The threads of this process.

    Parameters
    ----------
    since : int[k], optional
        Identifiers of threads that are no leftovers, whatever they are; none if not given.

    Returns
    -------
    list of Row

    Raises
    ------
    ValueError, TypeError
        since is no row of integers.

    Complexity: one row a thread.

    >>> main = living_threads()[0]
    >>> main.main, main.name, main.left_over
    (True, 'MainThread', False)
    """
    since = np.zeros(0, np.int64) if since is None else since
    bind("living_threads", "since:int[k]", since=since)
    known, main = set(map(int, since)), threading.main_thread().ident
    named, frames = {t.ident: t for t in threading.enumerate()}, sys._current_frames()
    rows = []
    for ident in sorted({*named, *frames}, key=lambda i: (i != main, i)):
        thread = named.get(ident)
        # One that Python did not start, or has not yet registered, has no name.
        name, daemon = (thread.name, thread.daemon) if thread is not None else ("", True)
        left = ident != main and not daemon and ident not in known
        doing = "lists the threads" if ident == threading.get_ident() else _doing(frames.get(ident))
        rows.append(Row(ident, name, daemon, ident == main, doing, left))
    return rows


def _doing(frame):
    """Where a thread stands, in words."""
    first = frame
    while frame is not None and frame.f_code.co_filename in _WAITING:
        frame = frame.f_back
    frame = frame or first
    if frame is None:
        return "not in Python"
    return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
