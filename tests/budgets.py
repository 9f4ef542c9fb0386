"""CPU seconds of every test, summed by folder; an area over its budget fails the run.

A test costs what its process and the children it waited for burn, in setup, call and teardown.
Each worker measures, the controller sums. Wall time would judge the machine's other work as well.

Not even a CPU second is the same everywhere: a core shared with strangers does half the work in it. So every
worker times one fixed piece of work again and again between tests; the budgets are seconds of the machine where
that work takes `REFERENCE`, and grow by the ratio met in the run, at most `SLOWEST` times, and never shrink.
"""

import os
import resource
import time
from collections import defaultdict
from pathlib import Path, PurePosixPath
from statistics import fmean

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
LAW_SECONDS = 1.2  # for one algorithm: every law, on every backend, in every form


def laws_budget():
    """1.2 s for each algorithm: one file of laws stands beside each."""
    files = [f for top in ("ref", "autodiff", "backends") for f in (ROOT / top).rglob("*_laws.py")]
    return LAW_SECONDS * sum(f.name != "common_laws.py" for f in files)


# Folder -> CPU seconds, or a function that says them. The longest prefix decides; "" is the rest,
# doctests included. A new area adds its line here.
BUDGETS = {
    "": 120.0,
    "tests/autodiff": 60.0,
    "tests/conform": 30.0,
    "tests/demo": 110.0,  # every command: models trained, killed and resumed, pictures drawn
    "tests/distributed": 120.0,  # real MPI: every process imports for itself, and waits by spinning
    "tests/kernels": 150.0,  # compiling every kernel for two architectures and for the emulation included
    "tests/laws": laws_budget,
    "tests/memory": 30.0,
}

REFERENCE = 0.0105  # CPU seconds of `fixed_work`
SLOWEST = 3.0
EVERY = 1.0  # CPU seconds between two timings of it

_spent = defaultdict(float)
_ratios = []
_clock = _timed = 0.0


def fixed_work():
    """CPU seconds of a loop in Python and of one over small arrays."""
    start, total, x = time.process_time(), 0, np.arange(64.0)
    for i in range(50_000):
        total += i * i
    for _ in range(5_000):
        x = x * 0.5 + 1.0
    return time.process_time() - start


def slowness(ratios):
    """How many seconds here are one where the budgets were set: the mean of the ratios, within 1 and `SLOWEST`."""
    return min(max(fmean(ratios), 1.0), SLOWEST) if ratios else 1.0


def cpu_seconds():
    """CPU seconds of this process and of the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def folder_of(nodeid):
    """First two folders of a test's file: `tests/meta`, `ref/attention`, `backends`."""
    return "/".join(PurePosixPath(nodeid.split("::")[0]).parent.parts[:2])


def area_of(folder, budgets):
    """The budget's key that `folder` falls under."""
    return max((a for a in budgets if a in ("", folder) or folder.startswith(a + "/")), key=len)


def areas(spent, budgets, slower=1.0):
    """[(area, seconds used, seconds allowed)] for the seconds spent by folder, on a machine `slower` times as slow."""
    used = dict.fromkeys(budgets, 0.0)
    for folder, seconds in spent.items():
        used[area_of(folder, budgets)] += seconds
    limits = {a: slower * (b() if callable(b) else b) for a, b in budgets.items()}
    return [(a, used[a], limits[a]) for a in sorted(budgets)]


def enforced():
    """Deeper runs take what they take."""
    return os.environ.get("CLOSEDFORM_PROFILE", "commit") == "commit"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart():
    global _clock
    _clock = cpu_seconds()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(call):
    global _clock, _timed
    report = (yield).get_result()
    report.cpu_seconds, report.slower = 0.0, None
    if call.when != "teardown":  # the last phase, and always there: one reading a test, for a reading is not free
        return
    now = cpu_seconds()
    report.cpu_seconds = now - _clock
    if not _timed or now - _timed > EVERY:
        report.slower = fixed_work() / REFERENCE
        now = _timed = cpu_seconds()
    _clock = now


def pytest_runtest_logreport(report):
    _spent[folder_of(report.nodeid)] += report.cpu_seconds
    if report.slower is not None:
        _ratios.append(report.slower)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    over = any(used > limit for _, used, limit in areas(_spent, BUDGETS, slowness(_ratios)))
    controller = not hasattr(session.config, "workerinput")
    if controller and enforced() and over and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    write = terminalreporter.write_line
    terminalreporter.section("CPU seconds")
    slower = slowness(_ratios)
    write(f"one second of the reference took {slower:.2f} here; the budgets are multiplied by it")
    for area, used, limit in areas(_spent, BUDGETS, slower):
        over = used > limit
        verdict = "  OVER BUDGET" if over and enforced() else ""
        write(f"{area or 'the rest':<28}{used:8.1f} of {limit:6.1f}{verdict}", red=over)
        for folder in sorted(f for f in _spent if area_of(f, BUDGETS) == area and f != area):
            write(f"    {folder or '.':<24}{_spent[folder]:8.1f}")
