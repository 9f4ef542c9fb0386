"""Kernels on the CPU: the same source through g++, a fiber a thread (cuda/emulation/emu.h).

    run(Launch(...), order=2)      raises EmulationError with the block and thread that went wrong

Needs g++ 11 or newer. A library is kept in the cache folder under a hash of all it depends on.
"""

import ctypes
import functools
import re
import shutil
import subprocess
from pathlib import Path

from backends.kernels.build import SOURCES, cache_folder, key_of, locked, source_text

__all__ = ["ORDERS", "EmulationError", "build", "library", "run", "seed", "size_of"]

ORDERS = (0, 1, 2, 3, 4)  # in step up, down; a warp at a time up, down; shuffled
FLAGS = ("-std=c++17", "-O1", "-fno-strict-aliasing", "-ffp-contract=off", "-Wall", "-Werror",
         "-Wno-unused-function", "-Wno-unused-variable", "-Wno-psabi", "-DEMU")  # fmt: skip
_KERNELS = re.compile(r"^KERNEL void (?:BOUNDS\([^)]*\) )?(\w+)\(", re.MULTILINE)


_PARAMETERS = re.compile(r"^KERNEL .*\bconst (?!TensorMap)(\w+) \w+\)", re.MULTILINE)


class EmulationError(RuntimeError):
    """A deadlock, a misaligned or stray shared address, a warp that diverged."""


def unit(program):
    """The C++ text that holds a program and an entry for each of its kernels."""
    text = source_text(program.source)
    exports = [f"EMU_EXPORT({name})" for name in _KERNELS.findall(text)]
    exports += [f"EMU_SIZE({name})" for name in _PARAMETERS.findall(text)]
    table = ", ".join(f'{{"{name}", run_{name}}}' for name in _KERNELS.findall(text))
    main = ["#ifdef EMU_MAIN", '#include "emulation/main.h"',
            f"int main(int n, char** args) {{ return emu::main_of({{{table}}}, n, args); }}", "#endif"]  # fmt: skip
    return "\n".join([f'#include "{program.source}.cu"', *dict.fromkeys(exports), "EMU_ERROR", *main, ""])


def gxx():
    """The path of g++.

    Raises
    ------
    RuntimeError
        There is none.
    """
    path = shutil.which("g++")
    if path is None:
        raise RuntimeError("emulation: g++ is not here; the kernels are tested by compiling them with it")
    return path


@functools.cache
def build(program, flags=FLAGS, kind="so"):
    """Path of a program's shared library, or of its executable (kind "exe": see emulation/main.h)."""
    texts = [p.read_text() for p in sorted((SOURCES / "emulation").iterdir())]
    name = key_of(program, unit(program), source_text(program.source), flags, kind, *texts)
    path = cache_folder() / f"{Path(program.source).name}-emu-{name}.{kind}"
    with locked(path):
        if not path.exists():
            shape = ["-fPIC", "-shared"] if kind == "so" else ["-DEMU_MAIN"]
            part = path.with_suffix(".part")
            command = [gxx(), *flags, *shape, *program.flags(), f"-I{SOURCES}", "-x", "c++", "-", "-o", str(part)]
            done = subprocess.run(command, input=unit(program), capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"emulation: g++ refuses {program}:\n{done.stderr}")
            part.replace(path)
    return path


@functools.cache
def library(program):
    """The loaded library of a program."""
    loaded = ctypes.CDLL(str(build(program)))
    loaded.emu_error.restype = ctypes.c_char_p
    return loaded


def seed(program, bug):
    """Choose a seeded bug of a program, 0 for none: see SEEDED in common.cuh."""
    library(program).emu_set_bug(bug)


def size_of(program, struct):
    """Bytes of a parameter struct, as g++ lays it out."""
    return getattr(library(program), f"size_of_{struct}")()


def run(launch, order=0):
    """Run one launch, whose pointers are addresses of NumPy arrays.

    Parameters
    ----------
    launch : Launch
    order : int
        Of the threads; see `launch` in cuda/emulation/emu.h.

    Raises
    ------
    EmulationError
        What went wrong, with its block and thread.
    """
    loaded = library(launch.program)
    grid = (ctypes.c_int * 3)(*(*launch.grid, 1, 1)[:3])
    args = (ctypes.c_void_p * len(launch.args))(*(a.ctypes.data for a in launch.args))
    entry = getattr(loaded, f"run_{launch.kernel}")
    if entry(grid, launch.threads, launch.shared, order, args):
        raise EmulationError(f"{launch.kernel}: {loaded.emu_error().decode()}")
