"""Convolution and pooling over any number of axes, for arrays and tensors of any backend.

    conv            y[n, o, p] = sum over c, k of x[n, c, s p + d k] w[o, c, k]
    conv_transpose  its transpose in x, with the same w
    max_pool, avg_pool over the windows x[.., s p + d k]

Each p, k, s, d stands for one number an axis. What is written here is called cross-correlation
elsewhere: the kernel is not flipped. Ties of a maximum share its cotangent evenly (E8).
"""

from __future__ import annotations

import math
from typing import Any

from autodiff import ops
from autodiff.arrays import pad
from autodiff.primitive import TABLE
from autodiff.tensor import backend_of, raw
from backends.sliding import places


def conv(
    x: Any,
    w: Any,
    *,
    stride: int | tuple = 1,
    padding: int | tuple | str = 0,
    dilation: int | tuple = 1,
    groups: int = 1,
) -> Any:
    """Convolution.

    Parameters
    ----------
    x : dtype[N C *D]
    w : dtype[O C/groups *K]
    stride, dilation : int, or one an axis
    padding : int, one an axis, (before, after) an axis, "valid" or "same"
        Zeros around x. "same" keeps ceil(D / stride) places, the odd zero behind.
    groups : int
        Filters of group g see the channels of group g alone.

    Returns
    -------
    dtype[N O *P]
        P = (D + before + after - dilation (K - 1) - 1) // stride + 1.

    Raises
    ------
    ValueError
        Axes, channels or groups that do not match; options that are not one number an axis, or out
        of range; a kernel that does not fit.

    Complexity
    ----------
    2 N O C/groups prod(K) prod(P) operations, and one image's columns in memory.

    Examples
    --------
    >>> import numpy as np
    >>> conv(np.arange(5.0).reshape(1, 1, 5), np.array([[[1.0, -1.0]]]), stride=2)
    array([[[-1., -1.]]])
    """
    n = _axes("conv", x, w)
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(
            f"conv: x has C={x.shape[1]} channels, w is O={w.shape[0]} by {w.shape[1]} with "
            f"groups={groups}; C must be groups times w's second axis, and groups divide O"
        )
    strides, dilation = _each("conv", "stride", stride, n), _each("conv", "dilation", dilation, n)
    size = tuple(w.shape[2:])
    widths = _widths("conv", padding, x.shape[2:], size, strides, dilation)
    x = pad(x, ((0, 0), (0, 0), *widths))
    _fits("conv", x.shape[2:], size, strides, dilation)
    return TABLE["convolve"](x, w, strides=strides, dilation=dilation, groups=groups)


def conv_transpose(
    x: Any,
    w: Any,
    *,
    stride: int | tuple = 1,
    padding: int | tuple = 0,
    output_padding: int | tuple = 0,
    dilation: int | tuple = 1,
    groups: int = 1,
) -> Any:
    """Transposed convolution: the adjoint of `conv` with the same w and options.

    Parameters
    ----------
    x : dtype[N O *P]
    w : dtype[O C/groups *K]
    stride, padding, dilation, groups
        Those of the convolution that this is the adjoint of; padding is an int or one an axis.
    output_padding : int, or one an axis, below the stride
        Which of the `stride` sizes that the convolution takes to P is meant.

    Returns
    -------
    dtype[N C *D]
        D = stride (P - 1) + dilation (K - 1) + 1 - 2 padding + output_padding.

    Raises
    ------
    ValueError
        Axes, channels or groups that do not match; options that are not one number an axis, or out
        of range.

    Examples
    --------
    >>> import numpy as np
    >>> conv_transpose(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]]), stride=2)
    array([[[ 1., 10.,  2., 20.]]])
    """
    name = "conv_transpose"
    n = _axes(name, x, w)
    if x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise ValueError(
            f"{name}: x has {x.shape[1]} channels, w O={w.shape[0]} filters with groups={groups}; "
            "needed as many channels as filters, and groups to divide them"
        )
    strides, dilation = _each(name, "stride", stride, n), _each(name, "dilation", dilation, n)
    padding = _each(name, "padding", padding, n, 0)
    extra = _each(name, "output_padding", output_padding, n, 0)
    if any(e >= s for e, s in zip(extra, strides, strict=True)):
        raise ValueError(f"{name}: output_padding is {extra}, stride {strides}; needed it below")
    rows = zip(x.shape[2:], w.shape[2:], strides, dilation, extra, strict=True)
    shape = tuple(s * (p - 1) + d * (k - 1) + 1 + e for p, k, s, d, e in rows)
    options = {"strides": strides, "dilation": dilation, "groups": groups}
    if any(d - 2 * p < 1 for d, p in zip(shape, padding, strict=True)):
        raise ValueError(f"{name}: padding {padding} leaves nothing of {shape}")
    full = TABLE["convolve_input"](x, w, shape=shape, **options)
    return pad(full, ((0, 0), (0, 0), *((-p, -p) for p in padding)))


