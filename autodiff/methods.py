"""Operators and methods of Tensor; imported once, for its effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autodiff import ops
from autodiff.primitive import TABLE, refuse_complex
from autodiff.tape import SPECIAL, STATE, Node, tick
from autodiff.tensor import Dual, Tensor, backend_of, raw, tracked
from backends import get


def _swift(name: str, saves: bool) -> Callable:
    """``x op y`` of NumPy arrays, which `Primitive.__call__` would record in twice the time.

    Anything else (raw arrays, other backends, tangents, modes) takes the general way.
    """
    prim = TABLE[name]
    compute = getattr(get("numpy"), name)
    ndarray = np.ndarray

    def operator(a: Tensor, b: Any) -> Any:
        x = a.data
        if SPECIAL or x.__class__ is not ndarray:
            return prim(a, b)
        ea = a.node
        if b.__class__ is Tensor:
            eb = b.node
            y = b.data
            if y.__class__ is not ndarray:
                return prim(a, b)
        elif b.__class__ is float and ea is not None:
            eb = None
            y = b
        else:
            return prim(a, b)
        out = Tensor()
        out.grad = None
        out.data = z = compute(x, y)
        if ea is None and eb is None:
            out.node = None
            return out
        out.node = node = Node()
        node.prim = prim
        node.edges = (ea, eb)
        if ea is not None and eb is not None:
            node.saved = (x, y) if saves else ()
            if ea.shape == eb.shape and ea.dtype is eb.dtype:
                node.shape = ea.shape
                node.dtype = ea.dtype
                node.seq = tick()
                return out
        elif saves:
            node.saved = (None if eb is None else x, None if ea is None else y)
        else:
            node.saved = ()
        node.shape = z.shape
        node.dtype = z.dtype
        if node.dtype.kind == "c":
            refuse_complex(name, z)
        node.seq = tick()
        return out

    return operator


def _operators() -> None:
    general = {"pow": "pow", "matmul": "matmul"}
    swift = {"add": False, "sub": False, "mul": True}
    names = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", **general}
    for python, name in names.items():
        prim = TABLE[name]

        def forward(a: Any, b: Any, prim: Any = prim) -> Any:
            return prim(a, b)

        def reflected(b: Any, a: Any, prim: Any = prim) -> Any:
            return prim(a, b)

        # A Dual takes the general way from either side.
        setattr(Dual, f"__{python}__", forward)
        setattr(Dual, f"__r{python}__", reflected)
        way = _swift(name, swift[python]) if python in swift else forward
        setattr(Tensor, f"__{python}__", way)
        setattr(Tensor, f"__r{python}__", reflected)
        setattr(Tensor, f"__i{python}__", _inplace(python, prim))

    def compare(name: str) -> Callable:
        def method(a: Any, b: Any) -> Any:
            return getattr(raw(a), name)(raw(b))

        return method

    for python in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Tensor, f"__{python}__", compare(f"__{python}__"))
    Tensor.__hash__ = object.__hash__
    Tensor.__neg__ = lambda x: TABLE["negative"](x)
    Tensor.__pos__ = lambda x: x
    Tensor.__abs__ = lambda x: TABLE["abs"](x)
    Tensor.__getitem__ = ops.getitem


def _inplace(python: str, prim: Any) -> Callable:
    """``t += v`` writes into the memory of t where no gradient is at stake, else makes a new t."""

    def method(a: Tensor, b: Any) -> Tensor:
        if tracked(a, tangents_alone=not STATE.grad) or (STATE.grad and tracked(b)):
            if a.node is not None and a.is_leaf:
                raise RuntimeError(
                    f"__i{python}__: this leaf requires grad, and rebinding its name would lose "
                    "it; write under no_grad(), or give the result another name"
                )
            return prim(a, b)
        value = prim(raw(a), raw(b))
        if value.dtype != a.dtype and _kind(value) > _kind(raw(a)):
            raise TypeError(
                f"__i{python}__: the result is {value.dtype}, this tensor {a.dtype}; the write "
                "would lose it"
            )
        return a.assign(value)

    return method


def _kind(array: Any) -> int:
    """Rank of a dtype among bool, integers, floats and complex numbers."""
    kinds = ("bool", "integral", "real floating", "complex floating")
    return [backend_of(array).isdtype(array.dtype, k) for k in kinds].index(True)


def _axis_method(f: Callable) -> Callable:
    def method(self: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        return f(self, axis=axis, keepdims=keepdims)

    method.__name__ = f.__name__
    return method


def _shape_of(args: tuple) -> tuple:
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args


def _transpose(self: Tensor, first: int = -2, second: int = -1) -> Tensor:
    """Two axes swapped, by default the last two."""
    axes = list(range(self.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return ops.permute_dims(self, axes)


def _two_axes(self: Tensor) -> Tensor:
    if self.ndim != 2:
        raise ValueError(f"T: tensor of shape {self.shape}; needs 2 axes (mT swaps the last two)")
    return ops.matrix_transpose(self)


def _methods() -> None:
    for name in ("exp", "log", "sqrt", "square", "sin", "cos", "tanh", "sigmoid", "abs"):
        setattr(Tensor, name, lambda self, prim=TABLE[name]: prim(self))
    for name in ("sum", "mean", "prod", "max", "min", "var", "std"):
        setattr(Tensor, name, _axis_method(getattr(ops, name)))
    Tensor.reshape = lambda self, *shape: ops.reshape(self, _shape_of(shape))
    Tensor.flatten = lambda self: ops.reshape(self, (-1,))
    Tensor.permute = lambda self, *axes: ops.permute_dims(self, _shape_of(axes))
    Tensor.transpose = _transpose
    Tensor.T = property(_two_axes)
    Tensor.mT = property(lambda self: ops.matrix_transpose(self))
    Tensor.squeeze = lambda self, axis: ops.squeeze(self, axis)
    Tensor.unsqueeze = lambda self, axis: ops.expand_dims(self, axis=axis)
    Tensor.astype = lambda self, dtype: ops.astype(self, dtype)
    Tensor.clip = lambda self, min=None, max=None: ops.clip(self, min, max)
    Tensor.argmax = lambda self, axis=None: backend_of(self.data).argmax(self.data, axis=axis)
    Tensor.argmin = lambda self, axis=None: backend_of(self.data).argmin(self.data, axis=axis)


_operators()
_methods()
