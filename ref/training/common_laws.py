"""What the laws of checkpointing share: schedules played by hand, and the engine on counted layers."""

from __future__ import annotations

import numpy as np

from autodiff import Action, checkpoint_schedule, saved_bytes, tensor
from autodiff.primitive import Primitive

EXACT = ("float64",)  # integers: one run is enough


def played(schedule, n, expect):
    """(steps advanced by step, most snapshots at once, snapshots at each turn) of a legal schedule.

    A schedule that a chain of n steps cannot follow breaks the law.
    """
    expect.holds(isinstance(schedule, list | tuple) and len(schedule) > 0, "the result is a list of actions")
    runs, kept, at, end, peak, turns = [0] * n, set(), 0, n, 0, {}
    for action in schedule:
        kind, i, j = str(action[0]), int(action[1]), int(action[2])
        if kind == "snapshot":
            expect.holds(i == at and at not in kept, f"snapshot {i} is of the current state {at}, not kept yet")
            kept.add(at)
        elif kind == "advance":
            expect.holds(i == at and at < j < end, f"advance {i} {j} goes on from state {at} and stops before {end}")
            for k in range(i, j):
                runs[k] += 1
            at = j
        elif kind == "restore":
            expect.holds(i in kept, f"restore {i} is of a kept state")
            at = i
        elif kind == "discard":
            expect.holds(i in kept, f"discard {i} is of a kept state")
            kept.remove(i)
        else:
            expect.holds(kind == "turn" and i == at == end - 1, f"{kind} {i} turns step {end - 1} from its state")
            turns[i] = frozenset(kept)
            at, end = None, end - 1
        peak = max(peak, len(kept))
    expect.holds(end == 0 and not kept, "every step is turned and every state freed")
    return runs, peak, turns


def on_the_engine(schedule, sizes):
    """(peak of the saved bytes, runs of layers, gradient, plain gradient) of a chain whose state i has sizes[i]
    float64 numbers; layer i takes sin of its input, repeated or cut to the next size, and saves its input alone.
    """
    seen = {"runs": 0, "peak": 0, "out": None}

    def layer(i):
        place = np.arange(sizes[i + 1]) % sizes[i]

        def forward(xp, x):
            seen["runs"] += 1
            return np.sin(x[place])

        def rule(xp, g, node):
            seen["peak"] = max(seen["peak"], saved_bytes(seen["out"]))
            (x,) = node.saved
            return (np.bincount(place, g * np.cos(x[place]), len(x)),)

        return Primitive(f"layer {i}", rule, ((0,),), forward=forward)

    layers = [layer(i) for i in range(len(sizes) - 1)]

    def gradient(run):
        x = tensor(np.linspace(0.1, 1.0, sizes[0]), requires_grad=True)
        seen["out"] = run(x * 1.0)
        seen["out"].backward(np.ones(sizes[-1]))
        return x.grad

    def plain(x):
        for f in layers:
            x = f(x)
        return x

    wanted = gradient(plain)
    seen.update(runs=0, peak=0)
    actions = [Action(str(k), int(i), int(j)) for k, i, j in schedule]
    found = gradient(lambda x: checkpoint_schedule(layers, x, actions))
    return seen["peak"], seen["runs"], found, wanted
