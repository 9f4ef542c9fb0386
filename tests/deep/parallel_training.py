"""`closedform train --parallel` in every mode on 4 ranks, in float64 for 50 steps, against one rank; exit 1 on a fault.

    python -m tests.deep.parallel_training [MODE ...]

`tp` runs twice: 2 ranks that share one copy of the model, and 4 ranks with two copies. The command itself exits with 1
if a loss differs by more than 1e-10, or if a rank sent other bytes than the formula.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from ref.demo.parallel import MODES, NAMES
from tests.distributed.launch import mpi

SECONDS = 180


def main(modes):
    faults, losses = [], {}
    runs = [(1, "ddp"), *((ranks, mode) for mode in modes for ranks in ((2, 4) if mode == "tp" else (4,)))]
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one"
        for ranks, mode in runs:
            out = one if ranks == 1 else Path(folder) / f"{mode}-{ranks}"
            against = ("--against", one / "losses.json") if ranks > 1 else ()
            started = time.monotonic()
            status, said = mpi(ranks, "ref.cli", "train", "--parallel", mode, "--float64", "--out", out, *against,
                               timeout=4 * SECONDS)  # fmt: skip
            seconds = time.monotonic() - started
            print(said, f"{mode} on {ranks} ranks: exit {status} after {seconds:.0f} s", sep="\n", flush=True)
            if status or seconds > SECONDS:
                faults.append(f"{mode} on {ranks} ranks: exit {status} after {seconds:.0f} s")
            else:
                losses[mode, ranks] = json.loads((out / "losses.json").read_text())["losses"]
    if len({tuple(v) for (mode, ranks), v in losses.items() if mode in MODES and ranks > 1}) > 1:
        faults.append("the modes have other bits")
    print(*faults, f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(NAMES)))
