"""One measurement run on a GPU: is it right, then how fast, beside torch, Triton and the naive form.

    python -m bench.gpu [--dry-run] [--only GROUP ...] [--minutes 8] [--out FILE]

Each group runs in a process of its own with a time limit, and appends its rows to one file of JSON lines as
they come (bench/results/), so that whatever ends the run early leaves what was measured. Kernels that gave a
wrong result are not timed. The last lines printed are the ratios.

Needs CuPy and, for the peers, torch and triton beside the project's own dependencies; what is missing is a row
that says so. --dry-run does everything but launch: small arrays, a device that does nothing, no times.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.on_gpu.report import lines

__all__ = ["GROUPS", "main"]

ROOT = Path(__file__).resolve().parents[1]


class Group(NamedTuple):
    """A part of the run, and the seconds it may take."""

    name: str
    seconds: int


# A kernel that hangs takes its own group with it: each level is judged by itself, and probed before.
GROUPS = (
    Group("environment", 20),
    Group("compile", 75),
    Group("ceilings", 30),
    Group("probe", 30),
    Group("correct_L0", 35),
    Group("correct_L1", 35),
    Group("correct_L2", 35),
    Group("correct_dispatch", 25),
    Group("correct_rows", 30),
    Group("time_forward", 110),
    Group("time_backward", 70),
    Group("time_rows", 45),
)


def main(argv=None):
    """Run the groups; 0 if each ended by itself with nothing wrong."""
    args = _arguments(argv)
    name = time.strftime("gpu-%Y%m%d-%H%M%S.jsonl", time.gmtime())
    # What a dry run says is no result.
    out = Path(args.out or (Path(tempfile.gettempdir()) if args.dry_run else ROOT / "bench/results") / name)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.touch()
    deadline = time.monotonic() + 60 * args.minutes
    for group in GROUPS:
        if not args.only or group.name in args.only:
            _run(group, out, min(group.seconds, deadline - time.monotonic()), args.dry_run)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    print(*lines(rows), sep="\n")
    print(f"{len(rows)} rows in {out}")
    return int(any(row.get("status") in ("failed", "timeout", "wrong") for row in rows))


def _arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[g.name for g in GROUPS])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out")
    return parser.parse_args(argv)


def _run(group, out, seconds, dry):
    """One group in a process of its own. What it does not say of its end is said here."""
    started = time.monotonic()
    command = [sys.executable, "-m", "bench.on_gpu.worker", group.name, str(out), *(["--dry-run"] if dry else [])]
    row = {"group": group.name, "status": "timeout"}
    if seconds > 0:
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
            row["status"] = "done" if done.returncode == 0 else "failed"
            if done.returncode:
                row["said"] = (done.stdout + done.stderr)[-1500:]
        except subprocess.TimeoutExpired:
            pass
    row["seconds"] = round(time.monotonic() - started, 1)
    with out.open("a") as file:
        print(json.dumps(row), file=file)
    print(f"{group.name:20} {row['status']:8} {row['seconds']:6.1f} s  {row.get('said', '')[-300:]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
