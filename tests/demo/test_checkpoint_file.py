import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ref.demo import checkpoint_file as files


def arrays_of(step, size=6):
    """A training state's arrays, every byte of which tells the step."""
    return {
        "tok.weight": np.full((size, 4), step, np.float32),
        "adam.m": np.full(size, step, np.float64)[::-1],
        "scale": np.array(step % 1024, np.float16),
        "none": np.empty((0, 3), np.float32),
    }


def state_of(step):
    rng = np.random.default_rng(step)
    return {"step": step, "rng": rng.bit_generator.state, "config": {"d": 128, "lr": 0.1 + 0.2}}


def save(folder, step, size=6, **options):
    return files.save(folder, arrays_of(step, size), state_of(step), **options)


def whole(path, size=6):
    """Load, and return the step that every tensor and the state agree on."""
    arrays, state = files.load(path, like=arrays_of(0, size))
    for name, wanted in arrays_of(state["step"], size).items():
        np.testing.assert_array_equal(arrays[name], wanted, strict=True)
    assert state == state_of(state["step"])
    return state["step"]


def test_what_comes_back_is_what_went_in(tmp_path):
    assert whole(save(tmp_path, 7)) == 7
    state = files.load(files.latest(tmp_path)).state
    rng = np.random.default_rng()
    rng.bit_generator.state = state["rng"]
    assert rng.random() == np.random.default_rng(7).random()


def test_memory_order_does_not_matter(tmp_path):
    x = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    views = {"f": np.asfortranarray(x), "t": x.T, "step": x[:, ::-2], "big": x.astype(">f4")}
    arrays = files.load(files.save(tmp_path, views, {"step": 0})).arrays
    for name, view in views.items():
        np.testing.assert_array_equal(arrays[name], view)
        assert arrays[name].flags.writeable


def test_same_state_same_bytes(tmp_path):
    first, second = save(tmp_path / "a", 3), save(tmp_path / "b", 3)
    assert first.read_bytes() == second.read_bytes()


def test_any_safetensors_reader_can_open_it(tmp_path):
    from safetensors import safe_open

    with safe_open(save(tmp_path, 5), "numpy") as file:
        assert sorted(file.keys()) == sorted(arrays_of(5))
        assert json.loads(file.metadata()["checkpoint"])["state"] == state_of(5)


def test_latest_counts_steps_and_old_ones_go(tmp_path):
    assert files.latest(tmp_path) is None and files.latest(tmp_path / "none") is None
    for name in ("step-00000099.safetensors.tmp", ".step-00000007.safetensors.tmp", "notes.txt"):
        (tmp_path / name).write_text("not a checkpoint")
    for step in (9, 99_999_999, 100_000_000, 10):
        path = save(tmp_path, step, keep=3)
        assert path.exists()
    assert [int(p.stem[5:]) for p in files.steps(tmp_path)] == [10, 99_999_999, 100_000_000]
    assert whole(files.latest(tmp_path)) == 100_000_000
    left = sorted(p.name for p in tmp_path.iterdir() if p not in files.steps(tmp_path))
    assert left == ["notes.txt", "step-00000099.safetensors.tmp"]


def test_going_back_to_an_earlier_step_keeps_the_file_just_written(tmp_path):
    for step in (8, 9, 3):
        path = save(tmp_path, step, keep=1)
    assert whole(path) == 3


# Every system call of a save, one after the other, is where the process dies.
WRITER = """
import os, signal, sys
from types import SimpleNamespace
sys.path[:0] = {paths!r}
import test_checkpoint_file as t

folder, deadly = sys.argv[1], int(sys.argv[2])
names = ("open", "write", "fsync", "close", "replace")
calls = 0

def counted(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == deadly:
            if name == "write":  # torn in the middle of this write
                real(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        print(name, *[a for a in args if isinstance(a, int)], flush=True)
        return real(*args, **kwargs)
    return call

t.files.CHUNK = 512
t.files.os = SimpleNamespace(**{{**vars(os), **{{n: counted(n) for n in names}}}})
t.save(folder, 2)
"""


def run_writer(folder, deadly):
    here = os.path.dirname(__file__)
    paths = [os.path.dirname(os.path.dirname(here)), here]
    code = WRITER.format(paths=paths)
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), str(deadly)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_killed_at_any_call_leaves_the_old_or_the_new(tmp_path):
    seen, deadly = [], 0
    while True:
        deadly += 1
        folder = tmp_path / str(deadly)
        save(folder, 1)
        result = run_writer(folder, deadly)
        seen.append(whole(files.latest(folder)))
        assert all(whole(path) in (1, 2) for path in files.steps(folder))
        assert whole(save(folder, 3)) == 3 and not list(folder.glob(".*"))
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL, result.stderr
    assert seen == sorted(seen) and {1, 2} <= set(seen)
    assert deadly > 8


