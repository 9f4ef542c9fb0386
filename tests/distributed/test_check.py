"""Somebody's own collective under the laws: what one rank does, judged as it stands."""

import json

import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.conform.check import check as judge
from ref.conform.check import five_lines
from ref.conform.expect import LawBroken

MINE = """
import numpy as np

def ring(comm, x, *, op="sum", out=None):
    f = op if callable(op) else {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[op]
    n, r, y = comm.size, comm.rank, x.copy()
    at = [len(x) * i // n for i in range(n + 1)]
    part = lambda i: y[at[i % n] : at[i % n + 1]]
    for k in range(n - 1):
        got = np.empty_like(part(r - k - 1))
        comm.sendrecv(part(r - k).copy(), (r + 1) % n, got, (r - 1) % n)
        left, right = (got, part(r - k - 1)) if r else (part(r - k - 1), got)
        f(left, right, out=part(r - k - 1))
    for k in range(n - 1):
        comm.sendrecv(part(r + 1 - k).copy(), (r + 1) % n, part(r - k), (r - 1) % n)
    return y

def remainder_dropped(comm, x, *, op="sum", out=None):
    k = len(x) // comm.size * comm.size
    return np.concatenate([ring(comm, x[:k], op=op), x[k:]])

def leans_on_buffers(comm, x, *, op="sum", out=None):
    y, got = np.array(x), np.empty_like(x)
    f = op if callable(op) else {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[op]
    for r in range(comm.size):
        if r != comm.rank:
            comm.send(np.ascontiguousarray(x), r)
    for r in range(comm.size):
        if r != comm.rank:
            comm.recv(got, r)
            f(y, got, out=y)
    return y
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    (tmp_path / "my_ring.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)

    def run(name, *args):
        done = CliRunner().invoke(app, ["check", "distributed.ring_all_reduce", f"my_ring:{name}", "--json", *args])
        return json.loads(done.stdout) if done.stdout.startswith("{") else pytest.fail(done.output)

    return run


def test_a_right_ring_conforms(check):
    report = check("ring", "--examples", "20")
    assert report["verdict"] == "conforms", report
    verdicts = {law["law"]: law["verdict"] for law in report["laws"]}
    assert verdicts == {"L1": "passed", "L2": "passed", "L3": "passed", "L4": "passed", "L5": "not_applicable"}


def test_a_known_bug_is_recognised(check):
    report = check("remainder_dropped", "--examples", "40")
    assert report["verdict"] == "broken"
    assert any(law["verdict"] == "failed" and law["case"] for law in report["laws"])


def test_a_program_that_leans_on_buffers_is_found(check):
    report = check("leans_on_buffers", "--examples", "40")
    assert "failed" in {law["verdict"] for law in report["laws"]}


def test_the_reproducer_runs(tmp_path, monkeypatch):
    (tmp_path / "my_ring.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    path = "my_ring:remainder_dropped"
    report = judge("distributed.ring_all_reduce", path, examples=40)
    failed = next(f for f in report.findings if f.outcome.verdict == "failed")
    assert failed.bug == "remainder_dropped"
    lines = five_lines(failed, path)
    assert "from backends.communicators.threads import ThreadWorld" in lines
    with pytest.raises(LawBroken):
        exec(lines, {})
