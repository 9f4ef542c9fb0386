"""Every interleaving of small programs: what they can end with, where they get stuck, which schedule breaks a rule.

Source: Godefroid 1997, Model checking for programming languages using VeriSoft (POPL) sec. 2, with visited states kept
(Holzmann 1997, The model checker SPIN, IEEE TSE 23:5, sec. 2); the programs of its laws: Peterson 1981, Myths about the
mutual exclusion problem (IPL 12:3).

    a state is the shared memory with the place and the local variables of every program
    from each state every program that may go on takes one step; a state seen before is not gone through again
    schedules from a state = the sum over the programs that may go on of schedules from where they lead

    without waiting, programs of k_1, .., k_n steps have (k_1 + .. + k_n)! / (k_1! .. k_n!) schedules

Notation
    programs -> generator functions of the memory, a list of integers that they share; a schedule -> the numbers of the
    programs in the order in which they take steps.

Conventions
    C1  `yield` stands before every atomic step: what follows, up to the next yield or the end, happens at once. What
        stands before the first yield happens before anybody's first step.
    C2  `yield condition` waits: the step is taken in a state in which condition(memory) is true, at once with the look
        at it. So `yield lambda m: not m[0]`, then `m[0] = 1`, takes a lock.
    C3  Schedules named are the shortest that lead there, the first in the order of numbers among these.
    C4  Programs that may spin for ever have a finite number of states, all of them seen, and endless schedules (None).
    C5  Local variables are numbers, strings, tuples, lists, dictionaries, sets, functions or generators of such.

Laws
    L1 schedules_are_the_multinomial        L2 unlocked_increments_end_in_2_to_nk
    L3 named_schedules_lead_where_they_say  L4 petersons_lock_excludes
    L5 a_deadlock_is_found_and_named
"""

from __future__ import annotations

import gc
from collections import deque
from types import NoneType
from typing import NamedTuple

import numpy as np

from ref.spec import bind, spec


class Exploration(NamedTuple):
    """What was found; every schedule is a tuple of program numbers."""

    schedules: int | None  # that run all programs to their ends; None: endlessly many
    outcomes: dict  # memory at the end, a tuple -> a schedule that leads there
    deadlocks: list  # schedules after which nobody may go on, though not all have ended
    broken: list  # schedules after which `check` is false, or whose last step raises
    states: int


@spec("distributed.interleavings", "programs:tree, shared:int[v] -> :tree", backends=("numpy",))
def interleavings(programs, shared, *, check=None, limit=100_000):
    """Explore all schedules of the programs.

    Parameters
    ----------
    programs : sequence of generator functions (memory) -> generator
        Deterministic, touching nothing but the memory and their own variables.
    shared : int[v]
        The memory at the start.
    check : function (memory) -> bool, optional
        What must hold after every step.
    limit : int
        Most states; more are an error, not a part of the answer.

    Returns
    -------
    Exploration

    Raises
    ------
    ValueError
        More than `limit` states, or a schedule is asked to `replay` that cannot be.
    TypeError
        A local variable that cannot be compared (C5), or shared is no int array.

    Complexity: states x programs replays of a schedule each.

    >>> import numpy as np
    >>> def increment(memory):
    ...     yield
    ...     seen = memory[0]
    ...     yield
    ...     memory[0] = seen + 1
    >>> found = interleavings([increment, increment], np.array([0]))
    >>> found.schedules, found.outcomes
    (6, {(2,): (0, 0, 1, 1), (1,): (0, 1, 0, 1)})
    """
    bind("interleavings", "shared:int[v]", shared=shared)
    start = [int(n) for n in shared]
    root = _Run(programs, start, ())
    paths, edges, queue = {root.key(): ()}, {}, deque([root.key()])
    outcomes, deadlocks, broken = {}, [], []
    while queue:
        key = queue.popleft()
        path = paths[key]
        run = _Run(programs, start, path)
        able, edges[key] = run.able(), []
        if run.error or not (check is None or check(run.memory)):
            broken.append(path)
        if run.error:
            continue
        if not any(run.alive):
            outcomes.setdefault(tuple(run.memory), path)
        elif not able:
            deadlocks.append(path)
        for i in able:
            later = _Run(programs, start, (*path, i)).key()
            edges[key].append(later)
            if later not in paths:
                if len(paths) >= limit:
                    raise ValueError(f"interleavings: more than limit={limit} states; needed smaller programs")
                paths[later] = (*path, i)
                queue.append(later)
    ends = {key for key in paths if not edges[key] and not any(alive for alive, _ in key[1])}
    return Exploration(_count(root.key(), edges, ends), outcomes, deadlocks, broken, len(paths))


