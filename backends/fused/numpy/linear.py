"""Linear layer: one GEMM over all rows, whatever the batch axes; the bias is added in place.

    y = x W^T + b            dx = g W,   dW = g^T x,   db = sum over rows of g
"""

from backends.fused.numpy._rows import column_sums, floats, rows_of

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it


def supports(x, weight, bias=None, **others):
    """Whether `forward` takes these: all float32 or all float64, x[*B I], weight[O I], bias[O]."""
    return (
        not others
        and floats(x, weight, *(() if bias is None else (bias,)))
        and x.ndim > 0
        and weight.ndim == 2
        and x.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
    )


def forward(x, weight, bias=None):
    """x[*B I], weight[O I], bias[O] or None -> x weight^T + bias [*B O], ()."""
    y = rows_of(x) @ weight.T
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], len(weight)), ()


def vjp(g, out, saved, needs, x, weight, bias=None):
    """Cotangents of x, weight and bias."""
    g = rows_of(g)
    return (
        (g @ weight).reshape(x.shape) if needs[0] else None,
        g.T @ rows_of(x) if needs[1] else None,
        column_sums(g) if needs[2] else None,
    )
