"""Masked rows in one pass: their sums, and the way back. What is masked is not looked at: junk there is no matter."""

import numpy as np

from backends.fused.compiled._loop import by_rows, loop, plain

__all__ = ["counts", "masked_sums", "scaled", "spread"]


@loop("x[n T], mask:bool[n T] -> total[n]", sums=True)
def _sums(x, mask, total):
    zero = total.dtype.type(0)
    for i in range(x.shape[0]):
        s = zero
        for t in range(x.shape[1]):
            s += x[i, t] if mask[i, t] else zero
        total[i] = s


@loop("x[n T], y[n T], mask:bool[n T] -> total[n]", sums=True)
def _differences(x, y, mask, total):
    zero = total.dtype.type(0)
    for i in range(x.shape[0]):
        s = zero
        for t in range(x.shape[1]):
            s += x[i, t] - y[i, t] if mask[i, t] else zero
        total[i] = s


@loop("mask:bool[n T] -> kept[n]", sums=True)
def _counts(mask, kept):
    for i in range(mask.shape[0]):
        n = 0
        for t in range(mask.shape[1]):
            n += mask[i, t]
        kept[i] = n


@loop("mask:bool[n T], of_row[n] -> out[n T]")
def _spread(mask, of_row, out):
    zero = out.dtype.type(0)
    for i in range(mask.shape[0]):
        own = of_row[i]
        for t in range(mask.shape[1]):
            out[i, t] = own if mask[i, t] else zero


@loop("slope[n T], of_row[n] -> out[n T]")
def _scaled(slope, of_row, out):
    for i in range(slope.shape[0]):
        own = of_row[i]
        for t in range(slope.shape[1]):
            out[i, t] = slope[i, t] * own


def masked_sums(x, mask, less=None):
    """Sum over the kept tokens of x[n T], or of x - less."""
    total = np.empty(len(mask), x.dtype)
    arrays = [plain(a) for a in ((x, mask) if less is None else (x, less, mask))]
    sums = (_sums if less is None else _differences)(x.dtype)
    by_rows(sums, *arrays, total)
    return total


def counts(mask, dtype):
    """How many tokens each row of mask[n T] keeps, as numbers of a dtype."""
    kept = np.empty(len(mask), dtype)
    by_rows(_counts(dtype), plain(mask), kept)
    return kept


def spread(mask, of_row):
    """of_row[n] at the kept tokens of mask[n T], else 0."""
    return _by_row(_spread, mask, of_row)


def scaled(slope, of_row):
    """slope[n T] times of_row[n]."""
    return _by_row(_scaled, slope, of_row)


def _by_row(loop_of, x, of_row):
    out = np.empty(x.shape, of_row.dtype)
    by_rows(loop_of(of_row.dtype), plain(x), plain(of_row), out)
    return out
