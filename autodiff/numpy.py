"""NumPy's spelling, so that code written for NumPy or HIPS's autograd.numpy runs by its import.

    import autodiff.numpy as np
    grad(lambda x: np.sum(np.power(np.sin(x), 2)))(x)

Every function asks `namespace` of its arguments and calls the Array API function there, so raw
arrays, tensors and every backend are served, and there is no second implementation of anything.
The algorithms of `ref` do not use it: they ask ``namespace`` once and write the standard's names,
which all backends share, while NumPy's spelling is wider than what the others offer. So names that
coincide are passed on, those that differ stand in the tables below, and what neither has is
NumPy's own: dtypes, constants, random numbers. NumPy's own functions refuse a tensor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as _numpy

from autodiff import ops as _ops
from autodiff.names import METHODS as _METHODS
from autodiff.space import FLAT as _FLAT
from autodiff.space import namespace as _namespace
from autodiff.tensor import backend_of, is_tensor, raw
from autodiff.tensor_methods import sizes as _sizes
from backends import get as _get

# NumPy's name -> the Array API's, with the same arguments by position.
RENAMED = {
    **{"absolute": "abs", "fabs": "abs", "power": "pow", "true_divide": "divide", "rint": "round"},
    **{"conjugate": "conj", "arctan2": "atan2", "invert": "bitwise_invert"},
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
}

# Reductions: NumPy takes the axis by position.
REDUCTIONS = {
    **{name: name for name in ("sum", "mean", "prod", "max", "min", "var", "std", "all", "any")},
    **{"amax": "max", "amin": "min", "argmax": "argmax", "argmin": "argmin"},
}


def _arrays(args: Any) -> Any:
    """Every array among arguments, in lists too."""
    for a in args:
        if isinstance(a, (list, tuple)):
            yield from _arrays(a)
        elif hasattr(a, "dtype"):
            yield a


def _space(*args: Any) -> Any:
    """The namespace of the arrays among the arguments; NumPy's when there is none."""
    found = list(_arrays(args))
    return _namespace(*found) if found else _get("numpy")


def _array(x: Any) -> Any:
    """A list, a number or an array, as an array; a list that holds tensors is stacked."""
    if hasattr(x, "dtype"):
        return x
    if any(is_tensor(a) for a in _arrays([x])):
        return _ops.stack([_array(a) for a in x])
    return _numpy.asarray(x)


def _same(name: str) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        args = tuple(_array(a) if isinstance(a, list) else a for a in args)
        if not list(_arrays(args)):
            args = (_array(args[0]), *args[1:])  # numbers alone
        return getattr(_space(*args, *options.values()), name)(*args, **options)

    call.__name__ = name
    return call


def _reduction(name: str) -> Any:
    def call(a: Any, axis: Any = None, *, keepdims: bool = False, ddof: Any = None, **more: Any) -> Any:
        a = _array(a)
        if ddof is not None:
            more["correction"] = ddof
        return getattr(_space(a), name)(a, axis=axis, keepdims=keepdims, **more)

    call.__name__ = name
    return call


def _join(name: str) -> Any:
    def call(arrays: Any, axis: int = 0) -> Any:
        arrays = [_array(a) for a in arrays]
        return getattr(_space(*arrays), name)(arrays, axis=axis)

    call.__name__ = name
    return call


def _transpose(a: Any, axes: Any = None) -> Any:
    axes = tuple(range(a.ndim))[::-1] if axes is None else tuple(axes)
    return _space(a).permute_dims(a, axes)


