"""One group of the GPU run, in this process: python -m bench.on_gpu.worker GROUP FILE [--dry-run]."""

import functools
import json
import os
import sys
from pathlib import Path

from backends.fused.cupy._levels import LEVELS
from bench.on_gpu import attention, ceilings, correct, rows
from bench.on_gpu.bed import Bed

WORK = {
    "environment": ceilings.environment,
    "compile": ceilings.compiled,
    "ceilings": ceilings.ceilings,
    "probe": ceilings.probe,
    **{f"correct_{level}": functools.partial(correct.attention, level) for level in LEVELS},
    "correct_dispatch": correct.dispatch,
    "correct_rows": correct.rows,
    "time_forward": attention.forward,
    "time_backward": attention.backward,
    "time_rows": rows.times,
}


def main(group, path, dry):
    """Append the group's rows to the file, each as soon as it is there."""
    earlier = [json.loads(line) for line in Path(path).read_text().splitlines()]
    with open(path, "a") as file:
        for row in WORK[group](Bed(dry, earlier)):
            print(json.dumps({"group": group, **row}), file=file, flush=True)
            os.fsync(file.fileno())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--dry-run" in sys.argv[3:])
