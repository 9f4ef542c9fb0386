"""Derivatives of padding, sliding windows and convolution.

`windows` and `overlap_add` are linear and each other's transpose. A convolution is bilinear,

    y[n, o, p] = sum over c, k of x[n, c, s p + d k] w[o, c, k]

and the trilinear form <g, y> has two more faces: `convolve_input` (g, w) -> x, the transposed
convolution, and `convolve_weight` (x, g) -> w. The three rules are written in each other, so that
derivatives of any order keep two arrays a node and run at the speed of a convolution.

Each is a window gather and one matrix product, an image at a time: the columns of all images
together, prod(size) times the input, would be the largest array of a model.
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
    for n, image in _columns(xp, x, size, strides, dilation, groups):
        out[n, ...] = xp.reshape(xp.matmul(kernel, image), out.shape[1:])
    return out


def convolve_input(
    xp: Any, g: Any, w: Any, shape: tuple, strides: tuple, dilation: tuple, groups: int
) -> Any:
    size, kernel = tuple(w.shape[2:]), xp.matrix_transpose(_kernel(xp, w, groups))
    # One filter a group: an outer product, which matmul would do line by line.
    product = xp.multiply if kernel.shape[-1] == 1 else xp.matmul
    channels, spots = w.shape[1] * groups, tuple(g.shape[2:])
    rows = _grouped(xp, g, groups)
    out = xp.empty((g.shape[0], channels, *shape), dtype=xp.result_type(g, w))
    for n in range(g.shape[0]):
        image = xp.reshape(product(kernel, rows[n, ...]), (channels, *size, *spots))
        out[n, ...] = sliding.overlap_add(xp, image, shape, strides, dilation)
    return out


def convolve_weight(
    xp: Any, x: Any, g: Any, size: tuple, strides: tuple, dilation: tuple, groups: int
) -> Any:
    channels, rows = x.shape[1] // groups, _grouped(xp, g, groups)
    shape = (groups, channels * math.prod(size), rows.shape[2])
    total = xp.zeros(shape, dtype=xp.result_type(x, g))
    for n, image in _columns(xp, x, size, strides, dilation, groups):
        total += xp.matmul(image, xp.matrix_transpose(rows[n, ...]))
    return xp.reshape(xp.matrix_transpose(total), (g.shape[1], channels, *size))


def _columns(
    xp: Any, x: Any, size: tuple, strides: tuple, dilation: tuple, groups: int
) -> Iterator[tuple[int, Any]]:
    """Image after image as [G, C/G prod(size), prod(places)], all in the same memory."""
    spots = _spots(x.shape[2:], size, strides, dilation)
    shape = (groups, x.shape[1] // groups * math.prod(size), math.prod(spots))
    itself = all(n == 1 for n in (*size, *strides))
    room = None if itself else xp.empty((x.shape[1], *size, *spots), dtype=x.dtype)
    for n in range(x.shape[0]):
        image = x[n, ...]
        if not itself:
            image = sliding.windows(xp, image, size, strides, dilation, out=room)
        yield n, xp.reshape(image, shape)


def _spots(spatial: tuple, size: tuple, strides: tuple, dilation: tuple) -> tuple:
    return tuple(map(sliding.places, spatial, size, strides, dilation))


def _kernel(xp: Any, w: Any, groups: int) -> Any:
    """[G, O/G, C/G prod(size)]"""
    return xp.reshape(w, (groups, w.shape[0] // groups, math.prod(w.shape[1:])))


def _grouped(xp: Any, g: Any, groups: int) -> Any:
    """[N, G, O/G, prod(places)]"""
    return xp.reshape(g, (g.shape[0], groups, g.shape[1] // groups, math.prod(g.shape[2:])))


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
