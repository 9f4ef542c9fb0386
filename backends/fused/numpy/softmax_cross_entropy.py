"""Cross entropy of a softmax, from logits, a position at a time.

    lse = log sum_j exp(x_j)
    loss = lse - x_target + z_loss lse^2            0 where target = ignore_index
    dloss / dx_j = exp(x_j - lse) (1 + 2 z_loss lse) - [j = target]

Saved: lse alone. The vjp computes the softmax once more, in place in its result.
"""

import numpy as np

from backends.fused.numpy._rows import by_blocks, floats

__all__ = ["forward", "supports", "vjp"]


def supports(logits, targets, *, z_loss=0.0, ignore_index=None, **others):
    """Whether `forward` takes these: float32 or float64 logits, int targets, no other option."""
    return (
        not others
        and floats(logits)
        and targets.dtype.kind in "iu"
        and logits.shape[:-1] == targets.shape
    )


def forward(logits, targets, *, z_loss=0.0, ignore_index=None):
    """Loss of every position.

    Parameters
    ----------
    logits : float[*B V]
    targets : int[*B]
        0..V - 1, or ignore_index.
    z_loss : float
        Weight of lse^2, which keeps the normaliser near 1 (PaLM, 2204.02311, sec. 5).
    ignore_index : int, optional
        Positions with this target have loss 0 and gradient 0, whatever their logits.

    Returns
    -------
    loss, (lse,) : float[*B], (float[*B],)

    Raises
    ------
    ValueError
        A target out of range.
    """
    x, t, kept = _flatten(logits, targets, ignore_index)
    loss = np.zeros(len(x), x.dtype)
    lse = np.zeros(len(x), x.dtype)

    def rows(r, _):
        block = x[r]
        top = block.max(-1, initial=-np.inf)
        top = np.where(np.isneginf(top), x.dtype.type(0), top)
        p = block - top[:, None]
        np.exp(p, out=p)
        own = np.log(p.sum(-1))
        own += top
        picked = np.take_along_axis(block, t[r, None], -1)[:, 0] if block.size else own
        value = own - picked
        if z_loss:
            value += x.dtype.type(z_loss) * own * own
        np.copyto(loss[r], value, where=kept[r])
        np.copyto(lse[r], own, where=kept[r])

    by_blocks(rows, *x.shape)
    return loss.reshape(targets.shape), (lse.reshape(targets.shape),)


def vjp(g, out, saved, needs, logits, targets, *, z_loss=0.0, ignore_index=None):
    """Cotangent of the logits: g (softmax (1 + 2 z_loss lse) - one hot)."""
    if not needs[0]:
        return (None,)
    x, t, kept = _flatten(logits, targets, ignore_index)
    lse = saved[0].reshape(-1)
    g = g.reshape(-1)
    dx = np.empty(x.shape, x.dtype)

    def rows(r, _):
        d = dx[r]
        np.subtract(x[r], lse[r, None], out=d)
        np.exp(d, out=d)
        weight = g[r]
        d *= (weight * (1 + 2 * x.dtype.type(z_loss) * lse[r]) if z_loss else weight)[:, None]
        if d.size:
            d[np.arange(len(d)), t[r]] -= weight
        if not kept[r].all():
            d[~kept[r]] = 0

    by_blocks(rows, *x.shape)
    return (dx.reshape(logits.shape),)


def _flatten(logits, targets, ignore_index):
    """Logits [n V], targets [n] with 0 where ignored, and which positions count."""
    V = logits.shape[-1]
    x = logits.reshape(targets.size, V)
    t = targets.reshape(-1)
    kept = np.ones(len(t), bool) if ignore_index is None else t != ignore_index
    t = np.where(kept, t, 0)
    odd = kept & ((t < 0) | (t >= V))
    if odd.any():
        raise ValueError(
            f"softmax_cross_entropy: a target is {t[odd][0]}, logits have V={V} classes; needs "
            f"0..{V - 1}" + ("" if ignore_index is None else f" or ignore_index={ignore_index}")
        )
    return x, t, kept
