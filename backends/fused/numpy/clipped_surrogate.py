"""The clipped surrogate of PPO, GRPO, DAPO and GSPO: value and slope of a block of responses while it is in cache.

    gap = log pi - log pi_old            of a token, or the mean of a response's
    e = clip(gap, low, high)             low, high by the sign of A, -oo and +oo where nothing is cut
    loss = -sum w A exp(e)               d loss / d log pi = -w A exp(e) where e = gap, else 0

Saved: a slope for every token and a scale for every row, whose product is -A exp(e) [e = gap]; the vjp multiplies it by
w and the cotangent. Where a response has one ratio and one advantage, the slope is the mask itself.
"""

import math

import numpy as np

from backends.fused.numpy._policy import by_rows, plain_batch, spread, sums

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False


def supports(log_probs, *, old_log_probs, advantages, mask, weights, eps_low=0.2, eps_high=0.2, dual_clip=None,
             level="token"):  # fmt: skip
    """Whether `forward` takes these; what is refused goes to the composite, which says why."""
    B, T = mask.shape if mask.ndim == 2 else (0, 0)
    return (
        plain_batch(log_probs, (old_log_probs,), mask, weights) and advantages.dtype == log_probs.dtype
        and advantages.shape in ((B, 1), (B, T)) and 0 <= eps_low <= 1 and eps_high >= 0
        and (dual_clip is None or dual_clip > 1 + eps_high)
        and (level == "token" or (level == "sequence" and bool(mask.any(-1).all())))
    )  # fmt: skip


def forward(log_probs, *, old_log_probs, advantages, mask, weights, eps_low=0.2, eps_high=0.2, dual_clip=None,
            level="token"):  # fmt: skip
    """The loss, and the slope of every token."""
    dtype = log_probs.dtype
    bounds = limits(eps_low, eps_high, dual_clip)
    scale, rows_of = np.ones(len(mask), dtype), np.zeros(len(mask), dtype)
    if level == "sequence" and advantages.shape[1] == 1:
        _by_response(log_probs, old_log_probs, advantages, mask, bounds, rows_of, scale)
        if np.isfinite(rows_of).all():  # else a ratio has overflown
            return np.asarray(np.dot(rows_of, weights)), (mask, scale)
        scale[:] = 1
    slope = np.empty(log_probs.shape, dtype)
    each = _sequence if level == "sequence" else _row if advantages.shape[1] == 1 else _token

    def block(rows, keep, buffer):
        gap = np.subtract(log_probs[rows], old_log_probs[rows], out=buffer("gap"))
        a, m = advantages[rows], mask[rows]
        found = each(gap, a, m, keep, bounds, slope[rows], scale[rows], buffer)
        if not np.isfinite(found).all():  # junk behind the mask: the same again without it
            zero = dtype.type(0)
            gap = np.where(m, log_probs[rows] - old_log_probs[rows], zero)
            a = np.where(m, a, zero) if a.shape[1] > 1 else np.where(m.any(-1, keepdims=True), a, zero)
            found = each(gap, a, m, keep, bounds, slope[rows], scale[rows], buffer)
            if not np.isfinite(found).all():  # a ratio that overflows, cut or not
                scale[rows] = 1
                found = _in_log_space(gap, a, m, keep, bounds, slope[rows], level)
        rows_of[rows] = found

    by_rows(block, mask, dtype)
    return np.asarray(np.dot(rows_of, weights)), (slope, scale)


def vjp(g, out, saved, needs, log_probs, *, weights, **others):
    """Cotangent of log_probs."""
    slope, scale = saved
    return (spread(slope, g * weights * scale),)


def limits(eps_low, eps_high, dual_clip):
    """(low, high) of the log-ratio where A < 0, and high where A >= 0."""
    low = math.log1p(-eps_low) if eps_low < 1 else -math.inf
    return low, math.inf if dual_clip is None else math.log(dual_clip), math.log1p(eps_high)


