"""Array functions that the standard lacks, for arrays and tensors of any backend: pad, topk."""

from __future__ import annotations

from typing import Any

from autodiff import ops
from autodiff.primitive import TABLE
from autodiff.tensor import backend_of, raw


def pad(x: Any, widths: tuple, *, value: float = 0.0) -> Any:
    """`x` with (before, after) more places on every axis; negative numbers take places away."""
    widths = tuple((int(a), int(b)) for a, b in widths)
    if len(widths) != x.ndim:
        raise ValueError(f"pad: x has {x.ndim} axes, widths {len(widths)}; needed a pair an axis")
    sizes = zip(x.shape, widths, strict=True)
    if any(n + min(a, 0) + min(b, 0) < 0 for n, (a, b) in sizes):
        raise ValueError(f"pad: widths {widths} take more than x of shape {tuple(x.shape)} has")
    if any(a < 0 or b < 0 for a, b in widths):
        cuts = zip(x.shape, widths, strict=True)
        kept = (slice(max(-a, 0), n + min(b, 0)) for n, (a, b) in cuts)
        x = ops.getitem(x, (*kept, ...))
        widths = tuple((max(a, 0), max(b, 0)) for a, b in widths)
    if not any(a or b for a, b in widths):
        return x
    out = TABLE["pad"](x, widths=widths)
    if value == 0.0:
        return out
    xp = backend_of(raw(x))
    inside = TABLE["pad"](xp.ones(x.shape, dtype=x.dtype), widths=widths) == 1.0
    return ops.where(inside, out, value)


def topk(x: Any, k: int, *, axis: int = -1, largest: bool = True) -> tuple[Any, Any]:
    """The k extreme values along `axis`, best first, and their places (a raw array).

    Of equal values the one that stands first comes first, and it alone gets the cotangent.
    """
    axis %= x.ndim
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"topk: k is {k}; axis {axis} has {x.shape[axis]} values")
    xp = backend_of(raw(x))
    order = xp.argsort(raw(x), axis=axis, descending=largest, stable=True)
    places = order[(*(slice(None),) * axis, slice(0, k), ...)]
    return ops.take_along_axis(x, places, axis=axis), places
