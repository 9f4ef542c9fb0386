"""Laws and mutants of the list of living threads, on threads that stand in known places."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from concurrent.futures import thread as pool
from typing import NamedTuple

import numpy as np

from ref.distributed.common_laws import EXACT
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims

ID = "distributed.living_threads"


def stand_here(started, go_on):
    started.release()
    go_on.wait()


def stand_there(started, go_on):
    started.release()
    with go_on._cond:
        while not go_on._flag:
            go_on._cond.wait()


PLACES = (stand_here, stand_there)


def _kinds(draw, c):
    """(place, daemon, known before) of each thread."""
    return [(draw(choose(0, 1)), draw(choose(False, True)), draw(choose(False, True))) for _ in range(c.n)]


space = cases(
    ID, n=dims(0, 4), kinds=_kinds, since=lambda draw, c: np.array([1, 2]),
    flags={"none": Flag(lambda c: c.n == 0, {"n": 0}),
           "holding": Flag(lambda c: any(k[1:] == (False, False) for k in c.kinds),
                           {"n": 3, "kinds": [(0, False, False), (1, True, False), (1, False, True)]})},
)  # fmt: skip


@contextlib.contextmanager
def living(c):
    """The case's threads, standing in their places; ended and joined after."""
    started, go_on, threads = threading.Semaphore(0), threading.Event(), []
    try:
        for i, (place, daemon, _) in enumerate(c.kinds):
            thread = threading.Thread(target=PLACES[place], args=(started, go_on), daemon=daemon, name=f"number {i}")
            thread.start()
            threads.append(thread)
            started.acquire()
        yield threads
    finally:
        go_on.set()
        for thread in threads:
            thread.join()


def since(c, threads, before):
    """Identifiers of what was there before, and of those that the case says are known."""
    known = [t.ident for t, (_, _, old) in zip(threads, c.kinds, strict=True) if old]
    return np.array([1, *before, *known], np.int64)


def rows(out, expect):
    """The rows by identifier, once the result is seen to be a list of them."""
    expect.holds(isinstance(out, list) and all(isinstance(r, tuple) and len(r) == 6 for r in out), "a list of rows")
    expect.holds(all(np.asarray(r[0]).dtype.kind in "iu" and isinstance(r[4], str) for r in out), "of numbers and text")
    expect.holds(len({int(r[0]) for r in out}) == len(out), "a thread has one row")
    return {int(r[0]): r for r in out}


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.reach("none", "holding"),
    kills=["daemons_left_out", "new_ones_unseen", "where_it_waits"],
)  # fmt: skip
def every_thread_has_its_row(impl, c, expect):
    """Each of n threads has one row with its name, its daemon flag and the function it was left standing in, though it
    waits inside `threading` there; the main thread stands first."""
    with living(c) as threads:
        out = impl(c)
        found = rows(out, expect)
        for t, (place, daemon, _) in zip(threads, c.kinds, strict=True):
            expect.holds(t.ident in found, f"{t.name} has a row")
            _, name, flag, main, doing, _ = found[t.ident]
            expect.holds((name, bool(flag), bool(main)) == (t.name, daemon, False), f"{t.name}: {found[t.ident]}")
            expect.holds(doing.startswith(f"{PLACES[place].__name__} (living_threads_laws.py:"), f"{t.name}: {doing}")
        expect.holds(bool(out[0][3]) and out[0][0] == threading.main_thread().ident, "the main thread stands first")
        others = {t.ident for t in threading.enumerate()}
        expect.holds(others <= set(found), "so has every other thread")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.reach("holding"),
    kills=["daemons_are_left_over", "known_ones_too", "main_is_left_over"],
)  # fmt: skip
def left_over_are_the_new_ones_that_hold_the_process(impl, c, expect):
    "Left over are the threads that are no daemons and not in `since`; never the main one."
    before = [t.ident for t in threading.enumerate() if t is not threading.main_thread()]
    with living(c) as threads:
        found = rows(impl(c.replace(since=since(c, threads, before))), expect)
        left = {ident for ident, r in found.items() if r[5]}
        wanted = {t.ident for t, (_, daemon, old) in zip(threads, c.kinds, strict=True) if not daemon and not old}
        expect.holds(left == wanted, f"{len(wanted)} left over, got {[found[i] for i in left]}")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.where(n=dims(1, 4)).reach("holding"),
    kills=["remembers_the_dead"],
)  # fmt: skip
def an_ended_thread_is_gone(impl, c, expect):
    "Once a thread is joined no row names it."
    with living(c) as threads:
        during = rows(impl(c), expect)
        expect.holds(all(t.ident in during for t in threads), "while they live they have rows")
    after = rows(impl(c), expect)
    names = [r[1] for r in after.values() if str(r[1]).startswith("number ")]
    expect.holds(not names, f"no row of theirs, got {names}")


