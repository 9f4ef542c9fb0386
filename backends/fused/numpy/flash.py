"""Attention by tiles: FlashAttention-2 (2307.08691) Alg. 1, threaded over key heads and row blocks.

One job is (batch, key heads, block of rows): one key head, or as many as fill a tile. It walks
the tiles of columns that its rows see:

    S = scale Q K^T  (softcap, bias, mask)
    P = exp(S - m)         l += rowsum(P)         O += P V

and ends with O / l and L = m + log l. Few rows over many columns go another way: `flash_few`.

Conventions
  C1  m is any number near the row's maximum, since O and L do not depend on it. It is guessed from
      a few columns and subtracted by the GEMM itself ([Q, -m] [K, 1]^T); a tile is done again with
      its true maximum when l shows that the guess was bad (`_good`). A pass over the tile for the
      maximum and one for the subtraction are saved.
  C2  What a row may not see is taken out by selection (P = 0; K = V = 0 at columns that no row of
      the tile sees), so NaN and inf there change nothing. Rows that see nothing: O = 0, L = -inf.
"""

import numpy as np

from backends.fused.numpy import flash_few
from backends.fused.numpy._blas import gemm, power
from backends.fused.numpy._scratch import scratch
from backends.fused.numpy._tiles import add_bias, pack, plan, soften, visible
from backends.fused.numpy.flash_vjp import vjp
from backends.threads import run_tiles

__all__ = ["forward", "peak_elements", "supports", "vjp"]

_PROBE = 32  # columns that the guess of the maximum looks at
# l is kept within these, a column: above, P V could overflow where O does not; below, terms that
# count could have underflowed.
_LARGEST, _SMALLEST = 64.0, 2.0**-20


def supports(q, k, v, **options):
    """Whether `forward` takes these: one dtype, float32 or float64, and axes that agree."""
    try:
        plan(q, k, v, **options)
    except (TypeError, ValueError):
        return False
    return True


def forward(q, k, v, **options):
    """Attention and its log-sum-exp.

    Parameters
    ----------
    q, k, v : float[*B H T d], float[*B G S d], float[*B G S e]
        Of one dtype, float32 or float64; G divides H; any strides.
    mask : bool array or Rule, optional
        Broadcastable to [*B H T S]; True keeps.
    bias : float array or Rule, optional
        Broadcastable to [*B H T S]; added after the softcap.
    softcap, scale : float, optional
        scale is 1 / sqrt(d) if not given.
    block_rows, block_cols : int, optional
        Rows and columns of a tile.

    Returns
    -------
    (o, lse), saved : (float[*B H T e], float[*B H T]), ()

    Raises
    ------
    ValueError
        Axes disagree.
    TypeError
        Dtypes other than named.

    Complexity: 2 B H T S (d + e) multiply-adds; `peak_elements` floats a thread.
    """
    p, rows = plan(q, k, v, **options), _rows
    few = flash_few.plan_of(p, options.get("block_rows"), options.get("block_cols"))
    if few is not None:
        p, rows = few, flash_few.rows
    o = np.empty((*p.batch, p.H, p.T, p.e), p.dtype)
    lse = np.empty((*p.batch, p.H, p.T), p.dtype)

    def block(job):
        b, own, start, stop = job
        with scratch() as work, np.errstate(all="ignore"):
            where = (*b, p.heads(own), slice(start, stop))
            o[where], lse[where] = rows(p, work, q, k, v, b, own, start, stop)

    run_tiles(
        block,
        [
            (b, own, start, stop)
            for start, stop in p.row_blocks()
            for b in np.ndindex(*p.batch)
            for own in p.groups()
        ],
    )
    return (o, lse), ()


def peak_elements(rows, cols, d, e):
    """Floats that one thread holds at most, for a key head and tiles of rows * cols, besides masks.

    One tile, then Q, O, P V and the probe by rows, K and V (twice while zeros are put in) by columns. The few rows of
    `flash_few` hold two tiles and, unless zeros are put in, no K or V.
    """
    return rows * cols + rows * (d + 2 * e + _PROBE + 12) + 2 * cols * (d + e + 1)


def _rows(p, work, q, k, v, b, own, start, stop):
    """O[h*R rows e] and L[h*R rows] of one block of rows. Logits and m are in the plan's unit."""
    h, rows = own.stop - own.start, stop - start
    n = p.R * rows
    Q = work.take("Q", (h, p.d + 1, n), p.dtype)
    band = p.band(q, b, own, start, stop).transpose(0, 3, 1, 2)
    np.multiply(band, p.scale * p.unit, out=Q[:, : p.d].reshape(band.shape))
    o = work.take("o", (h, n, p.e), p.dtype)
    o[...] = 0
    total = np.zeros((h, n), p.dtype)
    m = None
    for c, e, keep, bias in visible(p, b, own, start, stop):
        columns = (*b, own, slice(c, e))
        K = pack(work, "K", k[columns], keep, transposed=True)
        V = pack(work, "V", v[columns], keep, transposed=False)
        S = work.take("S", (h, n, e - c), p.dtype)
        ones = K[0, p.d]
        if m is None:
            m = _guess(p, Q, K)
        _logits(p, S, Q, K, m, bias)
        power(S, p.unit)
        if keep is not None:
            keep.select(S)
        more = S @ ones
        if not _good(more, total, e - c):
            m = _again(p, S, Q, K, m, total, o, keep, bias)
            more = S @ ones
        total += more
        o += gemm(S, V, work.take("PV", (h, n, p.e), p.dtype))
    L = np.log(total)
    if m is not None:
        L += m / p.unit
    total[total == 0] = 1
    o /= total[..., None]
    return o.reshape(h * p.R, rows, p.e), L.reshape(h * p.R, rows)


def _guess(p, Q, K):
    m = (K[:, : p.d, :_PROBE].swapaxes(1, 2) @ Q[:, : p.d]).max(1)
    if p.softcap is not None:
        soften(p, m)
    return m


def _logits(p, S, Q, K, m, bias):
    """S - m into S[h R*rows cols]; the row that Q and K have more than d subtracts m."""
    if p.softcap is None:
        np.negative(m, out=Q[:, p.d])
        gemm(Q.swapaxes(1, 2), K, S)
    else:
        gemm(Q[:, : p.d].swapaxes(1, 2), K[:, : p.d], S)
        soften(p, S)
        S -= m[..., None]
    add_bias(p, S, bias)


def _good(more, total, cols):
    """Whether the sums show that m is near each row's maximum (NaN is never good)."""
    return more.max() <= _LARGEST * cols and (more + total).min() >= _SMALLEST


def _again(p, S, Q, K, m, total, o, keep, bias):
    """P of a tile with the true maximum; total and o are scaled to it. Returns the new m."""
    _logits(p, S, Q, K, np.zeros_like(m), bias)
    if keep is not None:
        keep.fill(S, -np.inf)
    top = S.max(-1)
    # Rows that have seen nothing before this tile hold a guess and zeros: only the tile counts.
    new = np.where(total > 0, np.maximum(m, top), top)
    new[np.isneginf(new)] = 0
    S -= new[..., None]
    shrink = np.where(total > 0, m - new, 0)
    power(S, p.unit)
    power(shrink, p.unit)
    total *= shrink
    o *= shrink[..., None]
    return new
