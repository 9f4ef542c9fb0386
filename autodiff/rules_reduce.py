"""Derivatives of reductions and running sums.

Where f has no derivative:
  E8  max and min: the cotangent is split evenly among the tied places, in `max_pool` too.
  E9  prod at zeros: a product of the others, no division, so exact, twice too.
  E30  max, min, logsumexp and mean over no elements: the backend's ValueError for the first two,
       then -inf, NaN.
"""

from __future__ import annotations

import math
from typing import Any

from autodiff.primitive import cast, primitive


def axes_of(axis: int | tuple | None, ndim: int) -> tuple[int, ...]:
    """The reduced axes, non-negative and ascending."""
    if axis is None:
        return tuple(range(ndim))
    axis = (axis,) if isinstance(axis, int) else axis
    return tuple(sorted(a % ndim if ndim else a for a in axis))


def _spread(xp: Any, g: Any, node: Any) -> Any:
    """`g` with the reduced axes put back at size 1."""
    if node.params.get("keepdims"):
        return g
    shape = node.edges[0].shape
    axes = axes_of(node.params.get("axis"), len(shape))
    return xp.reshape(g, tuple(1 if i in axes else n for i, n in enumerate(shape)))


def _count(node: Any) -> int:
    shape = node.edges[0].shape
    return math.prod(shape[a] for a in axes_of(node.params.get("axis"), len(shape)))


@primitive("sum", kind="linear")
def sum_(xp: Any, g: Any, node: Any) -> tuple:
    return (xp.broadcast_to(_spread(xp, g, node), node.edges[0].shape),)


@primitive("mean", kind="linear")
def mean(xp: Any, g: Any, node: Any) -> tuple:
    g = _spread(xp, g / max(_count(node), 1), node)
    return (xp.broadcast_to(g, node.edges[0].shape),)


def _extremum(xp: Any, g: Any, node: Any) -> tuple:
    x, z = node.saved
    tied = cast(xp, x == _spread(xp, z, node), g.dtype)
    share = xp.sum(tied, axis=node.params.get("axis"), keepdims=True)
    return (_spread(xp, g, node) * (tied / share),)


primitive("max", ((0, 1),), kind="derived")(_extremum)
primitive("min", ((0, 1),), kind="derived")(_extremum)


@primitive("prod", ((0,),), kind="derived")
def prod(xp: Any, g: Any, node: Any) -> tuple:
    (x,) = node.saved
    shape = node.edges[0].shape
    axes = axes_of(node.params.get("axis"), len(shape))
    kept = tuple(i for i in range(len(shape)) if i not in axes)
    order = kept + axes
    n = _count(node)
    rows = xp.reshape(xp.permute_dims(x, order), (*(shape[i] for i in kept), n))
    rest = xp.reshape(others(xp, rows, n), tuple(shape[i] for i in order))
    back = tuple(order.index(i) for i in range(len(shape)))
    return (_spread(xp, g, node) * xp.permute_dims(rest, back),)


def others(xp: Any, x: Any, n: int) -> Any:
    """Product over the last axis without the element itself, in log2(n) steps and no division."""
    flipped = xp.flip(x, axis=-1)
    right = _running(xp, flipped, n)
    return _running(xp, x, n) * xp.flip(right, axis=-1)


def _running(xp: Any, x: Any, n: int) -> Any:
    """Exclusive running product over the last axis, by doubling."""
    ones = xp.ones((*x.shape[:-1], n), dtype=x.dtype)
    x = xp.concat([ones[..., :1], x[..., : n - 1]], axis=-1) if n else x
    step = 1
    while step < n:
        x = x * xp.concat([ones[..., :step], x[..., : n - step]], axis=-1)
        step *= 2
    return x


def logsumexp(xp: Any, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    if 0 in x.shape:
        return xp.log(xp.sum(x, axis=axis, keepdims=keepdims))
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isinf(top), 0.0, top)
    total = xp.sum(xp.exp(x - top), axis=axis, keepdims=keepdims)
    return xp.log(total) + (top if keepdims else xp.reshape(top, total.shape))


@primitive("logsumexp", ((0, 1),), forward=logsumexp, kind="derived")
def _logsumexp(xp: Any, g: Any, node: Any) -> tuple:
    x, z = node.saved
    z = _spread(xp, z, node)
    return (_spread(xp, g, node) * xp.exp(x - xp.where(z == -math.inf, 0.0, z)),)


@primitive("cumulative_sum", kind="linear")
def cumulative_sum(xp: Any, g: Any, node: Any) -> tuple:
    axis = node.params["axis"]
    if node.params.get("include_initial"):
        ndim = len(node.edges[0].shape)
        g = g[(*(slice(None),) * (axis % ndim), slice(1, None), ...)]
    return (xp.flip(xp.cumulative_sum(xp.flip(g, axis=axis), axis=axis), axis=axis),)
