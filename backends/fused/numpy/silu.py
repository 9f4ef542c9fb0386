"""SiLU (Elfwing, Uchibe & Doya 2017, 1702.03118): x s, s = 1 / (1 + e^{-x}); d/dx = s (1 + x (1 - s)).

Nothing is saved: the sigmoid costs less again than the memory it would hold.
"""

import numpy as np

from backends.fused.numpy._rows import by_blocks, floats, gated, sigmoid

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it


def supports(x, **others):
    """Whether `forward` takes it: float32 or float64, no option."""
    return not others and floats(x)


def forward(x):
    """x[*B] -> silu(x), ()."""
    flat = x.reshape(-1)
    y = np.empty(flat.shape, x.dtype)

    by_blocks(lambda r, _: gated(flat[r], y[r]), flat.size, 1)
    return y.reshape(x.shape), ()


def vjp(g, out, saved, needs, x):
    """Cotangent of x."""
    if not needs[0]:
        return (None,)
    flat, g = x.reshape(-1), g.reshape(-1)
    dx = np.empty(flat.shape, x.dtype)

    def part(r, _):
        d = dx[r]
        s = sigmoid(flat[r], np.empty(d.shape, d.dtype))
        np.subtract(1, s, out=d)
        d *= flat[r]
        d += 1
        d *= s
        d *= g[r]

    by_blocks(part, flat.size, 1)
    return (dx.reshape(x.shape),)
