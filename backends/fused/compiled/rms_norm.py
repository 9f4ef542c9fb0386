"""Root-mean-square normalisation: each row twice while it is in the first cache, there and back.

The equations are those of backends/fused/numpy/rms_norm.py. Saved: r.
"""

import numpy as np

from backends.fused.compiled._loop import by_rows, loop, plain
from backends.fused.numpy._rows import by_blocks, count_blocks, rows_of
from backends.fused.numpy.rms_norm import READS_OUTPUT, supports

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]


@loop("x[n d], weight[d], eps, count -> y[n d], r[n]", sums=True)
def _normed(x, weight, eps, count, y, r):
    for i in range(x.shape[0]):
        s = y.dtype.type(0)
        for j in range(x.shape[1]):
            s += x[i, j] * x[i, j]
        by = y.dtype.type(1) / np.sqrt(s / count + eps)
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] * by * weight[j]
        r[i] = by


@loop("g[n d], x[n d], weight[d], r[n], count -> dx[n d], dw[d]", sums=True)
def _back(g, x, weight, r, count, dx, dw):
    for i in range(x.shape[0]):
        by = r[i]
        along = dx.dtype.type(0)
        for j in range(x.shape[1]):
            t = x[i, j] * by * g[i, j]
            dw[j] += t
            along += t * weight[j]
        along = along / count
        for j in range(x.shape[1]):
            dx[i, j] = (g[i, j] * weight[j] - x[i, j] * by * along) * by


def forward(x, weight, *, eps=1e-5):
    """x[*B d], weight[d] -> y[*B d], (r[n],)."""
    dtype, flat, weight = x.dtype, rows_of(plain(x)), plain(weight)
    y, r = np.empty(flat.shape, dtype), np.empty(len(flat), dtype)
    numbers = dtype.type(eps), dtype.type(max(flat.shape[1], 1))
    by_rows(lambda x, y, r: _normed(dtype)(x, weight, *numbers, y, r), flat, y, r)
    return y.reshape(x.shape), (r,)


def vjp(g, out, saved, needs, x, weight, *, eps=1e-5):
    """Cotangents of x and weight."""
    (r,), dtype = saved, x.dtype
    flat, g, weight = rows_of(plain(x)), rows_of(plain(g)), plain(weight)
    dx, dw = np.empty(flat.shape, dtype), np.zeros((count_blocks(*flat.shape), flat.shape[1]), dtype)
    count = dtype.type(max(flat.shape[1], 1))

    def rows(b, i):
        _back(dtype)(g[b], flat[b], weight, r[b], count, dx[b], dw[i])

    by_blocks(rows, *flat.shape)
    return dx.reshape(x.shape) if needs[0] else None, dw.sum(0) if needs[1] else None
