"""Gradient of attention by tiles: FlashAttention-2 (2307.08691) Alg. 2, threaded over key heads.

    P  = exp(S - L)                         recomputed a tile at a time
    dV = P^T dO
    dS = P * (dO V^T - D + dL)              D = rowsum(dO * O), dL the cotangent of L
    dS <- dS * (1 - tanh(s / cap)^2)        if softcap
    dQ = scale dS K,  dK = scale dS^T Q

L and D - dL are subtracted by the GEMMs themselves: [Q, -L] [K, 1]^T and
[dO, -(D - dL)] [V, 1]^T.

Conventions
  C1  Rows that see nothing have L = -inf: their Q, dO, L and D are set to 0, so they add nothing.
  C2  Few key heads are cut into parts of their row blocks, each with its own dK and dV, summed in
      order afterwards. The cut depends on shapes alone.
"""

from typing import NamedTuple

import numpy as np

from backends.fused.numpy._blas import gemm, power
from backends.fused.numpy._scratch import scratch
from backends.fused.numpy._tiles import pack, plan, select, visible
from backends.threads import run_tiles

_FEWEST_JOBS = 4
_STRIP = 16  # rows at a time where a third tile would be needed


def vjp(g, out, saved, needs, q, k, v, **options):
    """Cotangents of q, k, v.

    Parameters
    ----------
    g : (float[*B H T e] or None, float[*B H T] or None)
        Cotangents of o and lse.
    out : (o, lse)
        As `forward` returned them.
    saved : ()
    needs : (bool, bool, bool)
        Which of dq, dk, dv are wanted.
    q, k, v, **options
        As given to `forward`.

    Returns
    -------
    (dq, dk, dv), None where not needed.

    Complexity: 2 B H T S (3 d + 2 e) multiply-adds; two tiles and O(rows + cols) floats a thread.
    """
    p = plan(q, k, v, **options)
    blocks = p.row_blocks()
    heads = int(np.prod(p.batch)) * p.G
    parts = max(1, min(len(blocks), -(-_FEWEST_JOBS // max(heads, 1))))

    dq = np.empty(q.shape, p.dtype) if needs[0] else None
    dk = np.zeros((parts, *k.shape), p.dtype) if needs[1] else None
    dv = np.zeros((parts, *v.shape), p.dtype) if needs[2] else None

    def some_rows(job):
        b, group, part = job
        own = (part, *b, group)
        into = (None if dk is None else dk[own], None if dv is None else dv[own])
        with scratch() as work, np.errstate(all="ignore"):
            for start, stop in blocks[part::parts]:
                band = (*b, p.heads(group), slice(start, stop))
                own_rows = _gather(p, work, band, q, g, out)
                dQ = _rows(p, work, own_rows, k, v, b, group, start, stop, dq is not None, *into)
                if dq is not None:
                    dq[band] = dQ.reshape(p.R, stop - start, p.d)

    run_tiles(
        some_rows,
        [(b, group, i) for b in np.ndindex(*p.batch) for group in range(p.G) for i in range(parts)],
    )
    return dq, _total(dk), _total(dv)


def _total(x):
    if x is None or len(x) == 1:
        return x if x is None else x[0]
    with np.errstate(all="ignore"):
        return np.add.reduce(x, axis=0)


def peak_elements(rows, cols, d, e):
    """Floats that one thread holds at most, as in the forward: two tiles and O(rows + cols)."""
    return 2 * rows * cols + rows * (4 * d + 3 * e + 12) + cols * (_STRIP + 5 * d + 4 * e + 2)


class _Band(NamedTuple):
    """A band of n = R * rows stacked rows, by rows and by columns with one row more."""

    Q: np.ndarray  # scale Q [n d]
    dO: np.ndarray  # [n e]
    Qt: np.ndarray  # [scale Q, -L]^T in the plan's unit
    dOt: np.ndarray  # [dO, -(D - dL)]^T


def _gather(p, work, band, q, g, out):
    g_o, g_l = g
    L = out[1][band].reshape(-1)
    n = L.size
    Q = work.take("Q", (n, p.d), p.dtype)
    dO = work.take("dO", (n, p.e), p.dtype)
    np.multiply(q[band], p.scale, out=Q.reshape(*q[band].shape))
    if g_o is None:
        dO[...] = 0
    else:
        dO.reshape(*g_o[band].shape)[...] = g_o[band]
    D = np.vecdot(dO, out[0][band].reshape(n, p.e))
    if g_l is not None:
        D -= g_l[band].reshape(-1)
    empty = np.isneginf(L)
    if empty.any():
        Q[empty] = dO[empty] = 0
        L = np.where(empty, 0, L)
        D[empty] = 0
    Qt = work.take("Qt", (p.d + 1, n), p.dtype)
    dOt = work.take("dOt", (p.e + 1, n), p.dtype)
    np.multiply(Q.T, p.unit, out=Qt[: p.d])
    np.multiply(L, -p.unit, out=Qt[p.d])
    dOt[: p.e] = dO.T
    np.negative(D, out=dOt[p.e])
    return _Band(Q, dO, Qt, dOt)


def _rows(p, work, band, k, v, b, group, start, stop, need_q, dk, dv):
    """Adds a band of rows to dk[S d] and dv[S e]; returns dQ[n d], junk unless needed."""
    n = len(band.Q)
    dQ = work.take("dQ", (n, p.d), p.dtype)
    dQ[...] = 0
    for c, e, keep, bias in visible(p, b, group, start, stop):
        w = e - c
        own = (*b, group, slice(c, e))
        dS = work.take("dS", (n, w), p.dtype)
        if need_q or dk is not None:
            gemm(band.dOt.T, pack(work, "Vt", v[own], keep, transposed=True), dS)
        P = work.take("P", (n, w), p.dtype)
        _weights(p, P, dS, band, pack(work, "Kt", k[own], keep, transposed=True), keep, bias)
        if dv is not None:
            dv[c:e] += gemm(P.T, band.dO, work.take("dV", (w, p.e), p.dtype))
        if not need_q and dk is None:
            continue
        dS *= P
        if keep is not None:
            select(dS.reshape(p.R, -1, w), keep)
        if dk is not None:
            dk[c:e] += gemm(dS.T, band.Q, work.take("dK", (w, p.d), p.dtype))
        if need_q:
            K = pack(work, "K", k[own], keep, transposed=False)
            dQ += gemm(dS, K, work.take("dSK", (n, p.d), p.dtype))
    dQ *= p.scale
    return dQ


def _weights(p, P, dS, band, Kt, keep, bias):
    """P = exp(S - L), 0 where not kept; under a softcap dS gets its slope."""
    if p.softcap is None:
        gemm(band.Qt.T, Kt, P)
    else:
        cap = p.softcap * p.unit
        gemm(band.Qt[: p.d].T, Kt[: p.d], P)
        P *= 1 / cap
        np.tanh(P, out=P)
        _times_slope(dS, P)
        P *= cap
        P += band.Qt[p.d][:, None]
    heads = P.reshape(p.R, -1, P.shape[1])
    if bias is not None:
        heads += bias
    power(P, p.unit)
    if keep is not None:
        select(heads, keep)


def _times_slope(dS, t):
    """dS *= 1 - t^2, strip by strip: a third tile would break the bound on memory."""
    for i in range(0, len(t), _STRIP):
        slope = np.square(t[i : i + _STRIP])
        np.subtract(1, slope, out=slope)
        dS[i : i + _STRIP] *= slope
