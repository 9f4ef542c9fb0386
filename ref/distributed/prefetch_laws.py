"""Laws and mutants of the prefetching loader, on a source that counts how far it was gone through."""

from __future__ import annotations

import queue
import threading
import time
import traceback

import numpy as np

from ref.distributed.common_laws import EXACT
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims

ID = "distributed.prefetch"
PATIENCE = 5.0  # seconds for a thread to get where it must; none pass where it does


class Source:
    """Squares of 0 .. N - 1, as arrays; raises at item `fails`; knows who asked it and how often."""

    def __init__(self, N, fails=None):
        self.N, self.fails = N, fails
        self.made, self.closed, self.threads = 0, 0, set()

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.get_ident())
        if self.made == self.fails:
            self.fails = None
            raise KeyError("item", self.made)
        if self.made == self.N:
            raise StopIteration
        self.made += 1
        return np.array((self.made - 1) ** 2)

    def close(self):
        self.closed += 1


space = cases(
    ID, N=dims(0, 8), capacity=choose(2, 1, 3, 5), fails=None, taken=lambda draw, c: draw(choose(*range(c.N + 1))),
    source=lambda draw, c: None,
    flags={
        "empty": Flag(lambda c: c.N == 0, {"N": 0}),
        "long": Flag(
            lambda c: c.taken + c.capacity + 1 < c.N, {"N": 8, "capacity": choose(1, 2), "taken": choose(0, 2)}
        ),
        "whole": Flag(lambda c: c.taken == c.N, {"taken": lambda draw, c: c.N}),
    },
)  # fmt: skip


def begun(impl, c, expect):
    """(source, iterator) of a fresh source: a law may call as often as it likes."""
    source = Source(c.N, c.fails)
    items = impl(c.replace(source=source))
    expect.holds(hasattr(items, "__next__") and hasattr(items, "close"), "an iterator that can be closed comes back")
    return source, items


def asked(items, expect):
    """The next item as a number, None at the end."""
    item = next(items, None)
    expect.holds(item is None or np.shape(item) == (), "an item is what the source gave")
    return None if item is None else int(item)


def settled(test):
    """Whether the test comes true in time."""
    end = time.monotonic() + PATIENCE
    while not test() and time.monotonic() < end:
        time.sleep(0.0002)
    return test()


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.reach("empty"),
    kills=["last_in_first_out", "last_item_lost", "by_two_threads"],
)  # fmt: skip
def every_item_once_in_order(impl, c, expect):
    "The N items of the source, once each and in its order; then the end, as often as one asks."
    source, items = begun(impl, c, expect)
    settled(lambda: source.made >= min(c.N, c.capacity + 1))
    found = [asked(items, expect) for _ in range(c.N)]
    ends = [asked(items, expect) for _ in range(2)]
    items.close()
    expect.holds(found == [i * i for i in range(c.N)], f"squares of 0 .. {c.N - 1}, got {found}")
    expect.holds(ends == [None, None], f"the end, twice, got {ends}")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.reach("long", "empty"),
    kills=["everything_at_once", "one_place_more", "made_when_asked_for"],
)  # fmt: skip
def never_further_ahead_than_the_queue(impl, c, expect):
    """When j items are taken the source makes min(N, j + capacity + 1), by itself and not one more, in a thread that is
    not the consumer's."""
    source, items = begun(impl, c, expect)
    try:
        for j in range(c.taken + 1):
            ahead = min(c.N, j + c.capacity + 1)
            expect.holds(settled(lambda ahead=ahead: source.made >= ahead), f"{ahead} items made, {j} taken")
            time.sleep(0.0005)
            expect.same(source.made, ahead, f"items made when {j} are taken")
            if j < c.taken:
                expect.holds(asked(items, expect) == j * j, f"item {j}")
    finally:
        items.close()
    expect.holds(threading.get_ident() not in source.threads, "the consumer's thread makes nothing")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT,
    given=space.where(N=dims(1, 8), fails=lambda draw, c: draw(choose(*range(c.N)))),
    kills=["exceptions_end_it", "exceptions_jump_the_queue", "another_exception"],
)  # fmt: skip
def an_exception_arrives_in_its_place(impl, c, expect):
    """If the source raises at item i, items 0 .. i - 1 come, and then that exception, its traceback naming the source's
    function; after it the end."""
    source, items = begun(impl, c, expect)
    settled(lambda: source.made >= min(c.fails, c.capacity + 1))
    time.sleep(0.0005)
    found, error = [], None
    try:
        for _ in range(c.N):
            found.append(asked(items, expect))
    except Exception as raised:
        error = raised
    ended = asked(items, expect)
    items.close()
    expect.holds(found == [i * i for i in range(c.fails)], f"{c.fails} items come first, got {found}")
    expect.holds(type(error) is KeyError and error.args == ("item", c.fails), f"the source's KeyError, got {error!r}")
    lines = [(f.filename, f.name) for f in traceback.extract_tb(error.__traceback__)]
    expect.holds((__file__, "__next__") in lines, "the traceback has the source's line")
    expect.holds(ended is None, "then the end")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT, given=space.reach("long", "whole"),
    kills=["thread_left_behind", "source_left_open", "goes_on_when_closed"],
)  # fmt: skip
def closing_ends_the_thread(impl, c, expect):
    "After `close`, early or at the end, once or twice: no thread more than before, the source closed, nothing comes."
    before = set(threading.enumerate())
    source, items = begun(impl, c, expect)
    for _ in range(c.taken):
        asked(items, expect)
    items.close()
    items.close()
    left = [t.name for t in threading.enumerate() if t not in before]
    made = source.made
    expect.holds(not left, f"no thread is left, got {left}")
    expect.same(source.closed, 1, "times the source was closed")
    expect.holds(asked(items, expect) is None, "nothing comes")
    time.sleep(0.0005)
    expect.same(source.made, made, "items made")


