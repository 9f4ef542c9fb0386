"""Loops that Numba compiles, where it is installed: one pass over memory where NumPy's functions take several.

    @loop("x[n], keep:bool[n], by -> out[n]")
    def scaled(x, keep, by, out):
        for i in range(x.size):
            out[i] = by * x[i] if keep[i] else by * 0

    scaled(x.dtype)(x, keep, x.dtype.type(2), out)

The text names the arguments: arrays with their axes, numbers of the arrays' dtype without, and behind the arrow what is
written (it may be read too). Arrays are C-contiguous; `plain` makes them so. A loop is compiled once for a dtype and
kept on disk beside its module.

Conventions
  C1  A multiply and an add are two roundings, as in NumPy, and of `loop(fma=True)` alone one; either way an element
      has the same bits wherever it lies.
  C2  Of `loop(sums=True)` alone sums and products may be taken in another order, which the lengths of the loops decide.
"""

import functools
import os

import numpy as np

from backends.fused.numpy._rows import by_blocks
from backends.threads import num_threads

__all__ = ["available", "by_rows", "loop", "plain", "takes"]


@functools.cache
def available():
    """Whether loops can be compiled: Numba can be imported, and CLOSEDFORM_COMPILED is not 0."""
    if os.environ.get("CLOSEDFORM_COMPILED", "1") == "0":
        return False
    try:
        import numba  # noqa: F401
    except ImportError:  # absent, or not for this NumPy
        return False
    return True


def loop(text, *, sums=False, fma=False):
    """Decorator: the function as of(dtype) -> compiled function; `fma` and `sums` as C1 and C2 have them."""
    fast = {"reassoc"} if sums else {"contract"} if fma else False
    return functools.partial(_declared, text, fast)


def _declared(text, fast, function):
    @functools.cache
    def of(dtype):
        import numba

        number = numba.from_dtype(np.dtype(dtype))
        read, written = text.split(" -> ")
        kinds = [_type(numba.types, x, number, True) for x in read.split(", ")]
        kinds += [_type(numba.types, x, number, False) for x in written.split(", ")]
        how = {"nogil": True, "error_model": "numpy", "fastmath": fast}
        try:
            return numba.njit(numba.void(*kinds), cache=True, **how)(function)
        except RuntimeError:  # no folder to keep it in may be written
            return numba.njit(numba.void(*kinds), **how)(function)

    return of


def _type(types, said, number, readonly):
    """Numba's type of "x[B T]" and its like."""
    name, bracket, axes = said.partition("[")
    if not bracket:
        return number
    return types.Array(types.boolean if name.endswith(":bool") else number, len(axes.split()), "C", readonly=readonly)


def plain(x):
    """x, or a copy that is contiguous and aligned."""
    return x if x.flags.c_contiguous and x.flags.aligned else np.array(x, order="C")


def takes(*arrays):
    """Whether loops can be compiled, and over these arrays: float32 or float64, and aligned."""
    return available() and all(x.dtype in (np.float32, np.float64) and x.flags.aligned for x in arrays)


def by_rows(run, *arrays):
    """run(*arrays), in blocks of rows where there are threads to share them; the first array is [n T] or [n]."""
    if num_threads() == 1:
        run(*arrays)
    else:
        n, width = len(arrays[0]), arrays[0].shape[-1] if arrays[0].ndim > 1 else 1
        by_blocks(lambda rows, _: run(*[a if a is None else a[rows] for a in arrays]), n, width)
