"""Log-probability of a response: masked sums of rows, by dot products with the mask.

Nothing is saved: the vjp spreads the row's cotangent over its kept tokens.
"""

import numpy as np

from backends.fused.numpy._policy import by_rows, spread, sums

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False


def supports(log_probs, *, mask, of="sum"):
    """Whether `forward` takes these; what is refused goes to the composite, which says why."""
    return (
        log_probs.dtype in (np.float32, np.float64) and mask.dtype == np.bool_ and mask.shape == log_probs.shape
        and mask.ndim > 0 and (of == "sum" or (of == "mean" and bool(mask.any(-1).all())))
    )  # fmt: skip


def forward(log_probs, *, mask, of="sum"):
    """Sum or mean of the kept log-probabilities of each row."""
    T = mask.shape[-1]
    x, m = (a.reshape(-1, T) if T else a.reshape(-1, 0) for a in (log_probs, mask)) if mask.size else (None, None)
    if x is None:
        return np.zeros(mask.shape[:-1], log_probs.dtype), ()
    out = np.empty(len(x), x.dtype)

    def block(rows, keep, buffer):
        out[rows] = sums(np.ascontiguousarray(x[rows]), keep, m[rows])
        if of == "mean":
            out[rows] /= keep.sum(-1)

    by_rows(block, m, x.dtype)
    return out.reshape(mask.shape[:-1]), ()


def vjp(g, out, saved, needs, log_probs, *, mask, of="sum"):
    """Cotangent of log_probs."""
    if of == "mean":
        g = g / np.count_nonzero(mask, axis=-1).astype(g.dtype)
    return (spread(mask, g),)
