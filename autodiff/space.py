"""`namespace`: the one question an algorithm asks about its arrays.

    xp = namespace(q, k, v)      # raw arrays: their backend; any Tensor: the tensor namespace

The tensor namespace has the functions of `autodiff.ops` for what is differentiable, the backend's
own for what is not (comparisons, argmax: they give raw arrays), and its dtypes and
creation functions. A function of the backend without a rule refuses a tensor that requires grad.
"""

from __future__ import annotations

from typing import Any

from autodiff import ops
from autodiff.tensor import Tensor, backend_of, is_complex, raw

# Truth values, places and constants: nothing to differentiate, so the result is a raw array.
FLAT = frozenset(
    (
        *("all", "any", "argmax", "argmin", "argsort", "count_nonzero", "equal"),
        *("floor_divide", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less"),
        *("less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "nonzero"),
        *("not_equal", "searchsorted", "signbit", "unique_all"),
        *("unique_counts", "unique_inverse", "unique_values", "zeros_like", "ones_like"),
        *("full_like", "empty_like", "result_type", "can_cast", "isdtype", "finfo", "iinfo"),
    )
)


class TensorNamespace:
    """The functions of one backend over tensors. Made by `namespace`, one a backend."""

    def __init__(self, backend: Any):
        self.backend = backend
        self.name = backend.name

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        if key == "asarray":
            value = self._asarray
        elif key in ops.NAMES:
            value = getattr(ops, key)
        else:
            value = getattr(self.backend, key)
            if key == "sign":
                value = _flat(value, _real_alone)
            elif callable(value) and not isinstance(value, type):
                value = _flat(value) if key in FLAT else _guarded(key, value)
        self.__dict__[key] = value
        return value

    def _asarray(self, x: Any, **options: Any) -> Any:
        """A tensor stays one; lists and numbers become arrays of this backend."""
        return (ops if isinstance(x, Tensor) else self.backend).asarray(x, **options)

    def __repr__(self) -> str:
        return f"<tensor namespace of {self.backend!r}>"


def _real_alone(x: Any) -> None:
    if isinstance(x, Tensor) and is_complex(x):
        raise TypeError(f"sign: got {x.dtype}, where it is not flat; write x / abs(x)")


def _flat(f: Any, check: Any = None) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        if check is not None:
            check(*args)
        return f(*map(raw, args), **{k: raw(v) for k, v in options.items()})

    return call


def _guarded(key: str, f: Any) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        for a in (*args, *options.values()):
            if isinstance(a, Tensor):
                raise TypeError(
                    f"{key}: autodiff has no rule for it; use raw(tensor) where no gradient is "
                    "wanted, or write it with the functions of autodiff.ops"
                )
        return f(*args, **options)

    return call


_SPACES: dict[Any, TensorNamespace] = {}


def space_of(backend: Any) -> TensorNamespace:
    """The tensor namespace over a backend."""
    try:
        return _SPACES[backend]
    except KeyError:
        return _SPACES.setdefault(backend, TensorNamespace(backend))


def namespace(*xs: Any) -> Any:
    """Functions for these arrays.

    Parameters
    ----------
    *xs : Tensor, array, Python scalar or None
        Scalars and None say nothing.

    Returns
    -------
    Backend or TensorNamespace
        The backend of raw arrays; with any Tensor among them, the tensor namespace over it.

    Raises
    ------
    TypeError
        No array, an unknown one, or arrays of two backends.

    Examples
    --------
    >>> import numpy as np
    >>> from autodiff import tensor
    >>> namespace(np.zeros(3), None)
    <backend numpy>
    >>> namespace(np.zeros(3), tensor([1.0]))
    <tensor namespace of <backend numpy>>
    """
    for x in xs:
        if isinstance(x, Tensor):
            return space_of(backend_of(*map(raw, xs)))
    return backend_of(*xs)
