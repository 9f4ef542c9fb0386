"""KL estimates of a batch, weighed and added; the slope of every token is saved.

    x = log ref - log pi;   k1 = -x, slope 1;   k2 = x^2 / 2, slope -x;   k3 = e^x - 1 - x, slope 1 - e^x
"""

import numpy as np

from backends.fused.numpy._policy import by_rows, plain_batch

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False


def supports(log_probs, *, ref_log_probs, mask, weights, kind="k3", gradient=None, old_log_probs=None, clamp=None,
             clamp_value=None):  # fmt: skip
    """Whether `forward` takes these; what is refused goes to the composite, which says why."""
    unasked = gradient is None and old_log_probs is None and clamp is None and clamp_value is None
    return unasked and kind in ("k1", "k2", "k3") and plain_batch(log_probs, (ref_log_probs,), mask, weights)


def forward(log_probs, *, ref_log_probs, mask, weights, kind="k3", **others):
    """The loss, and the slope of every token."""
    dtype = log_probs.dtype
    slope, rows_of = np.empty(log_probs.shape, dtype), np.empty(len(mask), dtype)

    def block(rows, keep, buffer):
        x = np.subtract(ref_log_probs[rows], log_probs[rows], out=buffer("x"))
        found = _estimate(kind, x, keep, slope[rows])
        if not np.isfinite(found).all():  # junk behind the mask, or a true overflow
            x = np.where(mask[rows], ref_log_probs[rows] - log_probs[rows], dtype.type(0))
            found = _estimate(kind, x, keep, slope[rows])
        rows_of[rows] = found

    by_rows(block, mask, dtype)
    return np.asarray(np.dot(rows_of, weights)), (slope,)


def vjp(g, out, saved, needs, log_probs, *, weights, **others):
    """Cotangent of log_probs."""
    return (saved[0] * (g * weights)[:, None],)


def _estimate(kind, x, keep, slope):
    """Sum of each row; the slopes into `slope`. x is overwritten."""
    if kind == "k1":
        np.copyto(slope, keep)
        return -np.vecdot(x, keep)
    if kind == "k2":
        np.multiply(x, keep, out=slope)
        found = np.vecdot(x, slope) / 2
        np.negative(slope, out=slope)
        return found
    u = np.exp(x, out=slope)
    u -= 1
    np.subtract(u, x, out=x)
    found = np.vecdot(x, keep)
    slope *= keep
    np.negative(slope, out=slope)
    return found
