"""Named axes: `q[*B H T d], k[*B G S d] -> [*B H T d]`, parsed once and checked at every call.

An entry is `name[axes]` or `name:kind[axes]`; kind is float (the default), int, bool or any. An axis is a
name, an integer, or one leading `*name` that takes any number of axes. `name:tree` is not checked (a
state, a list, a Rule). The same text tells the input spaces which shapes to draw and the runner which
shapes and dtypes to expect.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple

_ENTRY = re.compile(r"\s*(?P<name>\w*)(?::(?P<kind>\w+))?(?:\[(?P<axes>[^\]]*)\])?\s*")
_KINDS = ("float", "int", "bool", "any", "tree")


class Entry(NamedTuple):
    """One array of a signature: its name ("" for an unnamed output), its kind, its axes."""

    name: str
    kind: str
    axes: tuple[str, ...]

    def __str__(self):
        return f"{self.name}[{' '.join(self.axes)}]"

    def shape(self, dims):
        """The shape under `dims`, {axis name: size}; a `*B` axis maps to a tuple of sizes."""
        out = []
        for axis in self.axes:
            if axis.startswith("*"):
                out.extend(dims[axis[1:]])
            else:
                out.append(int(axis) if axis.isdigit() else dims[axis])
        return tuple(out)


class Signature(NamedTuple):
    """The parsed text of a signature: its inputs and its outputs."""

    inputs: tuple[Entry, ...]
    outputs: tuple[Entry, ...]


@cache
def parse(text):
    """Signature of `text`; ValueError if it is malformed."""
    left, arrow, right = text.partition("->")
    return Signature(_entries(left, text), _entries(right, text) if arrow else ())


def _entries(text, whole):
    out = []
    for part in re.split(r",(?![^\[]*\])", text):
        if not part.strip():
            continue
        match = _ENTRY.fullmatch(part)
        if match is None:
            raise ValueError(f"signature: cannot read {part.strip()!r} in {whole!r}")
        kind = match["kind"] or "float"
        if kind not in _KINDS:
            raise ValueError(f"signature: kind {kind!r} in {whole!r}; needed one of {_KINDS}")
        axes = tuple((match["axes"] or "").split())
        if any(axis.startswith("*") for axis in axes[1:]):
            raise ValueError(f"signature: only the first axis may be starred in {whole!r}")
        out.append(Entry(match["name"], kind, axes))
    return tuple(out)


def bind(function, text, **arrays):
    """Check arrays against a signature and return its axis sizes.

    Parameters
    ----------
    function : str
        Name for the error message.
    text : str
        Signature; `bind` reads its inputs. Entries whose array is None are skipped.
    **arrays
        Arrays or Tensors by entry name.

    Returns
    -------
    dict
        {axis name: size}; a `*B` axis gives a tuple.

    Raises
    ------
    TypeError
        Not an array, of another kind than named, or float arrays of different dtypes.
    ValueError
        Number of axes or a shared axis disagrees; the message names both arrays and both sizes.

    >>> import numpy as np
    >>> bind("f", "q[*B T d], k[*B S d]", q=np.ones((2, 3, 4)), k=np.ones((2, 5, 4)))
    {'B': (2,), 'T': 3, 'd': 4, 'S': 5}
    """
    entries = parse(text).inputs
    try:
        given = [None if e.kind == "tree" else arrays.get(e.name) for e in entries]
        # The class first: dtypes of two libraries are never compared.
        key = (text, *[x if x is None else (x.shape, x.dtype.__class__, x.dtype) for x in given])
        found = _PASSED.get(key)
    except (AttributeError, TypeError):  # something else than an array
        return _bound(function, entries, arrays)
    if found is None:
        if len(_PASSED) >= _MOST:
            _PASSED.clear()
        found = _PASSED[key] = _bound(function, entries, arrays)
    return found.copy()


_PASSED = {}  # (text, shape and dtype of each array) -> axis sizes: what was right is not looked at again
_MOST = 4096


def _bound(function, entries, arrays):
    dims, owner, floats = {}, {}, {}
    for entry in entries:
        array = arrays.get(entry.name)
        if array is None or entry.kind == "tree":
            continue
        shape = getattr(array, "shape", None)
        if shape is None:
            raise TypeError(
                f"{function}: {entry.name} is a {type(array).__name__}; {entry} must be an array"
            )
        _check_kind(function, entry, array)
        if entry.kind == "float":
            name = dtype_name(array.dtype)
            first, wanted = floats.setdefault("", (entry, name))
            if name != wanted:
                raise TypeError(
                    f"{function}: {entry.name} has dtype {name}, {first.name} has {wanted}; "
                    f"the float arrays must share a dtype"
                )
        _bind_shape(function, entry, tuple(shape), dims, owner)
    return dims


def _bind_shape(function, entry, shape, dims, owner):
    axes = entry.axes
    starred = bool(axes) and axes[0].startswith("*")
    fixed = axes[1:] if starred else axes
    if len(shape) < len(fixed) or (not starred and len(shape) != len(fixed)):
        least = "at least " if starred else ""
        raise ValueError(
            f"{function}: {entry.name} has shape {shape} ({len(shape)} axes); "
            f"{entry} needs {least}{len(fixed)}"
        )
    split = len(shape) - len(fixed)
    found = [(axes[0][1:], shape[:split])] if starred else []
    found += list(zip(fixed, shape[split:], strict=True))
    for axis, size in found:
        known = int(axis) if axis.isdigit() else dims.setdefault(axis, size)
        if known != size:
            other = owner.get(axis)
            if other is None:
                needed = f"{entry} needs {known}"
            else:
                needed = f"{other.name} has {axis}={known}; {entry} and {other} must share {axis}"
            raise ValueError(f"{function}: {entry.name} has {axis}={size}, {needed}")
        owner.setdefault(axis, entry)


def _check_kind(function, entry, array):
    if entry.kind == "any":
        return
    found = kind_of(array.dtype)
    if found != entry.kind:
        raise TypeError(
            f"{function}: {entry.name} has dtype {array.dtype}; {entry} must be {entry.kind}"
        )


@lru_cache(None, typed=True)  # typed: dtypes of two libraries are never compared
def dtype_name(dtype):
    """A dtype's plain name, in any backend: "float32", not "array_api_strict.float32"."""
    return str(dtype).rsplit(".", 1)[-1]


@lru_cache(None, typed=True)
def kind_of(dtype):
    """"float", "int", "bool" or "complex", for a dtype of any backend."""
    name = dtype_name(dtype)
    for prefix, kind in (("float", "float"), ("bfloat", "float"), ("bool", "bool"), ("complex", "complex")):
        if name.startswith(prefix):
            return kind
    return "int" if "int" in name else name
