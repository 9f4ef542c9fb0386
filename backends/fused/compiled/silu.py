"""SiLU in float32: one pass there and one back."""

import numpy as np

from backends.fused.compiled._gates import silu, silu_slope
from backends.fused.compiled._loop import by_rows, plain

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it


def supports(x, **others):
    """Whether `forward` takes it: float32, no option; float64 is left to NumPy's exponential."""
    return not others and x.dtype == np.float32


def forward(x):
    """x[*B] -> silu(x), ()."""
    y = np.empty(x.shape, x.dtype)
    by_rows(silu(x.dtype), plain(x).reshape(-1), y.reshape(-1))
    return y, ()


def vjp(g, out, saved, needs, x):
    """Cotangent of x."""
    dx = np.empty(x.shape, x.dtype)
    by_rows(silu_slope(x.dtype), plain(x).reshape(-1), plain(g).reshape(-1), dx.reshape(-1))
    return (dx,)
