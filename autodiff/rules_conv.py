"""Derivatives of padding, sliding windows and convolution.

`windows` and `overlap_add` are linear and each other's transpose. A convolution is bilinear,

    y[n, o, p] = sum over c, k of x[n, c, s p + d k] w[o, c, k]

and the trilinear form <g, y> has two more faces: `convolve_input` (g, w) -> x, the transposed
convolution, and `convolve_weight` (x, g) -> w. The three rules are written in each other, so that
derivatives of any order keep two arrays a node and run at the speed of a convolution.

Each is a window gather and one matrix product, a block of images at a time: the columns of all
images together, prod(size) times the input, would be the largest array of a model, and those of one
small image are too little work for a call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from autodiff.primitive import TABLE, fit, primitive
from backends import sliding


def pad(xp: Any, x: Any, widths: tuple) -> Any:
    shape = tuple(a + n + b for n, (a, b) in zip(x.shape, widths, strict=True))
    return xp.scatter_add(shape, _inside(widths, x.shape), x)


def _inside(widths: tuple, shape: tuple) -> tuple:
    return (*(slice(a, a + n) for n, (a, _) in zip(shape, widths, strict=True)), ...)


@primitive("pad", ((),), forward=pad, kind="linear")
def _pad(xp: Any, g: Any, node: Any) -> tuple:
    return (g[_inside(node.params["widths"], node.edges[0].shape)],)


def windows(xp: Any, x: Any, size: tuple, strides: tuple, dilation: tuple) -> Any:
    return xp.windows(x, size, strides, dilation)


def overlap_add(xp: Any, w: Any, shape: tuple, strides: tuple, dilation: tuple) -> Any:
    return xp.overlap_add(w, shape, strides, dilation)


@primitive("windows", ((),), forward=windows, kind="linear")
def _windows(xp: Any, g: Any, node: Any) -> tuple:
    p = node.params
    shape = node.edges[0].shape[-len(p["size"]) :]
    return (xp.overlap_add(g, shape, p["strides"], p["dilation"]),)


@primitive("overlap_add", ((),), forward=overlap_add, kind="linear", labels=("w",))
def _overlap_add(xp: Any, g: Any, node: Any) -> tuple:
    p, n = node.params, len(node.params["shape"])
    shape = node.edges[0].shape
    size = shape[len(shape) - 2 * n : len(shape) - n]
    return (xp.windows(g, size, p["strides"], p["dilation"]),)


# --- convolution ------------------------------------------------------------------------------


def convolve(xp: Any, x: Any, w: Any, strides: tuple, dilation: tuple, groups: int) -> Any:
    size, kernel = tuple(w.shape[2:]), _kernel(xp, w, groups)
    spots = _spots(x.shape[2:], size, strides, dilation)
    out = xp.empty((x.shape[0], w.shape[0], *spots), dtype=xp.result_type(x, w))
    for block, columns in _columns(xp, x, size, strides, dilation, groups):
        out[block, ...] = _images(xp, xp.matmul(kernel, columns), block, w.shape[0], spots)
    return out


def convolve_input(
    xp: Any, g: Any, w: Any, shape: tuple, strides: tuple, dilation: tuple, groups: int
) -> Any:
    size, kernel = tuple(w.shape[2:]), xp.matrix_transpose(_kernel(xp, w, groups))
    # One filter a group: an outer product, which matmul would do line by line.
    product = xp.multiply if kernel.shape[-1] == 1 else xp.matmul
    channels, spots = w.shape[1] * groups, tuple(g.shape[2:])
    out = xp.empty((g.shape[0], channels, *shape), dtype=xp.result_type(g, w))
    for block in _blocks(g.shape[0], channels * math.prod(size) * math.prod(spots)):
        images = block.stop - block.start
        columns = product(kernel, _rows(xp, g, block, groups))
        columns = xp.reshape(columns, (channels, 1, *size, images, *spots))
        added = sliding.overlap_add(xp, columns, (images, *shape), (1, *strides), (1, *dilation))
        out[block, ...] = xp.moveaxis(added, 1, 0)
    return out


def convolve_weight(
    xp: Any, x: Any, g: Any, size: tuple, strides: tuple, dilation: tuple, groups: int
) -> Any:
    channels, filters = x.shape[1] // groups, g.shape[1] // groups
    shape = (groups, channels * math.prod(size), filters)
    total = xp.zeros(shape, dtype=xp.result_type(x, g))
    for block, columns in _columns(xp, x, size, strides, dilation, groups):
        total += xp.matmul(columns, xp.matrix_transpose(_rows(xp, g, block, groups)))
    return xp.reshape(xp.matrix_transpose(total), (g.shape[1], channels, *size))


# Numbers in the columns of a block: what stays in a core's second cache beside the product's panels.
BLOCK = 1 << 18


def _blocks(images: int, numbers: int) -> Iterator[slice]:
    """Slices of the batch, each of about BLOCK numbers; `numbers` is what one image takes."""
    step = max(1, min(images, BLOCK // max(numbers, 1)))
    for start in range(0, images, step):
        yield slice(start, min(start + step, images))


def _columns(
    xp: Any, x: Any, size: tuple, strides: tuple, dilation: tuple, groups: int
) -> Iterator[tuple[slice, Any]]:
    """(block of images, its columns [G, C/G prod(size), images prod(places)]), all in the same memory.

    The images stand as one more axis that the window does not slide along.
    """
    spots, C = _spots(x.shape[2:], size, strides, dilation), x.shape[1]
    rows = C // groups * math.prod(size)
    itself = all(n == 1 for n in (*size, *strides))
    room = None
    for block in _blocks(x.shape[0], C * math.prod(size) * math.prod(spots)):
        images = block.stop - block.start
        if itself:
            columns = x[block.start, ...] if images == 1 else xp.moveaxis(x[block, ...], 1, 0)
        else:
            shape = (C, 1, *size, images, *spots)
            if room is None or room.shape != shape:
                room = xp.empty(shape, dtype=x.dtype)
            places = xp.moveaxis(x[block, ...], 1, 0)
            columns = sliding.windows(xp, places, (1, *size), (1, *strides), (1, *dilation), out=room)
        yield block, xp.reshape(columns, (groups, rows, images * math.prod(spots)))


def _images(xp: Any, product: Any, block: slice, filters: int, spots: tuple) -> Any:
    """[G, O/G, images prod(places)] -> [images, O, *places]"""
    images = block.stop - block.start
    return xp.moveaxis(xp.reshape(product, (filters, images, *spots)), 1, 0)


def _rows(xp: Any, g: Any, block: slice, groups: int) -> Any:
    """g of a block of images as [G, O/G, images prod(places)]"""
    images, filters = block.stop - block.start, g.shape[1]
    shape = (groups, filters // groups, images * math.prod(g.shape[2:]))
    part = g[block.start, ...] if images == 1 else xp.moveaxis(g[block, ...], 1, 0)
    return xp.reshape(part, shape)


def _spots(spatial: tuple, size: tuple, strides: tuple, dilation: tuple) -> tuple:
    return tuple(map(sliding.places, spatial, size, strides, dilation))


def _kernel(xp: Any, w: Any, groups: int) -> Any:
    """[G, O/G, C/G prod(size)]"""
    return xp.reshape(w, (groups, w.shape[0] // groups, math.prod(w.shape[1:])))


def _common(node: Any) -> dict:
    return {k: node.params[k] for k in ("strides", "dilation", "groups")}



@primitive("convolve", ((1,), (0,)), forward=convolve, kind="multilinear", labels=("x", "w"))
def _convolve(xp: Any, g: Any, node: Any) -> tuple:
    (ex, ew), (x, w), p = node.edges, node.saved, _common(node)
    gx = gw = None
    if ex is not None:
        gx = fit(xp, TABLE["convolve_input"](g, w, shape=ex.shape[2:], **p), ex)
    if ew is not None:
        gw = fit(xp, TABLE["convolve_weight"](x, g, size=ew.shape[2:], **p), ew)
    return gx, gw


@primitive(
    "convolve_input", ((1,), (0,)), forward=convolve_input, kind="multilinear", labels=("g", "w")
)
def _convolve_input(xp: Any, h: Any, node: Any) -> tuple:
    (eg, ew), (g, w), p = node.edges, node.saved, _common(node)
    gg = gw = None
    if eg is not None:
        gg = fit(xp, TABLE["convolve"](h, w, **p), eg)
    if ew is not None:
        gw = fit(xp, TABLE["convolve_weight"](h, g, size=ew.shape[2:], **p), ew)
    return gg, gw


@primitive(
    "convolve_weight", ((1,), (0,)), forward=convolve_weight, kind="multilinear", labels=("x", "g")
)
def _convolve_weight(xp: Any, h: Any, node: Any) -> tuple:
    (ex, eg), (x, g), p = node.edges, node.saved, _common(node)
    gx = gg = None
    if ex is not None:
        gx = fit(xp, TABLE["convolve_input"](g, h, shape=ex.shape[2:], **p), ex)
    if eg is not None:
        gg = fit(xp, TABLE["convolve"](x, h, **p), eg)
    return gx, gg
