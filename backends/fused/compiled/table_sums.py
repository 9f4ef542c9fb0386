"""Sums over the rows and the columns of a table of words, modulo 2^64, in one pass.

The pass goes from the last block to the first: of what has just been written, the end is still in a cache.
"""

import numpy as np

from backends.fused.compiled._loop import loop

__all__ = ["table_sums"]

_BLOCK = 64  # rows


@loop("table[n m] -> rows[n], columns[m]", sums=True)
def _sums(table, rows, columns):
    for i in range(table.shape[0]):
        s = columns.dtype.type(0)
        for j in range(table.shape[1]):
            s += table[i, j]
            columns[j] += table[i, j]
        rows[i] = s


def table_sums(table):
    """(sum of each row, sum of each column) of uint64[n m]."""
    rows, columns = np.empty(len(table), np.uint64), np.zeros(table.shape[1], np.uint64)
    for i in reversed(range(0, len(table), _BLOCK)):
        _sums(table.dtype)(table[i : i + _BLOCK], rows[i : i + _BLOCK], columns)
    return rows, columns
