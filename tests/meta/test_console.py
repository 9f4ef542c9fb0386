"""The `closedform` command, run from a folder that has a ref/, backends/ and tests/ of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).parent / "closedform"
THEIRS = 'raise SystemExit("a stranger\'s package was imported: " + __name__)\n'
# Another kernel author's own tests folder: a target may live there, and must not be ours.
TARGET = """
def zeros(q, k, v, *, mask=None, bias=None, softcap=None, scale=None):
    return 0.0 * q[..., :1] * v[..., :1, :]
"""


@pytest.fixture
def strange_folder(tmp_path):
    for package in ("ref", "backends", "autodiff"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(THEIRS)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/__init__.py").write_text("")
    (tmp_path / "tests/kernels.py").write_text(TARGET)
    return tmp_path


def closedform(folder, *args):
    assert SCRIPT.exists(), f"no {SCRIPT.name} beside this Python; `make test` installs it"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [SCRIPT, *args], cwd=folder, env=env, capture_output=True, text=True, timeout=100
    )


def test_ours_import_first(strange_folder):
    done = closedform(strange_folder, "list", "--json")
    assert done.returncode == 0, done.stderr
    assert "attention.sdpa" in {row["id"] for row in json.loads(done.stdout)}


def test_a_target_in_their_tests_folder_is_theirs(strange_folder):
    done = closedform(strange_folder, "check", "attention.sdpa", "tests.kernels:zeros", "--json")
    assert "stranger" not in done.stdout + done.stderr
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["target"] == "tests.kernels:zeros"
    assert any(law["verdict"] == "failed" for law in report["laws"])


def test_a_target_that_needs_its_own_autodiff_gets_one_clear_line(strange_folder):
    (strange_folder / "uses_theirs.py").write_text("from autodiff import their_function\n")
    done = closedform(strange_folder, "check", "attention.sdpa", "uses_theirs:their_function")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "'autodiff'" in done.stderr
    assert "subprocess" in done.stderr


def test_the_planted_packages_would_be_seen(strange_folder):
    done = subprocess.run(
        [sys.executable, "-c", "import ref"], cwd=strange_folder, capture_output=True, text=True
    )
    assert "a stranger's package was imported: ref" in done.stderr


def test_the_command_is_the_one_of_this_tree():
    code = "import ref, autodiff, backends\nfor m in (ref, autodiff, backends): print(m.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True
    )
    root = Path(__file__).resolve().parents[2]
    assert [Path(p).parents[1] for p in done.stdout.splitlines()] == [root] * 3
