"""Attention within packed segments, on CUDA: segment b is rows cu_q[b] .. and keys cu_k[b] .. of one array.

The kernels find each segment's rows themselves: nothing is padded, and neighbours are never read.
"""

import math

from backends.fused.cupy import _attention
from backends.fused.cupy._levels import choose
from backends.fused.cupy._problem import FAR, Problem, adjacent, check
from backends.kernels import device as devices
from backends.kernels.device import storage

__all__ = ["forward", "supports", "vjp"]


def supports(q, k, v, cu_q, cu_k, **options):
    """Whether some level takes the call, forward and backward."""
    device = devices.current()
    try:
        p = _problem(device.xp, q, k, v, cu_q, cu_k, longest=(1, 1), **options)
    except (TypeError, ValueError):
        return False
    return choose(device, p) is not None and choose(device, p, backward=True) is not None


def forward(q, k, v, cu_q, cu_k, **options):
    """Attention and its log-sum-exp, a segment at a time.

    Parameters
    ----------
    q, k, v : float[H N d], float[G M d], float[G M e]
        All float32, all float16 or all bfloat16; any strides.
    cu_q, cu_k : int[B + 1]
        Where segments start, with a last entry N, M. A segment may be empty.
    mask : Rule, optional
        Of one segment's rows and columns, with `edges`.
    softcap, scale : float, optional
    longest : (int, int), optional
        The longest segments of q and k, if known: saves a copy to the host.

    Returns
    -------
    (o, lse), saved : (float[H N e], float[H N]), (float32[H N],)

    Raises
    ------
    ValueError
        Axes or segments that do not fit, a mask without one alignment, a bias, or softcap <= 0.
    TypeError
        A dtype that no kernel takes, or cu_q, cu_k that are not int.
    """
    device = devices.current()
    p = _problem(device.xp, q, k, v, cu_q, cu_k, **options)
    o, lse = _attention.allocate(device.xp, p)
    if lse.size:
        _attention.forward(device, choose(device, p), p, o, lse)
    return (o[0], lse[0].astype(q.dtype, copy=False)), (lse[0],)


def vjp(g, out, saved, needs, q, k, v, cu_q, cu_k, **options):
    """Cotangents of q, k, v; g = (of o, of lse), either of which may be None."""
    device = devices.current()
    xp = device.xp
    p = _problem(xp, q, k, v, cu_q, cu_k, **options)
    o, lse = out[0][None], saved[0][None]
    g_o = xp.zeros(o.shape, o.dtype) if g[0] is None else adjacent(g[0][None])
    g_lse = None if g[1] is None else xp.ascontiguousarray(g[1], dtype="float32")[None]
    made = [xp.zeros(x.shape, x.dtype) for x in (q, k, v)]
    dq, dk, dv = (x[None] for x in made)
    if p.q.size and p.k.size:
        gradients = (dq if needs[0] else None, *((dk, dv) if needs[1] or needs[2] else (None, None)))
        level = choose(device, p, True, (g_o, o))
        _attention.backward(device, level, p, o, lse, g_o, g_lse, gradients)
    return tuple(x if need else None for x, need in zip(made, needs, strict=True))


def _problem(xp, q, k, v, cu_q, cu_k, *, mask=None, bias=None, softcap=None, scale=None, longest=None):
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 3:
            raise ValueError(f"varlen: {name} has shape {x.shape}; needed [H N d] for q, [G M d] for k, [G M e] for v")
    check(q, k, v, softcap, "varlen")
    longest = _segments(cu_q, cu_k, q, k, longest)
    edges = (None, None, "bottom_right") if mask is None else mask.edges() if hasattr(mask, "edges") else None
    if edges is None or bias is not None:
        raise ValueError(f"varlen: mask={mask!r}, bias={bias!r}; needed a mask of one alignment, and no bias")
    low, high, align = edges
    cu_q, cu_k = (xp.ascontiguousarray(cu, dtype="int32") for cu in (cu_q, cu_k))
    arrays = (adjacent(x[None]) for x in (q, k, v))
    scale = 1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else float(scale)
    return Problem(*arrays, storage(q.dtype), -FAR if low is None else low, FAR if high is None else high,
                   int(align == "bottom_right"), None, None, None, softcap or 0.0, scale, (0.0, 0), cu_q, cu_k,
                   longest)  # fmt: skip


def _segments(cu_q, cu_k, q, k, longest):
    """(rows, keys) of the longest segment. With `longest` given nothing is read back from the device."""
    for name, cu in (("cu_q", cu_q), ("cu_k", cu_k)):
        if cu.dtype.kind not in "iu":
            raise TypeError(f"varlen: {name} is {cu.dtype}; needed int")
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
    if steps[-1] != x.shape[1]:
        raise ValueError(f"varlen: {name} ends at {steps[-1]}, {array} has N={x.shape[1]} rows")
    for i, (a, b) in enumerate(zip(steps, steps[1:], strict=False), 1):
        if b < a:
            raise ValueError(f"varlen: {name} decreases at {i}, from {a} to {b}")
    return max((b - a for a, b in zip(steps, steps[1:], strict=False)), default=0)
