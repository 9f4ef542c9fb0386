"""The margin of preference pairs, by dot products with the mask.

Nothing is saved: the vjp spreads +g over the kept tokens of the chosen response and -g over the rejected's.
"""

import numpy as np

from backends.fused.numpy._policy import by_rows, spread, sums

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False


def supports(log_probs, *, mask, ref_log_probs=None, of="sum"):
    """Whether `forward` takes these; what is refused goes to the composite, which says why."""
    shape, dtype = log_probs.shape, log_probs.dtype
    return (
        dtype in (np.float32, np.float64) and len(shape) == 3 and shape[1] == 2 and mask.dtype == np.bool_
        and mask.shape == shape and shape[2] > 0
        and (ref_log_probs is None or (ref_log_probs.dtype == dtype and ref_log_probs.shape == shape))
        and (of == "sum" or (of == "mean" and bool(mask.any(-1).all())))
    )  # fmt: skip


def forward(log_probs, *, mask, ref_log_probs=None, of="sum"):
    """D of each pair."""
    P, _, T = log_probs.shape
    x, m = log_probs.reshape(2 * P, T), mask.reshape(2 * P, T)
    ref = None if ref_log_probs is None else ref_log_probs.reshape(2 * P, T)
    total = np.empty(2 * P, x.dtype)

    def block(rows, keep, buffer):
        gap = x[rows] if ref is None else np.subtract(x[rows], ref[rows], out=buffer("gap"))
        total[rows] = sums(np.ascontiguousarray(gap), keep, m[rows])
        if of == "mean":
            total[rows] /= keep.sum(-1)

    by_rows(block, m, x.dtype)
    return total[0::2] - total[1::2], ()


def vjp(g, out, saved, needs, log_probs, *, mask, of="sum", **others):
    """Cotangent of log_probs."""
    both = np.stack((g, -g), axis=1)
    if of == "mean":
        both = both / np.count_nonzero(mask, axis=-1).astype(g.dtype)
    return (spread(mask, both),)