def max_pool(
    x: Any, size: tuple, *, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> Any:
    """Maximum of every window over the last axes.

    Parameters
    ----------
    x : dtype[*B *D]
    size : tuple of int
        One an axis of *D.
    stride : int, one an axis, or None for `size`
    padding : as in `conv`
        With -inf, which no window may consist of: at most half the window's extent.
    dilation : int, or one an axis

    Returns
    -------
    dtype[*B *P]

    Raises
    ------
    ValueError
        More axes than x has, options out of range, or a window that does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool(np.array([3.0, 1.0, 2.0, 5.0]), (2,))
    array([3., 5.])
    """
    x, size, strides, dilation, widths = _pooling("max_pool", x, size, stride, padding, dilation)
    extent = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    if any(2 * max(pair) > e for pair, e in zip(widths, extent, strict=True)):
        raise ValueError(
            f"max_pool: padding {widths} and windows of extent {tuple(extent)}; needed padding of "
            "at most half a window, or some windows would hold nothing"
        )
    batch = ((0, 0),) * (x.ndim - len(size))
    x = pad(x, (*batch, *widths), value=-math.inf)
    _fits("max_pool", x.shape[x.ndim - len(size) :], size, strides, dilation)
    w = ops.windows(x, size, strides, dilation)
    return ops.max(w, axis=tuple(range(-2 * len(size), -len(size))))


def avg_pool(
    x: Any, size: tuple, *, stride: Any = None, padding: Any = 0, count_padding: bool = True
) -> Any:
    """Mean of every window over the last axes.

    Parameters
    ----------
    x : dtype[*B *D]
    size, stride, padding
        As in `max_pool`; any width, with zeros.
    count_padding : bool
        Whether the zeros of the padding count in the mean (PyTorch's default) or are left out.

    Returns
    -------
    dtype[*B *P]

    Raises
    ------
    ValueError
        More axes than x has, options out of range, a window that does not fit, or, if the padding
        is left out, one that holds nothing else.

    Examples
    --------
    >>> import numpy as np
    >>> avg_pool(np.array([3.0, 1.0, 2.0, 5.0]), (2,))
    array([2. , 3.5])
    """
    x, size, strides, dilation, widths = _pooling("avg_pool", x, size, stride, padding, 1)
    batch = ((0, 0),) * (x.ndim - len(size))
    spatial = tuple(x.shape[x.ndim - len(size) :])
    x = pad(x, (*batch, *widths))
    _fits("avg_pool", x.shape[x.ndim - len(size) :], size, strides, dilation)
    within = tuple(range(-2 * len(size), -len(size)))
    total = ops.sum(ops.windows(x, size, strides, dilation), axis=within)
    if count_padding:
        return total / math.prod(size)
    xp = backend_of(raw(x))
    there = pad(xp.ones(spatial, dtype=x.dtype), widths)
    count = ops.sum(ops.windows(there, size, strides, dilation), axis=within)
    if bool(xp.any(count == 0.0)):
        raise ValueError(f"avg_pool: with padding {widths} left out some windows hold nothing")
    return total / count


# --- arguments --------------------------------------------------------------------------------


def _axes(name: str, x: Any, w: Any) -> int:
    """How many axes the kernel slides over."""
    if x.ndim < 3 or w.ndim != x.ndim:
        raise ValueError(
            f"{name}: x has shape {tuple(x.shape)}, w {tuple(w.shape)}; needed a batch axis, "
            "channels and at least one more in x, and as many axes in w"
        )
    return x.ndim - 2


def _each(name: str, option: str, value: Any, n: int, least: int = 1) -> tuple:
    values = (value,) * n if isinstance(value, int) else tuple(value)
    if len(values) != n or not all(isinstance(v, int) and v >= least for v in values):
        raise ValueError(
            f"{name}: {option} is {value!r}; needed an integer of at least {least}, or {n} of them"
        )
    return values


def _widths(
    name: str, padding: Any, spatial: tuple, size: tuple, strides: tuple, dilation: tuple
) -> tuple:
    """(before, after) an axis."""
    n = len(size)
    if padding == "valid":
        return ((0, 0),) * n
    if padding == "same":
        rows = zip(spatial, size, strides, dilation, strict=True)
        total = [max((-(-m // s) - 1) * s + d * (k - 1) + 1 - m, 0) for m, k, s, d in rows]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, str):
        raise ValueError(f"{name}: padding is {padding!r}; needed 'same', 'valid' or numbers")
    if isinstance(padding, int):
        padding = (padding,) * n
    pairs = tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)
    if len(pairs) != n or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ValueError(
            f"{name}: padding is {padding!r}; needed {n} numbers or pairs, none negative"
        )
    return pairs


def _fits(name: str, spatial: tuple, size: tuple, strides: tuple, dilation: tuple) -> None:
    if any(p < 1 for p in map(places, spatial, size, strides, dilation)):
        raise ValueError(
            f"{name}: the window {tuple(size)} with dilation {dilation} does not fit into "
            f"{tuple(spatial)}, padding included"
        )


def _pooling(
    name: str, x: Any, size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Any, tuple, tuple, tuple, tuple]:
    n = 1 if isinstance(size, int) else len(size)
    size = _each(name, "size", size, n)
    if x.ndim < n:
        raise ValueError(f"{name}: x has {x.ndim} axes, size {size} is of {n}")
    strides = size if stride is None else _each(name, "stride", stride, n)
    dilation = _each(name, "dilation", dilation, n)
    widths = _widths(name, padding, x.shape[x.ndim - n :], size, strides, dilation)
    return x, size, strides, dilation, widths
