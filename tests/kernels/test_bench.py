"""The GPU run without a GPU: every group but its launches, time limits, and the lines that end it."""

import json

import pytest

from bench import gpu
from bench.on_gpu import worker
from bench.on_gpu.bed import Bed, Missing
from bench.on_gpu.report import lines


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "dry.jsonl"
    assert gpu.main(["--dry-run", "--out", str(out)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_every_group_comes_to_its_end(dry):
    ends = {row["group"]: row["status"] for row in dry if "seconds" in row and "status" in row}
    assert ends == {group.name: "done" for group in gpu.GROUPS}
    assert set(worker.WORK) == set(ends)
    assert sum(group.seconds for group in gpu.GROUPS) <= 9 * 60  # and 8 minutes in all, by the deadline


def test_every_kernel_is_judged_and_timed(dry):
    judged = {row["kernel"] for row in dry if row["group"].startswith(("correct", "probe")) and "kernel" in row}
    rows = {"rms_norm", "cross_entropy", "rope", "paged_decode", "adamw"}
    assert judged == {"L0", "L1", "L2", "dispatch", "attention_wgmma"} | rows
    engines = {(row["direction"], row["engine"]) for row in dry if "engine" in row}
    peers = {f"torch {x}_ATTENTION" for x in ("FLASH", "CUDNN", "EFFICIENT")} | {"torch MATH"}
    assert {e for d, e in engines if d == "forward"} == {"L0", "L1", "L1 again", "L2", "triton", "naive"} | peers
    assert {e for d, e in engines if d == "backward"} == {"L1", "L1 again"} | peers
    moved = {row["kernel"]: row["bytes"] for row in dry if row["group"] == "time_rows" and "bytes" in row}
    assert len(moved) == 8


def test_real_rows_move_a_gigabyte(monkeypatch):
    """The sizes of the run itself, asked for without making them."""
    from bench.on_gpu import rows

    asked = []

    class Enough(Exception):
        pass

    def random(self, shape, dtype="bfloat16", seed=0):
        asked.append((shape, dtype))
        raise Enough

    monkeypatch.setattr(Bed, "random", random)
    for make in rows.WORK.values():
        with pytest.raises(Enough):
            make(Bed(True, []))
    size = {"bfloat16": 2, "float32": 4}
    for shape, dtype in asked[:-1]:
        n = 1
        for side in shape:
            n *= side
        assert n * size[dtype] >= 2**29  # read, and as much written
    assert asked[-1] == ((4096 * 4096,), "float32")  # the first of AdamW's 31 tensors


def test_a_group_that_does_not_end_is_cut_and_the_rest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "GROUPS", (gpu.Group("time_rows", 0.05), gpu.Group("probe", 30)))
    out = tmp_path / "cut.jsonl"
    assert gpu.main(["--dry-run", "--out", str(out)]) == 1
    ends = [(r["group"], r["status"]) for r in map(json.loads, out.read_text().splitlines()) if "seconds" in r]
    assert ends == [("time_rows", "timeout"), ("probe", "done")]


def test_past_the_deadline_nothing_starts(tmp_path):
    out = tmp_path / "late.jsonl"
    assert gpu.main(["--dry-run", "--only", "probe", "--minutes", "0", "--out", str(out)]) == 1
    assert json.loads(out.read_text())["status"] == "timeout"


def test_a_group_that_fails_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "GROUPS", (gpu.Group("nothing", 30),))
    assert gpu.main(["--out", str(tmp_path / "x.jsonl")]) == 1
    assert "KeyError: 'nothing'" in capsys.readouterr().out


def test_what_was_wrong_is_not_timed():
    earlier = [{"group": "correct_L1", "kernel": "L1", "status": "wrong"},
               {"group": "correct_rows", "kernel": "rope", "status": "wrong"},
               {"group": "probe", "status": "timeout"}]  # fmt: skip
    bed = Bed(True, earlier)
    assert bed.wrong() == {"L1", "rope", "L2"}
    rows = list(worker.WORK["time_rows"](bed))
    assert {row["kernel"] for row in rows if "missing" in row} == {"rope interleaved", "rope half"}
    timed = {row["engine"] for row in worker.WORK["time_backward"](bed) if "missing" not in row}
    assert not timed & {"L1", "L1 again"}
    assert Bed(True, [{"group": "correct_L2", "status": "timeout"}]).wrong() == {"L2"}


def test_the_last_lines_are_ratios_to_torchs_best():
    def row(engine, ms, **more):
        return {"direction": "forward", "d": 128, "causal": True, "S": 4096, "engine": engine, "ms": ms, **more}

    rows = [row("L2", 2.0), row("torch FLASH_ATTENTION", 2.4), row("torch CUDNN_ATTENTION", 1.8), row("naive", None),
            {"what": "copy", "ms": 2.0, "gb_s": 4300.0}, {"kernel": "L0", "what": "x", "status": "wrong", "o": 0.5},
            {"group": "time_rows", "kernel": "adamw", "ms": 1.0, "gb_s": 3870.0, "of_copy": 0.9},
            row("triton", None, missing="triton is not installed")]  # fmt: skip
    said = list(lines(rows))
    assert said[-1] == ("forward d=128 causal S= 4096 (torch's best = 1, 1.800 ms): L2 0.90, torch FLASH 0.75, "
                        "torch CUDNN 1.00")  # fmt: skip
    assert "adamw                           3870 GB/s  90% of the copy" in said
    assert "0 checks right, 1 wrong" in said
    assert "  not measured: triton: triton is not installed" in said


def test_a_missing_peer_says_its_name():
    with pytest.raises(Missing, match="no_such_peer is not installed"):
        Bed(True, []).peer("no_such_peer")
