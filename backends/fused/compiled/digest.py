"""A digest of an array's words in one pass: sums over the rows and the columns of a table of them, modulo 2^64.

Of each, h <- (h xor s) M, h <- h xor h >> 32 for every sum s: the shift brings down what a product only pushes up, for
sums of numbers of few bits differ in their highest bits alone.
"""

import numpy as np

from backends.fused.compiled._loop import loop

__all__ = ["WIDTH", "digest"]

WIDTH = 1024  # words of a row
_MULTIPLIER = np.uint64(6364136223846793005)  # Knuth's, of MMIX
_HALF = np.uint64(32)
_WIDTH = np.int64(WIDTH)


@loop("words[n] -> out[2]", sums=True)
def _digest(words, out):
    columns = np.zeros(_WIDTH, np.uint64)
    of_rows = of_columns = np.uint64(0)
    for start in range(0, words.size, _WIDTH):
        row = words[start : start + _WIDTH]
        s = np.uint64(0)
        for j in range(row.size):
            s += row[j]
            columns[j] += row[j]
        of_rows = (of_rows ^ s) * _MULTIPLIER
        of_rows ^= of_rows >> _HALF
    for j in range(_WIDTH):
        of_columns = (of_columns ^ columns[j]) * _MULTIPLIER
        of_columns ^= of_columns >> _HALF
    out[0] = of_rows
    out[1] = of_columns


def digest(words):
    """16 bytes of uint64[n], in rows of WIDTH words, the last one short.

    Any one word changes it for sure; an exchange of words, rows or columns but by a chance of about 2^-64.
    """
    out = np.empty(2, np.uint64)
    _digest(words.dtype)(words, out)
    return out.tobytes()
