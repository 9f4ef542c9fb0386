"""Striking a rank of a training run, and what must be true afterwards."""

import os
import time
from pathlib import Path

from tests.distributed.deadly import ONLY_RANK_0, PHASES, RESUMING
from tests.distributed.launch import mpi

RANKS = 3
SECONDS = 20  # from the strike to the end of the job, on a machine that does other things too


def job(folder, mode, phase="none", rank=0, how="none"):
    """(status, output) of a run."""
    return mpi(RANKS, "tests.distributed.deadly", folder, mode, phase, rank, how, timeout=120)


def losses(out):
    """What a run that came to its end printed."""
    return next(line for line in out.splitlines() if line.startswith("losses"))


def orphans(folder, patience=5.0):
    """Processes that still run for this folder some seconds after the launcher has ended."""
    end = time.monotonic() + patience
    while (found := _running(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _running(folder):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(str(folder)) in words and b"tests.distributed.deadly" in words:
            found.append(int(path.parent.name))
    return found


def faults_of(folder, mode, phase, rank, how, wanted):
    """(what is wrong, seconds from the strike to the end of the job) after a strike and a second run."""
    if phase in RESUMING:
        first, out = job(folder, mode, "end", rank, "kill")
        if first == 0:
            return [f"the run to go on from was to die: {out}"], 0.0
    status, out = job(folder, mode, phase, rank, how)
    ended, wrong = time.time(), []
    stamp = Path(f"{folder}.struck")
    if not stamp.exists():
        return [f"the rank was never struck: {out}"], 0.0
    seconds = ended - float(stamp.read_text())
    if status == 0:
        wrong.append("exit status 0")
    if seconds > SECONDS:
        wrong.append(f"the job lived on for {seconds:.1f} s")
    if left := orphans(folder):
        wrong.append(f"processes {left} live on")
    if how == "raise" and "ArithmeticError: boom" not in out:
        wrong.append(f"nobody says what was raised: {out}")
    if how == "disk" and "No space left" not in out:
        wrong.append(f"nobody says that the disk is full: {out}")
    status, out = job(folder, mode)
    if status or losses(out) != wanted:
        wrong.append(f"the second run ended otherwise than an unbroken one: {out}")
    return wrong, seconds


def everything(modes):
    """(mode, phase, rank, how) of every rank in every phase."""
    for mode in modes:
        for phase in (*PHASES, *RESUMING):
            for rank in range(1 if phase in ONLY_RANK_0 else RANKS):
                yield mode, phase, rank, "kill"
