"""What the collectives share: the array a rank works on, the order of operands, checks."""

from __future__ import annotations

import math

import numpy as np

from backends.communicators import OPS, bounds, chunks, on_ranks
from backends.communicators.collective import stacked

# What cotangents are of: the sum of every rank's own loss, or one loss that all ranks compute alike.
ADJOINTS = ("sum_of_losses", "one_loss")


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


def check_adjoint(function, adjoint):
    """Raise unless `adjoint` names a convention."""
    if adjoint not in ADJOINTS:
        raise ValueError(f"{function}: adjoint {adjoint!r}; needed one of {', '.join(ADJOINTS)}")


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


def own_range(comm, function, own, length=None, *, names):
    """(first, one past the last) of the `length` entries that this rank has, `own` of them; n `own` if not given.

    Raises
    ------
    ValueError
        The cut of `length` gives this rank another number; the message calls them by `names`, (own, length).
    """
    n, r = comm.size, comm.rank
    cut = bounds(own * n if length is None else length, n)
    if cut[r + 1] - cut[r] != own:
        raise ValueError(
            f"{function}: rank {r} of {n} has {names[0]}={own} of {names[1]}={length}; needed {cut[r + 1] - cut[r]}"
        )
    return cut[r], cut[r + 1]


def on_tensors(*names):
    """Decorator of f(comm, *arrays, **options) that takes Tensors: callable on a world, with a vjp there too.

    Parameters
    ----------
    *names : str
        The positional parameters that carry gradients, from the first one after comm on; None or trees too.

    The vjp, vjp(g, world, *arrays, **options), runs forward and backward on every rank at once, rank r from g[r], and
    gives the stacked cotangents in the order of the names: backward on one rank alone would wait for ever.
    """

    def decorate(function):
        call = on_ranks(function)

        def vjp_on_world(g, world, *arrays, **options):
            def program(comm):
                return _pulled(function, comm, g, arrays, len(names), options)

            found = zip(arrays, zip(*world.run(program), strict=True), strict=False)
            return tuple(
                a if a is None else stacked(list(c)) if isinstance(a, np.ndarray) else list(c) for a, c in found
            )

        call.vjp = vjp_on_world
        return call

    return decorate


def _pulled(function, comm, g, arrays, count, options):
    """Cotangents of the first `count` arrays on this rank."""
    from autodiff import raw, vjp  # a rank of eight that moves bytes alone starts faster without
    from autodiff.tree import tree_map

    r = comm.rank
    mine = [a if a is None else a[r] for a in arrays]

    def of_differentiable(*values):
        return function(comm, *values, *mine[count:], **options)

    out, pull = vjp(of_differentiable, *mine[:count])
    g = tuple(part[r] for part in g) if isinstance(out, tuple) else g[r]
    return tuple(tree_map(lambda a: np.asarray(raw(a)), c) for c in pull(g))
