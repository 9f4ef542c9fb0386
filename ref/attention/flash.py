"""Flash attention: one pass over the keys, by tiles, forward and backward.

Source: Dao 2023 (2307.08691) Alg. 1 (forward) and 2 (backward); Dao et al. 2022 (2205.14135) sec. 3.1.

The last of four steps (`safe_softmax`, `online_softmax`, `merge`). A row's state (m, l, O) is merged with one
tile of keys after another and divided once, at the end; the N x N weights are never all there, and the
backward makes them again, a tile at a time, from L.

    forward, for each block of B_r rows, for each tile of B_c columns that some row of it sees:
        S = scale Q K^T              then softcap, bias, mask, as in `sdpa`
        m_S = rowmax S,  P = exp(S - m_S),  (m, l, O) <- merge((m, l, O), (m_S, rowsum P, P V))
    O <- O / l,   L = m + log l

    backward, for each tile of B_c columns, for each block of rows that sees it:
        P  = exp(S - L)
        dV += P^T dO,   dP = dO V^T
        dS = P * (dP - D)            D = rowsum(dO * O) - dL, dL the cotangent of L
        dS <- dS * (1 - (s / cap)^2) with a softcap, s the logit after it
        dQ += scale dS K,   dK += scale dS^T Q

Notation
    N -> T queries, S keys; B_r -> block_rows; B_c -> block_cols; L -> lse[*B H T]; the rest as in `sdpa`.

Conventions
    C1  L is the natural log-sum-exp of the logits after softcap, bias and mask; -inf for a row without keys,
        whose O and gradients are zero. exp(S - L) is guarded there.
    C2  Alg. 1 takes P against the new maximum; here P is taken against the tile's own, and `merge` moves
        both: the same numbers, B_r e multiplications more.
    C3  Tiles lie on one grid over rows and columns, the last ones ragged; those outside a rule's `columns`
        are skipped, forward and backward. An array is a mask of which nothing is known: nothing is skipped.
    C4  What a tile's rows may not see leaves by selection (S = -inf, dS = 0, K and V zero), and so do queries that
        see no key; any of them may hold NaN.
    C5  Derivatives of the gradient, forward mode, and gradients of a bias array are those of `sdpa` with its
        log-sum-exp, all at once: an N x N array is made there.

Laws
    L1 one_key_is_its_value_and_its_logit       L2 two_keys_are_a_tanh_and_a_softplus    
    L3 equal_keys_average_and_count             L4 tiles_are_immaterial
    L5 split_keys_merge                         L6 a_shift_of_a_row_of_logits_shifts_lse
    L7 output_is_a_mean_of_visible_values       L8 large_logits_pick_the_largest
    L9 a_row_without_keys_is_zero               L10 unseen_junk_is_invisible
    L11 a_chunk_is_the_tail                     L12 gradient_is_the_closed_form
    L13 gradient_of_lse_is_the_weights          L14 key_gradients_cancel
    L15 invisible_junk_has_no_gradient          L16 each_visible_tile_is_met_once
    L17 forward_holds_one_tile                  L18 backward_holds_two_tiles
    L19 far_keys_outweigh_hidden_ones
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import custom, fusable, namespace, raw
from autodiff.ops import logsumexp
from ref.attention.merge import State, finish, merge, nothing
from ref.attention.rules import is_rule, materialise
from ref.attention.safe_softmax import finite, safe_softmax
from ref.attention.sdpa import SHAPES, check, drop_unseen, repeat_heads
from ref.spec import spec

BLOCK = 128
STRIP = 16  # rows at a time of what makes a new array: a second tile would double the memory


class _Plan(NamedTuple):
    """What a tile is computed from besides Q, K and V. `rows` and `cols` are slices."""

    xp: Any
    T: int
    S: int
    mask: Any
    bias: Any
    softcap: float | None
    scale: float
    dtype: Any
    rows: list
    cols: list

    def sees(self, rows, cols):
        """Whether the mask's rule lets some of the rows see some of the columns."""
        if not is_rule(self.mask):
            return True
        low, high = self.mask.columns(rows.start, rows.stop, self.T, self.S)
        return cols.start < high and cols.stop > low

    def tile(self, source, rows, cols):
        """[... rows cols] of a mask or bias, of an array or a rule; None of None."""
        if source is None:
            return None
        if not is_rule(source):
            return materialise(source, self.xp, self.T, self.S)[..., rows, cols]
        i, j = (self.xp.arange(x.start, x.stop) for x in (rows, cols))
        tile = source.tile(self.xp, i, j, self.T, self.S)
        tile = self.xp.astype(tile, self.dtype) if source is self.bias else tile
        return self.xp.broadcast_to(tile, (*tile.shape[:-2], *i.shape, *j.shape))

    def logits(self, raw_logits, keep, bias):
        """(logits, softcap's slope) of scale Q K^T: softcap, bias, mask, in this order."""
        xp, s, slope = self.xp, raw_logits, 1.0
        if self.softcap is not None:
            t = xp.tanh(s / self.softcap)
            s, slope = self.softcap * t, 1.0 - t * t
        if bias is not None:
            s = s + bias
        return (s if keep is None else xp.where(keep, s, -math.inf)), slope


