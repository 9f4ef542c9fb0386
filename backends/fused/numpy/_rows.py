"""Forms that treat every row alone: blocks of rows that stay in cache, one tile each."""

import numpy as np

from backends.threads import run_tiles

_BLOCK = 64 * 1024  # elements of a block: 256 kB of float32, so a few of them share a cache


def by_blocks(fn, rows, width):
    """Call fn(block, i) for slices that cover `rows` rows of `width` elements."""
    step = max(1, _BLOCK // max(width, 1))
    blocks = [slice(i, min(i + step, rows)) for i in range(0, rows, step)]

    def tile(job):
        with np.errstate(all="ignore"):
            fn(job[1], job[0])

    run_tiles(tile, enumerate(blocks))


def count_blocks(rows, width):
    """How many blocks `by_blocks` makes: partial sums get a place each."""
    step = max(1, _BLOCK // max(width, 1))
    return -(-rows // step)


def rows_of(x):
    """x[*B d] as [n d]; d may be 0."""
    count = 1
    for n in x.shape[:-1]:
        count *= n
    return x.reshape(count, x.shape[-1])


def column_sums(x):
    """Sum over the rows of x[n d], by a GEMV."""
    return np.ones(len(x), x.dtype) @ x


def floats(*arrays):
    """Whether all arrays are float32 or all are float64."""
    dtype = arrays[0].dtype
    return dtype in (np.float32, np.float64) and all(
        x is not None and x.dtype == dtype for x in arrays
    )


def sigmoid(x, out):
    """1 / (1 + exp(-x)) into out; exp may overflow to inf, whose reciprocal is the right 0."""
    return np.reciprocal(_one_and_exp(x, out), out=out)


def gated(x, out):
    """x / (1 + exp(-x)) into out."""
    return np.divide(x, _one_and_exp(x, out), out=out)


def _one_and_exp(x, out):
    np.negative(x, out=out)
    np.exp(out, out=out)
    return np.add(out, 1, out=out)
