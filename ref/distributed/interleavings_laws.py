"""Laws and mutants of the exploration of interleavings, on programs whose outcomes are known in closed form."""

from __future__ import annotations

import math

import numpy as np

from ref.distributed.common_laws import EXACT
from ref.distributed.interleavings import Exploration, _Run
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "distributed.interleavings"


# Programs: cell 0 is the counter, or who is inside; the others are locks and flags ---------------------------


def steps(count):
    """So many steps of its own."""

    def program(memory):
        for _ in range(count):
            yield

    return program


def increments(count):
    """Read, and in another step write one more."""

    def program(memory):
        for _ in range(count):
            yield
            seen = memory[0]
            yield
            memory[0] = seen + 1

    return program


def locked(count):
    """The same between taking cell 1 and giving it back."""

    def program(memory):
        for _ in range(count):
            yield lambda m: not m[1]
            memory[1] = 1
            yield
            seen = memory[0]
            yield
            memory[0] = seen + 1
            yield
            memory[1] = 0

    return program


def peterson(me, turn_first=False, kept=False):
    """Flags in cells 1 and 2, the turn in cell 3; every read and every write is a step of its own."""
    other = 1 - me

    def program(memory):
        for part in ("turn", "flag") if turn_first else ("flag", "turn"):
            yield
            if part == "flag":
                memory[1 + me] = 1
            else:
                memory[3] = me if kept else other
        while True:
            yield
            if not memory[1 + other]:
                break
            yield
            if memory[3] != other:
                break
        yield
        memory[0] += 1
        yield
        memory[0] -= 1
        yield
        memory[1 + me] = 0

    return program


def takes(*locks):
    """Takes the locks in this order, gives them back in the other one."""

    def program(memory):
        for lock in locks:
            yield lambda m, lock=lock: not m[lock]
            memory[lock] = 1
        for lock in reversed(locks):
            yield
            memory[lock] = 0

    return program


def alone(memory):
    return memory[0] <= 1


def _programs(draw, c):
    if c.kind == "peterson":
        options = {"right": {}, "turn_first": {"turn_first": True}, "kept": {"kept": True}}[c.variant]
        return peterson(0, **options), peterson(1, **options)
    if c.kind == "locks":  # around a table: its own, then the neighbour's
        pairs = [(1 + i, 1 + (i + 1) % c.n) for i in range(c.n)]
        return tuple(takes(*(pair if c.variant == "crossed" else sorted(pair))) for pair in pairs)
    if c.kind == "steps":
        return tuple(steps(draw(choose(1, 2, 0, 3))) for _ in range(c.n))
    return tuple((increments if c.kind == "increments" else locked)(c.count) for _ in range(c.n))


space = cases(
    ID, n=choose(2, 1, 3), count=lambda draw, c: 1 if c.n == 3 else draw(choose(1, 2, 3)),
    kind=choose("increments", "steps", "locked"), variant=None, programs=_programs,
    shared=lambda draw, c: np.array([0, 0, 0, 0, 7]), check=None, limit=20_000,
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "several": Flag(lambda c: c.n > 1 and c.count > 1, {"n": 2, "count": 2}),
    },
)  # fmt: skip


def found(out, expect):
    """The result, once it is seen to have the parts of an Exploration."""
    expect.holds(isinstance(out, tuple) and len(out) == 5 and isinstance(out[1], dict), "an Exploration comes back")
    schedules, outcomes, deadlocks, broken, states = out
    expect.holds(isinstance(deadlocks, list) and isinstance(broken, list), "deadlocks and broken are lists")
    whole = all(np.asarray(v).dtype.kind == "i" for v in (states, 0 if schedules is None else schedules))
    expect.holds(whole, "schedules and states are integers")
    return Exploration(*out)


