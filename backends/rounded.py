"""Low-precision arrays: bfloat16 stored as uint16 and float16, computed in float32, rounded after every function.

Source: Micikevicius et al. 2018 (1710.03740) for storage, arithmetic and accumulation at different precision;
Kalamkar et al. 2019 (1905.12322) for bfloat16.

    from_numpy(x), then astype(x, xp.bfloat16)        2 bytes an element, as stored and as counted
    f(x, y) = round(f32(values of x, values of y))    one rounding a function; sums and products accumulate in float32

Conventions
  C1  A result has the dtype of its floating arguments if they agree; bfloat16 beside float16, or either beside
      float32, gives float32; float64 wins. Python numbers say nothing.
  C2  What only moves elements (reshape, transpose, index, ...) gives views of the stored bits.
  C3  From float64, and from Python numbers, the result is rounded once.
  C4  The default floating dtype is float32. There is no complex dtype.
"""

from __future__ import annotations

import operator
from functools import partial
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy as compat
import numpy as np

from backends import get
from backends.core import EXTENSIONS, Backend
from backends.low_precision import from_bf16_bits, to_bf16_bits, to_fp16_bits


class BFloat16:
    """The dtype of bfloat16 arrays: one object, `bfloat16`."""

    name, kind, itemsize = "bfloat16", "f", 2

    def __repr__(self):
        return "bfloat16"

    def __reduce__(self):
        return "bfloat16"


bfloat16 = BFloat16()
float16, float32, float64 = (np.dtype(n) for n in ("float16", "float32", "float64"))
LOW = (bfloat16, float16)
_MOVES = ("reshape", "permute_dims", "matrix_transpose", "expand_dims", "squeeze", "broadcast_to", "moveaxis", "flip",
          "identity", "getitem")  # fmt: skip
_FINFO = SimpleNamespace(
    bits=16, eps=2.0**-7, max=(2 - 2.0**-7) * 2.0**127, min=-(2 - 2.0**-7) * 2.0**127, smallest_normal=2.0**-126,
    dtype=bfloat16,
)  # fmt: skip


class Rounded:
    """An array of the backend "rounded": stored elements (`_array`), and the dtype they stand for."""

    __slots__ = ("_array", "dtype", "__weakref__")
    __array_ufunc__ = None

    def __init__(self, array: np.ndarray, dtype: Any):
        self._array, self.dtype = array, dtype

    shape = property(operator.attrgetter("_array.shape"))
    ndim = property(operator.attrgetter("_array.ndim"))
    size = property(operator.attrgetter("_array.size"))
    nbytes = property(operator.attrgetter("_array.nbytes"))
    device = property(lambda self: "cpu")
    T = property(lambda self: Rounded(self._array.T, self.dtype))
    mT = property(lambda self: Rounded(np.matrix_transpose(self._array), self.dtype))

    def __getitem__(self, index):
        return Rounded(np.asarray(self._array[_stored(index)]), self.dtype)

    def __setitem__(self, index, value):
        self._array[_stored(index)] = encode(np.asarray(_values(value)), self.dtype)._array

    def __array__(self, *_, **__):
        raise TypeError("an array of the backend 'rounded' turns into a NumPy array by to_numpy alone")

    def __bool__(self):
        return bool(_values(self))

    def __float__(self):
        return float(_values(self))

    def __int__(self):
        return int(_values(self))

    def __index__(self):
        return operator.index(self._array)

    def __len__(self):
        return len(self._array)

    __hash__ = object.__hash__

    def __repr__(self):
        return f"rounded({_values(self)!r}, {self.dtype})"


def _stored(tree):
    """Indices with raw arrays in place of ours."""
    if isinstance(tree, tuple):
        return tuple(map(_stored, tree))
    return tree._array if isinstance(tree, Rounded) else tree


def _values(x):
    """What is computed with: float32 for the low dtypes, the elements themselves otherwise."""
    if isinstance(x, list | tuple):
        return type(x)(map(_values, x))
    if not isinstance(x, Rounded):
        return x
    if x.dtype is bfloat16:
        return from_bf16_bits(x._array)
    return x._array.astype(np.float32) if x.dtype == float16 else x._array


def encode(a, dtype):
    """NumPy values as an array of the given dtype, rounded once."""
    a = np.asarray(a)
    if dtype is bfloat16:
        return Rounded(np.asarray(to_bf16_bits(_wide(a))), bfloat16)
    dtype = np.dtype(dtype)
    if dtype == float16:
        return Rounded(np.asarray(to_fp16_bits(_wide(a))).view(np.float16), dtype)
    return Rounded(a.astype(dtype, copy=False), dtype)


def _wide(a):
    return a if a.dtype in (float32, float64) else a.astype(np.float64)


def _floating(dtypes):
    """The dtype of a floating result (C1); None if no argument is floating."""
    kinds = list(dict.fromkeys(d for d in dtypes if d.kind == "f"))
    if len(kinds) < 2:
        return kinds[0] if kinds else None
    return float64 if float64 in kinds else float32


