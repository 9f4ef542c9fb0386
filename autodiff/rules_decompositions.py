"""Derivatives of eigh, svd and qr.

A primitive has one result, so each gives its parts stacked as rows of one array: column j holds
what belongs to pair j. `autodiff.linalg` takes them apart.

    eigh   [*B 1+n n]     w, V              x symmetric = V diag(w) V^T
    svd    [*B m+1+n k]   U, s, V           x [m n] = U diag(s) V^T, k = min(m, n)
    qr     [*B m+n k]     Q, R^T            x [m n] = Q R

Vectors have a free sign. Here the largest entry of each column of V (svd: of U, and V follows) is
positive, so that values do not depend on a LAPACK's choice; qr keeps the library's. Repeated values
have a free basis besides.
Write P = V^T dX V. The slope of the vectors is V (P_ij / (w_j - w_i)): where two values are equal
up to rounding, what the loss does with their vectors decides, and the rule cannot know it. The
losses trace(C V V^T) and trace(C V f(w) V^T) hand the same numbers to the rule, up to the factor
f(w), and have slopes that differ by f'(w).

  E23  eigh reads the symmetric part, as `cholesky`; its gradient is symmetric.
  E24  eigh at repeated eigenvalues: a loss of the eigenvalues alone (trace f(x), log det, norms)
       has a finite gradient, right if the loss is symmetric in the equal ones, else one of its
       subgradients. If the loss looks at a vector of an equal pair, the gradient of that matrix is
       NaN, and of no other matrix in the stack: undetermined, and never quietly wrong.
  E25  svd at repeated or vanishing singular values: as E24. A loss of s alone is finite; at s = 0
       it gets the u v^T of the null vectors that came (nuclear norm: a subgradient).
  E26  qr of a matrix without full rank: R is singular; ValueError where it is so exactly.
  E27  eigh and svd, second derivatives at repeated values: they go through the vectors and are
       NaN, also for trace f(x). Only a loss whose first slope in such a vector is exactly 0 at the
       point has that vector left out of its second.
"""

from __future__ import annotations

import math
from typing import Any

from autodiff.primitive import TABLE, primitive
from autodiff.rules_solve import in_float32, symmetric, turned
from autodiff.tensor import backend_of, raw


def _tied(gap: Any, size: Any, n: int) -> Any:
    """Where values differ by rounding alone: the errors of the algorithms are n u size."""
    gap, size = raw(gap), raw(size)
    b = backend_of(gap)
    return b.abs(gap) <= n * float(b.finfo(gap.dtype).eps) * size


def _over(xp: Any, top: Any, gap: Any, tied: Any, seen: Any) -> Any:
    """top / gap; where `tied`, 0 if the loss does not look there, NaN if it does."""
    b = backend_of(raw(top))
    hole = b.where(tied & seen, math.nan, b.zeros_like(raw(top)))
    return xp.where(tied, hole, top / xp.where(tied, 1.0, gap))


def _gaps(xp: Any, w: Any) -> tuple:
    """w_j - w_i, which pairs are tied, the identity."""
    n = w.shape[-1]
    gap = w[..., None, :] - w[..., :, None]
    b = backend_of(raw(w))
    size = b.max(b.abs(raw(w)), axis=-1, keepdims=True)[..., None] if n else raw(gap)
    return gap, _tied(gap, size, n), xp.eye(n, dtype=w.dtype)


def _looked(*ms: Any) -> Any:
    """Pairs (i, j), i != j, whose vectors the loss looks at."""
    b = backend_of(raw(ms[0]))
    off = ~b.eye(ms[0].shape[-1], dtype=b.bool)
    seen = ~off & off
    for m in map(raw, ms):
        seen = seen | (m != 0.0) | (turned(m) != 0.0)
    return seen & off


# --- eigh -------------------------------------------------------------------------------------


@in_float32
def eigh(xp: Any, x: Any) -> Any:
    w, v = xp.linalg.eigh(symmetric(x))
    return xp.concat([w[..., None, :], v * _signs(xp, v)], axis=-2)


def _signs(xp: Any, v: Any) -> Any:
    """-1 for the columns whose largest entry is negative."""
    if 0 in v.shape:
        return 1.0
    largest = xp.argmax(xp.abs(v), axis=-2, keepdims=True)
    return xp.where(xp.take_along_axis(v, largest, axis=-2) < 0.0, -xp.ones_like(v[..., :1, :]), 1.0)


def _eigh_jvp(xp: Any, tangents: list, node: Any) -> Any:
    z = node.saved[1]
    w, v = z[..., 0, :], z[..., 1:, :]
    p = turned(v) @ symmetric(tangents[0]) @ v
    gap, tied, eye = _gaps(xp, w)
    turn = _over(xp, p * (1.0 - eye), gap, tied, _looked(p))
    dw = xp.sum(p * eye, axis=-2)
    return xp.concat([dw[..., None, :], v @ turn], axis=-2)


