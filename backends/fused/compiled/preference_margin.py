"""The margin of preference pairs: masked sums of both responses, one pass there and one back.

Saved: of a mean, the number of tokens.
"""

import numpy as np

from backends.fused.compiled._masked import counts, masked_sums, spread
from backends.fused.numpy.preference_margin import READS_OUTPUT, supports

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]


def forward(log_probs, *, mask, ref_log_probs=None, of="sum"):
    """D of each pair."""
    P, _, T = log_probs.shape
    rows = mask.reshape(2 * P, T)
    less = None if ref_log_probs is None else ref_log_probs.reshape(2 * P, T)
    total = masked_sums(log_probs.reshape(2 * P, T), rows, less)
    kept = counts(rows, total.dtype) if of == "mean" else None
    if kept is not None:
        total /= kept
    return total[0::2] - total[1::2], () if kept is None else (kept,)


def vjp(g, out, saved, needs, log_probs, *, mask, of="sum", **others):
    """Cotangent of log_probs."""
    P, _, T = mask.shape
    rows = mask.reshape(2 * P, T)
    both = np.empty(2 * P, g.dtype)
    both[0::2], both[1::2] = g, -g
    if of == "mean":
        both /= saved[0]
    return (spread(rows, both).reshape(mask.shape),)
