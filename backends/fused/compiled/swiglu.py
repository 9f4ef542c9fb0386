"""SwiGLU's gate in float32: one pass there and one back.

The equations are those of backends/fused/numpy/swiglu.py.
"""

import numpy as np

from backends.fused.compiled._gates import swiglu, swiglu_slopes
from backends.fused.compiled._loop import by_rows, plain

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it


def supports(gate, up, **others):
    """Whether `forward` takes these: float32, equal shapes, no option."""
    return not others and gate.dtype == up.dtype == np.float32 and gate.shape == up.shape


def forward(gate, up):
    """gate[*B F], up[*B F] -> silu(gate) * up, ()."""
    y = np.empty(gate.shape, gate.dtype)
    by_rows(swiglu(gate.dtype), *[plain(x).reshape(-1) for x in (gate, up)], y.reshape(-1))
    return y, ()


def vjp(g, out, saved, needs, gate, up):
    """Cotangents of gate and up."""
    da, db = (np.empty(gate.shape, gate.dtype) for _ in range(2))
    flat = [plain(x).reshape(-1) for x in (g, gate, up)]
    by_rows(swiglu_slopes(gate.dtype), *flat, da.reshape(-1), db.reshape(-1))
    return tuple(d if needed else None for d, needed in zip((da, db), needs, strict=True))