@primitive("eigh", ((1,),), forward=eigh, kind="derived", jvp=_eigh_jvp)
def _eigh(xp: Any, g: Any, node: Any) -> tuple:
    z = node.saved[1]
    w, v = z[..., 0, :], z[..., 1:, :]
    m = turned(v) @ g[..., 1:, :]
    gap, tied, eye = _gaps(xp, w)
    core = _over(xp, (m - turned(m)) * 0.5, gap, tied, _looked(m)) + g[..., 0, None, :] * eye
    return (v @ core @ turned(v),)


# --- svd --------------------------------------------------------------------------------------


@in_float32
def svd(xp: Any, x: Any) -> Any:
    u, s, vt = xp.linalg.svd(x, full_matrices=False)
    signs = _signs(xp, u)
    return xp.concat([u * signs, s[..., None, :], turned(vt) * signs], axis=-2)


def _svd_parts(z: Any, m: int) -> tuple:
    return z[..., :m, :], z[..., m, :], z[..., m + 1 :, :]


def _halves(xp: Any, s: Any, even: Any, odd: Any, seen: Any) -> tuple:
    """even / (s_j - s_i) and odd / (s_j + s_i)."""
    gap, tied, eye = _gaps(xp, s)
    total = s[..., None, :] + s[..., :, None]
    b = backend_of(raw(s))
    size = b.max(raw(s), axis=-1, keepdims=True)[..., None] if s.shape[-1] else raw(total)
    null = _tied(total, size, s.shape[-1])
    return _over(xp, even, gap, tied, seen), _over(xp, odd, total, null, seen), eye


def _by_s(xp: Any, top: Any, s: Any) -> Any:
    """Columns of `top` over s; 0 / 0 is 0: a direction that nobody looks at."""
    b = backend_of(raw(s))
    size = b.max(raw(s), axis=-1, keepdims=True) if s.shape[-1] else raw(s)
    null = _tied(s, size, top.shape[-2])[..., None, :] & (raw(top) == raw(top))
    return _over(xp, top, s[..., None, :], null, raw(top) != 0.0)


def _svd_jvp(xp: Any, tangents: list, node: Any) -> Any:
    dx = tangents[0]
    m, n = dx.shape[-2:]
    u, s, v = _svd_parts(node.saved[1], m)
    p = turned(u) @ dx @ v
    even, odd = (p + turned(p)) * 0.5, (p - turned(p)) * 0.5
    eye = xp.eye(s.shape[-1], dtype=s.dtype)
    x, y, _ = _halves(xp, s, even * (1.0 - eye), odd, _looked(p))
    du, dv = u @ (x + y), v @ (x - y)
    if m > n:
        du = du + _by_s(xp, dx @ v - u @ p, s)
    if n > m:
        dv = dv + _by_s(xp, turned(dx) @ u - v @ turned(p), s)
    return xp.concat([du, xp.sum(p * eye, axis=-2)[..., None, :], dv], axis=-2)


@primitive("svd", ((1,),), forward=svd, kind="derived", jvp=_svd_jvp)
def _svd(xp: Any, g: Any, node: Any) -> tuple:
    m, n = node.edges[0].shape[-2:]
    u, s, v = _svd_parts(node.saved[1], m)
    gu, gs, gv = _svd_parts(g, m)
    a, b = turned(u) @ gu, turned(v) @ gv
    left, right = a - turned(a), b - turned(b)
    x, y, eye = _halves(xp, s, (left + right) * 0.5, (left - right) * 0.5, _looked(a, b))
    out = u @ (x + y + gs[..., None, :] * eye) @ turned(v)
    if m > n:
        out = out + _by_s(xp, gu - u @ a, s) @ turned(v)
    if n > m:
        out = out + u @ turned(_by_s(xp, gv - v @ b, s))
    return (out,)


# --- qr ---------------------------------------------------------------------------------------


@in_float32
def qr(xp: Any, x: Any) -> Any:
    q, r = xp.linalg.qr(x, mode="reduced")
    return xp.concat([q, turned(r)], axis=-2)


@primitive("qr", ((1,),), forward=qr, kind="derived")
def _qr(xp: Any, g: Any, node: Any) -> tuple:
    """(gQ + Q (tril M + tril(M, -1)^T)) R^-T with M = R gR^T - gQ^T Q.

    For a wide x = [X Y], R = [A B] with Y = Q B: B is linear in Y, and Q sees Y's part of gR.
    """
    m, n = node.edges[0].shape[-2:]
    z = node.saved[1]
    q, r, gq, gr = z[..., :m, :], turned(z[..., m:, :]), g[..., :m, :], turned(g[..., m:, :])
    wide = n > m
    if wide:
        gy = gr[..., m:]
        gq = gq + (q @ r[..., m:]) @ turned(gy)
        r, gr = r[..., :m], gr[..., :m]
    t = r @ turned(gr) - turned(gq) @ q
    core = xp.tril(t, k=0) + turned(xp.tril(t, k=-1))
    out = turned(TABLE["solve_triangular"](r, turned(gq + q @ core), upper=True))
    return (xp.concat([out, q @ gy], axis=-1) if wide else out,)