def _swapaxes(a: Any, first: int, second: int) -> Any:
    axes = list(range(a.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return _space(a).permute_dims(a, tuple(axes))


def _reshape(a: Any, *shape: Any) -> Any:
    return _space(a).reshape(a, _sizes(shape) if len(shape) > 1 or not isinstance(shape[0], int) else shape)


def _cumsum(a: Any, axis: int | None = None) -> Any:
    xp = _space(a)
    if axis is None:
        a, axis = xp.reshape(a, (-1,)), 0
    return xp.cumulative_sum(a, axis=axis)


def _squeeze(a: Any, axis: Any = None) -> Any:
    axes = range(a.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    found = tuple(k for k in axes if axis is not None or a.shape[k] == 1)
    return _space(a).squeeze(a, found)


def _dot(a: Any, b: Any) -> Any:
    """matmul, but a scalar scales, and of two stacks every pair is multiplied."""
    a, b = _array(a), _array(b)
    xp = _space(a, b)
    if not a.ndim or not b.ndim:
        return xp.multiply(a, b)
    if a.ndim < 3 and b.ndim < 3:
        return xp.matmul(a, b)
    return _tensordot(a, b, ((-1,), (-2 if b.ndim > 1 else -1,)))


def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    if isinstance(axes, int):
        axes = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    axes = [(ks,) if isinstance(ks, int) else ks for ks in axes]
    left, right = ([k % x.ndim for k in ks] for ks, x in zip(axes, (a, b), strict=True))
    xp = _space(a, b)
    free_a = [k for k in range(a.ndim) if k not in left]
    free_b = [k for k in range(b.ndim) if k not in right]
    n = math.prod(a.shape[k] for k in left)
    shape = (*(a.shape[k] for k in free_a), *(b.shape[k] for k in free_b))
    rows = xp.reshape(xp.permute_dims(a, (*free_a, *left)), (math.prod(a.shape[k] for k in free_a), n))
    columns = xp.reshape(xp.permute_dims(b, (*right, *free_b)), (n, math.prod(b.shape[k] for k in free_b)))
    return xp.reshape(xp.matmul(rows, columns), shape)


def _diagonal(a: Any, offset: int = 0) -> Any:
    """The diagonal of the last two axes of a matrix or of a stack."""
    n = max(0, min(a.shape[-2] - max(-offset, 0), a.shape[-1] - max(offset, 0)))
    xp = backend_of(raw(a))
    places = xp.arange(n) + max(-offset, 0), xp.arange(n) + max(offset, 0)
    flat = _space(a).reshape(a, (*a.shape[:-2], a.shape[-2] * a.shape[-1]))
    return _space(a).take(flat, places[0] * a.shape[-1] + places[1], axis=-1)


def _diag(a: Any, k: int = 0) -> Any:
    """A matrix's diagonal, or the matrix with that diagonal."""
    if a.ndim == 2:
        return _diagonal(a, k)
    xp = backend_of(raw(a))
    n = a.shape[0] + abs(k)
    at = xp.arange(a.shape[0]) + max(-k, 0), xp.arange(a.shape[0]) + max(k, 0)
    return _ops.scatter_add((n, n), at, a)


def _split(a: Any, parts: Any, axis: int = 0) -> list:
    n = a.shape[axis]
    if isinstance(parts, int):
        if n % parts:
            raise ValueError(f"split: {parts} equal parts of an axis of size {n}")
        parts = [k * (n // parts) for k in range(1, parts)]
    ends = [0, *(min(p, n) for p in parts), n]
    before = (slice(None),) * (axis % a.ndim)
    return [a[(*before, slice(i, max(i, j)), ...)] for i, j in zip(ends, ends[1:], strict=False)]


def _rows(arrays: Any, least: int) -> list:
    arrays = [_array(a) for a in arrays]
    return [_reshape(a, (1,) * (least - a.ndim) + tuple(a.shape)) if a.ndim < least else a for a in arrays]


def _hstack(arrays: Any) -> Any:
    arrays = _rows(arrays, 1)
    return _space(*arrays).concat(arrays, axis=0 if arrays[0].ndim == 1 else 1)


ADAPTED = {
    "array": lambda x, dtype=None: _array(x) if dtype is None else _ops.astype(_array(x), dtype),
    "asarray": lambda x, dtype=None: _array(x) if dtype is None else _ops.astype(_array(x), dtype),
    "transpose": _transpose,
    "swapaxes": _swapaxes,
    "reshape": _reshape,
    "ravel": lambda a: _reshape(a, -1),
    "squeeze": _squeeze,
    "expand_dims": lambda a, axis: _space(a).expand_dims(a, axis=axis),
    "moveaxis": lambda a, source, destination: _ops.moveaxis(a, source, destination),
    "flip": lambda a, axis=None: _space(a).flip(a, axis=axis),
    "fliplr": lambda a: _space(a).flip(a, axis=1),
    "flipud": lambda a: _space(a).flip(a, axis=0),
    "roll": lambda a, shift, axis=None: _METHODS["roll"](a, shift, axis) if is_tensor(a) else (
        _space(a).roll(a, shift, axis=axis)
    ),
    "repeat": lambda a, repeats, axis=None: _ops.repeat(a, repeats, axis=axis),
    "tile": lambda a, reps: _ops.tile(a, (reps,) if isinstance(reps, int) else tuple(reps)),
    "cumsum": _cumsum,
    "sort": lambda a, axis=-1: _space(a).sort(a, axis=axis),
    "argsort": lambda a, axis=-1: _space(a).argsort(a, axis=axis),
    "take": lambda a, indices, axis=None: (
        _ops.take(_reshape(a, -1), _array(indices), axis=0)
        if axis is None
        else _ops.take(a, _array(indices), axis=axis)
    ),
    "take_along_axis": lambda a, indices, axis=-1: _ops.take_along_axis(a, indices, axis=axis),
    "tril": lambda a, k=0: _space(a).tril(a, k=k),
    "triu": lambda a, k=0: _space(a).triu(a, k=k),
    "dot": _dot,
    "inner": lambda a, b: _tensordot(a, b, ((-1,), (-1,))) if a.ndim and b.ndim else a * b,
    "vdot": lambda a, b: _space(a, b).vecdot(_reshape(a, -1), _reshape(b, -1)),
    "outer": lambda a, b: _ops.outer(_reshape(a, -1), _reshape(b, -1)),
    "tensordot": _tensordot,
    "diagonal": _diagonal,
    "diag": _diag,
    "trace": lambda a, offset=0: _ops.sum(_diagonal(a, offset), axis=-1),
    "concatenate": _join("concat"),
    "stack": _join("stack"),
    "vstack": lambda arrays: _ops.concat(_rows(arrays, 2), axis=0),
    "hstack": _hstack,
    "split": _split,
    "average": lambda a, axis=None, weights=None: (
        _ops.mean(a, axis=axis)
        if weights is None
        else _ops.sum(a * weights, axis=axis) / _ops.sum(_ops.broadcast_to(weights, a.shape), axis=axis)
    ),
    "ptp": lambda a, axis=None: _ops.max(a, axis=axis) - _ops.min(a, axis=axis),
    "angle": lambda z: _ops.angle(z),
    "einsum": lambda subscripts, *xs: _space(*xs).einsum(subscripts, *map(_array, xs)),
    "shape": lambda a: tuple(_array(a).shape),
    "ndim": lambda a: _array(a).ndim,
    "size": lambda a: int(_array(a).size),
}

# Where the names coincide the standard's function serves; what makes arrays is NumPy's own.
_STANDARD = (_ops.NAMES | _FLAT | {"tan", "sinh", "cosh", "hypot", "log10", "copysign"}) - {
    *("finfo", "iinfo", "result_type", "can_cast")
}
_made: dict[str, Any] = {}  # not in globals: `sum` and `max` mean Python's in this file


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if name in _made:
        return _made[name]
    if name in ADAPTED:
        value = ADAPTED[name]
    elif name in REDUCTIONS:
        value = _reduction(REDUCTIONS[name])
    elif name in RENAMED or name in _STANDARD:
        value = _same(RENAMED.get(name, name))
    else:
        value = getattr(_numpy, name)
    return _made.setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*RENAMED, *REDUCTIONS, *ADAPTED, *dir(_numpy)})
