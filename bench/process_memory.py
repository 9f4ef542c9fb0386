"""Peak memory of a process under each checkpointing policy, beside the units that its tape is counted to hold.

    python -m bench.process_memory [LAYERS]

Each policy runs the chain of `closedform checkpoints` alone in a fresh process, one BLAS thread. What is read is the
process's own high-water mark, less that before the first step; large blocks go straight back to the system, so that
it is the program's peak and not the allocator's. Beside the tape a backward holds cotangents and the layer's
temporaries, the same under every policy: WORK units, read off the policy with the smallest tape.
"""

import json
import os
import subprocess
import sys

from bench.common import print_table, row, save

ROWS, CHANNELS = 4096, 64  # a unit is 2 MiB, the weights of a layer an eighth of that
UNIT = ROWS * CHANNELS * 8
SMALLEST = "Revolve, 2"
NAMES = ("keep everything", "keep the products", "segments, uniform", "segments, decreasing",
         "recompute each layer", "products to a file", SMALLEST)  # fmt: skip
TARGET = 0.15
# Blocks over 64 KiB are mapped one by one, and unmapped as they are freed.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000", "OPENBLAS_NUM_THREADS": "1"}


def high_water():
    """Greatest resident size of this process so far, in bytes; a child does not inherit it."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def child(name, layers):
    """(growth in units, units counted on the tape) of one policy."""
    from ref.demo import checkpointing

    policy = checkpointing.policies(layers, [2])[name]
    for warm in checkpointing.policies(2, [1]).values():  # imports, buffers of BLAS, the file
        checkpointing.measure(warm, 2, rows=256, channels=CHANNELS)
    before = high_water()
    found = checkpointing.measure(policy, layers, rows=ROWS, channels=CHANNELS)
    return (high_water() - before) / UNIT, found.units


def start(name, layers):
    command = [sys.executable, "-m", "bench.process_memory", str(layers), name]
    run = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def main(layers):
    found = {name: start(name, layers) for name in NAMES}
    grown, counted = found[SMALLEST]
    work = grown - counted
    print(f"{layers} layers, a unit of {UNIT / 1e6:.1f} MB; beside the tape {work:.1f} units")
    rows = [
        row(f"process memory, {layers} layers, {name}", "the count", 1, "units", grown, counted + work, 1 + TARGET)
        for name, (grown, counted) in found.items()
        if name != SMALLEST
    ]
    print_table(rows)
    save("bench.process_memory", 1, rows)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(child(sys.argv[2], int(sys.argv[1]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
