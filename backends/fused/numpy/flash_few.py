"""Attention of few rows over many columns, as in decoding: keys and values are read where they lie.

A tile of `flash` copies its keys and values to where its GEMMs are fastest, which few rows do not pay for. Here a band
of rows walks blocks of columns small enough for the GEMM kernels that copy nothing, with a running maximum:

    S^T = K Q^T     m' = max(m, rowmax(S))     P = exp(S - m')
    l <- l e^(m - m') + rowsum(P)              O <- O e^(m - m') + P V

K stands on the left: BLAS takes few rows of Q faster as the narrow side.
"""

import numpy as np

from backends.fused.numpy._blas import power
from backends.fused.numpy._tiles import add_bias, seen_only, soften, visible

MOST = 128  # stacked rows; beyond, the copies pay
_PRODUCT = 10**6  # multiply-adds of a GEMM that copies nothing
_FEWEST, _MOST = 512, 4096  # columns of a block, by measurement
_LONGER = 8  # columns a row, at least: fewer are soon done either way


def plan_of(p, block_rows, block_cols):
    """The plan of a call that is for `rows`, or None; tiles that were asked for are made."""
    if block_rows is not None or block_cols is not None or not 0 < p.R * p.T <= min(MOST, p.S // _LONGER):
        return None
    columns = _PRODUCT // (p.R * p.T * max(p.d, p.e)) // 128 * 128
    return p._replace(block_rows=p.T, block_cols=min(max(_FEWEST, min(columns, _MOST)), p.S))


def rows(p, work, q, k, v, b, own, start, stop):
    """O[h*R rows e] and L[h*R rows] of one band of rows."""
    h, n = own.stop - own.start, p.R * (stop - start)
    Q = work.take("Q", (h, p.d, n), p.dtype)
    band = p.band(q, b, own, start, stop).transpose(0, 3, 1, 2)
    np.multiply(band, p.scale * p.unit, out=Q.reshape(band.shape))
    o = work.take("o", (h, n, p.e), p.dtype)
    o[...] = 0
    m, total = np.full((h, n), -np.inf, p.dtype), np.zeros((h, n), p.dtype)
    for c, e, keep, bias in visible(p, b, own, start, stop):
        columns = (*b, own, slice(c, e))
        S = work.take("S", (h, n, e - c), p.dtype)
        product = np.matmul(k[columns], Q, out=work.take("ST", (h, e - c, n), p.dtype))
        S[...] = product.swapaxes(1, 2)
        if p.softcap is not None:
            soften(p, S)
        add_bias(p, S, bias)
        if keep is not None:
            keep.fill(S, -np.inf)
        new = np.maximum(m, S.max(-1))
        new[np.isneginf(new)] = 0  # nothing seen yet
        S -= new[..., None]
        power(S, p.unit)
        shrink = np.where(total > 0, m - new, 0)
        power(shrink, p.unit)
        total = total * shrink + S.sum(-1)
        o *= shrink[..., None]
        o += np.matmul(S, seen_only(v[columns], keep), out=work.take("PV", (h, n, p.e), p.dtype))
        m = new
    L = np.log(total) + m / p.unit
    total[total == 0] = 1
    o /= total[..., None]
    return o.reshape(h * p.R, stop - start, p.e), L.reshape(h * p.R, stop - start)
