"""The plan of a tiled attention: shapes, tile sizes, and which tiles a band of rows can see.

Shapes: q[*B H T d], k[*B G S d], v[*B G S e]. The R = H / G query heads of one key head are
stacked to R * T rows, so a tile of `rows` rows of T gives one GEMM of R * rows rows, and dK, dV
are summed over the heads of a group by the GEMM itself. Where tiles are small, a job takes h key
heads at once, so work arrays begin with an axis of heads: [h R*rows cols].
"""

import math
from typing import Any, NamedTuple

import numpy as np

from backends.fused.numpy._blas import UNIT

AREA = 384 * 384  # elements of a tile: 590 kB of float32, well inside a second-level cache
TOGETHER = 2 * AREA  # elements of the tiles of a job's heads
FEWEST_JOBS = 4  # where there is work for as many threads
_KEPT = 2**20  # elements of a mask that is kept whole for the heads that come next
_ALIGNED = 16  # columns that a mask is cut by
_STRIP = 64  # a transposing copy of more columns at a time runs out of first-level cache
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Plan(NamedTuple):
    """What one call works on; a tile has block_rows rows of T and block_cols columns."""

    batch: tuple
    H: int
    G: int
    R: int
    T: int
    S: int
    d: int
    e: int
    dtype: np.dtype
    mask: Any
    bias: Any
    softcap: float | None
    scale: float
    unit: float  # logits are kept in this unit: see _blas.power
    block_rows: int
    block_cols: int
    together: int  # key heads of a job
    plain: dict  # (start, stop, low, high) -> what `_keep` found, where all heads share it

    def row_blocks(self):
        """(start, stop) of each block of rows, the last first: under a causal mask the longest."""
        starts = range(0, self.T, self.block_rows)
        return [(i, min(i + self.block_rows, self.T)) for i in reversed(starts)]

    def groups(self):
        """The key heads of each job."""
        return [slice(g, min(g + self.together, self.G)) for g in range(0, self.G, self.together)]

    def heads(self, own):
        """The query heads of the key heads `own`."""
        return slice(own.start * self.R, own.stop * self.R)

    def band(self, x, b, own, start, stop):
        """x[*B H T ...] as [h R rows ...]."""
        x = x[(*b, self.heads(own), slice(start, stop))]
        return x.reshape(own.stop - own.start, self.R, *x.shape[1:])


