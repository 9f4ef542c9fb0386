"""Layer normalisation: each row three times while it is in the first cache, there; twice, back.

The equations are those of backends/fused/numpy/layer_norm.py. Saved: the mean and r.
"""

import numpy as np

from backends.fused.compiled._loop import by_rows, loop, plain
from backends.fused.numpy._rows import by_blocks, count_blocks, rows_of
from backends.fused.numpy.layer_norm import READS_OUTPUT, supports

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]


@loop("x[n d], weight[d], bias[d], eps, count -> y[n d], mean[n], r[n]", sums=True)
def _normed(x, weight, bias, eps, count, y, mean, r):
    zero = y.dtype.type(0)
    for i in range(x.shape[0]):
        s = zero
        for j in range(x.shape[1]):
            s += x[i, j]
        m = s / count
        s = zero
        for j in range(x.shape[1]):
            s += (x[i, j] - m) * (x[i, j] - m)
        by = y.dtype.type(1) / np.sqrt(s / count + eps)
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - m) * by * weight[j] + bias[j]
        mean[i] = m
        r[i] = by


@loop("g[n d], x[n d], weight[d], mean[n], r[n], count -> dx[n d], dw[d], db[d]", sums=True)
def _back(g, x, weight, mean, r, count, dx, dw, db):
    zero = dx.dtype.type(0)
    for i in range(x.shape[0]):
        m, by = mean[i], r[i]
        shift = along = zero
        for j in range(x.shape[1]):
            unit = (x[i, j] - m) * by
            dw[j] += unit * g[i, j]
            db[j] += g[i, j]
            shift += g[i, j] * weight[j]
            along += unit * g[i, j] * weight[j]
        shift, along = shift / count, along / count
        for j in range(x.shape[1]):
            dx[i, j] = (g[i, j] * weight[j] - shift - (x[i, j] - m) * by * along) * by


def forward(x, weight, bias, *, eps=1e-5):
    """x[*B d], weight[d], bias[d] -> y[*B d], (mean[n], r[n])."""
    dtype, flat = x.dtype, rows_of(plain(x))
    y, mean, r = np.empty(flat.shape, dtype), np.empty(len(flat), dtype), np.empty(len(flat), dtype)
    weight, bias = plain(weight), plain(bias)
    numbers = dtype.type(eps), dtype.type(max(flat.shape[1], 1))
    by_rows(lambda x, y, mean, r: _normed(dtype)(x, weight, bias, *numbers, y, mean, r), flat, y, mean, r)
    return y.reshape(x.shape), (mean, r)


def vjp(g, out, saved, needs, x, weight, bias, *, eps=1e-5):
    """Cotangents of x, weight and bias."""
    (mean, r), dtype = saved, x.dtype
    flat, g, weight = rows_of(plain(x)), rows_of(plain(g)), plain(weight)
    dx = np.empty(flat.shape, dtype)
    dw, db = np.zeros((2, count_blocks(*flat.shape), flat.shape[1]), dtype)
    count = dtype.type(max(flat.shape[1], 1))

    def rows(b, i):
        _back(dtype)(g[b], flat[b], weight, mean[b], r[b], count, dx[b], dw[i], db[i])

    by_blocks(rows, *flat.shape)
    found = dx.reshape(x.shape), dw.sum(0), db.sum(0)
    return tuple(c if needed else None for c, needed in zip(found, needs, strict=True))