# Mutants ---------------------------------------------------------------------------------------------


class Nameless(NamedTuple):
    """A thread of which only the identifier is known."""

    ident: int
    name: str = ""
    daemon: bool = True


def listed(since, *, keep=None, innermost=False, left=None, more=()):
    """The rows, parts of which an edit replaces."""
    known, main, frames = set(map(int, since)), threading.main_thread(), sys._current_frames()
    library, out, named = (threading.__file__, queue.__file__, pool.__file__), [], {*threading.enumerate(), *more}
    nameless = frames.keys() - {t.ident for t in named}  # what runs Python and was not started by `threading`
    named |= {Nameless(i) for i in nameless}
    for t in sorted(named, key=lambda t: (t is not main, t.ident)):
        first = frame = frames.get(t.ident)
        while frame is not None and frame.f_code.co_filename in library and not (innermost and t.ident not in known):
            frame = frame.f_back
        frame, doing = frame or first, "not in Python"
        if frame is not None:
            doing = f"{frame.f_code.co_name} ({frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno})"
        doing = "lists the threads" if t is threading.current_thread() else doing
        over = t is not main and not t.daemon and t.ident not in known
        over = over if left is None else left(t, known)
        if keep is None or keep(t, known):
            out.append((t.ident, t.name, t.daemon, t is main, doing, over))
    return out


_seen = []


def nothing():
    """The default-size test: no thread but those that are there already, all of them known."""
    _seen.clear()
    for t in threading.enumerate():  # what other tests left behind is on its way out
        if t.name.endswith("(fill)"):
            t.join(5)
    since = np.array(list(sys._current_frames()))
    for _ in range(500):  # until they all stand still: two lists of a moving thread differ
        before = listed(since)
        time.sleep(0.002)
        if listed(since) == before:
            break
    return (since,), {}


def nobody_known():
    """.. and none of them known."""
    nothing()
    return (np.zeros(0, np.int64),), {}


@mutant(ID, default_case=nothing)
def daemons_left_out(since):
    "Daemons that are not known are left out: nobody waits for them."
    return listed(since, keep=lambda t, known: not t.daemon or t.ident in known)


@mutant(ID, default_case=nothing)
def new_ones_unseen(since):
    "The list is that of the start."
    return listed(since, keep=lambda t, known: t is threading.main_thread() or t.ident in known)


@mutant(ID, default_case=nothing)
def where_it_waits(since):
    "The innermost line, of `threading` too: every new thread waits in `wait`."
    return listed(since, innermost=True)


@mutant(ID, default_case=nothing)
def daemons_are_left_over(since):
    "Whatever is new is left over."
    return listed(since, left=lambda t, known: t is not threading.main_thread() and t.ident not in known)


@mutant(ID, default_case=nothing)
def main_is_left_over(since):
    "The main thread is a thread as any other."
    return listed(since, left=lambda t, known: not t.daemon and t.ident not in known)


@mutant(ID, default_case=nobody_known)
def known_ones_too(since):
    "`since` is not looked at."
    return listed(since, left=lambda t, known: t is not threading.main_thread() and not t.daemon)


@mutant(ID, default_case=nothing)
def remembers_the_dead(since):
    "Threads of the call before have rows still."
    out = listed(since, more=[t for t in _seen if not t.is_alive()])
    _seen[:] = threading.enumerate()
    return out
