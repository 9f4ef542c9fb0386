"""What the benchmarks share: timing that holds on a shared machine, and the table of ratios.

One thread: CPU time, pinned, the engines alternating in one process. A burst of other work then
hits all alike. More threads: wall time, one process an engine, alternating (two engines in one
process would spin on each other's threads). Either way a ratio is formed round by round, and the
median over the rounds is reported. Before anything is timed, the engines' values are compared.

A benchmark is a module with a list of `Case` that ends in ``main(__spec__.name, CASES)``:

    python -m bench.NAME [--threads 1 2] [--only WORD] [--rounds N]

A whole run is written to bench/results/MACHINE/NAME-THREADS.json; `python -m bench.report` prints them all.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
CHOSEN_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # left over from elsewhere: not ours


class Engine(NamedTuple):
    """One way to do the work of a case."""

    parts: dict[str, Callable]  # timed in this order; each is given what the one before returned
    values: Callable[[], dict]  # name -> array, to compare engines by


class Ratio(NamedTuple):
    """A line of the table: ours over theirs, each an (engine, part); part "" is the sum of all."""

    work: str
    ours: tuple[str, str]
    theirs: tuple[str, str]
    target: dict[int, float | None]  # threads -> largest ratio that meets the target; None: only reported


class Case(NamedTuple):
    """The same work in several engines: name -> make(threads), ImportError where it is absent."""

    name: str
    engines: dict[str, Callable[[int], Engine]]
    ratios: tuple[Ratio, ...]
    rounds: int = 9  # in one process
    processes: int = 3  # of each engine, where it has several threads
    samples: int = 3  # of such a process
    loops: int = 1  # how often a part does the work, for the seconds that are shown
    tolerance: float | None = 1e-4  # of the engines' values, relative to the largest
    absent: dict[int, tuple[str, ...]] = {}  # threads -> engines that are left out


def main(module: str, cases: list[Case], extra: Callable[[], list[dict]] | None = None) -> None:
    """Run from the command line: the parent starts a child for every case and every engine.

    `extra` gives more rows, measured in another way.
    """
    args = _arguments()
    by_name = {case.name: case for case in cases}
    if args.child:
        print(json.dumps(_child(by_name[args.case], args)))
        return
    for threads in args.threads:
        rows = []
        for case in cases:
            if args.only in case.name and any(threads in r.target for r in case.ratios):
                found = _rows(module, case, threads, args)
                print_table(found, head=not rows)
                rows += found
        if extra is not None and threads == 1 and not args.only:
            more = extra()
            print_table(more, head=False)
            rows += more
        if rows and not args.only and not args.rounds:
            save(module, threads, rows)


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--child", choices=["check", "alternate", "alone"], help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the parent -------------------------------------------------------------------------------


def _rows(module, case, threads, args):
    if case.tolerance is not None:
        _start(module, case, threads, "check")
    if threads == 1:
        rounds = args.rounds or case.rounds
        times = _start(module, case, 1, "alternate", "--rounds", str(rounds))
    else:
        times = _alternate_processes(module, case, threads, args.rounds or case.processes)
    return [_row(case, ratio, threads, times) for ratio in case.ratios if threads in ratio.target]


def _alternate_processes(module, case, threads, rounds):
    times: dict[str, dict] = {}
    names = [name for name in case.engines if name not in case.absent.get(threads, ())]
    for _ in range(rounds):
        for name in names:
            own = _start(module, case, threads, "alone", "--engine", name)
            for part, seconds in own.items():
                times.setdefault(name, {}).setdefault(part, []).append(seconds)
    return times


def _start(module, case, threads, child, *args):
    kind = ("--child", child, "--case", case.name, "--threads", str(threads))
    return start_child(module, threads, *kind, *args)


def start_child(module: str, threads: int, *args: str) -> Any:
    """What `python -m module args` prints last, with the thread counts set from the start."""
    env = {k: v for k, v in os.environ.items() if k not in CHOSEN_KERNELS}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        env[name] = str(threads)
    if threads == 1:
        env["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    command = [sys.executable, "-m", module, *args]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def _row(case, ratio, threads, times):
    ours, theirs = (_series(times, *side) for side in (ratio.ours, ratio.theirs))
    row = {
        "work": ratio.work,
        "peer": " ".join(filter(None, ratio.theirs)),
        "threads": threads,
        "unit": "s",
        "target": ratio.target[threads],
    }
    if ours is None or theirs is None:
        return {**row, "ours": None, "theirs": None, "ratio": None, "met": None}
    found = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {
        **row,
        "ours": statistics.median(ours) / case.loops,
        "theirs": statistics.median(theirs) / case.loops,
        "ratio": found,
        "met": None if ratio.target[threads] is None else found <= ratio.target[threads],
    }


def _series(times, engine, part):
    if engine not in times:
        return None
    parts = times[engine].values() if not part else [times[engine][part]]
    return [sum(samples) for samples in zip(*parts, strict=True)]


# --- the children -----------------------------------------------------------------------------


def _child(case, args):
    threads = args.threads[0]
    settle_process(threads)
    if args.child == "alone":
        parts = _sampled({"": case.engines[args.engine](threads)}, case.samples, time.perf_counter)
        return {part: statistics.median(seconds) for part, seconds in parts[""].items()}
    engines = {}
    for name, make in case.engines.items():
        if name not in case.absent.get(threads, ()):
            try:
                engines[name] = make(threads)
            except ImportError as missing:
                print(f"  without {name}: {missing}", file=sys.stderr)
    if args.child == "check":
        return _check(case, engines)
    return _sampled(engines, args.rounds or case.rounds, time.process_time)


def _sampled(engines, rounds, clock):
    keep = settle_allocator()
    times = {name: {part: [] for part in engine.parts} for name, engine in engines.items()}
    gc.collect()
    gc.disable()
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            found = None
            for part, run in engine.parts.items():
                start = clock()
                found = run(found)
                stop = clock()
                if turn:  # the first warms caches and pages
                    times[name][part].append(stop - start)
            del found
        gc.collect()
    del keep
    return times


def _check(case, engines):
    """Every engine's values against the first peer's; ValueError names the array."""
    import numpy as np

    first = None
    for name, engine in engines.items():
        values = engine.values()
        if first is None:
            first = name, values
            continue
        for key in first[1].keys() & values.keys():
            want, got = (np.asarray(v, np.float64) for v in (first[1][key], values[key]))
            error = np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
            if got.shape != want.shape or not error <= case.tolerance:
                raise ValueError(
                    f"{case.name}: {key} of {name} differs from {first[0]}'s by {error:.2g} of the "
                    f"largest value; at most {case.tolerance} was allowed"
                )
    return sorted(engines)


def alternating(cases: dict[str, Callable[[int], Any]], repeats: int, rounds: int) -> dict[str, float]:
    """Median CPU seconds of one repetition; case(n) does its work n times, and every case runs once a round."""
    engines = {name: Engine({"": lambda _, case=case: case(repeats)}, dict) for name, case in cases.items()}
    times = _sampled(engines, rounds, time.process_time)
    return {name: statistics.median(parts[""]) / repeats for name, parts in times.items()}


def settle_process(threads: int) -> None:
    """Keep freed pages, for all engines alike (half of what is measured could be page faults); pin one thread."""
    from backends.pages import keep_freed_pages

    keep_freed_pages()
    if threads == 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def settle_allocator() -> list:
    """Free places in every small size class; keep what it returns while timing.

    Without them an object that is made and dropped in a loop can land on the edge of an arena,
    which the allocator then maps and unmaps each time: ten times slower, for whoever is unlucky.
    """
    return [[bytes(size) for _ in range(400)][::2] for size in range(1, 480, 16)]


def peak_rss() -> int:
    """Bytes that this process has had in memory at most."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- results ----------------------------------------------------------------------------------


