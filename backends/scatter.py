"""scatter_add over libraries that index as NumPy does; each brings its own sum of rows."""

import math
from types import EllipsisType, NoneType

import numpy as np

_BASIC = (int, np.integer, slice, NoneType, EllipsisType)


def scatter_add(xp, add_rows, shape, index, values):
    """Transpose of `x[index]`: zeros with values added, repeated positions summed.

    Parameters
    ----------
    xp : module
        numpy, or a module with its indexing, `arange`, `zeros`.
    add_rows : callable (rows, places[n], values[n m]) -> [rows m]
        Sum of the rows of values by place, in the order they stand in; 0 <= place < rows.
    shape : tuple of int
        Shape of x and of the result.
    index : int array over axis 0, bool mask, or what x[...] takes (slices, ints, arrays)
    values : array, numeric, of the shape of x[index]

    Returns
    -------
    array of `shape` and the dtype of values

    Raises
    ------
    ValueError
        values has not the shape of x[index].
    IndexError
        index leaves x (CuPy wraps it instead).
    TypeError
        values is bool.

    Examples
    --------
    >>> from backends import get
    >>> get("numpy").scatter_add((3,), np.array([2, 0, 2]), np.array([1.0, 5.0, 10.0]))
    array([ 5.,  0., 11.])
    """
    check_numeric(values)
    parts = index if isinstance(index, tuple) else (index,)
    if all(isinstance(part, _BASIC) for part in parts):
        # No position repeats: an assignment, and no table of positions.
        out = xp.zeros(shape, dtype=values.dtype)
        check_shape(values, out[index].shape)
        out[index] = values
        return out
    # One array over axis 0 moves whole rows; any other index moves single elements.
    by_row = len(parts) == 1 and parts[0].dtype.kind in "iu"
    outer, inner = (shape[:1], shape[1:]) if by_row else (shape, ())
    places = xp.arange(math.prod(outer)).reshape(outer)[index]
    check_shape(values, (*places.shape, *inner))
    values = values.reshape(places.size, math.prod(inner))
    return add_rows(math.prod(outer), places.reshape(-1), values).reshape(shape)


def check_numeric(values):
    if "bool" in str(values.dtype):
        raise TypeError("scatter_add: values has dtype bool; a numeric dtype is needed")


def check_shape(values, needed):
    if tuple(values.shape) != tuple(needed):
        raise ValueError(
            f"scatter_add: values has shape {tuple(values.shape)}, x[index] has {tuple(needed)}"
        )
