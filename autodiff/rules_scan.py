"""Derivatives along an axis: running products, softmax and its logarithm.

Where f has no derivative, or divides by nothing:
  E17  cumulative_prod at zeros: a product of the others, no division, so exact, twice too.
  E18  softmax and log_softmax with every term -inf: 0 with gradient 0; and -inf, where the
       cotangent passes, since no term has any mass to share it with.
"""

from __future__ import annotations

from typing import Any

from autodiff.primitive import primitive


def cumulative_prod(xp: Any, x: Any, axis: int, include_initial: bool = False) -> Any:
    if include_initial:
        return xp.cumulative_prod(x, axis=axis, include_initial=True)
    return xp.cumulative_prod(x, axis=axis)


@primitive("cumulative_prod", ((0,),), forward=cumulative_prod, kind="derived")
def _cumulative_prod(xp: Any, g: Any, node: Any) -> tuple:
    """dx_i = (x_0 .. x_{i-1}) S_i with S_i = g_i + x_{i+1} S_{i+1}, the sum over later products."""
    (x,) = node.saved
    axis = node.params["axis"] % x.ndim
    n = x.shape[axis]
    if node.params.get("include_initial"):
        g = _part(g, axis, 1, n + 1)
    if n == 0:
        return (g,)
    before = xp.cumulative_prod(x, axis=axis)
    one = xp.ones_like(_part(x, axis, 0, 1))
    before = xp.concat([one, _part(before, axis, 0, n - 1)], axis=axis)
    # S by doubling: after a step, S_i holds the terms up to i + step, a_i the factor to the rest.
    s, a = g, xp.concat([_part(x, axis, 1, n), 0.0 * one], axis=axis)
    step = 1
    while step < n:
        none = xp.zeros_like(_part(x, axis, 0, step))
        s = s + a * xp.concat([_part(s, axis, step, n), none], axis=axis)
        a = a * xp.concat([_part(a, axis, step, n), none], axis=axis)
        step *= 2
    return (before * s,)


def _part(x: Any, axis: int, start: int, stop: int) -> Any:
    return x[(*(slice(None),) * axis, slice(start, stop), ...)]


def softmax(xp: Any, x: Any, axis: int) -> Any:
    top = xp.max(x, axis=axis, keepdims=True) if x.shape[axis] else 0.0
    e = xp.exp(x - xp.where(top == -xp.inf, 0.0, top)) if x.shape[axis] else x
    total = xp.sum(e, axis=axis, keepdims=True)
    return e / xp.where(total == 0.0, 1.0, total)


@primitive("softmax", ((1,),), forward=softmax, kind="derived")
def _softmax(xp: Any, g: Any, node: Any) -> tuple:
    z = node.saved[1]
    weighted = g * z
    return (weighted - z * xp.sum(weighted, axis=node.params["axis"], keepdims=True),)


def log_softmax(xp: Any, x: Any, axis: int) -> Any:
    if not x.shape[axis]:
        return x
    top = xp.max(x, axis=axis, keepdims=True)
    x = x - xp.where(top == -xp.inf, 0.0, top)
    total = xp.sum(xp.exp(x), axis=axis, keepdims=True)
    return x - xp.log(xp.where(total == 0.0, 1.0, total))


@primitive("log_softmax", ((1,),), forward=log_softmax, kind="derived")
def _log_softmax(xp: Any, g: Any, node: Any) -> tuple:
    axis = node.params["axis"]
    return (g - xp.exp(node.saved[1]) * xp.sum(g, axis=axis, keepdims=True),)
