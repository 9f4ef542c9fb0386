"""Functions that the array API lacks, for arrays and tensors of any backend.

Those with a rule of their own are rows of the table; the others say what they are made of.
"""

from __future__ import annotations

import math
from typing import Any

from autodiff import ops
from autodiff.ops import logsumexp, polygamma, sigmoid, softplus
from autodiff.primitive import TABLE
from autodiff.tensor import backend_of, raw

erf, erfc, gammaln, log1mexp = (TABLE[n] for n in ("erf", "erfc", "gammaln", "log1mexp"))

__all__ = [
    "cumulative_logsumexp",
    "digamma",
    "erf",
    "erfc",
    "gammaln",
    "log1mexp",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "polygamma",
    "sigmoid",
    "softmax",
    "softplus",
]


def softmax(x: Any, *, axis: int = -1) -> Any:
    """exp(x) over its sum; 0 where every term is -inf."""
    return TABLE["softmax"](x, axis=axis % x.ndim)


def log_softmax(x: Any, *, axis: int = -1) -> Any:
    """x - logsumexp(x); -inf where every term is -inf."""
    return TABLE["log_softmax"](x, axis=axis % x.ndim)


def logsigmoid(x: Any) -> Any:
    """log sigma(x) = -softplus(-x)."""
    return ops.negative(softplus(ops.negative(x)))


def digamma(x: Any) -> Any:
    """Slope of `gammaln`."""
    return polygamma(0, x)


def cumulative_logsumexp(x: Any, *, axis: int = -1) -> Any:
    """log of the running sum of exp(x), by doubling: log2(n) steps of `logaddexp`."""
    axis %= x.ndim
    n = x.shape[axis]
    xp = backend_of(raw(x))
    before = (slice(None),) * axis
    step = 1
    while step < n:
        shape = tuple(step if i == axis else m for i, m in enumerate(x.shape))
        none = xp.full(shape, -math.inf, dtype=x.dtype)
        shifted = ops.concat([none, ops.getitem(x, (*before, slice(0, n - step), ...))], axis=axis)
        x = ops.logaddexp(x, shifted)
        step *= 2
    return x
