"""Attention in float64, all at once, with the error that a tiled form may make.

The bounds follow the rounding of each step to first order, in units u of the form's precision:

    logits    ds_ij = (d + 5) u a_ij + 3 u |s_ij|      a_ij = scale |q_i| . |k_j|; the second term
                                                       is the cap's, the bias's and L's rounding
    weights   dp_ij = p_ij w_i,  w_i = 2 max_j ds_ij + (S + 10) u
    output    do_i  = sum_j p_ij |v_j| (w_i + (S + 4) u)
    gradient  ddS_ij = p_ij (w_i (|dP_ij| + |D_i|) + err dP_ij + err D_i) + |dS_ij| slope error
              err dP_ij = (e + 2) u |g_i| . |v_j|,  err D_i = (e + 2) u |g_i| . |o_i| + |g_i| . do_i
    then each of dq, dk, dv adds (terms + 4) u times the sum of magnitudes it sums.

A tile by tile sum has the same bound as a plain one: it only brackets the terms otherwise, and each
rescaling by a new maximum is one more rounding a term, which the 10 covers. `SAFETY` is for the
second order.
"""

import numpy as np

SAFETY = 1.25


def attention(q, k, v, g, g_l, *, mask=None, bias=None, softcap=None, scale=None, drop=1.0):
    """{name: (value, bound in units of u)} for o, lse, dq, dk, dv. Rows without keys give zeros.

    `drop` multiplies the weights of the values: 0 or 1 / (1 - rate) under dropout.
    """
    H, T, d = q.shape[-3:]
    G, S, e = v.shape[-3:]
    R = H // G
    q, k, v, g, g_l = (x.astype(np.float64) for x in (q, k, v, g, g_l))
    full = (*q.shape[:-1], S)
    keep = np.ones(full, bool) if mask is None else np.broadcast_to(mask, full)
    # What nobody sees may be NaN: it leaves by selection.
    q = np.where(keep.any(-1)[..., None], q, 0)
    g = np.where(keep.any(-1)[..., None], g, 0)
    seen = keep.reshape(*full[:-3], G, R, T, S).any((-3, -2))[..., None]
    k, v = np.where(seen, k, 0), np.where(seen, v, 0)
    K, V = np.repeat(k, R, -3), np.repeat(v, R, -3)
    scale = 1 / np.sqrt(max(d, 1)) if scale is None else scale

    raw = scale * q @ K.mT
    t = np.tanh(raw / softcap) if softcap else np.zeros_like(raw)
    s = softcap * t if softcap else raw
    if bias is not None:
        s = s + bias
    s = np.where(keep, s, -np.inf)
    m = s.max(-1, keepdims=True, initial=-np.inf)
    m = np.where(np.isneginf(m), 0, m)
    p = np.exp(s - m)
    total = p.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (m + np.log(total))[..., 0]
    p /= np.where(total == 0, 1, total)
    o = (p * drop) @ V
    slope = 1 - t**2
    dP = drop * (g @ V.mT)
    D = (g * o).sum(-1, keepdims=True) - g_l[..., None]
    dS = p * (dP - D) * slope

    def by_group(x):
        return x.reshape(*x.shape[:-3], G, R, S, x.shape[-1]).sum(-3)

    value = {
        "o": o,
        "lse": lse,
        "dq": scale * dS @ K,
        "dk": by_group(scale * dS.mT @ q),
        "dv": by_group((p * drop).mT @ g),
    }

    size = abs(scale)
    a = size * abs(q) @ abs(K).mT
    finite = np.where(np.isneginf(s), 0, abs(s))
    ds = (d + 5) * a + 3 * finite
    if bias is not None:
        ds = ds + np.where(np.isfinite(bias), abs(bias), 0)
    ds = np.where(keep, ds, 0)
    w = 2 * ds.max(-1, keepdims=True, initial=0) + S + 10
    do = ((p * drop) @ abs(V)) * (w + S + 4)
    err_D = (e + 2) * (abs(g) * abs(o)).sum(-1, keepdims=True)
    err_D += (abs(g) * do).sum(-1, keepdims=True) + 2 * abs(g_l)[..., None]
    err_dP = drop * ((e + 2) * abs(g) @ abs(V).mT)
    ddS = p * slope * (w * (abs(dP) + abs(D)) + err_dP + err_D)
    if softcap:
        ddS += p * abs(dP - D) * 2 * (abs(t) * ds / softcap + 4)
    live = np.where(np.isneginf(lse), 0, abs(lse))
    bound = {
        "o": do,
        "lse": ds.max(-1, initial=0) + 4 * live + S + 10,
        "dq": size * (ddS @ abs(K) + (S + 4) * abs(dS) @ abs(K)),
        "dk": by_group(size * (ddS.mT @ abs(q) + (R * T + 4) * abs(dS).mT @ abs(q))),
        "dv": by_group((p * drop * w).mT @ abs(g) + (R * T + 4) * (p * drop).mT @ abs(g)),
    }
    return {name: (value[name], SAFETY * bound[name]) for name in value}


def agrees(actual, oracle, dtype):
    """Which outputs are wrong: {name: largest error over its bound}, empty if all are within."""
    u = np.finfo(dtype).eps / 2
    wrong = {}
    for name, x in actual.items():
        wanted, bound = oracle[name]
        if x.shape != wanted.shape or x.dtype != dtype:
            wrong[name] = f"{x.dtype}{x.shape}, not {np.dtype(dtype)}{wanted.shape}"
            continue
        low = np.isneginf(wanted)
        with np.errstate(invalid="ignore"):
            error = np.where(low & np.isneginf(x), 0, abs(x.astype(np.float64) - wanted))
        tiny = np.finfo(dtype).smallest_normal
        if not (error <= u * np.where(low, 0, bound) + tiny * 2**20).all():
            ratio = error / (u * np.where(low, 1, bound) + tiny)
            wrong[name] = float(np.where(np.isnan(ratio), np.inf, ratio).max())
    return wrong
