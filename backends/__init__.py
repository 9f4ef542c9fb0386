"""Array backends: `namespace(*arrays)` is the one question an algorithm asks.

    xp = namespace(q, k, v)     # once, at the head of an algorithm
    s = xp.matmul(q, xp.matrix_transpose(k))

Backends: "numpy"; "strict" (array-api-strict, which refuses whatever the array API standard does
not promise); "cupy" (CUDA); "rounded" (bfloat16 and float16, computed in float32). All but the first
are imported when their arrays arrive or `get` asks for them.

Conventions
  C1  Python scalars and None say nothing about the backend; NumPy scalars are NumPy arrays.
  C2  Arrays of two backends never mix: the caller carries them over.
  C3  Masked arrays and np.matrix are refused: they give `*` and `sum` another meaning.
"""

import importlib
from types import NoneType
from typing import Any

from backends.core import EXTENSIONS, Backend

__all__ = ["EXTENSIONS", "Backend", "get", "namespace"]

# Backend: package of its arrays, and what installs it. Read without importing any of them.
_PACKAGES = {
    "numpy": ("numpy", "closedform"),
    "strict": ("array_api_strict", "closedform[check]"),
    "cupy": ("cupy", "closedform[gpu]"),
    "rounded": ("backends", "closedform"),
}
NAMES = tuple(_PACKAGES)
_SCALARS = (bool, int, float, complex, NoneType)

_loaded: dict[str, Backend] = {}
_by_class: dict[type, Backend | None] = dict.fromkeys(_SCALARS)


def namespace(*arrays: Any) -> Backend:
    """Backend of the arrays that arrived.

    Parameters
    ----------
    *arrays : array, Python scalar or None
        Raw arrays; scalars and None are passed over.

    Returns
    -------
    Backend
        The one backend that all arrays share.

    Raises
    ------
    TypeError
        No array arrived, or one that no backend knows, or arrays of two backends.

    Examples
    --------
    >>> import numpy as np
    >>> namespace(np.zeros(3), 2.0, None)
    <backend numpy>
    """
    found = None
    try:
        for x in arrays:
            backend = _by_class[type(x)]
            if backend is not found and backend is not None:
                if found is not None:
                    raise TypeError(_mixed(arrays))
                found = backend
    except KeyError:
        for x in arrays:
            if type(x) not in _by_class:
                _by_class[type(x)] = _find(type(x), arrays)
        return namespace(*arrays)
    if found is None:
        raise TypeError(f"namespace: got {_names(arrays) or 'nothing'}; needs at least one array")
    return found


def get(name: str) -> Backend:
    """Backend by name.

    Parameters
    ----------
    name : "numpy", "strict", "cupy" or "rounded"

    Returns
    -------
    Backend
        The same object on every call.

    Raises
    ------
    ValueError
        Unknown name.
    RuntimeError
        The package, or for "cupy" a CUDA device, is missing.

    Examples
    --------
    >>> get("numpy").name
    'numpy'
    """
    if name not in NAMES:
        raise ValueError(f"get: backend {name!r} is unknown; one of {', '.join(NAMES)}")
    if name not in _loaded:
        package, extra = _PACKAGES[name]
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise RuntimeError(
                f"get: backend {name!r} needs the package {package}, which does not import "
                f"({error}); pip install '{extra}'"
            ) from error
        _loaded[name] = importlib.import_module(f"backends.{name}").load()
    return _loaded[name]


def _find(cls: type, arrays: tuple) -> Backend | None:
    packages = {base.__module__.partition(".")[0] for base in cls.__mro__}
    for name, (package, _) in _PACKAGES.items():
        if package in packages and get(name).holds(cls):
            return get(name)
    # After the arrays, because np.float64 is a Python float too.
    if issubclass(cls, _SCALARS):
        return None
    raise TypeError(
        f"namespace: {_name(cls)} is no array of {', '.join(NAMES)}; got {_names(arrays)}"
    )


def _mixed(arrays: tuple) -> str:
    kinds = dict.fromkeys(b.name for x in arrays if (b := _by_class[type(x)]) is not None)
    return (
        f"namespace: arrays of {' and '.join(kinds)} arrived together, got {_names(arrays)}; "
        "all arrays of one call must share a backend"
    )


def _names(arrays: tuple) -> str:
    return ", ".join(_name(type(x)) for x in arrays)


def _name(cls: type) -> str:
    package = cls.__module__.partition(".")[0]
    return cls.__qualname__ if package == "builtins" else f"{package}.{cls.__qualname__}"
