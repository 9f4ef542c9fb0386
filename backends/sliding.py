"""Windows that slide over the last axes of an array, and their transpose.

    windows       W[.., k, p] = x[.., s p + d k]                 k < size, p < places, an axis each
    overlap_add   x[.., i] = sum of W[.., k, p] with s p + d k = i

One assignment for each place in the window moves a whole strided block, so that the loop is as
long as the window is large, whatever the array. The windows' axes stand before the places': so a
convolution's columns are the columns of a matrix product as they lie.
"""

import itertools


def places(length, size, stride, dilation):
    """How many windows of `size` fit into an axis; 0 or fewer when not even one does."""
    return (length - dilation * (size - 1) - 1) // stride + 1


def windows(xp, x, size, strides, dilation, out=None):
    """Every window over the last axes.

    Parameters
    ----------
    xp : module
        numpy, or a module with its slices and assignments to slices.
    x : array[*B *D]
    size, strides, dilation : tuple of int
        One each for the last axes *D.
    out : array[*B *size *places], optional
        Where to write them: a loop over images spares the page faults of fresh memory.

    Returns
    -------
    array[*B *size *places]
        `out`, or fresh and C-contiguous.

    Raises
    ------
    ValueError
        No window fits, or a number below 1.

    Examples
    --------
    >>> import numpy as np
    >>> windows(np, np.arange(5.0), (2,), (1,), (2,))
    array([[0., 1., 2.],
           [2., 3., 4.]])
    """
    spatial = tuple(x.shape[x.ndim - len(size) :])
    counts = _counts("windows", spatial, size, strides, dilation)
    batch = tuple(x.shape[: x.ndim - len(size)])
    if out is None:
        out = xp.empty((*batch, *size, *counts), dtype=x.dtype)
    rest = (slice(None),) * len(size)
    for offset, source in _blocks(size, counts, strides, dilation):
        out[(..., *offset, *rest)] = x[(..., *source)]
    return out


def overlap_add(xp, w, shape, strides, dilation):
    """Each window added where it was read: the transpose of `windows`.

    Parameters
    ----------
    xp : module
    w : array[*B *size *places]
    shape : tuple of int
        The last axes of the result.
    strides, dilation : tuple of int

    Returns
    -------
    array[*B *shape]

    Raises
    ------
    ValueError
        The windows are not those of such an array.

    Examples
    --------
    >>> import numpy as np
    >>> overlap_add(np, np.ones((2, 3)), (5,), (1,), (2,))
    array([1., 1., 2., 1., 1.])
    """
    n = len(shape)
    size = tuple(w.shape[w.ndim - 2 * n : w.ndim - n])
    counts = _counts("overlap_add", tuple(shape), size, strides, dilation)
    if tuple(w.shape[w.ndim - n :]) != counts:
        raise ValueError(
            f"overlap_add: w has {tuple(w.shape[w.ndim - n :])} places; an array of {tuple(shape)} "
            f"has {counts} of windows {size}"
        )
    out = xp.zeros((*w.shape[: w.ndim - 2 * n], *shape), dtype=w.dtype)
    rest = (slice(None),) * n
    for offset, target in _blocks(size, counts, strides, dilation):
        out[(..., *target)] += w[(..., *offset, *rest)]
    return out


def _counts(name, spatial, size, strides, dilation):
    rows = list(zip(spatial, size, strides, dilation, strict=True))
    legal = all(min(row[1:]) >= 1 for row in rows)
    counts = tuple(places(*row) for row in rows) if legal else ()
    if not legal or any(c < 1 for c in counts):
        raise ValueError(
            f"{name}: no window of size {tuple(size)}, strides {tuple(strides)}, dilation "
            f"{tuple(dilation)} fits into {tuple(spatial)}"
        )
    return counts


def _blocks(size, counts, strides, dilation):
    """[(place in the window, the slices that it reads)]"""
    for offset in itertools.product(*map(range, size)):
        rows = zip(offset, counts, strides, dilation, strict=True)
        yield offset, tuple(slice(o * d, o * d + s * (c - 1) + 1, s) for o, c, s, d in rows)
