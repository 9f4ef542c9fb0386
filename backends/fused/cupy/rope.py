"""Rotary position embedding on CUDA (2104.09864, Eq. 34): the kernel of cuda/rope.cu.

Angles are formed in float64, their cosines and sines kept in float32; the gradient is the rotation back.
"""

import math

from backends.fused.cupy._rows import is_whole, launch
from backends.kernels import device as devices
from backends.kernels.device import storage

__all__ = ["forward", "supports", "vjp"]

LAYOUTS = ("interleaved", "half")


def supports(x, positions, *, layout="interleaved", base=10000.0, theta=None, attention_factor=1.0, **others):
    """Whether `forward` takes these: float32, float16 or bfloat16, d even, integer positions that fit."""
    return (
        not others and storage(x.dtype) is not None and layout in LAYOUTS and x.ndim >= 2 and x.shape[-1] % 2 == 0
        and positions.dtype.kind in "iu" and _batch(positions, x) is not None
        and (theta is None or (theta.dtype.kind == "f" and theta.shape == (x.shape[-1] // 2,)))
        and devices.current().capability >= (8, 0)
    )  # fmt: skip


def forward(x, positions, *, layout="interleaved", base=10000.0, theta=None, attention_factor=1.0):
    """x[*B H T d], positions int[T] or [*B T], theta [d/2] if not by base -> [*B H T d], ()."""
    return _turned(x, positions, layout, base, theta, attention_factor, 1.0), ()


def vjp(
    g, out, saved, needs, x, positions, *, layout="interleaved", base=10000.0, theta=None, attention_factor=1.0
):
    """Cotangent of x: g turned back, times the factor."""
    return (_turned(g, positions, layout, base, theta, attention_factor, -1.0) if needs[0] else None,)


def _batch(positions, x):
    """The batch shape that positions [*b T] are spread to, () where all rows share them; None if they do not fit."""
    *lead, T, _ = x.shape
    batch = lead[:-1]  # without the heads
    if positions.ndim == 1 and positions.shape[0] in (1, T):
        return ()
    if positions.ndim < 1 or positions.ndim - 1 > len(batch):
        return None
    fits = all(n in (1, m) for n, m in zip(positions.shape[::-1], (*batch, T)[::-1], strict=False))
    return tuple(batch) if fits else None


def _turned(x, positions, layout, base, theta, factor, sign):
    device = devices.current()
    xp = device.xp
    batch = _batch(positions, x)
    if x.shape[-1] % 2 or layout not in LAYOUTS or batch is None:
        raise ValueError(
            f"rope: x has shape {x.shape}, positions {positions.shape}, layout={layout!r}; needs d even, positions [T] "
            f"or [*B T], and a layout of {LAYOUTS}"
        )
    x = xp.ascontiguousarray(x)
    T, d = x.shape[-2:]
    heads = x.shape[-3] if x.ndim > 2 else 1
    y = xp.empty(x.shape, x.dtype)
    if not y.size:
        return y
    step = d // 2 if layout == "half" else d  # of the packs that threads take
    where = xp.ascontiguousarray(xp.broadcast_to(positions, (*batch, T)), dtype="float64")
    theta = base ** (xp.arange(d // 2, dtype="float64") * (-2 / d)) if theta is None else theta.astype("float64")
    angle = where[..., None] * theta
    values = {
        "x": x, "y": y,
        "cos": (xp.cos(angle) * factor).astype("float32"), "sin": (xp.sin(angle) * factor).astype("float32"),
        "rows": x.size // d, "table_batch": T if batch else 0, "heads": heads, "T": T, "d": d,
        "half": int(layout == "half"), "whole": is_whole(device, step * x.dtype.itemsize, x, y), "sign": sign,
    }  # fmt: skip
    threads = x.size // d * math.ceil(step * x.dtype.itemsize / 16)
    launch(device, "rope", "Rope", "rope", (-(-threads // 256),), 256, 0, values, x.dtype)
    return y
