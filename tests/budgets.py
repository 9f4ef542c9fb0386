"""CPU seconds of every test, summed by folder; an area over its budget fails the run.

A test costs what its process and the children it waited for burn, in setup, call and teardown.
Each worker measures, the controller sums. Wall time would judge the machine's other work as well.
"""

import os
import resource
import time
from collections import defaultdict
from pathlib import Path, PurePosixPath

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
    "tests/distributed": 120.0,  # real MPI: every process imports for itself, and waits by spinning
    "tests/kernels": 150.0,  # compiling every kernel for two architectures and for the emulation included
    "tests/laws": laws_budget,
    "tests/memory": 30.0,
}

_spent = defaultdict(float)
_clock = 0.0


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


def areas(spent, budgets):
    """[(area, seconds used, seconds allowed)] for the seconds spent by folder."""
    used = dict.fromkeys(budgets, 0.0)
    for folder, seconds in spent.items():
        used[area_of(folder, budgets)] += seconds
    limits = {a: b() if callable(b) else b for a, b in budgets.items()}
    return [(a, used[a], limits[a]) for a in sorted(budgets)]


def enforced():
    """Deeper runs take what they take."""
    return os.environ.get("CLOSEDFORM_PROFILE", "commit") == "commit"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart():
    global _clock
    _clock = cpu_seconds()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    global _clock
    now = cpu_seconds()
    outcome = yield
    outcome.get_result().cpu_seconds = now - _clock
    _clock = now


def pytest_runtest_logreport(report):
    _spent[folder_of(report.nodeid)] += report.cpu_seconds


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    over = any(used > limit for _, used, limit in areas(_spent, BUDGETS))
    controller = not hasattr(session.config, "workerinput")
    if controller and enforced() and over and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    write = terminalreporter.write_line
    terminalreporter.section("CPU seconds")
    for area, used, limit in areas(_spent, BUDGETS):
        over = used > limit
        verdict = "  OVER BUDGET" if over and enforced() else ""
        write(f"{area or 'the rest':<28}{used:8.1f} of {limit:6.1f}{verdict}", red=over)
        for folder in sorted(f for f in _spent if area_of(f, BUDGETS) == area and f != area):
            write(f"    {folder or '.':<24}{_spent[folder]:8.1f}")