def save(module: str, threads: int, rows: list[dict]) -> None:
    """Write the rows of a whole run, with what they were measured on, to the folder of that kind of machine."""
    found = measured_on()
    kind = f"{found['machine']['cpu']} {found['machine']['blas']}".lower().replace("(r)", "")
    folder = RESULTS / re.sub(r"[^a-z0-9.]+", "-", kind).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**found, "rows": rows}, indent=1) + "\n"
    (folder / f"{module.rsplit('.', 1)[-1]}-{threads}.json").write_text(text)


def measured_on() -> dict:
    """Machine, versions and commit."""
    from importlib import metadata

    from backends import openblas

    versions = {"python": sys.version.split()[0]}
    for package in ("numpy", "scipy", "torch", "jax", "autograd"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "blas": openblas.core, "load": os.getloadavg()[0]},
        "versions": versions,
        "commit": _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
    }


def _cpu():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    import platform

    return platform.processor()


def _git(*args):
    done = subprocess.run(["git", *args], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip()


def row(work: str, peer: str, threads: int, unit: str, ours: float, theirs: float, target: float | None) -> dict:
    """A line of the table that a benchmark measured by itself; without a target it is only reported."""
    ratio = ours / theirs
    return {
        **{"work": work, "peer": peer, "threads": threads, "unit": unit, "ours": ours, "theirs": theirs},
        **{"ratio": ratio, "target": target, "met": None if target is None else ratio <= target},
    }


def print_table(rows: list[dict], *, head: bool = True) -> None:
    """The table of ratios: ours over the peer's, and whether the target is met."""
    width = max((len(r["work"]) for r in rows), default=4) + 2
    peer = max((len(r["peer"]) for r in rows), default=4) + 2
    if head:
        print(f"{'work':{width}}{'peer':{peer}}thr {'ours':>10}{'peer':>11}{'ratio':>8}{'target':>8}  met")
    for r in rows:
        if r["ratio"] is None:
            print(f"{r['work']:{width}}{r['peer']:{peer}}{r['threads']:3d} {'absent':>10}")
            continue
        ours, theirs = (amount(r[side], r["unit"]) for side in ("ours", "theirs"))
        verdict = "       -" if r["target"] is None else f"{r['target']:8.3f}  {'yes' if r['met'] else 'NO'}"
        print(
            f"{r['work']:{width}}{r['peer']:{peer}}{r['threads']:3d} {ours:>10}{theirs:>11}{r['ratio']:8.3f}{verdict}",
            flush=True,
        )


def amount(x, unit):
    """A number with its unit, scaled: `12.3 ms`."""
    scales = {"s": [(1, "s"), (1e-3, "ms"), (1e-6, "us")], "B": [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")]}
    scales["B/s"] = [(1e9, "GB/s")]
    for scale, name in scales.get(unit, []):
        if x >= scale:
            return f"{x / scale:.2f} {name}"
    return f"{x:.3g} {unit}"
