"""Checkpointing 32 layers x + tanh(x W) V: peak memory in units of a layer's input, and time.

The peak is what NumPy has allocated (tracemalloc) beyond the weights and the input, gradients
included; the time that of forward and backward, checksums included. It is compared with the plain
step, and with what recomputing must cost: (F (1 + r) + B) / (F + B) of it, where F and B are forward
and backward timed in the same process and r is the part of the forward that is run twice.
"""

import functools
import json
import sys

import numpy as np

from bench.common import Case, Engine, Ratio, alternating, main, row, settle_process, start_child

LAYERS, ROWS, WIDTH = 32, 4096, 128
UNIT = ROWS * WIDTH * 4
MODULE = "bench.checkpointing"


@functools.cache
def start():
    from autodiff import tensor

    rng = np.random.default_rng(0)
    shape = (2 * LAYERS, WIDTH, WIDTH)
    weights = rng.standard_normal(shape, dtype=np.float32) * np.float32(WIDTH**-0.5)
    x = rng.standard_normal((ROWS, WIDTH), dtype=np.float32)
    return [tensor(w, requires_grad=True) for w in weights], tensor(x, requires_grad=True)


def layers():
    weights = start()[0]
    return [functools.partial(layer, w, v) for w, v in zip(weights[::2], weights[1::2], strict=True)]


def layer(w, v, x):
    return x + (x @ w).tanh() @ v


def plain(_=1):
    def run(_=None):
        h = start()[1]
        for f in layers():
            h = f(h)
        return _pulled(h)

    return Engine({"step": run}, run)


def checkpointed(_=1):
    from autodiff import checkpoint_sequential
    from ref.training.checkpoint_segments import checkpoint_segments

    segments = checkpoint_segments(LAYERS)

    def run(_=None):
        return _pulled(checkpoint_sequential(layers(), start()[1], segments))

    return Engine({"step": run}, run)


def _pulled(h):
    weights, x = start()
    for t in (x, *weights):
        t.grad = None
    out, h = h.sum(), None
    out.backward()
    return {"x": x.grad, "w": weights[0].grad}


def peak(kind):
    """Units that one step of this kind needs at its peak."""
    import tracemalloc

    engine = {"plain": plain, "checkpointed": checkpointed}[kind]()
    engine.values()  # what is imported on the way is not the step's
    tracemalloc.start()
    engine.values()
    return tracemalloc.get_traced_memory()[1] / UNIT


WORK = f"checkpointing {LAYERS} layers"
CASES = [
    Case(
        "step",
        {"plain": plain, "checkpointed": checkpointed},
        (Ratio(f"{WORK}, time", ("checkpointed", "step"), ("plain", "step"), {1: 1.35}),),
        rounds=15,
        tolerance=1e-30,  # the same bits
    )
]


def must_cost():
    """(seconds of the checkpointed step, seconds that F (1 + r) + B says)."""
    from ref.training.checkpoint_segments import checkpoint_segments

    settle_process(1)
    last = int(checkpoint_segments(LAYERS)[-1])  # runs once, with the tape on

    def forward():
        h = start()[1]
        for f in layers():
            h = f(h)
        return h

    def times(run):
        return lambda n: [run() for _ in range(n)]

    seconds = alternating(
        {"F": times(forward), "F + B": times(plain().values), "checkpointed": times(checkpointed().values)}, 1, 15
    )
    return seconds["checkpointed"], seconds["F + B"] + seconds["F"] * (LAYERS - last) / LAYERS


def more():
    mine, none = (start_child(MODULE, 1, "peak", kind) for kind in ("checkpointed", "plain"))
    seconds = start_child(MODULE, 1, "cost")
    return [
        row(f"{WORK}, peak", "none", 1, "units", mine, none, 1 / 3.3),
        row(f"{WORK}, time", "F (1 + r) + B", 1, "s", *seconds, 1.10),
    ]


if __name__ == "__main__":
    if "peak" in sys.argv:
        print(json.dumps(peak(sys.argv[-1])))
    elif "cost" in sys.argv:
        print(json.dumps(must_cost()))
    else:
        main(MODULE, CASES, extra=more)
