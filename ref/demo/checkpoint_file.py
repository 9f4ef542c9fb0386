"""Checkpoints that are never torn: safetensors files, written whole or not at all.

A save writes a temporary file in the same folder, makes its bytes durable (fsync), renames it over
the final name, and makes the rename durable (fsync of the folder). A rename within a folder is
atomic, so a process killed at any moment, or a machine that loses power, leaves the old files or
the old files and the new one.

    step-00001200.safetensors      tensors by name, and one metadata string "checkpoint":
                                   JSON {"state": ..., "crc32": {tensor: checksum of its bytes}}

One metadata string, because the order of several in the file is not fixed: the same training state
gives the same bytes. JSON keeps what has to come back exactly: Python integers of any size (a
generator's state) and floats (their shortest representation reads back to the same bits).
"""

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NAME = re.compile(r"step-(\d{8,})\.safetensors")
TEMPORARY = re.compile(r"\.step-\d{8,}\.safetensors\.tmp")
CHUNK = 1 << 20


class CheckpointError(ValueError):
    """A file that is not a whole checkpoint, or not one of this model; it says which tensor."""


class Checkpoint(NamedTuple):
    """Arrays by name, and the rest of the training state as JSON values."""

    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


def save(folder, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint for `state["step"]` and remove all but the newest `keep`.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    arrays : mapping of str to array
        Parameters, optimizer moments.
    state : mapping
        JSON values with an integer `step` >= 0: generator state, configuration, data position.
    keep : int
        Checkpoints left in the folder, this one among them, >= 1.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError, ValueError
        No usable step, keep < 1, a state that JSON cannot hold exactly, or an array whose dtype
        safetensors lacks. The folder is left as it was.
    OSError
        The file could not be written; the temporary file is removed.
    """
    step = state.get("step")
    if type(step) is not int or step < 0 or keep < 1:
        raise ValueError(f"save: step={step!r}, keep={keep}; an integer >= 0 and keep >= 1 needed")
    data = _encode(arrays, state)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08}.safetensors"
    temporary = folder / f".{path.name}.tmp"
    try:
        _write(temporary, data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(folder)
    for old in steps(folder)[:-keep] + [f for f in folder.iterdir() if TEMPORARY.fullmatch(f.name)]:
        if old != path:
            old.unlink(missing_ok=True)
    return path


def steps(folder) -> list[Path]:
    """Return the folder's checkpoints, the lowest step first; temporary files are not among them.

    >>> steps("no such folder")
    []
    """
    if not Path(folder).is_dir():
        return []
    found = ((NAME.fullmatch(path.name), path) for path in Path(folder).iterdir())
    return [path for _, path in sorted((int(m[1]), path) for m, path in found if m)]


def latest(folder) -> Path | None:
    """Return the checkpoint with the highest step, or None where there is none."""
    return (steps(folder) or [None])[-1]


def load(path, like: Mapping[str, np.ndarray] | None = None) -> Checkpoint:
    """Read a checkpoint; nothing is returned unless every byte of it is in order.

    Parameters
    ----------
    path : path
        A file that `save` wrote.
    like : mapping of str to array, optional
        The names, shapes and dtypes that are needed.

    Returns
    -------
    Checkpoint
        Fresh arrays.

    Raises
    ------
    CheckpointError
        The file is cut off, altered or of another kind, or its tensors are not those of `like`;
        the message names the tensor.
    FileNotFoundError
        There is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as decode

    data = Path(path).read_bytes()
    header = _header(path, data)
    try:
        arrays = decode(data)
        record = json.loads(header["__metadata__"]["checkpoint"])
        state, crc32 = dict(record["state"]), dict(record["crc32"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"load: {path} is not a checkpoint of this kind: {error!r}") from None
    for name in sorted(arrays.keys() | crc32.keys()):
        if name not in arrays or crc32.get(name) != _crc32(arrays[name]):
            raise CheckpointError(f"load: {path}: tensor {name!r} is not the one that was saved")
    if like is not None:
        _match(path, arrays, like)
    return Checkpoint(arrays, state)


def _encode(arrays, state):
    from safetensors import SafetensorError
    from safetensors.numpy import save as encode

    arrays = {name: _plain(name, a) for name, a in arrays.items()}
    crc32 = {name: _crc32(a) for name, a in arrays.items()}
    record = json.dumps({"state": dict(state), "crc32": crc32}, allow_nan=False)
    if json.loads(record)["state"] != dict(state):
        raise TypeError(
            "save: state has values that JSON alters (tuples, keys that are no strings)"
        )
    try:
        return encode(arrays, {"checkpoint": record})
    except (SafetensorError, KeyError) as error:
        raise TypeError(f"save: an array has a dtype that safetensors lacks: {error}") from None


def _plain(name, array):
    """The array in C order and the machine's byte order, as its bytes go into the file."""
    array = np.asarray(array, order="C")
    if array.dtype.kind not in "biufc":
        raise TypeError(f"save: array {name!r} is {array.dtype}; numbers or booleans are needed")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _crc32(array):
    return zlib.crc32(array.reshape(-1).view(np.uint8))


def _write(path, data):
    # os.write and no buffered file: what is durable after fsync is then exactly what was written.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest[:CHUNK]) :]
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(folder):
    if os.name == "posix":
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _header(path, data):
    """The safetensors header, once the file is known to hold every byte that it announces."""
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < max(start, 8):
        raise CheckpointError(f"load: {path} has {len(data)} bytes and ends within its header")
    try:
        header = json.loads(data[8:start])
        ends = {k: start + v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"}
        cut = sorted((end, name) for name, end in ends.items() if end > len(data))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise CheckpointError(f"load: {path} has no safetensors header: {error!r}") from None
    if cut:
        end, name = cut[0]
        raise CheckpointError(
            f"load: {path} has {len(data)} bytes and is cut off within tensor {name!r}, which ends "
            f"at byte {end}"
        )
    return header


def _match(path, arrays, like):
    missing, extra = sorted(like.keys() - arrays.keys()), sorted(arrays.keys() - like.keys())
    if missing or extra:
        raise CheckpointError(f"load: {path} lacks tensors {missing} and has unexpected {extra}")
    for name, wanted in like.items():
        if (arrays[name].shape, arrays[name].dtype) != (wanted.shape, wanted.dtype):
            raise CheckpointError(
                f"load: {path}: tensor {name!r} is {arrays[name].dtype}{list(arrays[name].shape)}, "
                f"{wanted.dtype}{list(wanted.shape)} is needed"
            )
