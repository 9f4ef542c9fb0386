"""Operators and methods of Tensor; imported once, for its effect. The names stand in `names`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autodiff import ops
from autodiff.names import METHODS
from autodiff.primitive import TABLE
from autodiff.tape import SPECIAL, STATE, Node, tick
from autodiff.tensor import Dual, Tensor, backend_of, raw, tracked
from autodiff.tensor_methods import size_of
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
        if python not in ("pow", "matmul"):
            torch = python.removeprefix("true")
            setattr(Tensor, f"{torch}_", _write_method(torch, prim))

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
        return _written(f"__i{python}__", prim, a, b)

    return method


def _written(name: str, prim: Any, a: Tensor, b: Any) -> Tensor:
    """`a`, with the result of ``prim(a, b)`` in its memory."""
    value = prim(raw(a), raw(b))
    if value.dtype != a.dtype and _kind(value) > _kind(raw(a)):
        raise TypeError(
            f"{name}: the result is {value.dtype}, this tensor {a.dtype}; the write would lose it"
        )
    return a.assign(value)


def _kind(array: Any) -> int:
    """Rank of a dtype among bool, integers, floats and complex numbers."""
    kinds = ("bool", "integral", "real floating", "complex floating")
    return [backend_of(array).isdtype(array.dtype, k) for k in kinds].index(True)


def _write_method(python: str, prim: Any) -> Callable:
    """``t.add_(v)``: always a write, refused where a gradient would be lost."""
    name = f"{python}_"

    def method(t: Tensor, other: Any, alpha: float = 1) -> Tensor:
        if STATE.grad and (tracked(t) or tracked(other)):
            return t._write(name, Ellipsis, other)  # which raises
        return _written(name, prim, t, other if alpha == 1 else raw(other) * alpha)

    return method


def _two_axes(self: Tensor) -> Tensor:
    if self.ndim != 2:
        raise ValueError(f"T: tensor of shape {self.shape}; needs 2 axes (mT swaps the last two)")
    return ops.matrix_transpose(self)


def _methods() -> None:
    # Functions of one array are methods under their own name, binary ones and others by the table.
    for name, prim in TABLE.items():
        if prim.kind == "elementwise" and len(prim.saves) == 1:
            setattr(Tensor, name, lambda self, prim=prim: prim(self))
    for f in (ops.log2, ops.reciprocal):
        setattr(Tensor, f.__name__, f)
    for name in ("conj", "angle", "negative"):
        setattr(Tensor, name, lambda self, prim=TABLE[name]: prim(self))
    two = ("subtract", "multiply", "divide", "pow", "maximum", "minimum", "logaddexp", "matmul")
    for name in two:
        setattr(Tensor, name, lambda self, other, prim=TABLE[name]: prim(self, other))
    for name, method in METHODS.items():
        setattr(Tensor, name, method)
    for python in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Tensor, python, getattr(Tensor, f"__{python}__"))
    Tensor.__complex__ = lambda self: complex(self.data)
    Tensor.astype = lambda self, dtype: ops.astype(self, dtype)
    properties = {
        "size": size_of,
        "T": _two_axes,
        "mT": lambda self: ops.matrix_transpose(self),
        "mH": lambda self: ops.conj(ops.matrix_transpose(self)),
        "real": lambda self: ops.real(self),
        "imag": lambda self: ops.imag(self),
        "nbytes": lambda self: self.data.nbytes,
        "grad_fn": lambda self: None if self.is_leaf else self.node,
    }
    for name, f in properties.items():
        setattr(Tensor, name, property(f))


_operators()
_methods()