def replay(programs, shared, schedule):
    """The memory after a schedule, as a list.

    >>> def twice(memory):
    ...     yield
    ...     memory[0] *= 2
    >>> replay([twice, twice], [3], (0, 1))
    [12]
    """
    run = _Run(programs, [int(n) for n in shared], tuple(schedule))
    if run.error:
        raise run.error
    return run.memory


class _Run:
    """Programs that have taken the steps of a schedule."""

    def __init__(self, programs, start, schedule):
        self.memory, self.error = list(start), None
        self.threads = [program(self.memory) for program in programs]
        self.alive, self.waits = [True] * len(self.threads), [None] * len(self.threads)
        for i in range(len(self.threads)):
            self._step(i)  # up to the first yield
        for at, i in enumerate(schedule):
            if i not in self.able():
                raise ValueError(f"replay: step {at} of {schedule} is program {i}'s, which has ended or waits")
            self._step(i)

    def able(self):
        """The programs that may take a step."""
        if self.error:
            return []
        pairs = enumerate(zip(self.alive, self.waits, strict=True))
        return [i for i, (alive, wait) in pairs if alive and (wait is None or wait(self.memory))]

    def _step(self, i):
        try:
            self.waits[i] = next(self.threads[i])
        except StopIteration:
            self.alive[i] = False
        except Exception as error:
            self.alive[i], self.error = False, error

    def key(self):
        """What the state is known by."""
        places = tuple((a, _place(t, self.memory)) for a, t in zip(self.alive, self.threads, strict=True))
        return tuple(self.memory), places, repr(self.error)


def _place(generator, memory):
    """Where a generator stands and what it knows: its variables, the iterators of its loops, half-done expressions."""
    frame = generator.gi_frame
    if frame is None:
        return None
    known = tuple((name, _frozen(name, value, memory)) for name, value in frame.f_locals.items())
    # Iterators and operands on the frame's stack have no name; the garbage collector sees them.
    hidden = (v for v in gc.get_referents(generator) if isinstance(v, _PLAIN) or hasattr(v, "__next__"))
    inner = generator.gi_yieldfrom
    hidden = tuple(_frozen("of a loop", v, memory) for v in hidden if v is not inner)
    return frame.f_lasti, known, hidden, _place(inner, memory) if hasattr(inner, "gi_frame") else None


_PLAIN = (int, float, complex, str, bytes, np.generic, range, NoneType)


def _frozen(name, value, memory):
    """A local variable as something that can be compared."""
    freeze = lambda v: _frozen(name, v, memory)  # noqa: E731
    if value is memory:
        return "memory"
    if isinstance(value, _PLAIN):
        return type(value).__name__, value
    if isinstance(value, tuple | list):
        return type(value).__name__, *map(freeze, value)
    if isinstance(value, dict):
        return tuple((k, freeze(v)) for k, v in value.items())
    if isinstance(value, set):
        return frozenset(map(freeze, value))
    if hasattr(value, "gi_frame"):
        return _place(value, memory)
    if hasattr(value, "__code__"):
        return value.__code__, tuple(freeze(cell.cell_contents) for cell in value.__closure__ or ())
    if hasattr(value, "__next__"):
        return tuple(freeze(part) for part in value.__reduce__()[1:])
    raise TypeError(f"interleavings: the local variable {name} is a {type(value).__name__}; needed plain values (C5)")


def _count(root, edges, ends):
    """Paths from the root to the ends; None if a path may go round for ever."""
    incoming = dict.fromkeys(edges, 0)
    for targets in edges.values():
        for key in targets:
            incoming[key] += 1
    ways, ready, done = dict.fromkeys(edges, 0) | {root: 1}, [root] if not incoming[root] else [], 0
    while ready:
        key = ready.pop()
        done += 1
        for later in edges[key]:
            ways[later] += ways[key]
            incoming[later] -= 1
            if not incoming[later]:
                ready.append(later)
    return sum(ways[key] for key in ends) if done == len(edges) else None
