"""The score-function loss: -sum w c A log pi, its slope -c A saved for every token.

    c = 1, or clip(exp(log pi - log pi_old), low, high), which is data

Where c = 1 and A is the response's, the slope is the mask times a number a row, and nothing is saved but those.
"""

import math

import numpy as np

from backends.fused.numpy._policy import by_rows, plain_batch, spread, sums

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False


def supports(log_probs, *, advantages, mask, weights, old_log_probs=None, low=None, high=None):
    """Whether `forward` takes these; what is refused goes to the composite, which says why."""
    others = () if old_log_probs is None else (old_log_probs,)
    B, T = mask.shape if mask.ndim == 2 else (0, 0)
    return (
        plain_batch(log_probs, others, mask, weights) and advantages.dtype == log_probs.dtype
        and advantages.shape in ((B, 1), (B, T)) and (low is None or low >= 0)
        and (high is None or (high > 0 and high >= (low or 0)))
    )  # fmt: skip


def forward(log_probs, *, advantages, mask, weights, old_log_probs=None, low=None, high=None):
    """The loss, and the slope of every token."""
    dtype = log_probs.dtype
    if old_log_probs is None and advantages.shape[1] == 1:
        total, scale = np.empty(len(mask), dtype), -advantages[:, 0]

        def whole(rows, keep, buffer):
            total[rows] = sums(np.ascontiguousarray(log_probs[rows]), keep, mask[rows])

        by_rows(whole, mask, dtype)
        with np.errstate(all="ignore"):
            total *= scale
        if np.isfinite(total).all():
            return np.asarray(np.dot(total, weights)), (mask, scale)
    slope, scale = np.empty(log_probs.shape, dtype), np.empty(len(mask), dtype)
    rows_of = np.empty(len(mask), dtype)
    zero = dtype.type(0)

    def block(rows, keep, buffer):
        m, lp, a = mask[rows], np.ascontiguousarray(log_probs[rows]), advantages[rows]
        own, of_row = slope[rows], scale[rows]
        old = None if old_log_probs is None else old_log_probs[rows]
        found = _score(lp, old, a, keep, low, high, own, of_row, buffer)
        if not np.isfinite(found).all():  # junk behind the mask, or a true overflow
            lp, old = (None if x is None else np.where(m, x, zero) for x in (lp, old))
            a = np.where(m, a, zero) if a.shape[1] > 1 else np.where(m.any(-1, keepdims=True), a, zero)
            found = _score(lp, old, a, keep, low, high, own, of_row, buffer)
        rows_of[rows] = found

    by_rows(block, mask, dtype)
    return np.asarray(np.dot(rows_of, weights)), (slope, scale)


def vjp(g, out, saved, needs, log_probs, *, weights, **others):
    """Cotangent of log_probs."""
    slope, scale = saved
    return (spread(slope, g * weights * scale),)


def _score(lp, old, a, keep, low, high, slope, scale, buffer):
    """Sum of each row; c (and A of tokens) into `slope`, -A of responses (or -1) into `scale`."""
    if old is None:
        np.copyto(slope, keep)
    else:
        gap = np.subtract(lp, old, out=buffer("gap"))
        if high is not None:
            np.minimum(gap, gap.dtype.type(math.log(high)), out=gap)
        if low:
            np.maximum(gap, gap.dtype.type(math.log(low)), out=gap)
        np.exp(gap, out=slope)
        slope *= keep
    if a.shape[1] == 1:
        np.negative(a[:, 0], out=scale)
    else:
        slope *= a
        scale[:] = -1
    return scale * np.vecdot(slope, lp)
