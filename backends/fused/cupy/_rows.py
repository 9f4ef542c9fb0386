"""What the launchers of row kernels share: flat contiguous arrays, and how many threads a row is worth."""

import math

from backends.kernels import Launch, Program
from backends.kernels.device import storage
from backends.kernels.params import fill, struct

__all__ = ["flat", "is_whole", "launch", "threads_for"]


def flat(xp, x):
    """x[*B d] as a contiguous [rows d]."""
    return xp.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def threads_for(d, itemsize):
    """A multiple of 32: each thread takes 16 bytes a turn, and four turns before there are more threads."""
    wanted = -(-d * itemsize // (16 * 4))
    return min(1024, max(32, -(-wanted // 32) * 32))


def is_whole(device, row_bytes, *arrays):
    """Whether every row starts at a multiple of 16 bytes, so that 16-byte accesses are allowed."""
    return int(row_bytes % 16 == 0 and all(device.pointer(x) % 16 == 0 for x in arrays if x is not None))


def launch(device, source, name, kernel, grid, threads, shared, values, dtype):
    """Enqueue a kernel of `source`, compiled for a storage dtype, with its struct `name`."""
    program = Program(source, (("STORAGE", storage(dtype)),))
    args = (fill(struct(source, name), values, device.pointer),)
    device.launch(Launch(program, kernel, grid, threads, shared, args))
