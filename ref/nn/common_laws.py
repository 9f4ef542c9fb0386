"""What the laws of the layers share: oracles in plain NumPy and their bounds."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds


def f64(c, *names):
    """Arrays of the case in float64."""
    return [np.asarray(c[n], np.float64) for n in names]


def cotangent(c, shape):
    """A fixed cotangent of the given shape, no two entries alike."""
    n = int(np.prod(shape, dtype=np.int64))
    return np.cos(1.0 + np.arange(n)).reshape(shape).astype(c.dtype)


def row_products(a, b):
    """Sum over the channels of each row, the axis kept."""
    return np.sum(a * b, -1, keepdims=True)


def column_sum(x):
    """x[*B d] -> [d], summed over all rows."""
    return x.reshape(-1, x.shape[-1]).sum(0) if x.size else np.zeros(x.shape[-1])


def roundings(c, n, magnitude):
    """`bounds.rounding` in the dtype of the case."""
    return bounds.rounding(n, magnitude, c.dtype)


def rows_alone(c, impl, name, expect, bound, scale):
    """Each row of argument `name` given alone has the output it has among the others."""
    out, x = impl(c), c[name]
    for at in np.ndindex(x.shape[:-1]):
        alone = impl(c.replace(**{name: x[at][None].copy(), "B": (1,)}))
        expect(alone[0], out[at], bound[at], f"row {at}", scale)
