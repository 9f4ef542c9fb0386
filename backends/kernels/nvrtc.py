"""NVRTC, NVIDIA's compiler as a library, through ctypes: from the wheel nvidia-cuda-nvrtc or the system."""

import ctypes
import functools
import importlib.util
from pathlib import Path

__all__ = ["compile_cubin", "version"]

NEEDED = "install nvcc, or the package nvidia-cuda-nvrtc==13.0.88 (in closedform[dev])"


def candidates():
    """Folders of wheels that may hold the library; '' is the system's search path."""
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations if spec else ():
        yield from sorted(Path(place).glob("*/lib"), reverse=True)
    yield ""


@functools.cache
def library():
    """The loaded library.

    Raises
    ------
    RuntimeError
        It is nowhere.
    """
    for folder in candidates():
        # The builtins are looked up by name at compile time: loaded first, they are found.
        builtins = sorted(Path(folder).glob("libnvrtc-builtins.so*")) if folder else []
        names = sorted(Path(folder).glob("libnvrtc.so*")) if folder else ["libnvrtc.so.13", "libnvrtc.so.12"]
        for name in names:
            try:
                for builtin in builtins:
                    ctypes.CDLL(str(builtin), mode=ctypes.RTLD_GLOBAL)
                found = ctypes.CDLL(str(name), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                continue
            found.nvrtcGetErrorString.restype = ctypes.c_char_p
            return found
    raise RuntimeError(f"nvrtc: no CUDA compiler is here; {NEEDED}")


def version():
    """(major, minor) as a string."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def compile_cubin(text, name, options):
    """(cubin, log) of a source.

    Raises
    ------
    RuntimeError
        The source does not compile (the compiler's words are in the message), or there is no NVRTC.
    """
    lib, program = library(), ctypes.c_void_p()
    _check(lib.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None))
    try:
        flags = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        failed = lib.nvrtcCompileProgram(program, len(options), flags)
        log = _read(lib.nvrtcGetProgramLogSize, lib.nvrtcGetProgramLog, program).rstrip(b"\0").decode()
        if failed:
            raise RuntimeError(f"cubin: NVRTC refuses {name}:\n{log}")
        return _read(lib.nvrtcGetCUBINSize, lib.nvrtcGetCUBIN, program), log
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def _read(size_of, get, program):
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(get(program, buffer))
    return buffer.raw


def _check(status):
    if status:
        raise RuntimeError(f"nvrtc: {library().nvrtcGetErrorString(status).decode()}")
