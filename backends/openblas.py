"""The OpenBLAS that NumPy loaded: its thread count, its kernels' name, and its functions by name.

Another BLAS (MKL, Accelerate) has none of it: everything here is then None or "", and callers do without.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np

__all__ = ["core", "function", "get_threads", "set_threads"]

# SciPy's builds of OpenBLAS prefix every symbol; the suffix says 64-bit integers.
_SPELLINGS = [(prefix, suffix) for prefix in ("scipy_", "") for suffix in ("64_", "")]


def _find():
    """(library, prefix, suffix), or None."""
    for path in _files():
        try:
            # NumPy has loaded it already: this is the same library, not a second one.
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for prefix, suffix in _SPELLINGS:
            if hasattr(library, f"{prefix}openblas_set_num_threads{suffix}"):
                return library, prefix, suffix
    return None


def _files():
    root = Path(np.__file__).parent
    folders = (root.with_name("numpy.libs"), root / ".dylibs")  # Linux and Windows; macOS
    files = [f for folder in folders for f in sorted(folder.glob("*openblas*"))]
    if not files and sys.platform == "linux":
        try:
            lines = Path("/proc/self/maps").read_text().splitlines()
        except OSError:
            return []
        files = sorted({line.split()[-1] for line in lines if "openblas" in line})
    return files


_found = _find()


def function(name, result=None, arguments=()):
    """OpenBLAS's own function of that name ("cblas_saxpy"), or None.

    `arguments` are ctypes; "int" among them is the integer of this build, of 32 or 64 bits.
    """
    if _found is None:
        return None
    library, prefix, suffix = _found
    found = getattr(library, f"{prefix}{name}{suffix}", None)
    if found is not None:
        integer = ctypes.c_int64 if suffix else ctypes.c_int32
        found.restype = result
        found.argtypes = [integer if a == "int" else a for a in arguments]
    return found


get_threads = function("openblas_get_num_threads", ctypes.c_int)
set_threads = function("openblas_set_num_threads", None, [ctypes.c_int])
_core = function("openblas_get_corename", ctypes.c_char_p)
core = _core().decode() if _core else ""
