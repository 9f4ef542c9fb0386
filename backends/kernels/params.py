"""Kernel parameters: structs read from the sources, filled, and passed by value.

One place says what a kernel takes: its struct in cuda/. A field is a pointer, an integer, a float, or
another struct; the NumPy dtype made here has the layout that the compiler gives it.
"""

import functools
import re

import numpy as np

from backends.kernels.build import source_text

__all__ = ["View", "fill", "pointers", "struct"]

_SCALARS = {"int": np.int32, "u32": np.uint32, "i64": np.int64, "u64": np.uint64, "float": np.float32}
_STRUCT = re.compile(r"^struct (?:__align__\(\d+\) )?(\w+) \{([^{}]*)\};", re.MULTILINE)
_FIELDS = re.compile(r"^\s*(?:const )?(?:unsigned )?(\w+)(\*?) ([\w, ]+);", re.MULTILINE)


@functools.cache
def struct(source, name):
    """The NumPy dtype of a struct of `source`.cu.

    Raises
    ------
    ValueError
        There is no such struct, or a field of a type this reader does not know.
    """
    known = {}
    for found, body in _STRUCT.findall(source_text(source)):
        fields = []
        for kind, star, names in _FIELDS.findall(body):
            dtype = np.uint64 if star else _SCALARS.get(kind, known.get(kind))
            if dtype is None and found == name:
                raise ValueError(f"struct: {name} of {source} has a field of type {kind}")
            fields += [(field.strip(), dtype) for field in names.split(",")]
        if all(dtype is not None for _, dtype in fields):
            known[found] = np.dtype(fields, align=True)
    if name not in known:
        raise ValueError(f"struct: {source}.cu has no struct {name}; it has {', '.join(known)}")
    return known[name]


@functools.cache
def pointers(dtype):
    """(byte offset, path) of each pointer field."""
    found = []
    for name in dtype.names:
        kind, offset = dtype.fields[name][:2]
        if kind.names:
            found += [(offset + inner, f"{name}.{path}") for inner, path in pointers(kind)]
        elif kind == np.uint64:
            found.append((offset, name))
    return tuple(found)


class View:
    """An array [B H T c] as the kernels' View: channels adjacent, any other strides, in elements."""

    def __init__(self, array):
        if array.ndim != 4 or (array.size and array.shape[3] > 1 and array.strides[3] != array.itemsize):
            raise ValueError(f"View: shape {array.shape}, strides {array.strides}; needed [B H T c], c adjacent")
        self.array = array

    def strides(self):
        """Of batch, head, row, in elements."""
        return [s // self.array.itemsize for s in self.array.strides[:3]]


def fill(dtype, values, pointer):
    """One struct, as a NumPy array of one element; fields not named are zero.

    Parameters
    ----------
    dtype : np.dtype
        From `struct`.
    values : dict
        Field -> number, View, array (its address) or None (null).
    pointer : callable
        Address of an array.

    Raises
    ------
    ValueError
        A name that is no field.
    """
    out = np.zeros(1, dtype)
    for name, value in values.items():
        if name not in dtype.names:
            raise ValueError(f"fill: {name} is no field of {dtype.names}")
        if isinstance(value, View):
            out[name] = (pointer(value.array), *value.strides())
        elif value is not None:
            out[name] = pointer(value) if hasattr(value, "shape") and value.shape else value
    return out
