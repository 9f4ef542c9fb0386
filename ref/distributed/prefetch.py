"""A prefetching loader: a thread makes the next items while the consumer uses this one.

Source: the bounded buffer of Dijkstra 1965, Cooperating sequential processes (EWD 123) sec. 4.3, with the monitor of
Hoare 1974 (CACM 17:10); tf.data (Murray et al. 2021, 2101.12127) sec. 3.2 for `prefetch` between loader and step.

    thread    for item in source: wait until the queue has a place; put item
    consumer  wait until the queue has an item; take it

Conventions
    C1  Items come once each, in the order of the source: there is one thread. At most `capacity` of them wait in the
        queue, and one more is in the thread's hand (`prefetch_times` says what that costs).
    C2  What the source raises is raised where the consumer asks for the item that did not come, after those before it:
        the same exception with the source's lines in its traceback. Then the iterator has ended.
    C3  `close`, the end of a `with` block, and forgetting the iterator stop the thread and close the source, if it has
        a `close`; `close` joins the thread, so it returns when an item being made is made.
    C4  The thread has a copy of the caller's context (np.errstate, grad mode), is a daemon and is called "prefetch".
    C5  The consumer is one thread. NumPy and files release the interpreter's lock; Python code in the source does not.

Laws
    L1 every_item_once_in_order             L2 never_further_ahead_than_the_queue
    L3 an_exception_arrives_in_its_place    L4 closing_ends_the_thread
"""

from __future__ import annotations

import contextvars
import operator
import threading
import weakref
from collections import deque

from ref.spec import spec


@spec("distributed.prefetch", "source:tree -> :tree", backends=("numpy",))
def prefetch(source, *, capacity=2):
    """An iterator over the items of `source`, which a thread of its own goes through.

    Parameters
    ----------
    source : iterable
        Touched by the thread alone from here on.
    capacity : int
        Items that may wait, at least 1.

    Returns
    -------
    Prefetch
        An iterator with `close()`, and a context manager.

    Raises
    ------
    ValueError
        capacity < 1.
    TypeError
        capacity is no integer, or source is not iterable.

    Complexity: one thread; capacity + 2 items alive at a time.

    >>> with prefetch(range(3)) as items:
    ...     list(items)
    [0, 1, 2]
    """
    capacity = operator.index(capacity)
    if capacity < 1:
        raise ValueError(f"prefetch: capacity={capacity}; needed at least 1")
    return Prefetch(iter(source), capacity)


class Prefetch:
    """What `prefetch` gives; the thread knows the queue, not this object, which may so be forgotten."""

    def __init__(self, source, capacity):
        self._queue = _Queue(capacity)
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(_fill, source, self._queue), daemon=True, name="prefetch")
        self._forgotten = weakref.finalize(self, self._queue.stop)
        self._thread.start()

    def __iter__(self):
        return self

    def __next__(self):
        return self._queue.take()

    def close(self):
        """Stop the thread and wait for its end."""
        self._forgotten()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Queue:
    """Items in a row, at most `capacity` of them; then an end, perhaps with an exception."""

    def __init__(self, capacity):
        self.capacity, self.items = capacity, deque()
        self.ended, self.stopped, self.error = False, False, None
        self.changed = threading.Condition()

    def put(self, item):
        """Whether there was still somebody to put it for."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or len(self.items) < self.capacity)
            if not self.stopped:
                self.items.append(item)
                self.changed.notify_all()
            return not self.stopped

    def end(self, error=None):
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def take(self):
        with self.changed:
            self.changed.wait_for(lambda: self.items or self.ended or self.stopped)
            if self.stopped or not self.items:
                error, self.error = self.error, None
                if error is not None and not self.stopped:
                    raise error
                raise StopIteration
            item = self.items.popleft()
            self.changed.notify_all()
            return item

    def stop(self):
        with self.changed:
            self.stopped = True
            self.items.clear()
            self.changed.notify_all()


def _fill(source, queue):
    """The thread: everything from the source to the queue."""
    error = None
    try:
        for item in source:
            if not queue.put(item):
                break
            del item  # the consumer's alone now
    except BaseException as raised:
        error = raised
    try:
        getattr(source, "close", lambda: None)()
    except BaseException as raised:
        error = error or raised
    queue.end(error)
