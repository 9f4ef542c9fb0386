"""Attention of the last T tokens over a paged cache, on CUDA; the keys are split among blocks and merged.

    lse = log sum_n exp(lse_n),  o = sum_n exp(lse_n - lse) o_n        over the parts n of the keys

The keys of batch entry b are the first length[b] rows of its pages, in the order of its table. Its queries
are the last T of these positions: token t sees keys 0 .. length[b] - T + t.
"""

import math

from backends.fused.cupy._problem import adjacent
from backends.kernels import Launch, Program
from backends.kernels import device as devices
from backends.kernels.device import storage
from backends.kernels.params import View, fill, struct

__all__ = ["forward"]

_SHARED = 4 * (2 * 32 * 65 + 32 * 128)  # Tiles of attention_simt.cuh
_BLOCKS = 256  # about two a multiprocessor: fewer splits are made where the batch fills the chip


def forward(q, k, v, table, length, *, scale=None, softcap=None, splits=None):
    """Attention and its log-sum-exp.

    Parameters
    ----------
    q : float[B H T d]
    k, v : float[P page G d], float[P page G e]
        All pages; G divides H. One dtype with q: float32, float16 or bfloat16.
    table : int32[B W]
        Page numbers of each entry; those past its length are not read.
    length : int32[B]
        Keys of each entry.
    scale, softcap : float, optional
    splits : int, optional
        Parts of the keys.

    Returns
    -------
    float[B H T e], float32[B H T]

    Raises
    ------
    ValueError
        Axes disagree, or softcap or splits is not positive.
    TypeError
        A dtype that is not named here.
    """
    _check(q, k, v, table, length, softcap, splits)
    device, (B, H, T, d) = devices.current(), q.shape
    xp, (page, G), e = device.xp, k.shape[1:3], v.shape[-1]
    q, k, v, table, length = adjacent(q), *map(xp.ascontiguousarray, (k, v, table, length))
    per_split = -(-H // G * T // 32) * -(-e // 128)
    if splits is None:
        splits = max(1, min(_BLOCKS // max(B * G * per_split, 1), table.shape[1] * page // 64))
    o, lse = xp.empty((B, H, T, e), q.dtype), xp.empty((B, H, T), "float32")
    if not o.size:
        return o, lse
    values = {
        "q": View(q), "o": View(o), "k": k, "v": v, "table": table, "length": length, "lse": lse,
        "o_part": xp.empty((splits, *o.shape), "float32"), "lse_part": xp.empty((splits, *lse.shape), "float32"),
        "H": H, "G": G, "T": T, "d": d, "e": e, "page": page, "table_width": table.shape[1], "splits": splits,
        "batches": B, "scale": 1 / math.sqrt(d) if scale is None else scale, "softcap": softcap or 0.0,
    }  # fmt: skip
    program = Program("paged_decode", (("STORAGE", storage(q.dtype)),))
    args = (fill(struct(program.source, "PagedDecode"), values, device.pointer),)
    device.launch(Launch(program, "paged_decode", (splits, per_split, B * G), 256, _SHARED, args))
    device.launch(Launch(program, "paged_decode_merge", (-(-T // 8), H, B), 256, 0, args))
    return o, lse


def _check(q, k, v, table, length, softcap, splits):
    if not q.dtype == k.dtype == v.dtype or storage(q.dtype) is None:
        raise TypeError(f"paged_decode: q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; needs one of float32, float16, "
                        "bfloat16")  # fmt: skip
    if table.dtype != "int32" or length.dtype != "int32":
        raise TypeError(f"paged_decode: table and length are {table.dtype}, {length.dtype}; needed int32")
    if q.ndim != 4 or k.ndim != 4:
        raise ValueError(f"paged_decode: q has shape {q.shape}, k {k.shape}; needs q[B H T d], k[P page G d]")
    B, H, _, d = q.shape
    if k.shape[-1] != d:
        raise ValueError(f"paged_decode: k has d={k.shape[-1]} channels, q has d={d}")
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(f"paged_decode: v has shape {v.shape}, k has {k.shape}; needs v[P page G e]")
    if H % max(k.shape[2], 1):
        raise ValueError(f"paged_decode: G={k.shape[2]} must divide H={H}")
    if table.ndim != 2 or table.shape[0] != B:
        raise ValueError(f"paged_decode: table has shape {table.shape}; needed [B W] with B={B}")
    if length.shape != (B,):
        raise ValueError(f"paged_decode: length has shape {length.shape}; needed [B] with B={B}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"paged_decode: softcap={softcap}; needed a number > 0, or None")
    if splits is not None and splits < 1:
        raise ValueError(f"paged_decode: splits={splits}; needed at least 1")