def run(c, schedule, expect):
    """(memory, generators still going, what each waits for) after a schedule, in a plain loop."""
    memory = [int(v) for v in c.shared]
    threads = [p(memory) for p in c.programs]
    waits, going = [next(t, "end") for t in threads], [True] * len(threads)
    going = [w != "end" for w in waits]
    for i in schedule:
        i = int(i)
        expect.holds(0 <= i < c.n, f"programs 0 .. {c.n - 1} in {schedule}")
        expect.holds(going[i] and (waits[i] is None or waits[i](memory)), f"program {i} may go on in {schedule}")
        waits[i] = next(threads[i], "end")
        going[i] = waits[i] != "end"
    return memory, going, waits


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.where(kind="steps").reach("alone"),
    kills=["ends_are_counted", "whole_programs_at_once", "one_switch_at_most"],
)  # fmt: skip
def schedules_are_the_multinomial(impl, c, expect):
    """Programs of k_1 .. k_n steps that touch nothing: (k_1 + .. + k_n)! / (k_1! .. k_n!) schedules through
    (k_1 + 1) .. (k_n + 1) states to one outcome."""
    out = found(impl(c), expect)
    k = [sum(1 for _ in p([0])) for p in c.programs]
    wanted = math.factorial(sum(k)) // math.prod(map(math.factorial, k))
    expect.holds(out.schedules == wanted, f"{wanted} schedules, got {out.schedules}")
    expect.same(out.states, math.prod(n + 1 for n in k), "states")
    expect.holds(list(out.outcomes) == [(0, 0, 0, 0, 7)], f"the memory is untouched, got {list(out.outcomes)}")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.where(kind=choose("increments", "locked")).reach("several"),
    kills=["variables_forgotten", "one_switch_at_most", "whole_programs_at_once", "waits_ignored"],
)  # fmt: skip
def unlocked_increments_end_in_2_to_nk(impl, c, expect):
    """n programs x k increments of a read and a write: exactly {2 .. n k} for n, k >= 2, {1 .. n} for k = 1, {k} for
    n = 1, in (2 n k)! / (2 k)!^n schedules; under a lock n k alone, in (n k)! / k!^n, and no deadlock."""
    out, n, k = found(impl(c), expect), c.n, c.count
    ends = sorted(int(memory[0]) for memory in out.outcomes)
    least = (n * k if n == 1 or c.kind == "locked" else 1 if k == 1 else 2)
    expect.holds(ends == list(range(least, n * k + 1)), f"ends {least} .. {n * k}, got {ends}")
    steps = 2 * k if c.kind == "increments" else k
    wanted = math.factorial(n * steps) // math.factorial(steps) ** n
    expect.holds(out.schedules == wanted, f"{wanted} schedules, got {out.schedules}")
    expect.holds(out.deadlocks == [], f"no deadlock, got {out.deadlocks}")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.where(kind="increments", n=choose(2, 3)).reach("several"),
    kills=["named_one_step_short", "numbers_from_one"],
)  # fmt: skip
def named_schedules_lead_where_they_say(impl, c, expect):
    "Run step by step, the schedule named for an outcome ends all programs with that memory."
    for memory, schedule in found(impl(c), expect).outcomes.items():
        ends, going, _ = run(c, schedule, expect)
        expect.holds(not any(going), f"{schedule} runs all to their ends")
        expect.same(ends, memory, f"memory after {schedule}")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT,
    given=space.where(
        kind="peterson", n=2, variant=choose("right", "turn_first", "kept"), check=lambda draw, c: alone
    ),
    kills=["checked_at_the_end", "whole_programs_at_once", "named_one_step_short"],
)  # fmt: skip
def petersons_lock_excludes(impl, c, expect):
    """Peterson's two programs are never both inside, whatever the schedule, though they may spin for ever; with the
    turn set before the flag, or kept instead of given, a schedule is named that has both inside after its last step."""
    out = found(impl(c), expect)
    expect.holds(out.schedules is None, "endlessly many schedules")
    expect.holds(out.deadlocks == [], f"nobody waits, got {out.deadlocks}")
    right = c.variant == "right"
    expect.holds((not out.broken) == right, f"both inside {'never' if right else 'once'}, got {out.broken[:1]}")
    for schedule in out.broken[:3]:
        memory, _, _ = run(c, schedule, expect)
        before, _, _ = run(c, schedule[:-1], expect)
        expect.holds(memory[0] == 2 and before[0] == 1, f"the last step of {schedule} lets the second one in")


@law(
    ID, "L5", closed_form=True, dtypes=EXACT,
    given=space.where(kind="locks", n=choose(2, 3), variant=choose("crossed", "sorted")),
    kills=["deadlock_is_an_end", "waits_ignored"],
)  # fmt: skip
def a_deadlock_is_found_and_named(impl, c, expect):
    """n programs around a table, each taking its own lock and then its neighbour's: one deadlock, after a schedule in
    which each takes one step. If the last takes them the other way round there is none."""
    out = found(impl(c), expect)
    expect.same(len(out.deadlocks), int(c.variant == "crossed"), "deadlocks")
    for schedule in out.deadlocks:
        expect.same(sorted(map(int, schedule)), list(range(c.n)), "each takes one step")
        memory, going, waits = run(c, schedule, expect)
        expect.holds(any(going), "not all have ended")
        stuck = not any(g and (w is None or w(memory)) for g, w in zip(going, waits, strict=True))
        expect.holds(stuck, f"nobody may go on after {schedule}")
    expect.holds(list(out.outcomes) == [(0, 0, 0, 0, 7)], "who ends gives all back")


# Mutants ---------------------------------------------------------------------------------------------


def of(programs, **options):
    """The default-size test of a mutant."""
    return lambda: ((programs, np.zeros(4, np.int64)), options)


