"""What the collectives share: the array a rank works on, the order of operands, checks."""

from __future__ import annotations

import math

from backends.communicators import OPS, bounds, chunks


def working_copy(comm, function, x, out=None):
    """(result of the shape of x, its flat view), holding x: `out` if given, which may be x itself; else new.

    Raises
    ------
    TypeError
        x is no array, or out has another dtype.
    ValueError
        out has another shape or is not contiguous.
    """
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise TypeError(f"{function}: x is a {type(x).__name__}; needed an array")
    if out is None:
        flat = comm.empty(x, x.size)
        out = flat.reshape(x.shape)
    else:
        check_out(function, out, x.shape, x.dtype)
        flat = out.reshape(-1)
    if out is not x:
        comm.copy(x, out)
    return out, flat


def check_out(function, out, shape, dtype):
    """Raise unless `out` can take a result."""
    if tuple(out.shape) != tuple(shape) or not out.flags.c_contiguous:
        raise ValueError(f"{function}: out has shape {out.shape}; needed a contiguous array of shape {tuple(shape)}")
    if out.dtype != dtype:
        raise TypeError(f"{function}: out has dtype {out.dtype}, x has {dtype}; they must be the same")


def check_op(function, op):
    """Raise unless `op` names a reduction or is a function."""
    if not (callable(op) or op in OPS):
        raise ValueError(f"{function}: op {op!r}; needed one of {', '.join(OPS)}, or a function (left, right, *, out)")


def check_root(function, comm, root):
    """Raise unless `root` is a rank."""
    if not 0 <= root < comm.size:
        raise ValueError(f"{function}: root {root}; the communicator has ranks 0..{comm.size - 1}")


def combine_into(comm, op, mine, got, got_is_lower):
    """mine = op of the two, the partial result with the lower ranks in it on the left."""
    comm.combine(op, *((got, mine) if got_is_lower else (mine, got)), mine)


def cut_rows(function, x, n):
    """The n chunks of x along axis 0."""
    if not x.shape:
        raise ValueError(f"{function}: x has no axis to cut along; reshape it to one row")
    return chunks(x, n)


def gathered(comm, function, x, length, out):
    """(array for the rows of all ranks, its n blocks along axis 0), for an all-gather of x."""
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise TypeError(f"{function}: x is a {type(x).__name__}; needed an array")
    if not x.shape:
        raise ValueError(f"{function}: x has no axis to gather along; reshape it to one row")
    n, r = comm.size, comm.rank
    rows = x.shape[0] * n if length is None else length
    cut = bounds(rows, n)
    if cut[r + 1] - cut[r] != x.shape[0]:
        raise ValueError(
            f"{function}: x has {x.shape[0]} rows on rank {r} of {n}; length={length} gives it {cut[r + 1] - cut[r]}"
        )
    shape = (rows, *x.shape[1:])
    if out is None:
        out = comm.empty(x, math.prod(shape)).reshape(shape)
    else:
        check_out(function, out, shape, x.dtype)
    return out, chunks(out, n)
