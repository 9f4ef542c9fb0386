"""Scaled dot-product attention.

Source: Vaswani et al. 2017 (1706.03762) Eq. 1; grouped heads: Shazeer 2019 (1911.02150), Ainslie et al.
2023 (2305.13245); logit softcap: Gemma 2 (2408.00118) sec. 2.

    s_ij = scale q_i . k_j                       scale = 1 / sqrt(d)
    s_ij <- cap tanh(s_ij / cap)                 if softcap
    s_ij <- s_ij + bias_ij,   s_ij <- -inf where the mask drops (i, j)
    p_ij = exp(s_ij - m_i) / sum_j exp(s_ij - m_i),   m_i = max_j s_ij
    o_i  = sum_j p_ij v_j

Notation
    Q, K, V -> q[*B H T d], k[*B G S d], v[*B G S e]; H query heads share G key heads, R = H / G each.

Conventions
    C1  Order: scale, softcap, bias, mask. With the mask before the softcap a dropped key keeps the weight
        e^{-cap} (ONNX's reference did so).
    C2  Masks are True = keep, as in torch; in JAX too; ONNX and Hugging Face use both polarities.
    C3  Query head h uses key head floor(h / R), that is repeat_interleave; `tile` is the common bug.
    C4  A row that sees no key gives zeros and zero gradients; a plain softmax gives NaN.
    C5  What no row sees (padding, another segment) may hold anything, NaN too: it is taken out by
        selection, never by multiplying with zero.
    C6  A bias is of the queries' dtype and has a gradient, summed over the axes it was spread along.

Laws
    L1 one_key_is_its_value                 L2 two_keys_are_a_logistic
    L3 equal_keys_average_the_values        L4 a_head_is_its_own_attention
    L5 output_is_a_mean_of_visible_values   L6 key_order_is_immaterial
    L7 masked_keys_are_invisible            L8 a_row_without_keys_is_zero
    L9 a_shift_of_a_row_of_logits_is_invisible   L10 a_chunk_is_the_tail
    L11 large_logits_pick_the_largest       L12 a_bias_is_a_log_weight
    L13 gradient_of_two_keys                L14 gradient_is_the_closed_form
    L15 invisible_junk_has_no_gradient      L16 key_gradients_cancel
    L17 unseen_junk_is_invisible            L18 gradient_of_a_bias
    L19 weights_are_the_softmax_of_the_logits
    L20 far_keys_outweigh_hidden_ones
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.attention.rules import is_rule, materialise
from ref.spec import bind, spec

SHAPES = "q[*B H T d], k[*B G S d], v[*B G S e]"


@spec("attention.sdpa", f"{SHAPES} -> [*B H T e]", grads=("q", "k", "v", "bias"))
def sdpa(q, k, v, *, mask=None, bias=None, softcap=None, scale=None):
    """Attention of T queries over S keys, all at once (an N x N array is made).

    Parameters
    ----------
    q, k, v : float[*B H T d], float[*B G S d], float[*B G S e]
        Queries, keys, values; G divides H.
    mask : bool array or Rule, optional
        Broadcastable to [*B H T S]; True keeps.
    bias : float array or Rule, optional
        Broadcastable to [*B H T S]; added after the softcap.
    softcap : float, optional
        Logits become softcap * tanh(logits / softcap).
    scale : float, optional
        1 / sqrt(d) if not given.

    Returns
    -------
    float[*B H T e]

    Raises
    ------
    ValueError
        Axes disagree, G does not divide H, the mask or bias does not broadcast, softcap <= 0.
    TypeError
        An array is not float, dtypes or backends differ, the mask is not bool, or a rule is of the other kind.

    Complexity: 2 B H T S (d + e) multiply-adds, B H T S memory.

    >>> import numpy as np
    >>> q, k, v = np.zeros((1, 1, 2)), np.zeros((1, 2, 2)), np.array([[[0.0], [4.0]]])
    >>> sdpa(q, k, v)
    array([[[2.]]])
    """
    H, T, S = check(q, k, v, mask=mask, bias=bias, softcap=softcap, function="sdpa")
    xp = namespace(q, k, v, None if is_rule(bias) else bias)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    k, v = repeat_heads(xp, k, H), repeat_heads(xp, v, H)
    keep = None if mask is None else materialise(mask, xp, T, S)
    if keep is not None:
        q, k, v = drop_unseen(xp, q, k, v, keep)

    s = xp.matmul(q, xp.matrix_transpose(k)) * scale
    if softcap is not None:
        s = softcap * xp.tanh(s / softcap)
    if bias is not None:
        s = s + materialise(bias, xp, T, S, s.dtype)
    if keep is not None:
        s = xp.where(keep, s, -math.inf)
    return xp.matmul(_softmax(xp, s) if S else s, v)


def _softmax(xp, s):
    """Softmax over the last axis; zeros where every logit is -inf."""
    m = xp.max(s, axis=-1, keepdims=True)
    m = xp.where(xp.isinf(m) & (m < 0), 0.0, m)
    p = xp.exp(s - m)
    total = xp.sum(p, axis=-1, keepdims=True)
    return p / xp.where(total == 0, 1.0, total)


def repeat_heads(xp, x, H):
    """x[*B G S d] -> [*B H S d]: head h is x's head h // (H / G) (C3)."""
    G = x.shape[-3]
    return x if G == H else xp.take(x, xp.arange(H) // (H // G), axis=-3)


def drop_unseen(xp, q, k, v, keep):
    """Zero, by selection, the rows that see nothing and the keys and values that nobody sees (C5)."""
    seeing = xp.any(keep, axis=-1)[..., None]
    seen = xp.any(keep, axis=-2)[..., None]
    return xp.where(seeing, q, 0.0), xp.where(seen, k, 0.0), xp.where(seen, v, 0.0)


def check(q, k, v, *, mask=None, bias=None, softcap=None, function="sdpa"):
    """Validate the arguments of an attention function; returns (H, T, S)."""
    dims = bind(function, SHAPES, q=q, k=k, v=v)
    H, G, T, S = dims["H"], dims["G"], dims["T"], dims["S"]
    if (G == 0) != (H == 0) or (G and H % G):
        raise ValueError(f"{function}: q has H={H} heads, k has G={G}; G must divide H")
    if dims["d"] == 0:
        raise ValueError(f"{function}: q has d=0; the head dimension must be at least 1")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"{function}: softcap={softcap}; needed a number > 0, or None")
    for name, extra, kind in (("mask", mask, "bool"), ("bias", bias, "float")):
        if is_rule(extra):
            _check_rule(function, name, extra)
        elif extra is not None:
            bind(function, f"q[*B H T d], {name}:{kind}[*any]", **{"q": q, name: extra})
            _check_broadcast(function, name, tuple(extra.shape), (*dims["B"], H, T, S))
    return H, T, S


def _check_rule(function, name, rule):
    if getattr(rule, "kind", name) != name:  # a stranger's rule need not say
        raise TypeError(f"{function}: {name}={rule!r} is a rule of a {rule.kind}; needed one of a {name}")


def _check_broadcast(function, name, shape, full):
    padded = (1,) * (len(full) - len(shape)) + shape
    if len(shape) > len(full) or any(a not in (1, b) for a, b in zip(padded, full, strict=True)):
        raise ValueError(
            f"{function}: {name} has shape {shape}; it must broadcast to [*B H T S] = {full}"
        )
