"""What stands behind torch's names where `ops` has no function of the kind (see `names`)."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

from autodiff import ops
from autodiff.hooks import ON, register_hook
from autodiff.primitive import identity
from autodiff.tensor import Tensor, backend_of, raw

# --- shapes -----------------------------------------------------------------------------------


class Size(int):
    """The number of values; called, the shape, or its size along one axis."""

    shape: tuple

    def __call__(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]


def size_of(t: Tensor) -> Size:
    size = Size(t.data.size)
    size.shape = tuple(t.data.shape)
    return size


def sizes(args: tuple) -> tuple:
    """A shape given as one tuple, or as its sizes."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args


def flatten(t: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    shape = tuple(t.shape) or (1,)
    first, last = start_dim % len(shape), end_dim % len(shape)
    middle = math.prod(shape[first : last + 1])
    return ops.reshape(t, (*shape[:first], middle, *shape[last + 1 :]))


def swapped(t: Tensor, first: int = -2, second: int = -1) -> Tensor:
    """Two axes swapped, by default the last two."""
    axes = list(range(t.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return ops.permute_dims(t, axes)


def squeeze(t: Tensor, dim: Any = None, *, axis: Any = None) -> Tensor:
    dim = axis if dim is None else dim
    axes = range(t.ndim) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    if dim is not None and axis is not None and dim is not axis:
        raise TypeError("squeeze: got both dim and axis; needs one")
    return ops.squeeze(t, tuple(a for a in axes if t.shape[a] == 1))


def expand(t: Tensor, *shape: Any) -> Tensor:
    """`t` broadcast to a shape; -1 keeps a size."""
    shape = sizes(shape)
    mine = (1,) * (len(shape) - t.ndim) + tuple(t.shape)
    return ops.broadcast_to(t, tuple(m if n == -1 else n for n, m in zip(shape, mine, strict=True)))


def split(t: Tensor, split_size: Any, dim: int = 0) -> tuple:
    """Pieces of `split_size`, the last one shorter, or of the sizes in a list."""
    n = t.shape[dim]
    if isinstance(split_size, int):
        if split_size < 1:
            raise ValueError(f"split: split_size is {split_size}; needs at least 1")
        split_size = [min(split_size, n - k) for k in range(0, n, split_size)] or [0]
    if sum(split_size) != n:
        raise ValueError(f"split: sizes {list(split_size)} sum to {sum(split_size)}, axis has {n}")
    before = (slice(None),) * (dim % t.ndim)
    ends = [sum(split_size[: k + 1]) for k in range(len(split_size))]
    pairs = zip(ends, split_size, strict=True)
    return tuple(t[(*before, slice(end - size, end), ...)] for end, size in pairs)


def chunk(t: Tensor, chunks: int, dim: int = 0) -> tuple:
    if chunks < 1:
        raise ValueError(f"chunk: chunks is {chunks}; needs at least 1")
    return split(t, max(-(-t.shape[dim] // chunks), 1), dim)


def along(t: Tensor, dim: int, part: Any) -> Tensor:
    return t[(*(slice(None),) * (dim % t.ndim), part, ...)]


# --- reductions -------------------------------------------------------------------------------


def reduction(f: Callable) -> Callable:
    """A reduction of `ops` as a method: axis by position, or under either spelling."""

    def method(
        t: Tensor, axis: Any = None, keepdims: bool = False, *, dim: Any = None,
        keepdim: bool = False, **options: Any,
    ) -> Any:  # fmt: skip
        if "unbiased" in options:
            options["correction"] = float(options.pop("unbiased"))
        axis = dim if axis is None else axis
        return f(t, axis=axis, keepdims=keepdims or keepdim, **options)

    method.__name__ = f.__name__
    return method


def flat(name: str) -> Callable:
    """A reduction that has no derivative: raw."""

    def f(t: Tensor, **options: Any) -> Any:
        return getattr(backend_of(t.data), name)(t.data, **options)

    f.__name__ = name
    return f


def norm(t: Tensor, p: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    options = {"axis": dim, "keepdims": keepdim}
    if p == 2:
        return ops.vector_norm(t, **options)
    size = ops.abs(t)
    if p in (math.inf, -math.inf):
        return (ops.max if p > 0 else ops.min)(size, **options)
    return ops.sum(size, **options) if p == 1 else ops.sum(size**p, **options) ** (1.0 / p)


def log_softmax(t: Tensor, dim: int = -1) -> Tensor:
    return t - ops.logsumexp(t, axis=dim, keepdims=True)


# --- places -----------------------------------------------------------------------------------


def _cut(t: Any, index: Any, dim: int) -> Any:
    """`t` cut to the sizes of `index` on every axis but `dim`."""
    parts = zip(t.shape, index.shape, strict=True)
    return t[tuple(slice(None) if k == dim else slice(0, m) for k, (_, m) in enumerate(parts))]


def gather(t: Tensor, dim: int, index: Any) -> Tensor:
    """out[i, j] = t[index[i, j], j] for dim 0, and so on."""
    dim, index = dim % t.ndim, raw(index)
    return ops.take_along_axis(_cut(t, index, dim), index, axis=dim)


def scatter_add(t: Tensor, dim: int, index: Any, src: Any) -> Tensor:
    """`t` with src[i, j] added at t[index[i, j], j] for dim 0, and so on."""
    dim, index = dim % t.ndim, raw(index)
    xp = backend_of(index)
    grid: list = []
    for k, n in enumerate(index.shape):
        line = tuple(n if j == k else 1 for j in range(index.ndim))
        grid.append(index if k == dim else xp.reshape(xp.arange(n), line))
    cut = src[tuple(slice(0, n) for n in index.shape)]
    return t + ops.scatter_add(t.shape, tuple(grid), cut)


def index_add(t: Tensor, dim: int, index: Any, source: Any) -> Tensor:
    front = ops.moveaxis(source, dim, 0)
    moved = ops.moveaxis(t, dim, 0)
    return ops.moveaxis(moved + ops.scatter_add(moved.shape, raw(index), front), 0, dim)


# --- products ---------------------------------------------------------------------------------


def product(name: str, first: int, second: int) -> Callable:
    def method(t: Tensor, other: Any) -> Tensor:
        if (t.ndim, other.ndim) != (first, second):
            raise ValueError(
                f"{name}: shapes {tuple(t.shape)} and {tuple(other.shape)}; needs {first} and "
                f"{second} axes (matmul broadcasts)"
            )
        return ops.matmul(t, other)

    return method


# --- dtypes, memory, the tape -----------------------------------------------------------------


def as_dtype(name: str) -> Callable:
    return lambda t: ops.astype(t, getattr(backend_of(t.data), name))


def to(t: Tensor, target: Any) -> Tensor:
    """To a dtype, or that of another tensor; "cpu" is where it is."""
    if isinstance(target, str):
        if target != "cpu":
            raise ValueError(f"to: device {target!r}; arrays change device by their own library")
        return t
    return ops.astype(t, target.dtype if isinstance(target, Tensor) else target)


def clone(t: Tensor) -> Tensor:
    """A copy on the tape: memory of its own, the gradient goes through."""
    out = identity(t)
    out.data = backend_of(t.data).asarray(t.data, copy=True)
    return out


def retain_grad(t: Tensor) -> None:
    """Keep ``grad`` of the result of an operation too; its backward adds to it as to a leaf's."""
    if t.node is None:
        raise RuntimeError("retain_grad: this tensor does not require grad, so no gradient comes")
    if t.is_leaf or any(hasattr(h, "retains") for h in ON.get(t.node.seq, {}).values()):
        return
    ref = weakref.ref(t)

    def keep(g: Any) -> None:
        t = ref()
        if t is not None:
            mine = g if isinstance(g, Tensor) else backend_of(g).asarray(g, copy=True)
            t.grad = mine if t.grad is None else t.grad + mine

    keep.retains = True
    register_hook(t, keep)


def detach_(t: Tensor) -> Tensor:
    """Take this tensor itself off the tape."""
    t.node = None
    return t


def tolist(t: Tensor) -> Any:
    return backend_of(t.data).to_numpy(t.data).tolist()
