"""CUDA kernels: sources, how they are compiled, and how they run with no GPU.

    cuda/          the kernels; common.cuh is their vocabulary, attention.cuh what attention is given
    cuda/emulation the same vocabulary in C++: a thread is a fiber, and g++ compiles the kernel
    build.py       cubins, by nvcc or by NVRTC, with the registers and spills that the assembler reports
    params.py      the parameter structs, read from the sources
    emulation.py   kernels on the CPU, called through ctypes
    device.py      where launches go: CuPy's device, or a stand-in
"""

from typing import NamedTuple

__all__ = ["FLOAT16", "BFLOAT16", "FLOAT32", "Launch", "Program"]

FLOAT32, FLOAT16, BFLOAT16 = 0, 1, 2  # STORAGE in common.cuh


class Program(NamedTuple):
    """A source under one set of macros: what is compiled at once."""

    source: str  # file in cuda/, without .cu
    macros: tuple = ()  # ((name, integer), ...)

    def flags(self):
        """-D flags of a compiler."""
        return [f"-D{name}={value}" for name, value in self.macros]

    def __str__(self):
        return " ".join([self.source, *(f"{name}={value}" for name, value in self.macros)])


class Launch(NamedTuple):
    """One kernel launch. `args` are NumPy arrays of one element, passed by value."""

    program: Program
    kernel: str
    grid: tuple
    threads: int
    shared: int  # bytes
    args: tuple
