"""Attention of the last T tokens over a paged cache, on CUDA; the keys are split among blocks and merged.

    lse = log sum_n exp(lse_n),  o = sum_n exp(lse_n - lse) o_n        over the parts n of the keys

The keys of entry b are the first lengths[b] slots of its pages, in the order of its table. Its queries are the last T
of these positions: token t sees keys 0 .. lengths[b] - T + t.

Decoding wants no gradient: there is no vjp, and what does want one runs as the composite.
"""

import math

from backends.fused.cupy._levels import level_of
from backends.fused.cupy._problem import adjacent
from backends.kernels import Launch, Program
from backends.kernels import device as devices
from backends.kernels.device import storage
from backends.kernels.params import View, fill, struct

__all__ = ["forward", "supports"]

_SHARED = 4 * (2 * 32 * 65 + 32 * 128)  # Tiles of attention_simt.cuh
_BLOCKS = 256  # about two a multiprocessor: fewer splits are made where the batch fills the chip


def supports(q, k_pages, v_pages, table, lengths, *, softcap=None, scale=None):
    """Whether `forward` takes these and every page is there; what is refused goes to the composite, which says why."""
    device = devices.current()
    try:
        _check(q, k_pages, v_pages, table, lengths, softcap, None)
    except (TypeError, ValueError):
        return False
    B, H, T, d = q.shape
    G = max(k_pages.shape[1], 1)
    grids = (B * G, B, H, _blocks_of_rows(H // G * T, v_pages.shape[-1]))
    taken = level_of(device.capability, storage(q.dtype), d, set()) is not None and max(grids) <= 65535
    return taken and _pages_exist(device.xp, k_pages, table, lengths)


def forward(q, k_pages, v_pages, table, lengths, *, softcap=None, scale=None, splits=None):
    """Attention and its log-sum-exp.

    Parameters
    ----------
    q : float[B H T d]
    k_pages, v_pages : float[P G page d], float[P G page e]
        All pages, channels adjacent, any other strides; G divides H. One dtype with q: float32, float16 or bfloat16.
    table : int[B n]
        Page numbers of each entry; those past its length are not read, the others are not checked.
    lengths : int[B]
        Keys of each entry, the T queries' own among them.
    softcap, scale : float, optional
    splits : int, optional
        Parts of the keys.

    Returns
    -------
    (o, lse), saved : (float[B H T e], float[B H T]), ()

    Raises
    ------
    ValueError
        Axes disagree, or softcap or splits is not positive.
    TypeError
        A dtype that is not named here.
    """
    _check(q, k_pages, v_pages, table, lengths, softcap, splits)
    device, (B, H, T, d) = devices.current(), q.shape
    xp, (G, page), e = device.xp, k_pages.shape[1:3], v_pages.shape[-1]
    q, k, v = map(adjacent, (q, k_pages, v_pages))
    table, lengths = (xp.ascontiguousarray(x, dtype="int32") for x in (table, lengths))
    per_split = _blocks_of_rows(H // max(G, 1) * T, e)
    if splits is None:
        splits = max(1, min(_BLOCKS // max(B * G * per_split, 1), table.shape[1] * page // 64))
    o, lse = xp.empty((B, H, T, e), q.dtype), xp.empty((B, H, T), "float32")
    if not lse.size:
        return (o, lse.astype(q.dtype, copy=False)), ()
    values = {
        "q": View(q), "o": View(o), "k": View(k), "v": View(v), "table": table, "length": lengths, "lse": lse,
        "o_part": xp.empty((splits, *o.shape), "float32"), "lse_part": xp.empty((splits, *lse.shape), "float32"),
        "H": H, "G": G, "T": T, "d": d, "e": e, "page": page, "table_width": table.shape[1], "splits": splits,
        "batches": B, "scale": 1 / math.sqrt(max(d, 1)) if scale is None else scale, "softcap": softcap or 0.0,
    }  # fmt: skip
    program = Program("paged_decode", (("STORAGE", storage(q.dtype)),))
    args = (fill(struct(program.source, "PagedDecode"), values, device.pointer),)
    device.launch(Launch(program, "paged_decode", (splits, per_split, B * G), 256, _SHARED, args))
    device.launch(Launch(program, "paged_decode_merge", (-(-T // 8), H, B), 256, 0, args))
    return (o, lse.astype(q.dtype, copy=False)), ()


def _blocks_of_rows(rows, e):
    """Blocks that the stacked rows of a key head take: 32 rows, 128 channels of V."""
    return -(-rows // 32) * max(-(-e // 128), 1)


def _pages_exist(xp, k_pages, table, lengths):
    """Whether lengths are within the table, and its pages within the cache: one answer read back from the device."""
    P, _, page, _ = k_pages.shape
    used = xp.arange(table.shape[1])[None, :] * page < lengths[:, None]
    there = (lengths >= 0) & (lengths <= table.shape[1] * page)
    return bool(there.all() & (~used | ((table >= 0) & (table < P))).all())


def _check(q, k, v, table, lengths, softcap, splits):
    if not q.dtype == k.dtype == v.dtype or storage(q.dtype) is None:
        raise TypeError(f"paged: q, k_pages, v_pages are {q.dtype}, {k.dtype}, {v.dtype}; needs one of float32, "
                        "float16, bfloat16")  # fmt: skip
    if table.dtype.kind not in "iu" or lengths.dtype.kind not in "iu":
        raise TypeError(f"paged: table and lengths are {table.dtype}, {lengths.dtype}; needed int")
    if q.ndim != 4 or k.ndim != 4 or v.ndim != 4:
        raise ValueError(f"paged: q has shape {q.shape}, k_pages {k.shape}, v_pages {v.shape}; needs q[B H T d], "
                         "k_pages[P G page d], v_pages[P G page e]")  # fmt: skip
    B, H, _, d = q.shape
    if k.shape[-1] != d:
        raise ValueError(f"paged: k_pages has d={k.shape[-1]} channels, q has d={d}")
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(f"paged: v_pages has shape {v.shape}, k_pages {k.shape}; needs v_pages[P G page e]")
    if (H % k.shape[1] if k.shape[1] else H) != 0:
        raise ValueError(f"paged: G={k.shape[1]} must divide H={H}")
    if table.ndim != 2 or table.shape[0] != B:
        raise ValueError(f"paged: table has shape {table.shape}; needed [B n] with B={B}")
    if lengths.shape != (B,):
        raise ValueError(f"paged: lengths has shape {lengths.shape}; needed [B] with B={B}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"paged: softcap={softcap}; needed a number > 0, or None")
    if splits is not None and splits < 1:
        raise ValueError(f"paged: splits={splits}; needed at least 1")
