"""Checkpointing 32 layers tanh(x W): peak memory in units of one layer's input, and time.

The peak is what NumPy has allocated (tracemalloc) beyond the weights and the input, gradients
included; the time that of forward and backward, checksums included.
"""

import functools
import json
import sys

import numpy as np

from bench.common import Case, Engine, Ratio, main, start_child

LAYERS, ROWS, WIDTH = 32, 512, 512
UNIT = ROWS * WIDTH * 4
MODULE = "bench.checkpointing"


@functools.cache
def start():
    from autodiff import tensor

    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.float32(WIDTH**-0.5) for _ in range(LAYERS)]
    x = rng.standard_normal((ROWS, WIDTH), dtype=np.float32)
    return [tensor(w) for w in weights], tensor(x, requires_grad=True)


def layers():
    from autodiff import namespace

    return [lambda h, w=w: namespace(h).tanh(h @ w) for w in start()[0]]


def plain(_=1):
    def run(_=None):
        x = h = start()[1]
        for layer in layers():
            h = layer(h)
        return _pulled(x, h)

    return Engine({"step": run}, lambda: {"x": run()})


def checkpointed(_=1):
    from autodiff import checkpoint_sequential
    from ref.training.checkpoint_segments import checkpoint_segments

    segments = checkpoint_segments(LAYERS)

    def run(_=None):
        x = start()[1]
        return _pulled(x, checkpoint_sequential(layers(), x, segments))

    return Engine({"step": run}, lambda: {"x": run()})


def _pulled(x, h):
    x.grad = None
    h = h.sum()
    h.backward()
    return x.grad


def peak(kind):
    """Units that one step of this kind needs at its peak."""
    import tracemalloc

    engine = {"plain": plain, "checkpointed": checkpointed}[kind]()
    start()[1].grad = None
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


def measure_peaks():
    mine, none = (start_child(MODULE, 1, "peak", kind) for kind in ("checkpointed", "plain"))
    ratio = mine / none
    row = {"work": f"{WORK}, peak", "peer": "none", "threads": 1, "unit": "units", "ours": mine, "theirs": none}
    return {**row, "ratio": ratio, "target": 1 / 3.3, "met": ratio <= 1 / 3.3}


if __name__ == "__main__":
    if "peak" in sys.argv:
        print(json.dumps(peak(sys.argv[-1])))
    else:
        main(MODULE, CASES, extra=measure_peaks)
