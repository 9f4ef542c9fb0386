"""Attention with one line in the wrong place: the softcap after the mask (onnx#7865)."""

import numpy as np


def attention(q, k, v, *, mask=None, softcap=None):
    """Attention of q[*B H T d] over k[*B G S d], v[*B G S e]; right wherever mask or softcap is None."""
    k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3) for x in (k, v))
    s = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    s = s if mask is None else np.where(mask, s, -np.inf)
    s = s if softcap is None else softcap * np.tanh(s / softcap)
    p = np.exp(s - s.max(-1, keepdims=True, initial=-1e300))
    return p @ v / np.maximum(p.sum(-1, keepdims=True), 1e-300)
