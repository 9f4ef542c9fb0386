import errno
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from backends.communicators import RankFailed, SelfCommunicator, ThreadWorld
from ref.demo import sharded_file
from ref.demo.checkpoint_file import CheckpointError

ROWS = {"weights": 7, "m": 5, "one": 1, "none": 0}


def whole(step):
    """What all ranks have together; every number tells the step."""
    return {name: step * 100.0 + np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) for name, rows in ROWS.items()}


def cut(full, ranks, r):
    return {name: a[len(a) * r // ranks : len(a) * (r + 1) // ranks] for name, a in full.items()}


def save(folder, ranks, step):
    state = {"step": step, "rng": {"big": 2**200}, "lr": 0.1 + 0.2}

    def program(comm):
        return sharded_file.save(comm, folder, cut(whole(step), ranks, comm.rank), ROWS, state)

    return ThreadWorld(ranks).run(program)[0]


def load(folder, ranks):
    """(step, arrays) that all ranks together read; every byte is compared with what that step wrote."""
    found = ThreadWorld(ranks).run(lambda comm: sharded_file.load(comm, folder))
    if found[0] is None:
        return None
    step = found[0].state["step"]
    assert all(f.state == found[0].state for f in found)
    for name, wanted in whole(step).items():
        np.testing.assert_array_equal(np.concatenate([f.arrays[name] for f in found]), wanted, strict=True)
    return step


@pytest.mark.parametrize("saved", [1, 2, 3, 4])
def test_saved_at_n_and_read_at_m(tmp_path, saved):
    save(tmp_path, saved, 3)
    for ranks in (1, 2, 3, 4, 5, 8):
        assert load(tmp_path, ranks) == 3


def test_nothing_committed_is_none(tmp_path):
    assert load(tmp_path, 2) is None and load(tmp_path / "none", 1) is None


def test_old_directories_go_and_strangers_stay(tmp_path):
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-notes").mkdir()
    first = save(tmp_path, 2, 1)
    assert first.name == "step-00000001"
    second = save(tmp_path, 3, 1)
    assert second.name == "step-00000001.1" and load(tmp_path, 1) == 1
    save(tmp_path, 1, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "step-00000002", "step-notes"]


def test_same_state_same_bytes(tmp_path):
    for name in "ab":
        save(tmp_path / name, 2, 4)
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.*")) for n in "ab"]
    assert files[0] == files[1] and len(files[0]) == 3
    for file in files[0]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    "harm, message",
    [
        (lambda d: (d / "shard-1-of-3.safetensors").unlink(), "file of rank 1 is missing: .*shard-1-of-3"),
        (lambda d: os.truncate(d / "shard-2-of-3.safetensors", 40), "is not what rank 2 saved: 40 bytes of"),
        (lambda d: flip(d / "shard-0-of-3.safetensors", -1), "is not what rank 0 saved"),
        (lambda d: (d.parent / "manifest.json").write_text("{"), "manifest.json is no manifest"),
        (lambda d: flip(d.parent / "manifest.json", 40), "manifest.json is no manifest"),
        (lambda d: (d.parent / "manifest.json").write_text(json.dumps({"crc32": 0})), "is no manifest"),
    ],
)
def test_damage_is_named_and_nothing_is_read(tmp_path, harm, message):
    harm(save(tmp_path, 3, 1))
    with pytest.raises((CheckpointError, RankFailed), match=message):
        load(tmp_path, 2)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "state", [{}, {"step": -1}, {"step": True}, {"step": 1, "rate": float("nan")}, {"step": 1, "a": (1,)}]
)
def test_a_state_that_cannot_be_kept_leaves_the_old(tmp_path, state):
    save(tmp_path, 2, 1)
    with pytest.raises((ValueError, TypeError), match="step=|JSON|JSON compliant"):
        ThreadWorld(2).run(lambda comm: sharded_file.save(comm, tmp_path, cut(whole(2), 2, comm.rank), ROWS, state))
    assert load(tmp_path, 2) == 1


# Every system call of a save, one after the other, is where a process dies or the disk is full.


class Killed(BaseException):
    """No handler of the project catches it: what it leaves is what a killed process leaves."""


def system(monkeypatch, fail):
    """Replace the system calls of a save by ones that first ask fail(number, name, arguments)."""
    calls = []

    def counted(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            calls.append(name)
            fail(len(calls), name, real, args)
            return real(*args, **kwargs)

        return call

    names = ("open", "write", "fsync", "close", "replace")
    replaced = SimpleNamespace(**{**vars(os), **{n: counted(n) for n in names}})
    monkeypatch.setattr(sharded_file.files, "os", replaced)
    monkeypatch.setattr(sharded_file, "os", replaced)
    monkeypatch.setattr(sharded_file.files, "CHUNK", 512)
    return calls


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_any_call_leaves_the_old_or_the_new(tmp_path, monkeypatch, ranks):
    seen, deadly = [], 0
    while True:
        deadly += 1
        folder = tmp_path / str(deadly)
        save(folder, ranks, 1)
        died = False

        def fail(number, name, real, args, deadly=deadly):
            if number == deadly:
                if name == "write":  # torn in the middle of this write
                    real(args[0], args[1][: len(args[1]) // 2])
                raise Killed

        with monkeypatch.context() as patch:
            system(patch, fail)
            try:
                save(folder, ranks, 2)
            except Killed:
                died = True
        seen.append(load(folder, 3 - ranks))
        save(folder, ranks, 3)  # and the next save finds nothing in its way
        assert load(folder, ranks) == 3 and len([p for p in folder.iterdir() if p.is_dir()]) == 1
        if not died:
            break
    assert seen == sorted(seen) and set(seen) == {1, 2}
    assert deadly > 11 * ranks


@pytest.mark.parametrize("name, code", [("write", errno.ENOSPC), ("fsync", errno.EIO), ("open", errno.EDQUOT)])
def test_a_full_disk_leaves_the_old_and_tells_every_rank(tmp_path, monkeypatch, name, code):
    save(tmp_path, 3, 1)
    for at in range(1, 5):

        def fail(number, called, real, args, at=at, count=[0]):  # noqa: B006
            count[0] += called == name
            if called == name and count[0] == at:
                raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            system(patch, fail)
            said = ThreadWorld(3).run(attempted(tmp_path))
        assert sorted(said) == ["OSError", "RankFailed", "RankFailed"], said
        assert load(tmp_path, 2) == 1
    assert save(tmp_path, 3, 2) and load(tmp_path, 1) == 2


def attempted(folder):
    def program(comm):
        try:
            sharded_file.save(comm, folder, cut(whole(2), 3, comm.rank), ROWS, {"step": 2})
        except Exception as error:
            return type(error).__name__
        return "saved"

    return program


def test_alone_it_is_a_checkpoint_of_one(tmp_path):
    comm = SelfCommunicator()
    sharded_file.save(comm, tmp_path, whole(5), ROWS, {"step": 5})
    assert sharded_file.load(comm, tmp_path).state == {"step": 5}
    assert load(tmp_path, 2) == 5
