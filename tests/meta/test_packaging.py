"""The wheel packs three packages and needs three; they load with nothing else installed."""

import subprocess
import sys
import zipfile
from email import message_from_string
from fnmatch import fnmatch

import pytest

from tests.meta.floors import CORE, ON_LOAD, PACKAGES, root_of_house

ROOT = root_of_house()
EXTRAS = sorted(set(ON_LOAD) - CORE)
# A finder that knows none of the extras, as on a machine that has the core alone.
CORE_ALONE = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_packs_the_three_packages_alone(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {*PACKAGES, "closedform-0.1.0.dist-info"}


def test_the_wheel_packs_every_file_of_them(wheel):
    files = {p.relative_to(ROOT).as_posix() for top in PACKAGES for p in (ROOT / top).rglob("*.*")
             if "__pycache__" not in p.parts}  # fmt: skip
    assert files - set(wheel.namelist()) == set()


def test_the_wheel_needs_the_core_alone(wheel):
    metadata = message_from_string(wheel.read("closedform-0.1.0.dist-info/METADATA").decode())
    needs = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert {r.split(">")[0].replace("-", "_") for r in needs} == CORE
    assert metadata["License-Expression"] == "Apache-2.0"


def runs_on_the_core():
    """Modules that promise to load with the core alone: all but those listed for an extra."""
    listed = {pattern for patterns in ON_LOAD.values() for pattern in patterns}
    for top in PACKAGES:
        for path in sorted((ROOT / top).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if path.name == "__main__.py" or any(fnmatch(relative, p) for p in listed):
                continue
            parts = relative.with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def core_alone(code, *args):
    return subprocess.run(
        [sys.executable, "-c", CORE_ALONE + code, *args],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_algorithms_load_on_the_core_alone():
    code = "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = core_alone(code, *runs_on_the_core())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_bare_machine_lacks_each_extra(extra):
    done = core_alone(f"import {extra}")
    assert f"No module named '{extra}'" in done.stderr


def test_the_command_without_its_extra_says_so_in_one_line():
    done = core_alone("sys.argv[1:] = ['list']\nfrom ref.cli import main\nsys.exit(main())")
    assert done.returncode == 2
    assert "closedform[check]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
