"""SwiGLU's gate (Shazeer 2020, 2002.05202): silu(a) b, silu(a) = a s, s = 1 / (1 + e^{-a}).

    db = g a s,   da = g b s (1 + a (1 - s))

Nothing is saved: the sigmoid costs less again than the memory it would hold. It goes by exp, not by
tanh, whose 1 + tanh loses every digit of s where a is very negative.
"""

import numpy as np

from backends.fused.numpy._rows import by_blocks, floats, gated, sigmoid

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it


def supports(gate, up, **others):
    """Whether `forward` takes these: float32 or float64, equal shapes, no option."""
    return not others and floats(gate, up) and gate.shape == up.shape


def forward(gate, up):
    """gate[*B F], up[*B F] -> silu(gate) * up, ()."""
    a, b = gate.reshape(-1), up.reshape(-1)
    y = np.empty(a.shape, a.dtype)

    def part(r, _):
        gated(a[r], y[r])
        y[r] *= b[r]

    by_blocks(part, a.size, 1)
    return y.reshape(gate.shape), ()


def vjp(g, out, saved, needs, gate, up):
    """Cotangents of gate and up."""
    a, b, g = gate.reshape(-1), up.reshape(-1), g.reshape(-1)
    da = np.empty(a.shape, a.dtype) if needs[0] else None
    db = np.empty(a.shape, a.dtype) if needs[1] else None

    def part(r, _):
        s = sigmoid(a[r], np.empty(a[r].shape, a.dtype))
        gs = g[r] * s
        if db is not None:
            np.multiply(gs, a[r], out=db[r])
        if da is not None:
            d = da[r]
            np.subtract(1, s, out=d)
            d *= a[r]
            d += 1
            d *= gs
            d *= b[r]

    by_blocks(part, a.size, 1)
    return tuple(None if d is None else d.reshape(gate.shape) for d in (da, db))
