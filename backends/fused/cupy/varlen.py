"""Attention within packed segments, on CUDA: segment b is rows cu_q[b] .. and keys cu_k[b] .. of one array.

The kernels find each segment's rows themselves: nothing is padded, and neighbours are never read.
"""

import math

from backends.fused.cupy import _attention
from backends.fused.cupy._levels import choose
from backends.fused.cupy._problem import FAR, Problem, adjacent, check
from backends.kernels import device as devices
from backends.kernels.device import storage

__all__ = ["forward", "vjp"]

_ALIGNED = {None: 1, "bottom_right": 1, "top_left": 0}


def forward(q, k, v, cu_q, cu_k, **options):
    """Attention and its log-sum-exp, a segment at a time.

    Parameters
    ----------
    q, k, v : float[N H d], float[M G d], float[M G e]
    cu_q, cu_k : int32[B + 1]
        Where segments start, with a last entry N, M. A segment may be empty.
    causal : "bottom_right", "top_left" or None
        Alignment within each segment.
    window : (left, right), optional
        Aligned bottom right, inclusive; not with a top-left causal mask.
    softcap, scale : float, optional
    longest : (int, int), optional
        The longest segments of q and k, if known: saves a copy to the host.

    Returns
    -------
    (o, lse), saved : (float[N H e], float32[H N]), (float32[H N],)

    Raises
    ------
    ValueError
        Axes or segments that do not fit, an unknown alignment, a negative window, or softcap <= 0.
    TypeError
        A dtype that no kernel takes, or cu_q, cu_k that are not int32.
    """
    device = devices.current()
    p = _problem(device.xp, q, k, v, cu_q, cu_k, **options)
    o, lse = _attention.allocate(device.xp, p)
    if lse.size:
        packed = _packed(device.xp.empty((q.shape[0], q.shape[1], v.shape[2]), q.dtype))
        _attention.forward(device, choose(device, p), p, packed, lse)
        o = packed
    return (_unpacked(o), lse[0]), (lse[0],)


def vjp(g, out, saved, needs, q, k, v, cu_q, cu_k, **options):
    """Cotangents of q, k, v; g = (of o, of lse), either of which may be None."""
    device = devices.current()
    xp = device.xp
    p = _problem(xp, q, k, v, cu_q, cu_k, **options)
    o, lse = _packed(out[0]), saved[0][None]
    g_o = xp.zeros(o.shape, o.dtype) if g[0] is None else adjacent(_packed(g[0]))
    g_lse = None if g[1] is None else xp.ascontiguousarray(g[1], dtype="float32")[None]
    made = [xp.zeros(x.shape, x.dtype) for x in (q, k, v)]
    dq, dk, dv = (_packed(x) for x in made)
    if p.q.size and p.k.size:
        gradients = (dq if needs[0] else None, *((dk, dv) if needs[1] or needs[2] else (None, None)))
        level = choose(device, p, True, (g_o, o))
        _attention.backward(device, level, p, o, lse, g_o, g_lse, gradients)
    return tuple(x if need else None for x, need in zip(made, needs, strict=True))


def _packed(x):
    """[N H c] as [1 H N c], a view."""
    return x.swapaxes(0, 1)[None]


def _unpacked(x):
    return x[0].swapaxes(0, 1)


def _problem(xp, q, k, v, cu_q, cu_k, *, causal=None, window=None, softcap=None, scale=None, longest=None):
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 3:
            raise ValueError(f"varlen: {name} has shape {x.shape}; needed [N H d] for q, [M G d] for k, [M G e] for v")
    check(*map(_packed, (q, k, v)), softcap, "varlen")
    if causal not in _ALIGNED:
        raise ValueError(f"varlen: causal={causal!r}; needed an alignment, 'bottom_right' or 'top_left', or None")
    if window is not None and (min(window) < 0 or causal == "top_left"):
        raise ValueError(f"varlen: window={window}, causal={causal!r}; needed sides >= 0, and not causal top_left")
    longest = _segments(cu_q, cu_k, q, k, longest)
    low, high = (-FAR, FAR) if window is None else (-window[0], window[1])
    high = high if causal is None else min(high, 0)
    arrays = (adjacent(_packed(x)) for x in (q, k, v))
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    return Problem(*arrays, storage(q.dtype), low, high, _ALIGNED[causal], None, None, None, softcap or 0.0, scale,
                   (0.0, 0), cu_q, cu_k, longest)  # fmt: skip


def _segments(cu_q, cu_k, q, k, longest):
    """(rows, keys) of the longest segment. With `longest` given nothing is read back from the device."""
    for name, cu in (("cu_q", cu_q), ("cu_k", cu_k)):
        if cu.dtype != "int32":
            raise TypeError(f"varlen: {name} is {cu.dtype}; needed int32")
        if cu.ndim != 1 or not cu.shape[0]:
            raise ValueError(f"varlen: {name} has shape {cu.shape}; needed [B + 1]")
    if cu_q.shape != cu_k.shape:
        raise ValueError(f"varlen: cu_q has shape {cu_q.shape}, cu_k {cu_k.shape}; needed [B + 1] of one B")
    return longest or tuple(
        _longest(name, cu, x, axis) for name, cu, x, axis in (("cu_q", cu_q, "q", q), ("cu_k", cu_k, "k", k))
    )


def _longest(name, cu, array, x):
    steps = cu.tolist()
    if steps[0] != 0:
        raise ValueError(f"varlen: {name} starts at {steps[0]}; needed 0")
    if steps[-1] != x.shape[0]:
        raise ValueError(f"varlen: {name} ends at {steps[-1]}, {array} has N={x.shape[0]} rows")
    for i, (a, b) in enumerate(zip(steps, steps[1:], strict=False), 1):
        if b < a:
            raise ValueError(f"varlen: {name} decreases at {i}, from {a} to {b}")
    return max((b - a for a, b in zip(steps, steps[1:], strict=False)), default=0)
