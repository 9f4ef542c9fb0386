"""Root-mean-square normalisation on CUDA (1910.07467, Eq. 4): kernels of cuda/rms_norm.cu.

Saved: r = 1 / sqrt(mean_j x_j^2 + eps) of each row, float32.
"""

from backends.fused.cupy._rows import flat, is_whole, launch, threads_for
from backends.kernels import device as devices
from backends.kernels.device import storage

__all__ = ["forward", "supports", "vjp"]

_WIDEST = 25_000  # channels whose share of dw fits in the shared memory of any device: 99 KiB
_BLOCKS = 264  # of the backward: two a multiprocessor of the largest chip; each makes one share of dw


def supports(x, weight, *, eps=1e-5, **others):
    """Whether `forward` takes these: one dtype of float32, float16, bfloat16, weight[d], no other option."""
    return (
        not others and weight is not None and storage(x.dtype) is not None and x.dtype == weight.dtype
        and weight.shape == x.shape[-1:] and 0 < x.shape[-1] <= _WIDEST and devices.current().capability >= (8, 0)
    )  # fmt: skip


def forward(x, weight, *, eps=1e-5):
    """x[*B d], weight[d] -> y[*B d], (r[rows],)."""
    device = devices.current()
    xp = device.xp
    rows, weight = flat(xp, x), xp.ascontiguousarray(weight)
    y, r = xp.empty(rows.shape, x.dtype), xp.empty((len(rows),), "float32")
    if rows.size:
        values = _values(device, rows, weight, r, y) | {"eps": eps}
        threads = values["threads"]
        launch(device, "rms_norm", "RmsNorm", "rms_norm", (len(rows),), threads, threads // 8, values, x.dtype)
    return y.reshape(x.shape), (r,)


def vjp(g, out, saved, needs, x, weight, *, eps=1e-5):
    """Cotangents of x and weight."""
    device = devices.current()
    xp = device.xp
    rows, g, weight = flat(xp, x), flat(xp, g), xp.ascontiguousarray(weight)
    n, d = rows.shape
    dx = xp.empty(rows.shape, x.dtype) if needs[0] else None
    dw = xp.zeros(weight.shape, weight.dtype) if needs[1] else None
    if n and any(needs):
        blocks = min(n, _BLOCKS)
        part = xp.empty((blocks, d), "float32") if needs[1] else None
        values = _values(device, rows, weight, saved[0], g, dx)
        values |= {"y": None, "g": g, "dx": dx, "part": part, "dw": dw, "rows": n, "blocks": blocks}
        shared = 4 * (32 + d)
        launch(device, "rms_norm", "RmsNorm", "rms_norm_vjp", (blocks,), values["threads"], shared, values, x.dtype)
        if needs[1]:
            launch(device, "rms_norm", "RmsNorm", "rms_norm_dw", (-(-d // 256),), 256, 0, values, x.dtype)
    return None if dx is None else dx.reshape(x.shape), dw


def _values(device, rows, weight, r, y, *others):
    d, size = rows.shape[1], rows.dtype.itemsize
    return {"x": rows, "weight": weight, "y": y, "r": r, "d": d, "threads": threads_for(d, size),
            "whole": is_whole(device, d * size, rows, weight, y, *others)}  # fmt: skip
