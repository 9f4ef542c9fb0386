"""Derivatives of what moves numbers without computing: shapes, joins, indexing. All are linear.

  E28  getitem, take and take_along_axis with repeated indices: the cotangents add up.
  E29  take_along_axis in `sort` and `topk`, at ties: each place of the result has one source, the
       one that stands first, and the cotangent goes to it whole. Nothing is split.
"""

from __future__ import annotations

from typing import Any

from autodiff.primitive import fit, primitive


@primitive("reshape", kind="linear")
def reshape(xp: Any, g: Any, node: Any) -> tuple:
    return (xp.reshape(g, node.edges[0].shape),)


primitive("expand_dims", kind="linear")(reshape.vjp)
primitive("squeeze", kind="linear")(reshape.vjp)


@primitive("broadcast_to", kind="linear")
def broadcast_to(xp: Any, g: Any, node: Any) -> tuple:
    return (fit(xp, g, node.edges[0]),)


@primitive("permute_dims", kind="linear")
def permute_dims(xp: Any, g: Any, node: Any) -> tuple:
    axes = node.params["axes"]
    back = sorted(range(len(axes)), key=lambda i: axes[i] % len(axes))
    return (xp.permute_dims(g, tuple(back)),)


@primitive("matrix_transpose", kind="linear")
def matrix_transpose(xp: Any, g: Any, node: Any) -> tuple:
    return (xp.matrix_transpose(g),)


@primitive("flip", kind="linear")
def flip(xp: Any, g: Any, node: Any) -> tuple:
    return (xp.flip(g, axis=node.params.get("axis")),)


@primitive("roll", kind="linear")
def roll(xp: Any, g: Any, node: Any) -> tuple:
    shift = node.params["shift"]
    back = tuple(-s for s in shift) if isinstance(shift, tuple) else -shift
    return (xp.roll(g, back, axis=node.params.get("axis")),)


@primitive("tril", kind="linear")
def tril(xp: Any, g: Any, node: Any) -> tuple:
    return (xp.tril(g, k=node.params["k"]),)


@primitive("triu", kind="linear")
def triu(xp: Any, g: Any, node: Any) -> tuple:
    return (xp.triu(g, k=node.params["k"]),)


@primitive(
    "concat", (), forward=lambda xp, *xs, axis, sizes: xp.concat(xs, axis=axis), kind="linear"
)
def concat(xp: Any, g: Any, node: Any) -> tuple:
    before = (slice(None),) * node.params["axis"]
    out = []
    start = 0
    for edge, size in zip(node.edges, node.params["sizes"], strict=True):
        part = (*before, slice(start, start + size), ...)
        out.append(None if edge is None else fit(xp, g[part], edge))
        start += size
    return tuple(out)


@primitive("stack", (), forward=lambda xp, *xs, axis: xp.stack(xs, axis=axis), kind="linear")
def stack(xp: Any, g: Any, node: Any) -> tuple:
    before = (slice(None),) * node.params["axis"]
    return tuple(
        None if e is None else fit(xp, g[(*before, i, ...)], e) for i, e in enumerate(node.edges)
    )


@primitive("getitem", forward=lambda xp, x, index: x[index], kind="linear")
def getitem(xp: Any, g: Any, node: Any) -> tuple:
    return (xp.scatter_add(node.edges[0].shape, node.params["index"], g),)


@primitive(
    "scatter_add",
    forward=lambda xp, values, shape, index: xp.scatter_add(shape, index, values),
    kind="linear",
    labels=("values",),
)
def scatter_add(xp: Any, g: Any, node: Any) -> tuple:
    return (fit(xp, g[node.params["index"]], node.edges[0]),)


@primitive(
    "take",
    forward=lambda xp, x, indices, axis: xp.take(x, indices, axis=axis),
    kind="linear",
)
def take(xp: Any, g: Any, node: Any) -> tuple:
    # By way of axis 0: the standard has no index with slices beside an array.
    shape, axis = node.edges[0].shape, node.params["axis"]
    to_front = (axis, *(i for i in range(len(shape)) if i != axis))
    back = (*range(1, axis + 1), 0, *range(axis + 1, len(shape)))
    moved = tuple(shape[i] for i in to_front)
    summed = xp.scatter_add(moved, node.params["indices"], xp.permute_dims(g, to_front))
    return (xp.permute_dims(summed, back),)


@primitive(
    "take_along_axis",
    forward=lambda xp, x, indices, axis: xp.take_along_axis(x, indices, axis=axis),
    kind="linear",
)
def take_along_axis(xp: Any, g: Any, node: Any) -> tuple:
    shape = node.edges[0].shape
    axis = node.params["axis"]
    index = []
    for i, n in enumerate(shape):
        if i == axis:
            index.append(node.params["indices"])
        else:
            line = tuple(n if j == i else 1 for j in range(len(shape)))
            index.append(xp.reshape(xp.arange(n), line))
    return (xp.scatter_add(shape, tuple(index), g),)


def broadcast_shapes(*shapes: tuple) -> tuple:
    """The shape that all broadcast to; ValueError names the sizes that do not."""
    out: list[int] = []
    for i in range(1, max(map(len, shapes), default=0) + 1):
        sizes = {s[-i] for s in shapes if len(s) >= i} - {1}
        if len(sizes) > 1:
            raise ValueError(f"broadcast_arrays: sizes {sorted(sizes)} at axis -{i} do not match")
        out.append(sizes.pop() if sizes else 1)
    return tuple(reversed(out))
