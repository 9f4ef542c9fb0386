"""Root-mean-square normalisation (Zhang & Sennrich 2019, 1910.07467, Eq. 4).

    r = 1 / sqrt(mean_j x_j^2 + eps),   y = x r w
    dw = sum_rows g x r,   dx = r (g w - x r c),   c = mean_j (g w x r)_j

Saved: r.
"""

import numpy as np

from backends.fused.numpy._rows import by_blocks, column_sums, count_blocks, floats, rows_of

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it


def supports(x, weight, *, eps=1e-5, **others):
    """Whether `forward` takes these: float32 or float64, weight[d], no other option."""
    return (
        not others
        and weight is not None
        and floats(x, weight)
        and weight.shape == x.shape[-1:]
        and eps >= 0
    )


def forward(x, weight, *, eps=1e-5):
    """x[*B d], weight[d] -> y[*B d], (r[n],)."""
    flat = rows_of(x)
    y = np.empty(flat.shape, x.dtype)
    r = np.empty(len(flat), x.dtype)

    def rows(b, _):
        own = np.vecdot(flat[b], flat[b])
        own /= max(x.shape[-1], 1)
        own += x.dtype.type(eps)
        np.sqrt(own, out=own)
        np.reciprocal(own, out=own)
        r[b] = own
        np.multiply(flat[b], own[:, None], out=y[b])
        y[b] *= weight

    by_blocks(rows, *flat.shape)
    return y.reshape(x.shape), (r,)


def vjp(g, out, saved, needs, x, weight, *, eps=1e-5):
    """Cotangents of x and weight."""
    (r,) = saved
    d = x.shape[-1]
    flat, g = x.reshape(len(r), d), g.reshape(len(r), d)
    dx = np.empty(flat.shape, x.dtype) if needs[0] else None
    partial = np.zeros((count_blocks(*flat.shape), d), x.dtype)

    def rows(b, i):
        unit = flat[b] * r[b, None]
        t = unit * g[b]
        if needs[1]:
            partial[i] = column_sums(t)
        if dx is not None:
            c = t @ weight
            c /= d
            unit *= c[:, None]
            np.multiply(g[b], weight, out=dx[b])
            dx[b] -= unit
            dx[b] *= r[b, None]

    by_blocks(rows, *flat.shape)
    return (
        None if dx is None else dx.reshape(x.shape),
        partial.sum(0) if needs[1] else None,
    )

