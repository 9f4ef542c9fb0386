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
from backends.fused.numpy._tiles import FEWEST_JOBS, add_bias, pack, plan, visible
from backends.threads import run_tiles

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
    blocks, groups = p.row_blocks(), p.groups()
    jobs = int(np.prod(p.batch)) * len(groups)
    parts = max(1, min(len(blocks), -(-FEWEST_JOBS // max(jobs, 1))))

    dq = np.empty(q.shape, p.dtype) if needs[0] else None
    dk = np.zeros((parts, *k.shape), p.dtype) if needs[1] else None
    dv = np.zeros((parts, *v.shape), p.dtype) if needs[2] else None

    def some_rows(job):
        b, own, part = job
        place = (part, *b, own)
        into = (None if dk is None else dk[place], None if dv is None else dv[place])
        with scratch() as work, np.errstate(all="ignore"):
            for start, stop in blocks[part::parts]:
                rows = _gather(p, work, b, own, start, stop, q, g, out)
                dQ = _rows(p, work, rows, k, v, b, own, start, stop, dq is not None, *into)
                if dq is not None:
                    p.band(dq, b, own, start, stop)[...] = dQ.reshape(
                        len(dQ), p.R, stop - start, p.d
                    )

    run_tiles(
        some_rows,
        [(b, own, i) for b in np.ndindex(*p.batch) for own in groups for i in range(parts)],
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

    Q: np.ndarray  # scale Q [h n d]
    dO: np.ndarray  # [h n e]
    Qt: np.ndarray  # [scale Q, -L]^T in the plan's unit
    dOt: np.ndarray  # [dO, -(D - dL)]^T


def _gather(p, work, b, own, start, stop, q, g, out):
    o, L, g_o, g_l = (
        None if x is None else p.band(x, b, own, start, stop) for x in (*out, *g)
    )
    h, n = len(L), p.R * (stop - start)
    L = L.reshape(h, n)
    Q = work.take("Q", (h, n, p.d), p.dtype)
    dO = work.take("dO", (h, n, p.e), p.dtype)
    np.multiply(p.band(q, b, own, start, stop), p.scale, out=Q.reshape(h, p.R, stop - start, p.d))
    if g_o is None:
        dO[...] = 0
    else:
        dO.reshape(g_o.shape)[...] = g_o
    D = np.vecdot(dO, o.reshape(h, n, p.e))
    if g_l is not None:
        D -= g_l.reshape(h, n)
    empty = np.isneginf(L)
    if empty.any():
        Q[empty] = dO[empty] = 0
        L = np.where(empty, 0, L)
        D[empty] = 0
    Qt = work.take("Qt", (h, p.d + 1, n), p.dtype)
    dOt = work.take("dOt", (h, p.e + 1, n), p.dtype)
    np.multiply(Q.swapaxes(1, 2), p.unit, out=Qt[:, : p.d])
    np.multiply(L, -p.unit, out=Qt[:, p.d])
    dOt[:, : p.e] = dO.swapaxes(1, 2)
    np.negative(D, out=dOt[:, p.e])
    return _Band(Q, dO, Qt, dOt)


def _rows(p, work, band, k, v, b, own, start, stop, need_q, dk, dv):
    """Adds a band of rows to dk[h S d] and dv[h S e]; returns dQ[h n d], junk unless needed."""
    h, n, _ = band.Q.shape
    dQ = work.take("dQ", (h, n, p.d), p.dtype)
    dQ[...] = 0
    for c, e, keep, bias in visible(p, b, own, start, stop):
        w = e - c
        columns = (*b, own, slice(c, e))
        dS = work.take("dS", (h, n, w), p.dtype)
        if need_q or dk is not None:
            Vt = pack(work, "Vt", v[columns], keep, transposed=True)
            gemm(band.dOt.swapaxes(1, 2), Vt, dS)
        P = work.take("P", (h, n, w), p.dtype)
        _weights(p, P, dS, band, pack(work, "Kt", k[columns], keep, transposed=True), keep, bias)
        if dv is not None:
            dv[:, c:e] += gemm(P.swapaxes(1, 2), band.dO, work.take("dV", (h, w, p.e), p.dtype))
        if not need_q and dk is None:
            continue
        dS *= P
        if keep is not None:
            keep.select(dS)
        if dk is not None:
            dk[:, c:e] += gemm(dS.swapaxes(1, 2), band.Q, work.take("dK", (h, w, p.d), p.dtype))
        if need_q:
            K = pack(work, "K", k[columns], keep, transposed=False)
            dQ += gemm(dS, K, work.take("dSK", (h, n, p.d), p.dtype))
    dQ *= p.scale
    return dQ


def _weights(p, P, dS, band, Kt, keep, bias):
    """P = exp(S - L), 0 where not kept; under a softcap dS gets its slope."""
    if p.softcap is None:
        gemm(band.Qt.swapaxes(1, 2), Kt, P)
    else:
        cap = p.softcap * p.unit
        gemm(band.Qt[:, : p.d].swapaxes(1, 2), Kt[:, : p.d], P)
        P *= 1 / cap
        np.tanh(P, out=P)
        _times_slope(dS, P)
        P *= cap
        P += band.Qt[:, p.d, :, None]
    add_bias(p, P, bias)
    power(P, p.unit)
    if keep is not None:
        keep.select(P)


def _times_slope(dS, t):
    """dS *= 1 - t^2, strip by strip: a third tile would break the bound on memory."""
    flat = (t.shape[0] * t.shape[1], t.shape[2])
    t, dS = t.reshape(flat), dS.reshape(flat)
    for i in range(0, len(t), _STRIP):
        slope = np.square(t[i : i + _STRIP])
        np.subtract(1, slope, out=slope)
        dS[i : i + _STRIP] *= slope
