"""The clipped surrogate where a response has one ratio and one advantage (GSPO): one pass there and one back.

What is computed of the sums, and every other case, is backends/fused/numpy/clipped_surrogate.py's.
"""

import numpy as np

from backends.fused.compiled._masked import counts, masked_sums, spread
from backends.fused.numpy import clipped_surrogate as blocked
from backends.fused.numpy.clipped_surrogate import READS_OUTPUT

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]


def supports(log_probs, **options):
    """Whether `forward` takes these; what is refused goes to NumPy's passes."""
    return (
        options.get("level") == "sequence" and blocked.supports(log_probs, **options)
        and options["advantages"].shape[1] == 1
    )  # fmt: skip


def forward(log_probs, *, old_log_probs, advantages, mask, weights, eps_low=0.2, eps_high=0.2, dual_clip=None,
            level="sequence"):  # fmt: skip
    """The loss; a row's slope, alike at all kept tokens."""
    limits = blocked.limits(eps_low, eps_high, dual_clip)
    kept = counts(mask, log_probs.dtype)
    with np.errstate(all="ignore"):
        value, scale = blocked.of_responses(masked_sums(log_probs, mask, old_log_probs), kept, advantages, limits)
    if not np.isfinite(value).all():  # a ratio has overflown
        return blocked.forward(
            log_probs, old_log_probs=old_log_probs, advantages=advantages, mask=mask, weights=weights,
            eps_low=eps_low, eps_high=eps_high, dual_clip=dual_clip, level=level,
        )  # fmt: skip
    return np.asarray(np.dot(value, weights)), (mask, scale)


def vjp(g, out, saved, needs, log_probs, *, weights, **others):
    """Cotangent of log_probs."""
    if saved[0].dtype != np.bool_:
        return blocked.vjp(g, out, saved, needs, log_probs, weights=weights, **others)
    mask, scale = saved
    return (spread(mask, g * weights * scale),)