def searched(programs, shared, check, *, key=None, able=None, count=None, follow=None, look=None, name=tuple):
    """Depth first over schedules, states kept; an edit replaces a part.

    key(run) -> what a state is known by; able(run) -> who may step; follow(schedule, i) -> whether to; look(run) ->
    whether `check` is asked here; name(schedule) -> how it is told; count(ways of each child) -> ways.
    """
    start, seen, on_path = [int(v) for v in shared], {}, set()
    key, able = key or (lambda run: run.key()), able or (lambda run: run.able())
    outcomes, deadlocks, broken = {}, [], []
    level, endless = [()], False
    graph, order = {}, []
    first = key(_Run(programs, start, ()))
    seen[first] = ()
    while level:
        path = level.pop(0)
        run = _stepped(programs, start, path)
        here = key(run)
        order.append(here)
        if check and not check(run.memory) and (look is None or look(run)):
            broken.append(name(path))
        graph[here] = []
        may = able(run)
        if not any(run.alive):
            outcomes.setdefault(tuple(run.memory), name(path))
        elif not may:
            deadlocks.append(name(path))
        for i in may:
            if follow is None or follow(programs, start, path, i):
                later = key(_stepped(programs, start, (*path, i)))
                graph[here].append(later)
                if later not in seen:
                    seen[later] = (*path, i)
                    level.append((*path, i))

    memo = {}

    def ways(node):
        nonlocal endless
        if node in on_path:
            endless = True
            return 0
        if node not in memo:
            on_path.add(node)
            ended = not any(_stepped(programs, start, seen[node]).alive)
            memo[node] = 1 if ended else (count or sum)([ways(n) for n in graph[node]])
            on_path.discard(node)
        return memo[node]

    total = ways(first)
    return Exploration(None if endless else total, outcomes, deadlocks, broken, len(seen))


def _stepped(programs, start, path):
    """A run of the schedule, whether its steps may be taken or not."""
    run = _Run(programs, start, ())
    for i in path:
        run._step(i)
    return run


@mutant(ID, default_case=of([steps(1)]))
def ends_are_counted(programs, shared, *, check=None, limit=0):
    "A state that is seen again counts no further schedule."
    return searched(programs, shared, check, count=lambda ways: min(max(ways, default=0), 1))


def _same_or_done(programs, start, path, i):
    return not path or i == path[-1] or not _stepped(programs, start, path).alive[path[-1]]


@mutant(ID, default_case=of([increments(2)]))
def whole_programs_at_once(programs, shared, *, check=None, limit=0):
    "A program is left when it has ended."
    return searched(programs, shared, check, follow=_same_or_done)


@mutant(ID, default_case=of([steps(1), steps(1)]))
def one_switch_at_most(programs, shared, *, check=None, limit=0):
    "Bounded search that is told as exhaustive: one change of programs, but for those that have ended."

    def follow(programs, start, path, i):
        whole = (*path, i)
        changes = sum(a != b for a, b in zip(whole, whole[1:], strict=False))
        return changes <= 1 or _same_or_done(programs, start, path, i)

    return searched(programs, shared, check, follow=follow)


@mutant(ID, default_case=of([increments(2)]))
def variables_forgotten(programs, shared, *, check=None, limit=0):
    "A state is the memory and where each program stands: two that have read different values look alike."

    def key(run):
        return tuple(run.memory), tuple(t.gi_frame and t.gi_frame.f_lasti for t in run.threads)

    return searched(programs, shared, check, key=key)


@mutant(ID, default_case=of([increments(1), increments(1)]))
def waits_ignored(programs, shared, *, check=None, limit=0):
    "A condition is a yield like any other."
    return searched(programs, shared, check, able=lambda run: [i for i, a in enumerate(run.alive) if a])


@mutant(ID, default_case=of([steps(1), steps(1)]))
def deadlock_is_an_end(programs, shared, *, check=None, limit=0):
    "Who may not go on has ended."
    out = searched(programs, shared, check)
    return out._replace(deadlocks=[])


@mutant(ID, default_case=of([increments(1), increments(1)], check=alone))
def checked_at_the_end(programs, shared, *, check=None, limit=0):
    "The rule is looked at when all have ended."
    return searched(programs, shared, check, look=lambda run: not any(run.alive))


@mutant(ID, default_case=of([steps(0)]))
def named_one_step_short(programs, shared, *, check=None, limit=0):
    "The schedule before the last step is told."
    return searched(programs, shared, check, name=lambda path: path[:-1])


@mutant(ID, default_case=of([steps(0)]))
def numbers_from_one(programs, shared, *, check=None, limit=0):
    "Programs are numbered from 1."
    return searched(programs, shared, check, name=lambda path: tuple(i + 1 for i in path))
