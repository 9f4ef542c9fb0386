"""Every rank dies in every phase of a training run; exit 1 if a job hangs, leaves a process or goes on otherwise.

    python -m tests.deep.deaths [MODE ...]
"""

import sys
import tempfile
from pathlib import Path

from tests.distributed.deaths import everything, faults_of, job, losses


def main(modes):
    faults, slowest = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        status, out = job(Path(folder) / "unbroken", "ddp")
        if status:
            print(out)
            return 1
        wanted = losses(out)
        kinds = [(m, "write", r, how) for m in modes for r in range(3) for how in ("disk", "raise")]
        for k, (mode, phase, rank, how) in enumerate([*everything(modes), *kinds]):
            wrong, seconds = faults_of(Path(folder) / str(k), mode, phase, rank, how, wanted)
            slowest = max(slowest, seconds)
            print(f"{mode:6} {phase:10} rank {rank} {how:5} ended after {seconds:4.1f} s", *wrong, flush=True)
            faults += wrong
    print(f"{k + 1} strikes, the slowest end {slowest:.1f} s after, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["ddp", "zero3"]))
