"""The budgets of CPU seconds count every process and fail the run; hypothesis repeats itself."""

import os
import subprocess
import sys

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from tests import budgets
from tests.meta.floors import root_of_house

CONFTEST = """
from tests import budgets
budgets.BUDGETS = {"": 100.0, "hot": lambda: LIMIT}
budgets.REFERENCE = REFERENCE
def pytest_configure(config):
    config.pluginmanager.register(budgets, "cpu-budgets")
"""
BURN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
TESTS = f"""
import subprocess, sys
BURN = {BURN!r}
def test_here(): exec(BURN)
def test_in_a_child(): subprocess.run([sys.executable, "-c", BURN], check=True)
"""


def run(folder, limit, *args, reference=1e3, **env):
    (folder / "hot").mkdir()
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    conftest = CONFTEST.replace("LIMIT", str(limit)).replace("= REFERENCE", f"= {reference}")
    (folder / "hot/conftest.py").write_text(conftest)
    (folder / "hot/test_hot.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib"]
    path = {"PYTHONPATH": str(root_of_house()), "CLOSEDFORM_PROFILE": "commit",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # fmt: skip
    return subprocess.run(
        [*command, *args, "hot"],
        cwd=folder, env={**os.environ, **path, **env}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n", "2"]], ids=["alone", "workers"])
def test_over_budget_fails_the_run(tmp_path, workers):
    done = run(tmp_path, 0.5, *workers)
    assert "2 passed" in done.stdout
    assert done.returncode == 1
    assert "OVER BUDGET" in done.stdout


def test_within_budget_passes(tmp_path):
    done = run(tmp_path, 60.0)
    assert done.returncode == 0
    assert "OVER BUDGET" not in done.stdout


@pytest.mark.parametrize(("limit", "code"), [(0.3, 0), (0.15, 1)])
def test_a_slower_machine_has_more_seconds_but_not_any_number(tmp_path, limit, code):
    done = run(tmp_path, limit, "-p", "xdist", "-n", "2", reference=1e-9)  # three times the seconds, no more
    assert done.returncode == code
    assert "one second of the reference took 3.00 here" in done.stdout


def test_slowness_is_a_mean_within_bounds():
    assert budgets.slowness([]) == budgets.slowness([0.2, 0.4]) == 1.0
    assert budgets.slowness([1.0, 2.0]) == 1.5
    assert budgets.slowness([9.0]) == budgets.SLOWEST
    assert 0.1 * budgets.REFERENCE < budgets.fixed_work() < 20 * budgets.REFERENCE
    assert budgets.areas({"a": 1.0}, {"": 2.0, "a": lambda: 4.0}, 1.5) == [("", 0.0, 3.0), ("a", 1.0, 6.0)]


def test_a_deep_run_takes_what_it_takes(tmp_path):
    assert run(tmp_path, 0.5, CLOSEDFORM_PROFILE="deep").returncode == 0


def test_the_longest_prefix_decides():
    table = {"": 10.0, "tests/laws": lambda: 2.0, "tests/laws/rl": 3.0}
    spent = {"tests/laws": 1.0, "tests/laws/rl": 5.0, "tests/lawsuit": 4.0, "ref/nn": 2.0}
    assert budgets.areas(spent, table) == [
        ("", 6.0, 10.0), ("tests/laws", 1.0, 2.0), ("tests/laws/rl", 5.0, 3.0),
    ]  # fmt: skip


def test_folders_are_two_deep():
    ids = ["tests/meta/test_x.py::test_y[a/b]", "ref/nn/deep/x.py::ref.nn", "autodiff/x.py::y"]
    assert [budgets.folder_of(i) for i in ids] == ["tests/meta", "ref/nn", "autodiff"]


def test_each_algorithm_adds_to_the_budget_of_the_laws(tmp_path, monkeypatch):
    for name in ("ref/nn/linear.py", "ref/nn/linear_laws.py", "ref/nn/common_laws.py",
                 "autodiff/ops_laws.py", "tests/nn/other_laws.py"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(budgets, "ROOT", tmp_path)
    assert budgets.laws_budget() == pytest.approx(2.4)


def test_no_example_comes_of_our_own_source():
    assert len(providers._get_local_constants()) == 0


def test_a_commit_draws_the_same_examples_each_time():
    profile = settings.get_profile("commit")
    assert profile.derandomize
    assert profile.database is None
    assert profile.deadline is None