def _bounds(a, limits):
    """low and high, in the shape of a."""
    low, high, above = (a.dtype.type(x) for x in limits)
    negative = a < 0
    return np.where(negative, low, a.dtype.type(-np.inf)), np.where(negative, high, above)


def _row(gap, a, mask, keep, limits, slope, scale, buffer):
    """One advantage a response."""
    low, high = _bounds(a, limits)
    e = np.minimum(gap, high, out=buffer("e"))
    if (a < 0).any():
        np.maximum(e, low, out=e)
    inside = np.equal(e, gap, out=buffer("inside", np.bool_))
    inside &= mask
    np.exp(e, out=e)
    np.multiply(e, inside, out=slope)
    np.negative(a[:, 0], out=scale)
    return -a[:, 0] * np.vecdot(e, keep)


def _token(gap, a, mask, keep, limits, slope, scale, buffer):
    """One advantage a token: of the two surrogates the lesser gain."""
    low, high, above = limits
    if not gap.max() < 40:  # exp of it, times A, may overflow, or is NaN
        return np.full(len(gap), np.nan)
    e = np.exp(gap, out=buffer("e_open"))
    clipped = np.clip(e, e.dtype.type(math.exp(low)), e.dtype.type(math.exp(above)), out=buffer("e"))
    clipped *= a
    outside = buffer("outside", np.bool_)
    if high < math.inf:
        np.greater(e, e.dtype.type(math.exp(high)), out=outside)
        np.minimum(e, e.dtype.type(math.exp(high)), out=e)
    e *= a
    inside = np.less_equal(e, clipped, out=buffer("inside", np.bool_))
    if high < math.inf:
        inside &= ~outside
    inside &= mask
    np.multiply(e, inside, out=slope)
    scale[:] = -1
    return -np.vecdot(np.minimum(e, clipped, out=clipped), keep)


def _by_response(log_probs, old_log_probs, a, mask, limits, value, scale):
    """One advantage a response, and its own ratio: of each row the loss and the slope, alike at all kept tokens."""

    def block(rows, keep, buffer):
        gap = np.subtract(log_probs[rows], old_log_probs[rows], out=buffer("gap"))
        n = np.count_nonzero(mask[rows], axis=-1).astype(gap.dtype)
        value[rows], scale[rows] = of_responses(sums(gap, keep, mask[rows]), n, a[rows], limits)

    by_rows(block, mask, log_probs.dtype)


def of_responses(total, kept, a, limits):
    """Loss and slope of every response, from the sum of its log-ratios, its kept tokens and a[B 1]."""
    e, inside = _cut((total / kept)[:, None], a, limits)
    of_token = -a * np.exp(e)
    return of_token[:, 0] * kept, (of_token * inside)[:, 0]


def _sequence(gap, a, mask, keep, limits, slope, scale, buffer):
    """The response's own ratio at each of its tokens."""
    e, inside = _cut((np.vecdot(gap, keep) / keep.sum(-1))[:, None], a, limits)
    value = np.broadcast_to(-a * np.exp(e), keep.shape)
    np.multiply(value, inside, out=slope)
    slope *= keep
    return np.vecdot(value, keep)


def _cut(ratio, a, limits):
    """The log-ratio within its bounds, and whether it was."""
    low, high = _bounds(a, limits)
    e = np.minimum(np.maximum(ratio, low), high)
    return e, e == ratio


def _in_log_space(gap, a, mask, keep, limits, slope, level):
    """Any level, as the composite has it; what is masked is 0."""
    if level == "sequence":
        gap = np.broadcast_to(gap.sum(-1, keepdims=True) / keep.sum(-1, keepdims=True), mask.shape)
    e, inside = _cut(gap, a, limits)
    value = np.where(mask, -a * np.exp(e), a.dtype.type(0))
    np.copyto(slope, np.where(inside, value, a.dtype.type(0)))
    return value.sum(-1)
