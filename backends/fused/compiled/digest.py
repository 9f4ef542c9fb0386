"""A digest of an array's words in one pass: sums over the rows and the columns of a table of them, modulo 2^64."""

import numpy as np

from backends.fused.compiled._loop import loop

__all__ = ["WIDTH", "digest"]

WIDTH = 1024  # words of a row
_MULTIPLIER = np.uint64(6364136223846793005)  # Knuth's, of MMIX
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
        of_rows = of_rows * _MULTIPLIER + s
    for j in range(_WIDTH):
        of_columns = of_columns * _MULTIPLIER + columns[j]
    out[0] = of_rows
    out[1] = of_columns


def digest(words):
    """16 bytes: polynomials modulo 2^64 in the sums of the rows and of the columns of uint64[n], the last row short.

    Two rows, columns or words that change places change it, and so does any one word.
    """
    out = np.empty(2, np.uint64)
    _digest(words.dtype)(words, out)
    return out.tobytes()
