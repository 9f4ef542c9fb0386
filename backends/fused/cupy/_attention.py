"""Launches of the attention kernels: which program, grid, shared memory, and the struct that they read."""

from backends.kernels import BFLOAT16, FLOAT16, Launch, Program
from backends.kernels.params import View, fill, struct

__all__ = ["allocate", "backward", "forward"]

_SIMT_SHARED = 4 * (2 * 32 * 65 + 32 * 128)  # Tiles of attention_simt.cuh
_WIDTH = 128  # channels that a block of level 0 accumulates


def over(n, size):
    """How many blocks of `size` cover n; at least one, so that rows are written even where e is 0."""
    return max(-(-n // size), 1)


def allocate(xp, p):
    """o[B H T e] and lse[B H T] (float32), or packed [1 H N e] and [1 H N]."""
    B, H, T, _ = p.q.shape
    return xp.empty((B, H, T, p.v.shape[-1]), p.q.dtype), xp.empty((B, H, T), "float32")


def fields(p, lse):
    """What every attention kernel's struct holds of a problem."""
    values = {
        "q": View(p.q), "k": View(p.k), "v": View(p.v), "lse": lse,
        "lse_batch": lse.shape[1] * lse.shape[2], "lse_head": lse.shape[2],
        "slopes": p.slopes, "cu_q": p.cu_q, "cu_k": p.cu_k,
        "H": p.q.shape[1], "G": p.k.shape[1], "T": p.T, "S": p.S, "d": p.q.shape[-1], "e": p.v.shape[-1],
        "low": p.low, "high": p.high, "bottom_right": p.bottom_right,
        "scale": p.scale, "softcap": p.softcap,
    }  # fmt: skip
    for name, array in (("mask", p.mask), ("bias", p.bias)):
        if array is not None:
            steps = (s // array.itemsize for s in array.strides)
            values |= {name: array} | {
                f"{name}_{axis}": step for axis, step in zip(("batch", "head", "row", "col"), steps, strict=True)
            }
    rate, seed = p.dropout
    if rate > 0:
        values |= {"drop_below": -int(-rate * 2**32 // 1), "keep_scale": 1 / (1 - rate),
                   "seed_high": seed >> 32, "seed_low": seed & 0xFFFFFFFF}  # fmt: skip
    return values


def forward(device, level, p, o, lse):
    """Enqueue o and lse of a problem."""
    if level == "L2":
        return _wgmma(device, p, o, lse)
    values = fields(p, lse) | {"o": View(o)}
    H, B = p.q.shape[1], p.B
    if level == "L0":
        program = Program("attention_simt", (("STORAGE", p.storage),))
        grid = (over(p.T, 32) * over(p.v.shape[-1], _WIDTH), H, B)
        return _go(device, program, "attention_simt", grid, 256, _SIMT_SHARED, values)
    d = p.q.shape[-1]
    shared = 2 * d * (128 + 4 * 64)
    grid = (over(p.T, 128), H, B)
    return _go(device, _mma("attention_mma", p), "attention_mma", grid, 128 if d == 64 else 256, shared, values)


def backward(device, level, p, o, lse, g, g_lse, gradients):
    """Enqueue the gradients: arrays dq, dk, dv or None, of the shapes of q, k, v."""
    dq, dk, dv = gradients
    H, G, B, d = p.q.shape[1], p.k.shape[1], p.B, p.q.shape[-1]
    delta = device.xp.empty(lse.shape, "float32")
    values = fields(p, lse) | {"o": View(o), "g": View(g), "g_lse": g_lse, "delta": delta}
    values |= {name: View(x) for name, x in (("dq", dq), ("dk", dk), ("dv", dv)) if x is not None}
    simt = Program("attention_simt_vjp", (("STORAGE", p.storage),))
    _go(device, simt, "attention_delta", (over(p.T, 8), H, B), 256, 0, values)
    if level == "L0":
        if dq is not None:
            grid = (over(p.T, 32) * over(d, _WIDTH), H, B)
            _go(device, simt, "attention_simt_dq", grid, 256, _SIMT_SHARED, values)
        if dk is not None:
            grid = (over(p.S, 32) * over(max(d, p.v.shape[-1]), _WIDTH), G, B)
            _go(device, simt, "attention_simt_dkv", grid, 256, _SIMT_SHARED, values)
        return
    program = _mma("attention_mma_vjp", p)
    shared = 2 * d * (2 * 64 + 4 * (64 if d == 64 else 32))
    if dq is not None:
        _go(device, program, "attention_mma_dq", (over(p.T, 64), H, B), 128, shared, values)
    if dk is not None:
        _go(device, program, "attention_mma_dkv", (over(p.S, 64), G, B), 128, shared, values)


def _mma(source, p):
    if p.storage not in (FLOAT16, BFLOAT16):
        raise TypeError(f"{source}: q is {p.q.dtype}; needed float16 or bfloat16")
    return Program(source, (("HEAD_DIM", p.q.shape[-1]), ("STORAGE", p.storage)))


def _go(device, program, kernel, grid, threads, shared, values):
    args = (fill(struct(program.source, "Attention"), values, device.pointer),)
    device.launch(Launch(program, kernel, grid, threads, shared, args))


def _wgmma(device, p, o, lse):
    """Level 2. The maps of K and V end where the last row sees no further: junk beyond comes as zeros."""
    d, T, S = p.q.shape[-1], p.T, p.S
    rows, cols = (192, 128) if d == 64 else (128, 128 if p.high < S else 176)
    extent = max(1, min(S, T + p.high))
    maps = [device.tensor_map(p.q, rows, 64)] + [device.tensor_map(x, cols, 64, extent) for x in (p.k, p.v)]
    program = Program("attention_wgmma", (*_mma("", p).macros, ("COLS", cols)))
    args = (*maps, fill(struct(program.source, "Attention"), fields(p, lse) | {"o": View(o)}, device.pointer))
    shared = 2 * d * (rows + 4 * cols) + 128
    grid = (over(T, rows), p.q.shape[1], p.B)
    device.launch(Launch(program, "attention_wgmma", grid, 2 * rows + 128, shared, args))
