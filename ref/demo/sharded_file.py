"""Checkpoints of many ranks: each writes its own shard, one rename commits them all.

    folder/manifest.json                     names one directory, its shards, their sizes and checksums, and the state
    folder/step-00000050/shard-2-of-4.safetensors

A save writes every shard into a directory that did not exist, makes the files and the directory durable (fsync), waits
until all ranks have done so, and then rank 0 renames a new manifest over the old one. The loader trusts the manifest
alone. So whoever is killed at whatever moment leaves the old checkpoint or the new one, never a mixture; a directory
that no manifest names is what a killed save left, and the next save removes it.

A rank that cannot write (a full disk) says so before the commit: then all ranks raise, and the old checkpoint stands.
Rows are cut evenly, so that any number of ranks can read what another number wrote (`distributed.reshard`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ref.demo import checkpoint_file as files
from ref.demo.checkpoint_file import CheckpointError
from ref.distributed.reshard import reshard

MANIFEST = "manifest.json"
DIRECTORY = re.compile(r"step-\d{8,}(\.\d+)?")


class Loaded(NamedTuple):
    """This rank's rows of each array, and the state."""

    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


def save(comm, folder, arrays, rows, state):
    """Write a checkpoint of all ranks; every rank calls it.

    Parameters
    ----------
    comm : Communicator
    folder : path
        The same on every rank; made if it does not exist.
    arrays : {name: array}
        This rank's rows, cut evenly along axis 0.
    rows : {name: int}
        Rows of all ranks together.
    state : mapping
        JSON values with an integer `step` >= 0; rank 0's counts.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    OSError, TypeError, ValueError
        On the rank where it happened; RankFailed, which names it, on the others. The old checkpoint stands.
    """
    folder, n, r = Path(folder), comm.size, comm.rank
    directory, data = None, None
    with together(comm):
        if type(state.get("step")) is not int or state["step"] < 0:
            raise ValueError(f"save: step={state.get('step')!r}; needed an integer >= 0")
        if json.loads(_text(dict(state))) != dict(state):
            raise TypeError("save: state has values that JSON alters (tuples, keys that are no strings)")
        data = files._encode(arrays, {"rank": r, "ranks": n})
        if r == 0:
            directory = _fresh(folder, state["step"])
    directory = comm.share(directory)[0]
    name, crc = f"shard-{r}-of-{n}.safetensors", zlib.crc32(data)
    with together(comm):
        files._write(directory / name, data)
        files._sync_folder(directory)
    shards = comm.share({"file": name, "bytes": len(data), "crc32": crc})
    with together(comm):
        if r == 0:
            record = {"directory": directory.name, "rows": dict(rows), "shards": shards, "state": dict(state)}
            _commit(folder, record)
    return directory


def load(comm, folder):
    """This rank's part of the committed checkpoint; every rank calls it.

    Returns
    -------
    Loaded or None
        None where nothing was committed.

    Raises
    ------
    CheckpointError
        The manifest is damaged, or a shard is missing, cut off or altered; the message names the file. RankFailed on
        the ranks that did not need it.
    """
    folder, record, found = Path(folder), None, None
    with together(comm):
        record = manifest(folder) if comm.rank == 0 else None
    record = comm.share(record)[0]
    if record is None:
        return None
    with together(comm):
        found = _read(folder / record["directory"], record, comm.size, comm.rank)
    return Loaded(found, record["state"])


def manifest(folder):
    """What the manifest says, or None where there is none."""
    path = Path(folder) / MANIFEST
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        record = json.loads(text)
        body = {k: record[k] for k in ("directory", "rows", "shards", "state")}
        if record["crc32"] != zlib.crc32(_text(body).encode()):
            raise ValueError("its checksum is another")
    except (ValueError, TypeError, LookupError) as error:
        raise CheckpointError(f"load: {path} is no manifest of this kind: {error!r}") from None
    return body


class together:  # noqa: N801  a context manager, spelt as a function
    """Context of one phase: what one rank raises inside, all raise after it."""

    def __init__(self, comm):
        self.comm = comm

    def __enter__(self):
        pass

    def __exit__(self, kind, error, trace):
        if error is not None and not isinstance(error, Exception):
            return False  # an interrupt or an exit: this rank goes at once
        self.comm.agree(error)
        return False


def _fresh(folder, step):
    """A new directory for a step; what earlier saves left without committing is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    name, k = f"step-{step:08}", 0
    while True:
        directory = folder / (name if k == 0 else f"{name}.{k}")
        try:
            directory.mkdir()
            return directory
        except FileExistsError:
            k += 1


def _sweep(folder):
    """Remove all directories of checkpoints but the committed one."""
    record = manifest(folder)
    kept = record and record["directory"]
    for path in folder.iterdir():
        if DIRECTORY.fullmatch(path.name) and path.name != kept and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _text(body):
    return json.dumps(body, sort_keys=True, allow_nan=False)


def _commit(folder, body):
    """One rename makes the directory the checkpoint."""
    data = _text({**body, "crc32": zlib.crc32(_text(body).encode())}).encode()
    temporary = folder / f".{MANIFEST}.tmp"
    try:
        files._write(temporary, data)
        os.replace(temporary, folder / MANIFEST)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    files._sync_folder(folder)
    _sweep(folder)


def _read(directory, record, ranks, rank):
    """{name: this rank's rows}; only the shards that have some are opened."""
    from safetensors.numpy import load as decode

    shards, opened, found = record["shards"], {}, {}

    def shard(i):
        if i not in opened:
            path, said = directory / shards[i]["file"], shards[i]
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                raise CheckpointError(f"load: the file of rank {i} is missing: {path}") from None
            if len(data) != said["bytes"] or zlib.crc32(data) != said["crc32"]:
                raise CheckpointError(
                    f"load: {path} is not what rank {i} saved: {len(data)} bytes of {said['bytes']}, or other ones"
                )
            opened[i] = decode(data)
        return opened[i]

    for name, rows in record["rows"].items():
        pieces = reshard(rows, len(shards), ranks, rank) or [(0, 0, 0)]  # no rows: still a shape and a dtype
        try:
            found[name] = np.concatenate([shard(i)[name][a:b] for i, a, b in pieces])
        except KeyError:
            raise CheckpointError(f"load: {directory} has no array {name!r} in a shard that needs it") from None
    return found
