"""Log-probability of a response: masked sums of rows, one pass there and one back. Saved: the tokens of a mean."""

from backends.fused.compiled._masked import counts, masked_sums, spread
from backends.fused.numpy.sequence_log_prob import READS_OUTPUT, supports

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]


def forward(log_probs, *, mask, of="sum"):
    """Sum or mean of the kept log-probabilities of each row."""
    rows = _rows(mask)
    total = masked_sums(log_probs.reshape(rows.shape), rows)
    if of == "sum":
        return total.reshape(mask.shape[:-1]), ()
    kept = counts(rows, total.dtype)
    return (total / kept).reshape(mask.shape[:-1]), (kept,)


def vjp(g, out, saved, needs, log_probs, *, mask, of="sum"):
    """Cotangent of log_probs."""
    rows, g = _rows(mask), g.reshape(-1)
    if of == "mean":
        g = g / saved[0]
    return (spread(rows, g).reshape(mask.shape),)


def _rows(mask):
    """mask[*B T] as [n T]."""
    n = 1
    for size in mask.shape[:-1]:
        n *= size
    return mask.reshape(n, mask.shape[-1])
