"""What the fused policy losses share: blocks of responses, and masked sums that survive junk."""

import numpy as np

from backends.fused.numpy._scratch import scratch
from backends.threads import run_tiles

_BLOCK = 512 * 1024  # bytes: a handful of such arrays stay in a level-2 cache


def by_rows(fn, mask, dtype):
    """Call fn(rows, keep, buffer) for blocks of rows; `keep` is the mask as numbers, buffer(name) a work array."""
    B, T = mask.shape
    step = max(1, _BLOCK // max(T * dtype.itemsize, 1))

    def tile(start):
        rows = slice(start, min(start + step, B))
        shape = (rows.stop - start, T)
        with scratch() as held:
            keep = held.take("keep", shape, dtype)
            np.copyto(keep, mask[rows])
            fn(rows, keep, lambda name, kind=dtype: held.take(name, shape, kind))

    with np.errstate(all="ignore"):
        run_tiles(tile, range(0, B, step))


def sums(x, keep, mask):
    """Masked sums of rows: a dot product with the mask; where that is not finite the junk is taken out first.

    x is contiguous, so that both ways add in the same order.
    """
    found = np.vecdot(x, keep)
    if not np.isfinite(found).all():
        found = np.vecdot(np.where(mask, x, x.dtype.type(0)), keep)
    return found


def plain_batch(log_probs, others, mask, weights=None):
    """Whether all are [B T] float arrays of one dtype with a bool mask, and weights[B] of the same dtype."""
    dtype = log_probs.dtype
    return (
        dtype in (np.float32, np.float64) and log_probs.ndim == 2 and mask.dtype == np.bool_
        and mask.shape == log_probs.shape and log_probs.shape[1] > 0
        and all(x.dtype == dtype and x.shape == log_probs.shape for x in others)
        and (weights is None or (weights.dtype == dtype and weights.shape == log_probs.shape[:1]))
    )  # fmt: skip


def spread(slope, of_row):
    """slope[*B T] times of_row[*B]; a slope of bools is a mask, which NumPy multiplies by at half the speed."""
    if slope.dtype != np.bool_:
        return slope * of_row[..., None]
    out = slope.astype(of_row.dtype)
    out *= of_row[..., None]
    return out