# Mutants: threads and the standard library's queue ---------------------------------------------------------


def of(N, capacity=2):
    """The default-size test: what comes of a short range."""
    return lambda: ((range(N),), {"capacity": capacity})


class Loader:
    """A loader on `queue.Queue`; a mutant replaces a part."""

    END, workers, daemon = object(), 1, True

    def __init__(self, source, capacity):
        self.source, self.capacity, self.stopped, self.over = iter(source), capacity, False, False
        self.queue = self.line()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.fill, daemon=True) for _ in range(self.workers)]
        for t in self.threads:
            t.start()

    def line(self):
        return queue.Queue(self.capacity)

    def put(self, thing):
        for _ in range(100):  # a second: a thread that is left behind must end
            if self.stopped:
                return
            try:
                return self.queue.put(thing, timeout=0.01)
            except queue.Full:
                pass
        self.stopped = True

    def fill(self):
        try:
            for item in self.items():
                self.put((item, None))
                if self.stopped:
                    break
            end = (self.END, None)
        except Exception as error:
            end = (self.END, self.failed(error))
        self.finish()
        self.put(end)

    def items(self):
        return self.source

    def failed(self, error):
        return error

    def finish(self):
        if hasattr(self.source, "close"):
            self.source.close()

    def __iter__(self):
        return self

    def __next__(self):
        if self.over:
            raise StopIteration
        item, error = self.queue.get(timeout=2)
        if item is self.END:
            self.over = True
            if error is not None:
                raise error
            raise StopIteration
        return item

    def close(self):
        self.stopped = self.over = True
        for t in self.threads:
            t.join()


def made(name, default=2, **parts):
    """A mutant that is a Loader with parts replaced."""
    text = parts.pop("text")
    kind = type(name, (Loader,), parts)

    def call(source, *, capacity=2):
        return kind(source, capacity)

    call.__name__, call.__doc__ = name, text
    return mutant(ID, default_case=of(default))(call)


class _Stack(queue.LifoQueue):
    """The end comes last all the same."""

    def _get(self):
        at = next((i for i in reversed(range(len(self.queue))) if self.queue[i][0] is not Loader.END), -1)
        return self.queue.pop(at)


def _all_but_the_last(self):
    held = []
    for item in self.source:
        yield from held
        held = [item]


def _swallowed(self, error):
    return None


def _jumps(self, error):
    with self.queue.mutex:
        self.queue.queue.clear()
    return error


def _never_joined(self):
    self.over = True


class _Lazy(Loader):
    def __init__(self, source, capacity):
        self.source, self.over = iter(source), False

    def __next__(self):
        if self.over:
            raise StopIteration
        return next(self.source)

    def close(self):
        if not self.over:
            self.over = True
            self.finish()


made("last_in_first_out", 1, text="A stack: the newest item first.", line=lambda self: _Stack(self.capacity))
made("last_item_lost", 0, text="An item is put when the next one is there.", items=_all_but_the_last)
made("everything_at_once", text="A queue without a bound.", line=lambda self: queue.Queue())
made("one_place_more", text="<= capacity: c + 1 places.", line=lambda self: queue.Queue(self.capacity + 1))
made("exceptions_end_it", text="The thread dies, and the consumer sees an end.", failed=_swallowed)
made("exceptions_jump_the_queue", text="What waits is thrown away when the source raises.", failed=_jumps)
made("another_exception", text="The error's text in an exception of one's own.",
     failed=lambda self, error: RuntimeError(str(error)))  # fmt: skip
made("thread_left_behind", text="close forgets the thread, which waits for a place for ever.", close=_never_joined)
made("source_left_open", text="The source is left as it is.", finish=lambda self: None)


@mutant(ID, default_case=of(1))
def by_two_threads(source, *, capacity=2):
    "Two threads share the source, one item at a time; the even ones arrive late."

    class Pair(Loader):
        def items(self):
            items = list(self.source)
            yield from items[1::2] + items[::2]

    return Pair(source, capacity)


@mutant(ID, default_case=of(2))
def made_when_asked_for(source, *, capacity=2):
    "No thread: an item is made when it is asked for."
    return _Lazy(source, capacity)


@mutant(ID, default_case=of(2))
def goes_on_when_closed(source, *, capacity=2):
    "close joins the thread once it has gone through the whole source, and gives what there is."

    class Thorough(Loader):
        def line(self):
            return queue.Queue(self.capacity + 1000)

        def close(self):
            for t in self.threads:
                t.join()

    return Thorough(source, capacity)