def plan(
    q, k, v, *, mask=None, bias=None, softcap=None, scale=None, block_rows=None, block_cols=None
):
    """Check the arguments of `flash` and cut its grid; ValueError or TypeError if they disagree."""
    if not q.dtype == k.dtype == v.dtype or q.dtype not in FLOATS:
        raise TypeError(
            f"flash: q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; needs all float32 or all float64"
        )
    if min(q.ndim, k.ndim, v.ndim) < 3:
        raise ValueError(
            f"flash: shapes {q.shape}, {k.shape}, {v.shape}; needs q[*B H T d], k[*B G S d], "
            "v[*B G S e]"
        )
    *batch, H, T, d = q.shape
    G, S, e = v.shape[-3:]
    for name, shape in (("k", k.shape), ("v", v.shape)):
        if list(shape[:-3]) != batch:
            raise ValueError(f"flash: {name} has leading axes {shape[:-3]}, q has {tuple(batch)}")
    if d == 0:
        raise ValueError("flash: q has d=0; the head dimension must be at least 1")
    if k.shape[-3:] != (G, S, d):
        raise ValueError(
            f"flash: k ends in {k.shape[-3:]}; q and v make [G S d] = {(G, S, d)}"
        )
    if (H % G if G else H) != 0:
        raise ValueError(f"flash: q has H={H} heads, k has G={G}; G must divide H")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"flash: softcap={softcap}; needed a number > 0, or None")
    full = (*batch, H, T, S)
    mask, bias = _spread("mask", mask, full), _spread("bias", bias, full)
    if isinstance(bias, np.ndarray) and bias.dtype != q.dtype:
        raise TypeError(f"flash: bias is {bias.dtype}, q is {q.dtype}; they must share a dtype")
    if isinstance(mask, np.ndarray) and mask.dtype != bool:
        raise TypeError(f"flash: mask is {mask.dtype}; needed bool, True = keep")
    scale = 1 / math.sqrt(d) if scale is None else float(scale)
    R = H // G if G else 0
    rows, cols = _sizes(T, S, max(R, 1), block_rows, block_cols)
    # A bias is added as it is: scaling it to another unit would take a tile of its own.
    unit = UNIT[q.dtype] if bias is None else 1.0
    blocks = math.prod(batch) * -(-T // rows)
    together = min(TOGETHER // max(rows * max(R, 1) * cols, 1), blocks * G // FEWEST_JOBS)
    sizes = (tuple(batch), H, G, R, T, S, d, e, q.dtype)
    return Plan(*sizes, mask, bias, softcap, scale, unit, rows, cols, max(1, together), {})


def _spread(name, x, full):
    """An array as a view over all of [*B H T S]; a rule, or None, as it is."""
    if getattr(x, "kind", name) != name:
        raise TypeError(f"flash: {name}={x!r} is a rule of a {x.kind}; needed one of a {name}")
    if x is None or hasattr(x, "tile"):
        return x
    try:
        return np.broadcast_to(x, full)
    except ValueError:
        raise ValueError(
            f"flash: {name} has shape {np.shape(x)}; it must broadcast to [*B H T S] = {full}"
        ) from None


def _sizes(T, S, R, block_rows, block_cols):
    """Tile sizes by measurement: bench/attention.py. Few rows (decoding) leave room for columns."""
    for name, size in (("block_rows", block_rows), ("block_cols", block_cols)):
        if size is not None and size < 1:
            raise ValueError(f"flash: {name}={size}; needed at least 1")
    stacked = 128 if T * R <= 256 else 384
    if block_rows is None:
        block_rows = max(1, stacked // R)
    block_rows = min(block_rows, max(T, 1))
    if block_cols is None:
        block_cols = max(AREA // (block_rows * R), 256) // 128 * 128
    return block_rows, min(block_cols, max(S, 1))


def visible(p, b, own, start, stop):
    """Tiles that rows start..stop - 1 of the key heads `own` in batch b can see.

    Yields (low, high, keep, bias): the columns, then `keep` a `Keep` or None when all rows see all
    columns, and `bias` float[h|1 R|1 rows cols] or None.
    """
    low, high = 0, p.S
    sure = None
    if hasattr(p.mask, "tile"):
        low, high = p.mask.columns(start, stop, p.T, p.S)
        # A rule may also say which columns every row sees, so that those are not evaluated.
        if hasattr(p.mask, "full_columns"):
            sure = p.mask.full_columns(start, stop, p.T, p.S)
    for c in range(low, high, p.block_cols):
        e = min(c + p.block_cols, high)
        keep = None
        if p.mask is not None and not (sure and sure[0] <= c and e <= sure[1]):
            first = max(sure[1] - c, 0) // _ALIGNED * _ALIGNED if sure and sure[0] <= c else 0
            keep = _keep(p, b, own, start, stop, c + first, e)
            if keep is False and not first:
                continue
            if keep is False:
                keep = np.zeros((1, 1, stop - start, e - c - first), bool)
            keep = None if keep is True else Keep(first, keep)
        bias = None if p.bias is None else _tile(p, p.bias, b, own, start, stop, c, e)[0]
        yield c, e, keep, bias


class Keep(NamedTuple):
    """Which elements of a tile count: all before column `first`, then those of a mask."""

    first: int
    mask: np.ndarray  # bool[h|1 R|1 rows cols - first]

    def seen(self):
        """bool[h|1 cols - first]: whether any row sees the column."""
        return self.mask.any((1, 2))

    def select(self, x):
        """x[h R*rows cols], in place: 0 where the element does not count, whatever was there.

        By bits (x & -1 or x & 0): a masked copy costs twenty times as much on a mask without runs.
        """
        bits = self._part(x.view(np.int32 if x.itemsize == 4 else np.int64))
        np.bitwise_and(bits, np.negative(self.mask.view(np.int8)), out=bits)

    def fill(self, x, value):
        """x[h R*rows cols], in place: `value` where the element does not count."""
        np.copyto(self._part(x), value, where=~self.mask)

    def _part(self, x):
        rows = self.mask.shape[2]
        return x.reshape(len(x), x.shape[1] // rows, rows, x.shape[2])[..., self.first :]


def _keep(p, b, own, start, stop, low, high):
    """True if all of the tile is kept, False if nothing is, else bool[h|1 R|1 rows cols]."""
    place = start, stop, low, high
    if place in p.plain:
        return p.plain[place]
    keep, shared = _tile(p, p.mask, b, own, start, stop, low, high)
    whole = bool(keep.all())
    found = whole if whole or not keep.any() else keep
    if shared and (found is not keep or p.T * p.S <= _KEPT):
        p.plain[place] = found
    return found


def _tile(p, source, b, own, start, stop, low, high):
    """[h|1 R|1 rows cols] of a mask or bias, and whether a rule says the same to all heads."""
    if hasattr(source, "tile"):
        # A rule's comparisons cost half of int64's.
        rows, cols = (np.arange(*span, dtype=np.int32) for span in ((start, stop), (low, high)))
        tile = source.tile(np, rows, cols, p.T, p.S)
        if tile.ndim == 2:
            return tile[None, None], True
        tile = np.broadcast_to(tile, (*p.batch, p.H, stop - start, high - low))[(*b, p.heads(own))]
    else:
        tile = source[(*b, p.heads(own), slice(start, stop), slice(low, high))]
    if tile.strides[0] == 0:  # one head's tile stands for all that share it
        return tile[None, :1], False
    return tile.reshape(own.stop - own.start, p.R, *tile.shape[1:]), False


def soften(p, S):
    """S = cap tanh(S / cap) in place, in the plan's unit."""
    cap = p.softcap * p.unit
    S *= 1 / cap
    np.tanh(S, out=S)
    S *= cap


def add_bias(p, S, bias):
    """S[h R*rows cols] += bias[h|1 R|1 rows cols], or None, in place."""
    if bias is not None:
        heads = S.reshape(len(S), p.R, S.shape[1] // p.R, S.shape[2])
        heads += bias


def seen_only(x, keep):
    """x[h cols n], a copy with zeros where there are columns that no row of the tile sees (NaN there, too)."""
    if keep is None or (seen := keep.seen()).all():
        return x
    x = x.copy()
    x[:, keep.first :][np.broadcast_to(~seen, (len(x), seen.shape[1]))] = 0
    return x


def pack(work, name, x, keep, *, transposed):
    """x[h cols n] in aligned memory, `seen_only`.

    Transposed it is [h, n + 1, cols] with a last row of ones, against which a GEMM adds a column.
    """
    x = seen_only(x, keep)
    h, cols, n = x.shape
    if not transposed:
        packed = work.take(name, (h, cols, n), x.dtype)
        packed[...] = x
        return packed
    packed = work.take(name, (h, n + 1, cols), x.dtype)
    for c in range(0, cols, _STRIP):
        packed[:, :n, c : c + _STRIP] = x[:, c : c + _STRIP].swapaxes(1, 2)
    packed[:, n] = 1
    return packed