def _forward(q, k, v, **options):
    """Alg. 1: ((o, lse), ())."""
    p = _plan(q, k, v, **options)
    xp, H = p.xp, q.shape[-3]
    o = xp.zeros((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device=q.device)
    lse = xp.zeros(q.shape[:-1], dtype=q.dtype, device=q.device)
    for rows in p.rows:
        Q = q[..., rows, :] * p.scale
        state = nothing(xp, Q.shape[:-1], v.shape[-1], like=q)
        for cols in p.cols:
            if p.sees(rows, cols):
                K, V = (repeat_heads(xp, x[..., cols, :], H) for x in (k, v))
                state = merge(*state, *_tile_state(p, Q, K, V, rows, cols))
        o[..., rows, :], lse[..., rows] = finish(xp, state)
    return (o, lse), ()


def _tile_state(p, Q, K, V, rows, cols):
    """The state (m, l, O) of one tile. Q comes scaled."""
    xp, keep, bias = p.xp, p.tile(p.mask, rows, cols), p.tile(p.bias, rows, cols)
    if keep is not None:
        Q, K, V = drop_unseen(xp, Q, K, V, keep)
    S = xp.matmul(Q, xp.matrix_transpose(K))
    for strip in _strips(S):
        S[strip], _ = p.logits(S[strip], _cut(keep, strip), _cut(bias, strip))
    m = xp.max(S, axis=-1)
    for strip in _strips(S):  # S becomes P
        S[strip] = xp.exp(S[strip] - finite(xp, m[strip[:-1]])[..., None])
    return State(m, xp.sum(S, axis=-1), xp.matmul(S, V))


def _vjp(g, out, saved, needs, q, k, v, **options):
    """Alg. 2: cotangents of q, k, v under g = (dO, dL), either of which may be None."""
    p = _plan(q, k, v, **options)
    xp, H = p.xp, q.shape[-3]
    dq, dk, dv = (xp.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    bands = {rows.start: _delta(xp, g, out, rows) for rows in p.rows}
    for cols in p.cols:
        K, V = (repeat_heads(xp, x[..., cols, :], H) for x in (k, v))
        for rows in p.rows:
            if p.sees(rows, cols):
                Q, dO = q[..., rows, :] * p.scale, _cotangent(xp, g, out, rows)
                tile = _tile_vjp(p, Q, K, V, dO, out[1][..., rows], bands[rows.start], rows, cols)
                dq[..., rows, :] = dq[..., rows, :] + tile[0] * p.scale
                dk[..., cols, :] = dk[..., cols, :] + _sum_groups(xp, tile[1], k.shape[-3])
                dv[..., cols, :] = dv[..., cols, :] + _sum_groups(xp, tile[2], k.shape[-3])
    return tuple(x if need else None for x, need in zip((dq, dk, dv), needs, strict=True))


def _tile_vjp(p, Q, K, V, dO, L, D, rows, cols):
    """(dQ / scale, dK, dV) of one tile. Q comes scaled."""
    xp, keep, bias = p.xp, p.tile(p.mask, rows, cols), p.tile(p.bias, rows, cols)
    if keep is not None:
        Q, K, V = drop_unseen(xp, Q, K, V, keep)
    L = finite(xp, L)[..., None]
    P, dS = xp.matmul(Q, xp.matrix_transpose(K)), xp.matmul(dO, xp.matrix_transpose(V))
    for strip in _strips(P):  # dS still holds dP, P still S
        S, slope = p.logits(P[strip], _cut(keep, strip), _cut(bias, strip))
        P[strip] = xp.exp(S - L[strip])
        dS[strip] = P[strip] * (dS[strip] - D[strip]) * slope
        if keep is not None:
            dS[strip] = xp.where(_cut(keep, strip), dS[strip], 0.0)
    return xp.matmul(dS, K), xp.matmul(xp.matrix_transpose(dS), Q), xp.matmul(xp.matrix_transpose(P), dO)


def _cotangent(xp, g, out, rows):
    """dO of a block of rows, zero where a row saw nothing."""
    o, lse = out[0][..., rows, :], out[1][..., rows]
    return xp.zeros_like(o) if g[0] is None else xp.where((lse == -math.inf)[..., None], 0.0, g[0][..., rows, :])


def _delta(xp, g, out, rows):
    """D = rowsum(dO * O) - dL of a block of rows."""
    D = xp.sum(_cotangent(xp, g, out, rows) * out[0][..., rows, :], axis=-1, keepdims=True)
    return D if g[1] is None else D - g[1][..., rows][..., None]


def _strips(tile):
    """Index of STRIP rows after STRIP rows of a tile."""
    return [(..., rows, slice(None)) for rows in _grid(tile.shape[-2], STRIP)]


def _cut(x, strip):
    return x if x is None else x[strip]


def _sum_groups(xp, x, G):
    """x[*B H S d] -> [*B G S d], summed over the query heads of each group."""
    *B, H, S, d = x.shape
    return xp.sum(xp.reshape(x, (*B, G, H // max(G, 1), S, d)), axis=-3)


def _check(q, k, v, *, mask=None, bias=None, softcap=None, scale=None, block_rows=None, block_cols=None):
    check(q, k, v, mask=mask, bias=bias, softcap=softcap, function="flash")
    for name, size in (("block_rows", block_rows), ("block_cols", block_cols)):
        if size is not None and size < 1:
            raise ValueError(f"flash: {name}={size}; needed at least 1")


def _plan(q, k, v, *, mask=None, bias=None, softcap=None, scale=None, block_rows=None, block_cols=None):
    xp, T, S = namespace(q, k, v, None if is_rule(bias) else bias), q.shape[-2], k.shape[-2]
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    rows, cols = _grid(T, block_rows or BLOCK), _grid(S, block_cols or BLOCK)
    return _Plan(xp, T, S, mask, bias, softcap, scale, q.dtype, rows, cols)


def _grid(n, size):
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _all_at_once(q, k, v, *, block_rows=None, block_cols=None, **options):
    """`sdpa` with its log-sum-exp: what is differentiated where the tiled form cannot be (C5)."""
    _check(q, k, v, block_rows=block_rows, block_cols=block_cols, **options)
    p, H = _plan(q, k, v, **options), q.shape[-3]
    xp = p.xp
    keep, bias = (p.tile(x, slice(0, p.T), slice(0, p.S)) for x in (p.mask, p.bias))
    k, v = repeat_heads(xp, k, H), repeat_heads(xp, v, H)
    if keep is not None:
        q, k, v = drop_unseen(xp, q, k, v, keep)
    s, _ = p.logits(xp.matmul(q, xp.matrix_transpose(k)) * p.scale, keep, bias)
    lse = logsumexp(s, axis=-1) if p.S else xp.sum(s, axis=-1) - math.inf
    return xp.matmul(safe_softmax(s), v), lse


_tiled = custom("attention.flash", _forward, _vjp, composite=_all_at_once, labels=("q", "k", "v"))


@spec("attention.flash", f"{SHAPES} -> o[*B H T e], lse[*B H T]", grads=("q", "k", "v"), infinite=True)
@fusable("attention.flash", tensors=("q", "k", "v"), reference=_all_at_once)
def flash(q, k, v, *, mask=None, bias=None, softcap=None, scale=None, block_rows=None, block_cols=None):
    """Attention of T queries over S keys by tiles, and the log-sum-exp of each row of logits.

    Parameters
    ----------
    q, k, v : float[*B H T d], float[*B G S d], float[*B G S e]
        Queries, keys, values; G divides H.
    mask : bool array or Rule, optional
        Broadcastable to [*B H T S]; True keeps. Tiles that a Rule shuts out are skipped.
    bias : float array or Rule, optional
        Broadcastable to [*B H T S]; added after the softcap.
    softcap : float, optional
        Logits become softcap * tanh(logits / softcap).
    scale : float, optional
        1 / sqrt(d) if not given.
    block_rows, block_cols : int, optional
        Rows and columns of a tile; they change the time, not the result.

    Returns
    -------
    o : float[*B H T e]
    lse : float[*B H T]
        Natural log-sum-exp of the logits; -inf for a row that sees no key.

    Raises
    ------
    ValueError
        Axes disagree, G does not divide H, the mask or bias does not broadcast, softcap <= 0, an empty tile.
    TypeError
        An array is not float, dtypes or backends differ, the mask is not bool, or a rule is of the other kind.

    Complexity: 2 B H T S (d + e) multiply-adds; for each head, besides the outputs, B_r B_c numbers and
    O((B_r + B_c) (d + e)) more (twice the tile in the backward). Q is read once, K and V ceil(T / B_r) times.

    >>> import numpy as np
    >>> q, k, v = np.zeros((1, 1, 2)), np.zeros((1, 2, 2)), np.array([[[0.0], [4.0]]])
    >>> o, lse = flash(q, k, v, block_cols=1)
    >>> o, np.exp(lse)
    (array([[[2.]]]), array([[2.]]))
    """
    options = {"softcap": softcap, "scale": scale, "block_rows": block_rows, "block_cols": block_cols}
    _check(q, k, v, mask=mask, bias=bias, **options)
    # The primitive itself: under forms("composite") the wrapper that `custom` returns would take C5's form.
    return _tiled.primitive((q, k, v), {"mask": raw(mask), "bias": raw(bias), **options})
