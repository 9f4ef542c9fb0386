"""Cubins from the kernel sources, with no GPU: by nvcc where it is installed, else by NVRTC.

A cubin is kept in the cache folder under a hash of everything it depends on, its compiler's version
included. The assembler's report (registers, shared memory, spills) is kept beside it.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from backends.kernels import Program, nvrtc

__all__ = ["Cubin", "Usage", "cache_folder", "cubin", "source_text"]

SOURCES = Path(__file__).resolve().parent / "cuda"
OPTIONS = ("-std=c++17", "-diag-suppress=177")  # 177: a constant that one kernel of several uses


class Usage(NamedTuple):
    """What the assembler says of one kernel."""

    registers: int
    stack: int  # bytes
    spills: int  # bytes stored and loaded


class Cubin(NamedTuple):
    """A compiled program."""

    path: Path
    log: str
    usage: dict  # kernel -> Usage


def source_text(name):
    """The source of `name`.cu with its own includes put in: one text that includes nothing."""
    seen = set()

    def expand(file):
        if file in seen:
            return ""
        seen.add(file)
        text = (SOURCES / file).read_text()
        return re.sub(r'^#include "(\w+\.cuh)"$', lambda m: expand(m[1]), text, flags=re.MULTILINE)

    return expand(f"{name}.cu").replace("#pragma once\n", "")


def cache_folder():
    """CLOSEDFORM_CACHE, or build/kernels of a checkout, or a folder of the user's."""
    chosen = os.environ.get("CLOSEDFORM_CACHE")
    root = Path(__file__).resolve().parents[2]
    if chosen:
        folder = Path(chosen)
    elif (root / "pyproject.toml").exists():
        folder = root / "build/kernels"
    else:
        folder = Path.home() / ".cache/closedform/kernels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def key_of(*parts):
    """A file name's worth of hash."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:24]


@contextlib.contextmanager
def locked(path):
    """Held by one process at a time: two test workers do not build the same thing."""
    with open(f"{path}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def nvcc():
    """The path of nvcc, or None."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc") or (shutil.which("nvcc", path=f"{home}/bin") if home else None)


@functools.cache
def compiler():
    """(name and version, function (text, program, arch, output) -> log) of the compiler in use.

    Raises
    ------
    RuntimeError
        There is neither nvcc nor NVRTC.
    """
    if path := nvcc():
        version = subprocess.run([path, "--version"], check=True, capture_output=True, text=True)
        return f"nvcc {version.stdout.splitlines()[-1]}", functools.partial(_by_nvcc, path)
    return f"nvrtc {nvrtc.version()}", _by_nvrtc


def cubin(program: Program, arch: str) -> Cubin:
    """The compiled program.

    Parameters
    ----------
    program : Program
    arch : str
        "sm_80", "sm_90a", ...

    Returns
    -------
    Cubin

    Raises
    ------
    RuntimeError
        The compiler refuses the source (its words are in the message), or there is none.
    """
    name, build = compiler()
    text = source_text(program.source)
    path = cache_folder() / f"{program.source}-{arch}-{key_of(name, text, program, arch, OPTIONS)}.cubin"
    report = path.with_suffix(".log")
    if not report.exists():
        with locked(path):
            if not report.exists():
                _write(report, build(text, program, arch, path))
    log = report.read_text()
    return Cubin(path, log, usage_of(log))


def _write(path, text):
    """All of it or nothing: a reader sees no half of a file."""
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(text)
    part.replace(path)


def _by_nvcc(nvcc_path, text, program, arch, path):
    source = path.with_suffix(".cu")
    source.write_text(text)
    command = [nvcc_path, *OPTIONS, "-O3", f"-arch={arch}", "-cubin", "-Xptxas", "-v", *program.flags(),
               str(source), "-o", str(path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    source.unlink()
    if done.returncode:
        raise RuntimeError(f"cubin: nvcc refuses {program} for {arch}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _by_nvrtc(text, program, arch, path):
    options = [*OPTIONS, f"--gpu-architecture={arch}", "--ptxas-options=-v", *program.flags()]
    image, log = nvrtc.compile_cubin(text, f"{program.source}.cu", options)
    path.write_bytes(image)
    return log


_ENTRY = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers",
    re.DOTALL,
)


def usage_of(log):
    """{kernel: Usage} from the assembler's report."""
    return {
        name: Usage(int(registers), int(stack), int(stores) + int(loads))
        for name, stack, stores, loads, registers in _ENTRY.findall(log)
    }


def report(programs, arch):
    """Lines of JSON, a kernel each, for notes and charts."""
    for program in programs:
        for kernel, usage in cubin(program, arch).usage.items():
            yield json.dumps({"program": str(program), "arch": arch, "kernel": kernel, **usage._asdict()})