def _dtypes(x):
    if isinstance(x, list | tuple):
        return [d for part in x for d in _dtypes(part)]
    return [x.dtype] if isinstance(x, Rounded) else []


def _lifted(f):
    """`f` over NumPy arrays as a function over ours: values in, one rounding, out."""

    def call(*args, dtype=None, **options):
        common = _floating(_dtypes([*args, *options.values()])) or float32
        out = f(*map(_values, args), **{k: _values(v) for k, v in options.items()})
        return _wrapped(out, common, dtype)

    return call


def _wrapped(out, common, dtype=None):
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return type(out)(*(_wrapped(part, common, dtype) for part in out))
    if isinstance(out, list | tuple):
        return type(out)(_wrapped(part, common, dtype) for part in out)
    if not isinstance(out, np.ndarray | np.generic):
        return out
    if dtype is not None:
        return encode(out, dtype)
    return encode(out, common) if out.dtype.kind == "f" else Rounded(np.asarray(out), out.dtype)


def _moved(f):
    def call(x, *args, **options):
        return Rounded(np.asarray(f(x._array, *args, **options)), x.dtype)

    return call


def _asarray(x, *, dtype=None, copy=None, device=None):
    if isinstance(x, Rounded):
        if dtype is None or dtype == x.dtype:
            return Rounded(x._array.copy(), x.dtype) if copy else x
        return encode(_values(x), dtype)
    a = np.asarray(_values(x))
    return encode(a, dtype or (float32 if a.dtype.kind == "f" else a.dtype))


def _isdtype(dtype, kind):
    return compat.isdtype(float32 if dtype is bfloat16 else np.dtype(dtype), kind)


def _like(name):
    make = getattr(np, name)

    def call(x, *args, dtype=None, device=None):
        return encode(make(_values(x), *map(_values, args)), dtype or x.dtype)

    return call


def _finfo(dtype):
    return _FINFO if dtype is bfloat16 else np.finfo(dtype)


class _Rounding(Backend):
    """A function made of several is rounded once, too; what only moves elements keeps its views."""

    def bound(self, name, f):
        return super().bound(name, f) if name in (*_MOVES, "astype") else _lifted(partial(f, get("numpy")))


class _Library:
    """The array API standard's names: dtypes and constants as they are, functions lifted."""

    def __getattr__(self, key):
        value = getattr(get("numpy"), key)
        if isinstance(value, type) and issubclass(value, np.generic):
            return np.dtype(value)
        if not callable(value) or isinstance(value, type):
            return value
        return (_moved if key in _MOVES else _lifted)(value)


def to_numpy(x):
    """The values as a fresh NumPy array; bfloat16 comes as float32, exact."""
    return np.array(x._array) if x.dtype is not bfloat16 else _values(x)


def from_numpy(a):
    """A fresh array with the values and the dtype of a."""
    a = np.array(a)
    return Rounded(a, a.dtype)


def stored(x):
    """(the elements as they lie in memory, what makes such an array of elements again)."""
    return x._array, lambda a, dtype=x.dtype: Rounded(a, dtype)


def load() -> Backend:
    native = {
        "bfloat16": bfloat16,
        "asarray": _asarray,
        "astype": lambda x, dtype, *, copy=True, device=None: _asarray(x, dtype=dtype, copy=copy),
        "isdtype": _isdtype,
        "finfo": _finfo,
        "stored": stored,
        "broadcast_arrays": lambda *xs: [
            Rounded(a, x.dtype) for a, x in zip(np.broadcast_arrays(*(x._array for x in xs)), xs, strict=True)
        ],
        **{name: _like(name) for name in ("zeros_like", "ones_like", "full_like", "empty_like")},
    }
    return _Rounding(
        "rounded",
        _Library(),
        Rounded,
        from_numpy=from_numpy,
        to_numpy=to_numpy,
        extensions={name: _lifted(getattr(get("numpy"), name)) for name in EXTENSIONS},
        native=native,
    )


def _operators():
    binary = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power",
              "floordiv": "floor_divide", "mod": "remainder", "matmul": "matmul", "and": "bitwise_and",
              "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift"}  # fmt: skip
    compare = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater",
               "ge": "greater_equal"}  # fmt: skip

    def attach(name, f):
        def method(self, other):
            return f(self, other) if isinstance(other, Rounded | int | float) else NotImplemented

        setattr(Rounded, f"__{name}__", method)

    def attach_unary(name, f):
        setattr(Rounded, f"__{name}__", lambda self: f(self))

    for name, function in (binary | compare).items():
        f = _lifted(getattr(np, function))
        attach(name, f)
        if name in binary:
            attach(f"r{name}", lambda x, y, f=f: f(y, x))
    for name, function in {"neg": np.negative, "abs": np.abs, "invert": np.invert, "pos": np.positive}.items():
        attach_unary(name, _lifted(function))


_operators()