def test_bytes_are_durable_before_the_rename_and_the_rename_after_it(tmp_path):
    calls = run_writer(tmp_path, -1).stdout.split("\n")[:-1]
    names = [line.split()[0] for line in calls]
    rename = names.index("replace")
    writes = [i for i, name in enumerate(names) if name == "write"]
    file = calls[writes[0]].split()[1]
    assert len(writes) > 1 and f"fsync {file}" in calls[writes[-1] : rename]
    assert names[rename + 1 :] == ["open", "fsync", "close"]


def test_killed_at_a_random_moment(tmp_path):
    code = (
        f"import sys; sys.path[:0] = {[os.getcwd(), os.path.dirname(__file__)]!r}\n"
        "import itertools, test_checkpoint_file as t\n"
        f"for step in itertools.count(1): t.save({str(tmp_path)!r}, step, 200_000)"
    )
    rng = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        old, deadline = files.steps(tmp_path), time.monotonic() + 30
        while files.steps(tmp_path) == old and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.wait()
        assert files.steps(tmp_path) and files.steps(tmp_path) != old
        assert all(whole(path, 200_000) for path in files.steps(tmp_path))
        for path in files.steps(tmp_path):
            path.unlink()


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    save(tmp_path, 1)
    before = sorted(tmp_path.iterdir())

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, 2)
    assert sorted(tmp_path.iterdir()) == before


def test_cut_anywhere_is_an_error_that_names_the_tensor(tmp_path):
    path = save(tmp_path, 1)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    spans = {k: v["data_offsets"] for k, v in header.items() if k != "__metadata__"}
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(files.CheckpointError) as error:
            files.load(path)
        if length < start:
            assert "ends within its header" in str(error.value)
        else:
            first = min((b, a, k) for k, (a, b) in spans.items() if start + b > length)[2]
            assert f"cut off within tensor '{first}'" in str(error.value)


def test_one_changed_bit_is_found_and_its_tensor_named(tmp_path):
    path = save(tmp_path, 1)
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    for name, (low, high) in ((k, v["data_offsets"]) for k, v in header.items() if k[0] != "_"):
        for place in range(start + low, start + high):
            data[place] ^= 4
            path.write_bytes(data)
            with pytest.raises(files.CheckpointError, match=f"tensor '{name}' is not the one"):
                files.load(path)
            data[place] ^= 4


def test_other_files_are_errors(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "step-00000001.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":7}'
    for data in (
        b"",
        b"\xff" * 64,
        bytes(8) + b"{}",
        b"\x02" + bytes(7) + b"[]",
        b"\x04" + bytes(7) + b"null",
        len(header).to_bytes(8, "little") + header + bytes(4),
    ):
        path.write_bytes(data)
        with pytest.raises(files.CheckpointError, match="step-00000001"):
            files.load(path)
    for metadata in (
        None,
        {"checkpoint": "{}"},
        {"checkpoint": "["},
        {"checkpoint": "3"},
        {"checkpoint": '{"state": {}, "crc32": 5}'},
    ):
        save_file({"a": np.ones(3)}, path, metadata)
        with pytest.raises(files.CheckpointError, match="not a checkpoint of this kind"):
            files.load(path)
    with pytest.raises(FileNotFoundError):
        files.load(tmp_path / "step-00000002.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": np.ones(1)}, r"lacks tensors \['extra'\] and has unexpected \[\]"),
        ({"scale": None}, r"lacks tensors \[\] and has unexpected \['scale'\]"),
        ({"adam.m": np.ones(7)}, r"'adam.m' is float64\[6\], float64\[7\] is needed"),
        ({"adam.m": np.ones(6, np.int64)}, r"'adam.m' is float64\[6\], int64\[6\] is needed"),
        ({"scale": np.ones(1, np.float16)}, r"'scale' is float16\[\], float16\[1\] is needed"),
    ],
)
def test_tensors_of_another_model_are_named(tmp_path, change, message):
    like = {k: v for k, v in {**arrays_of(0), **change}.items() if v is not None}
    with pytest.raises(files.CheckpointError, match=message):
        files.load(save(tmp_path, 1), like)


@pytest.mark.parametrize(
    ("state", "arrays", "keep", "error"),
    [
        ({}, {}, 1, ValueError),
        ({"step": -1}, {}, 1, ValueError),
        ({"step": True}, {}, 1, ValueError),
        ({"step": 1.0}, {}, 1, ValueError),
        ({"step": 1}, {}, 0, ValueError),
        ({"step": 1, "loss": float("nan")}, {}, 1, ValueError),
        ({"step": 1, "shape": (2, 3)}, {}, 1, TypeError),
        ({"step": 1, "by_id": {1: 2}}, {}, 1, TypeError),
        ({"step": 1, "rng": np.ones(2)}, {}, 1, TypeError),
        ({"step": 1}, {"x": np.array(["text"])}, 1, TypeError),
        ({"step": 1}, {"x": np.array([None])}, 1, TypeError),
        ({"step": 1}, {"x": np.ones(1, np.complex128)}, 1, TypeError),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(tmp_path, state, arrays, keep, error):
    with pytest.raises(error, match="save: |serializable|compliant"):
        files.save(tmp_path / "new", arrays, state, keep)
    assert not (tmp_path / "new").exists()
