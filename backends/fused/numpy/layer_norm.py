"""Layer normalisation (Ba et al. 2016, 1607.06450, Eq. 4); the variance divides by d.

    x' = (x - mean x) r,   r = 1 / sqrt(var x + eps),   y = x' w + b
    db = sum_rows g,   dw = sum_rows g x',   dx = r (g w - mean(g w) - x' mean(g w x'))

Saved: the mean and r.
"""

import numpy as np

from backends.fused.numpy._rows import by_blocks, column_sums, count_blocks, floats

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it


def supports(x, weight=None, bias=None, *, eps=1e-5, **others):
    """Whether `forward` takes these: float32 or float64, weight[d] and bias[d], no other option."""
    return (
        not others
        and weight is not None
        and bias is not None
        and floats(x, weight, bias)
        and weight.shape == bias.shape == x.shape[-1:]
        and eps >= 0
    )


def forward(x, weight, bias, *, eps=1e-5):
    """x[*B d], weight[d], bias[d] -> y[*B d], (mean[n], r[n])."""
    d = x.shape[-1]
    flat = x.reshape(int(np.prod(x.shape[:-1])), d)
    y = np.empty(flat.shape, x.dtype)
    mean, r = np.empty((2, len(flat)), x.dtype)

    def rows(b, _):
        np.add.reduce(flat[b], -1, out=mean[b])
        mean[b] /= max(d, 1)
        np.subtract(flat[b], mean[b, None], out=y[b])
        own = np.vecdot(y[b], y[b])
        own /= max(d, 1)
        own += x.dtype.type(eps)
        np.sqrt(own, out=own)
        np.reciprocal(own, out=own)
        r[b] = own
        y[b] *= own[:, None]
        y[b] *= weight
        y[b] += bias

    by_blocks(rows, *flat.shape)
    return y.reshape(x.shape), (mean, r)


def vjp(g, out, saved, needs, x, weight, bias, *, eps=1e-5):
    """Cotangents of x, weight and bias."""
    mean, r = saved
    d = x.shape[-1]
    flat, g = x.reshape(len(r), d), g.reshape(len(r), d)
    dx = np.empty(flat.shape, x.dtype) if needs[0] else None
    dw, db = np.zeros((2, count_blocks(*flat.shape), d), x.dtype)

    def rows(b, i):
        unit = flat[b] - mean[b, None]
        unit *= r[b, None]
        t = unit * g[b]
        if needs[1]:
            dw[i] = column_sums(t)
        if needs[2]:
            db[i] = column_sums(g[b])
        if dx is not None:
            c = t @ weight
            c /= d
            unit *= c[:, None]
            shift = g[b] @ weight
            shift /= d
            np.multiply(g[b], weight, out=dx[b])
            dx[b] -= shift[:, None]
            dx[b] -= unit
            dx[b] *= r[b, None]

    by_blocks(rows, *flat.shape)
    return (
        None if dx is None else dx.reshape(x.shape),
        dw.sum(0) if needs[1] else None,
        db.sum(0) if needs[2] else None,
    )
