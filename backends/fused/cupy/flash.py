"""Flash attention on CUDA: FlashAttention-2 (2307.08691) Alg. 1 and 2 by the highest level that takes the call.

Conventions
  C1  lse is returned in q's dtype and kept in float32 for the backward.
  C2  Rows that see nothing give o = 0, lse = -inf and zero gradients; what nobody sees may be NaN.
  C3  dropout=(rate, seed) keeps weight (i, j) of head h where nn.keep_mask keeps its index in [*B H T S].
"""

from backends.fused.cupy import _attention
from backends.fused.cupy._levels import choose
from backends.fused.cupy._problem import adjacent, flattened, problem
from backends.kernels import device as devices

__all__ = ["forward", "supports", "vjp"]


def supports(q, k, v, *, block_rows=None, block_cols=None, **options):
    """Whether some level takes the call, forward and backward. Tile sizes are the kernel's own."""
    device = devices.current()
    try:
        p = problem(device.xp, q, k, v, **options)
    except (TypeError, ValueError):
        return False
    return choose(device, p) is not None and choose(device, p, backward=True) is not None


def forward(q, k, v, *, block_rows=None, block_cols=None, **options):
    """Attention and its log-sum-exp.

    Parameters
    ----------
    q, k, v : float[*B H T d], float[*B G S d], float[*B G S e]
        All float32, all float16 or all bfloat16; G divides H; any strides.
    mask, bias, softcap, scale
        As `ref.attention.flash` takes them.
    dropout : (float, int)
        Rate and seed (C3).

    Returns
    -------
    (o, lse), saved : (float[*B H T e], float[*B H T]), (float32[*B H T],)

    Raises
    ------
    ValueError
        Axes disagree, or no level takes the call.
    TypeError
        Dtypes other than named.
    """
    device = devices.current()
    p = problem(device.xp, q, k, v, **options)
    level = _level(device, p, False)
    o, lse = _attention.allocate(device.xp, p)
    if lse.size:
        _attention.forward(device, level, p, o, lse)
    o, lse = o.reshape(*q.shape[:-1], v.shape[-1]), lse.reshape(q.shape[:-1])
    return (o, lse.astype(q.dtype, copy=False)), (lse,)


def vjp(g, out, saved, needs, q, k, v, *, block_rows=None, block_cols=None, **options):
    """Cotangents of q, k, v; None where not needed.

    Parameters
    ----------
    g : (float[*B H T e] or None, float[*B H T] or None)
        Cotangents of o and lse.
    out, saved
        As `forward` returned them.
    needs : (bool, bool, bool)
    q, k, v, **options
        As given to `forward`.
    """
    device = devices.current()
    xp = device.xp
    p = problem(xp, q, k, v, **options)
    o, lse = flattened(out[0], 3), flattened(saved[0], 2)
    g_o = xp.zeros(o.shape, o.dtype) if g[0] is None else adjacent(g[0].reshape(o.shape))
    g_lse = None if g[1] is None else xp.ascontiguousarray(g[1].reshape(lse.shape), dtype="float32")
    level = _level(device, p, True, (g_o, o))
    busy = p.q.size and p.k.size
    make = xp.empty if busy else xp.zeros
    dq = make(p.q.shape, q.dtype) if needs[0] else None
    dk, dv = (make(x.shape, x.dtype) if needs[1] or needs[2] else None for x in (p.k, p.v))
    if busy:
        _attention.backward(device, level, p, o, lse, g_o, g_lse, (dq, dk, dv))
    made = zip((dq, dk, dv), (q, k, v), needs, strict=True)
    return tuple(x.reshape(like.shape) if need else None for x, like, need in made)


def _level(device, p, backward, others=()):
    level = choose(device, p, backward, others)
    if level is None:
        raise ValueError(f"flash: no kernel takes {p.q.dtype}, d={p.q.shape[-1]} on capability {device.capability}")
    return level
