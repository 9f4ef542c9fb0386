"""Tensor: an array, the node that made it, and the gradient that arrived.

Operators and most methods are attached by `autodiff.methods`, `backward` by `autodiff.backward`.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import numpy as np

from autodiff.tape import STATE, WRITES, Node, leaf
from backends import namespace

__all__ = ["Dual", "Tensor", "is_tensor", "raw", "tensor"]


_backends: dict[type, Any] = {}


def backend_of(*arrays: Any) -> Any:
    """`backends.namespace`, by class alone when there is one array."""
    if len(arrays) == 1:
        try:
            return _backends[arrays[0].__class__]
        except KeyError:
            return _backends.setdefault(arrays[0].__class__, namespace(*arrays))
    return namespace(*arrays)


class Tensor:
    """An array on the tape. Make one with `tensor`; operations make the others.

    Attributes
    ----------
    data : array
        The values. Writing into this array directly is not seen by the tape: use `assign`.
    node : Node or None
        How the values came about; None when no gradient is wanted.
    grad : array, Tensor or None
        The gradient: a raw array, a Tensor after ``create_graph=True``, None before.
    """

    __slots__ = ("data", "node", "grad", "__weakref__")
    # ndarray operators step back and let ours run; NumPy functions refuse the tensor.
    __array_ufunc__ = None

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, on: bool) -> None:
        self.requires_grad_(on)

    @property
    def is_leaf(self) -> bool:
        """Whether gradients end here: a tensor of the user's, not the result of an operation."""
        return self.node is None or self.node.prim is None

    shape = property(attrgetter("data.shape"))
    dtype = property(attrgetter("data.dtype"))
    ndim = property(attrgetter("data.ndim"))
    device = property(attrgetter("data.device"))

    @property
    def version(self) -> int:
        """How often this tensor, or a view of the same memory, was written in place."""
        return WRITES.version(self.data)

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Ask for, or stop asking for, a gradient of this leaf; returns the tensor."""
        if not self.is_leaf:
            if on:
                return self
            raise RuntimeError(
                "requires_grad_: this tensor is the result of an operation; use detach()"
            )
        if on and self.node is None:
            if not is_real(self.data) and not is_complex(self.data):
                raise TypeError(
                    f"requires_grad: dtype {self.data.dtype} has no gradients; needs a floating "
                    "dtype, real or complex"
                )
            self.node = leaf(self.data, self)
        elif not on:
            self.node = None
        return self

    def detach(self) -> Tensor:
        """The same memory, off the tape."""
        return _tensor(self.data, None)

    def zero_grad(self) -> None:
        self.grad = None

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array; raises while a gradient is wanted (detach first)."""
        if self.node is not None:
            raise RuntimeError("numpy: this tensor requires grad; use .detach().numpy()")
        if isinstance(self.data, (np.ndarray, np.generic)):
            return np.asarray(self.data)
        return backend_of(self.data).to_numpy(self.data)

    def item(self) -> float:
        """The one value as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item: tensor of shape {self.shape} has {self.data.size} values")
        return backend_of(self.data).to_numpy(self.data).item()

    # --- writes in place ----------------------------------------------------------------------

    def assign(self, value: Any) -> Tensor:
        """Write `value` into this tensor's memory; returns the tensor."""
        return self._write("assign", Ellipsis, value)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._write("tensor[...] = value", index, value)

    def _write(self, name: str, index: Any, value: Any) -> Tensor:
        if STATE.grad and tracked(self):
            raise RuntimeError(
                f"{name}: this tensor requires grad, and the write would not be on the tape; "
                "write under no_grad(), or build a new tensor with where or concat"
            )
        if isinstance(value, Tensor):
            if STATE.grad and tracked(value):
                raise RuntimeError(
                    f"{name}: the value requires grad, which the write would lose; "
                    "write under no_grad(), or build a new tensor with where or concat"
                )
            value = value.data
        if not hasattr(self.data, "__setitem__"):
            raise TypeError(f"{name}: a 0-d result of an operation has no memory to write into")
        index = tuple(map(raw, index)) if isinstance(index, tuple) else raw(index)
        self.data[index] = value
        WRITES.stamp(self.data)
        return self

    # --- what Python and NumPy ask ------------------------------------------------------------

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "a Tensor does not turn into a NumPy array by itself (its gradient would be lost); "
            "use .detach().numpy(), raw(tensor), or the functions of autodiff.namespace(tensor)"
        )

    def __len__(self) -> int:
        if not self.data.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.data.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __int__(self) -> int:
        return int(self.data)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        tail = ", requires_grad=True" if self.is_leaf and self.requires_grad else ""
        if not self.is_leaf:
            tail = f", from={self.node.prim.name!r}"
        return f"tensor({self.data!r}{tail})"


class Dual(Tensor):
    """A tensor that carries forward-mode tangents, one for each live level (see `forward`)."""

    __slots__ = ("tangents",)

    def __getattr__(self, name: str) -> None:
        # Not on Tensor: it would make every attribute of every tensor slower to read.
        if name == "grad":
            return None
        raise AttributeError(f"a Dual has no attribute {name!r}")


def _tensor(data: Any, node: Node | None) -> Tensor:
    t = Tensor()
    t.data = data
    t.node = node
    t.grad = None
    return t


def tensor(data: Any, requires_grad: bool = False) -> Tensor:
    """A leaf tensor over `data`.

    Parameters
    ----------
    data : array, number or nested list
        An array is not copied; a list or a number becomes a NumPy array.
    requires_grad : bool
        Whether `backward` brings a gradient here; needs a floating dtype.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4.])
    """
    if isinstance(data, Tensor):
        raise TypeError("tensor: got a Tensor; use .detach() for a leaf over the same memory")
    if isinstance(data, (bool, int, float, complex, list, tuple, np.generic)):
        data = np.asarray(data)
    backend_of(data)
    t = _tensor(data, None)
    return t.requires_grad_() if requires_grad else t


def is_tensor(x: Any) -> bool:
    """Whether `x` is a Tensor."""
    return isinstance(x, Tensor)


def raw(x: Any) -> Any:
    """The array of a Tensor; anything else unchanged."""
    return x.data if isinstance(x, Tensor) else x


def tracked(x: Any, tangents_alone: bool = False) -> bool:
    """Whether `x` has a derivative to lose: a node, or tangents of a transform that still runs."""
    if x.__class__ is Dual:
        from autodiff.forward import LIVE

        if any(level in LIVE for level in x.tangents):
            return True
    return not tangents_alone and isinstance(x, Tensor) and x.node is not None


_REAL: dict[tuple, bool] = {}


def is_real(array: Any) -> bool:
    """Whether an array's dtype is real floating."""
    key = array.__class__, array.dtype
    try:
        return _REAL[key]
    except KeyError:
        return _REAL.setdefault(key, backend_of(array).isdtype(array.dtype, "real floating"))


def is_complex(x: Any) -> bool:
    """Whether an array, a tensor or a node has complex values."""
    return complex_dtype(x.dtype)


def complex_dtype(dtype: Any) -> bool:
    """Whether a dtype of any backend is complex."""
    try:
        return dtype.kind == "c"
    except AttributeError:
        return "complex" in str(dtype)
