"""The score-function loss: one pass where nothing weighs a token, two and an exponential where a ratio does.

    c = 1, or clip(exp(log pi - log pi_old), low, high), which is data; the slope of a token is -c A

Saved: c (times A of a token) for every token and -A (or -1) for every row; where c = 1 and A is the response's, the
mask stands for the first. Rows of which nothing is kept weigh 0, whatever A is.
"""

import math

import numpy as np

from backends.fused.compiled._loop import by_rows, loop, plain
from backends.fused.compiled._masked import masked_sums, scaled, spread
from backends.fused.numpy.score_loss import READS_OUTPUT, supports

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]


@loop("x[n T], old[n T], mask:bool[n T], low, high -> out[n T]")
def _gaps(x, old, mask, low, high, out):
    zero = out.dtype.type(0)
    for i in range(x.shape[0]):
        for t in range(x.shape[1]):
            gap = x[i, t] - old[i, t]
            gap = high if gap > high else gap  # NaN stays
            gap = low if gap < low else gap
            out[i, t] = gap if mask[i, t] else zero


@loop("x[n T], mask:bool[n T] -> slope[n T], total[n]", sums=True)
def _weighed(x, mask, slope, total):
    """slope is c; it becomes 0 where masked, and total the sum of c x over the rest."""
    zero = total.dtype.type(0)
    for i in range(x.shape[0]):
        s = zero
        for t in range(x.shape[1]):
            c = slope[i, t] if mask[i, t] else zero
            slope[i, t] = c
            s += c * x[i, t] if mask[i, t] else zero
        total[i] = s


def forward(log_probs, *, advantages, mask, weights, old_log_probs=None, low=None, high=None):
    """The loss, and the slope of every token."""
    dtype, of_token = log_probs.dtype, advantages.shape[1] > 1
    scale = np.full(len(mask), -1, dtype) if of_token else np.where(mask.any(-1), -advantages[:, 0], dtype.type(0))
    if old_log_probs is None and not of_token:
        slope, total = mask, masked_sums(log_probs, mask)
    else:
        slope, total = _slopes(log_probs, mask, advantages if of_token else None, old_log_probs, low, high)
    with np.errstate(all="ignore"):
        return np.asarray(np.dot(total * scale, weights)), (slope, scale)


def vjp(g, out, saved, needs, log_probs, *, weights, **others):
    """Cotangent of log_probs."""
    slope, scale = saved
    of_row = g * weights * scale
    return (spread(slope, of_row) if slope.dtype == np.bool_ else scaled(slope, of_row),)


def _slopes(log_probs, mask, a, old, low, high):
    """c A of every token, and the sum of c A log pi of every row."""
    dtype = log_probs.dtype
    x, mask, old = plain(log_probs), plain(mask), None if old is None else plain(old)
    slope, total = np.empty(x.shape, dtype), np.empty(len(x), dtype)
    bounds = dtype.type(math.log(low) if low else -math.inf), dtype.type(math.inf if high is None else math.log(high))

    def block(x, mask, a, old, own, total):
        if old is None:
            own[:] = a
        else:
            _gaps(dtype)(x, old, mask, *bounds, own)
            np.exp(own, out=own)
            if a is not None:
                own *= a
        _weighed(dtype)(x, mask, own, total)

    with np.errstate(all="ignore"):
        by_rows(block, x, mask, a, old, slope, total)
    return slope, total
