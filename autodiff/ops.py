"""The functions of the tensor namespace, under their Array API names, and the Tensor operators.

Every function takes tensors and raw arrays alike: raw in, raw out. `sigmoid`, `softplus`,
`logsumexp`, `vector_norm`, `angle` and `complex` are not in the standard: import them from here,
they serve raw arrays and tensors of any backend.
"""

from __future__ import annotations

import builtins
import math
from typing import Any

from autodiff import (  # noqa: F401  the rules fill TABLE
    rules_array,
    rules_complex,
    rules_conv,
    rules_decompositions,
    rules_elementwise,
    rules_linalg,
    rules_reduce,
    rules_scan,
    rules_solve,
    rules_special,
)
from autodiff.primitive import TABLE
from autodiff.rules_linalg import spell_out
from autodiff.tensor import Tensor, backend_of, is_complex, raw

_DIRECT = (
    *("add", "subtract", "multiply", "divide", "negative", "pow", "maximum", "minimum"),
    *("logaddexp", "where", "exp", "expm1", "log", "log1p", "sqrt", "square", "abs", "sin", "cos"),
    *("tanh", "erf", "matmul", "matrix_transpose", "sigmoid", "softplus"),
    *("tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "asinh", "acosh", "atanh", "hypot"),
    *("erfc", "gammaln", "log1mexp", "rsqrt"),
    *("sign", "floor", "ceil", "round", "trunc"),
    *("real", "imag", "conj", "angle", "complex"),
)
globals().update({name: TABLE[name] for name in _DIRECT})
add, multiply, divide, subtract = (TABLE[n] for n in ("add", "multiply", "divide", "subtract"))
matmul, square, sqrt, log, where = (TABLE[n] for n in ("matmul", "square", "sqrt", "log", "where"))



def _axis(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def sum(x, *, axis=None, dtype=None, keepdims=False):  # noqa: A001
    if dtype is not None and dtype != x.dtype:
        x = astype(x, dtype)
    return TABLE["sum"](x, axis=_axis(axis), keepdims=keepdims)


def mean(x, *, axis=None, keepdims=False):
    return TABLE["mean"](x, axis=_axis(axis), keepdims=keepdims)


def prod(x, *, axis=None, keepdims=False):
    return TABLE["prod"](x, axis=_axis(axis), keepdims=keepdims)


def max(x, *, axis=None, keepdims=False):  # noqa: A001
    return TABLE["max"](x, axis=_axis(axis), keepdims=keepdims)


def min(x, *, axis=None, keepdims=False):  # noqa: A001
    return TABLE["min"](x, axis=_axis(axis), keepdims=keepdims)


def logsumexp(x, *, axis=None, keepdims=False):
    """log(sum(exp(x))) over `axis`, without overflow; -inf when every term is -inf."""
    return TABLE["logsumexp"](x, axis=_axis(axis), keepdims=keepdims)


def _running(name, x, axis, dtype, include_initial):
    if dtype is not None and dtype != x.dtype:
        x = astype(x, dtype)
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"{name}: x has {x.ndim} axes; axis is needed unless it has 1")
        axis = 0
    options = {"include_initial": True} if include_initial else {}
    return TABLE[name](x, axis=axis, **options)


def cumulative_sum(x, *, axis=None, dtype=None, include_initial=False):
    return _running("cumulative_sum", x, axis, dtype, include_initial)


def cumulative_prod(x, *, axis=None, dtype=None, include_initial=False):
    return _running("cumulative_prod", x, axis, dtype, include_initial)


def var(x, *, axis=None, correction=0.0, keepdims=False):
    d = _squared_size(x - mean(x, axis=axis, keepdims=True))
    axes = rules_reduce.axes_of(_axis(axis), x.ndim)
    n = math.prod(x.shape[a] for a in axes)
    return sum(d, axis=axis, keepdims=keepdims) / (n - correction)


def _squared_size(x):
    """x^2 of real numbers, |z|^2 of complex ones."""
    if not is_complex(x):
        return x * x
    re, im = TABLE["real"](x), TABLE["imag"](x)
    return re * re + im * im


def std(x, *, axis=None, correction=0.0, keepdims=False):
    return sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def vector_norm(x, *, axis=None, keepdims=False):
    """Euclidean norm; its gradient at 0 is 0, a subgradient, not NaN."""
    s = sum(_squared_size(x), axis=axis, keepdims=keepdims)
    zero = raw(s) == 0.0
    return where(zero, 0.0, sqrt(where(zero, 1.0, s)))


def clip(x, min=None, max=None):  # noqa: A002
    plain = builtins.all(b is None or isinstance(b, (int, float)) for b in (min, max))
    if plain:
        return TABLE["clip"](x, min=min, max=max)
    x = x if min is None else TABLE["maximum"](x, min)
    return x if max is None else TABLE["minimum"](x, max)


def astype(x, dtype, *, copy=True):
    if isinstance(x, Tensor) and x.dtype == dtype:
        return x
    return TABLE["astype"](x, dtype=dtype)


# --- shapes -----------------------------------------------------------------------------------


def reshape(x, shape, *, copy=None):
    return TABLE["reshape"](x, shape=shape)


def expand_dims(x, *, axis=0):
    return TABLE["expand_dims"](x, axis=axis)


def squeeze(x, axis):
    return TABLE["squeeze"](x, axis=axis)


def broadcast_to(x, shape):
    return TABLE["broadcast_to"](x, shape=tuple(shape))


def broadcast_arrays(*xs):
    shape = rules_array.broadcast_shapes(*(x.shape for x in xs))
    return [broadcast_to(x, shape) for x in xs]


def permute_dims(x, axes):
    return TABLE["permute_dims"](x, axes=tuple(axes))


def moveaxis(x, source, destination):
    source = (source,) if isinstance(source, int) else tuple(source)
    destination = (destination,) if isinstance(destination, int) else tuple(destination)
    n = x.ndim
    order = [i for i in range(n) if i not in {s % n for s in source}]
    for d, s in sorted((d % n, s % n) for d, s in zip(destination, source, strict=True)):
        order.insert(d, s)
    return permute_dims(x, order)


def flip(x, *, axis=None):
    return TABLE["flip"](x, axis=axis)


def roll(x, shift, *, axis=None):
    return TABLE["roll"](x, shift=_axis(shift), axis=_axis(axis))


def tril(x, *, k=0):
    return TABLE["tril"](x, k=k)


def triu(x, *, k=0):
    return TABLE["triu"](x, k=k)


def concat(arrays, *, axis=0):
    arrays = list(arrays)
    if axis is None:
        arrays, axis = [reshape(x, (-1,)) for x in arrays], 0
    axis = axis % arrays[0].ndim
    sizes = tuple(x.shape[axis] for x in arrays)
    return TABLE["concat"](*arrays, axis=axis, sizes=sizes)


def stack(arrays, *, axis=0):
    arrays = list(arrays)
    return TABLE["stack"](*arrays, axis=axis % (arrays[0].ndim + 1))


def unstack(x, *, axis=0):
    before = (slice(None),) * (axis % x.ndim)
    return tuple(getitem(x, (*before, i, ...)) for i in range(x.shape[axis]))


def repeat(x, repeats, *, axis=None):
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    xp = backend_of(raw(x))
    return take(x, xp.repeat(xp.arange(x.shape[axis]), repeats), axis=axis)


def tile(x, repetitions):
    reps = (1,) * (x.ndim - len(repetitions)) + tuple(repetitions)
    shape = (1,) * (len(reps) - x.ndim) + tuple(x.shape)
    pairs = [n for pair in zip([1] * len(shape), shape, strict=True) for n in pair]
    wide = [n for pair in zip(reps, shape, strict=True) for n in pair]
    full = tuple(r * n for r, n in zip(reps, shape, strict=True))
    return reshape(broadcast_to(reshape(x, tuple(pairs)), tuple(wide)), full)


# --- indexing ---------------------------------------------------------------------------------


def _index(x, part):
    if isinstance(part, list):
        xp = backend_of(raw(x))
        return xp.asarray(part) if part else xp.zeros(0, dtype=xp.int64)
    part = raw(part)
    if hasattr(part, "shape"):
        backend_of(raw(x), part)  # TypeError: two backends
    return part


def getitem(x, index):
    parts = [_index(x, i) for i in index] if isinstance(index, tuple) else None
    index = _index(x, index) if parts is None else tuple(parts)
    return TABLE["getitem"](x, index=index)


def scatter_add(shape, index, values):
    index = tuple(raw(i) for i in index) if isinstance(index, tuple) else raw(index)
    return TABLE["scatter_add"](values, shape=tuple(shape), index=index)


def take(x, indices, *, axis=None):
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"take: x has {x.ndim} axes; axis is needed unless it has 1")
        axis = 0
    axis, indices = axis % x.ndim, _index(x, indices)
    if indices.ndim == 1:
        return TABLE["take"](x, indices=indices, axis=axis)
    rows = take(x, backend_of(indices).reshape(indices, (-1,)), axis=axis)
    return reshape(rows, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def take_along_axis(x, indices, *, axis=-1):
    return TABLE["take_along_axis"](x, indices=raw(indices), axis=axis % x.ndim)


def sort(x, *, axis=-1, descending=False, stable=True):
    xp = backend_of(raw(x))
    order = xp.argsort(raw(x), axis=axis, descending=descending, stable=stable)
    return take_along_axis(x, order, axis=axis)


# --- products ---------------------------------------------------------------------------------


def vecdot(x, y, *, axis=-1):
    return TABLE["vecdot"](x, y, axis=axis)


def einsum(subscripts, *operands):
    explicit, shapes = spell_out(subscripts, [tuple(x.shape) for x in operands])
    pairs = zip(operands, shapes, strict=True)
    operands = [x if tuple(x.shape) == shape else reshape(x, shape) for x, shape in pairs]
    return TABLE["einsum"](*operands, subscripts=explicit)


def outer(x, y):
    return expand_dims(x, axis=1) * expand_dims(y, axis=0)


def reciprocal(x):
    return divide(1.0, x)


def log2(x):
    return log(x) * (1.0 / math.log(2.0))


def log10(x):
    return log(x) * (1.0 / math.log(10.0))


def polygamma(n, x):
    """n-th derivative of digamma; n = 0 is digamma itself."""
    return TABLE["polygamma"](x, n=n)


def solve_triangular(a, b, *, upper=False):
    return TABLE["solve_triangular"](a, b, upper=upper)


def windows(x, size, strides, dilation):
    options = {"strides": tuple(strides), "dilation": tuple(dilation)}
    return TABLE["windows"](x, size=tuple(size), **options)


def overlap_add(w, shape, strides, dilation):
    options = {"strides": tuple(strides), "dilation": tuple(dilation)}
    return TABLE["overlap_add"](w, shape=tuple(shape), **options)


def positive(x):
    return x


def asarray(x, *, dtype=None, copy=None, device=None):
    if isinstance(x, Tensor):
        return x if dtype is None else astype(x, dtype)
    return backend_of(x).asarray(x, dtype=dtype)


# Not in the standard's namespace: these are imported from here.
_OURS = ("sigmoid", "softplus", "log1mexp", "rsqrt", "angle", "complex")
NAMES = frozenset(
    (
        *(n for n in _DIRECT if n not in _OURS),
        *("sum", "mean", "prod", "max", "min", "cumulative_sum", "var", "std", "clip", "astype"),
        *("reshape", "expand_dims", "squeeze", "broadcast_to", "broadcast_arrays", "permute_dims"),
        *("moveaxis", "flip", "roll", "tril", "triu", "concat", "stack", "unstack", "repeat"),
        *("tile", "scatter_add", "take", "take_along_axis", "sort", "vecdot", "einsum"),
        *("reciprocal", "log2", "log10", "positive", "asarray", "cumulative_prod", "polygamma"),
        *("solve_triangular", "windows", "overlap_add", "linalg"),
    )
)

from autodiff import linalg  # noqa: E402, F401  its functions are written with those above
