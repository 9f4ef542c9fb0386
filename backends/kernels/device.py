"""Where launches go: the CUDA device of CuPy's arrays, or a stand-in that a test puts in its place."""

import contextlib
import ctypes
import functools
import warnings

import numpy as np

from backends.kernels import BFLOAT16, FLOAT16, FLOAT32, Launch
from backends.kernels.build import cubin

__all__ = ["CudaDevice", "current", "storage", "tensor_map_arguments", "using"]

_stand_in = None
STORAGES = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}


def storage(dtype):
    """STORAGE of a dtype, or None: CuPy's bfloat16 is that of ml_dtypes."""
    return STORAGES.get(np.dtype(dtype).name)


@contextlib.contextmanager
def using(device):
    """Launches go to `device` within; it has what `CudaDevice` has."""
    global _stand_in
    before, _stand_in = _stand_in, device
    try:
        yield device
    finally:
        _stand_in = before


def current():
    """The stand-in, or CuPy's current device."""
    if _stand_in is not None:
        return _stand_in
    import cupy

    return _cuda_device(cupy.cuda.runtime.getDevice())


@functools.cache
def _cuda_device(index):
    return CudaDevice(index)


class CudaDevice:
    """A CUDA device through CuPy: capability, arrays, launches on the current stream."""

    def __init__(self, index):
        import cupy

        self.xp = cupy
        number = cupy.cuda.Device(index).compute_capability
        self.capability = (int(number[:-1]), int(number[-1]))
        self.kernels, self.shared = {}, {}

    @property
    def arch(self):
        """What its cubins are compiled for; 9.0 has instructions of its own."""
        major, minor = self.capability
        return "sm_90a" if (major, minor) == (9, 0) else f"sm_{major}{minor}"

    @functools.cached_property
    def wgmma_works(self):
        """Whether the probe of cuda/probe_wgmma.cu gives what it must; asked once, before level 2 is first used."""
        from backends.kernels.probe import probe_wgmma

        wrong = probe_wgmma(self)
        if wrong:
            warnings.warn(f"level 2 of attention is not used on this device: {wrong}", stacklevel=2)
        return not wrong

    def pointer(self, array):
        """Address of an array's first element."""
        return array.data.ptr

    def launch(self, launch: Launch):
        """Enqueue a launch."""
        key = launch.program, launch.kernel
        if key not in self.kernels:
            module = self.xp.RawModule(path=str(cubin(launch.program, self.arch).path))
            self.kernels[key] = module.get_function(launch.kernel)
        kernel = self.kernels[key]
        if launch.shared > self.shared.get(key, 48 << 10):  # what a kernel may ask for without saying so
            kernel.max_dynamic_shared_size_bytes = self.shared[key] = launch.shared
        grid = (*launch.grid, 1, 1)[:3]
        kernel(grid, (launch.threads, 1, 1), launch.args, shared_mem=launch.shared)

    def tensor_map(self, array, rows, columns, extent=None):
        """A descriptor for the copy engine; see `tensor_map_arguments`.

        Raises
        ------
        RuntimeError
            The driver refuses it.
        """
        out = np.zeros(192, np.uint8)
        start = -out.ctypes.data % 64  # the driver writes to a multiple of 64
        driver = ctypes.CDLL("libcuda.so.1")
        arguments = tensor_map_arguments(array, self.pointer(array), rows, columns, extent)
        status = driver.cuTensorMapEncodeTiled(ctypes.c_void_p(out.ctypes.data + start), *arguments)
        if status:
            raise RuntimeError(f"tensor_map: cuTensorMapEncodeTiled returned {status} for {array.shape}")
        return out[start : start + 128].copy().view("V128")


# CUtensorMapDataType, CUtensorMapSwizzle, CUtensorMapL2promotion of cuda.h
_DATA_TYPE = {FLOAT16: 6, FLOAT32: 7, BFLOAT16: 9}
_SWIZZLE_128, _PROMOTE_128 = 3, 2


def tensor_map_arguments(array, address, rows, columns, extent=None):
    """Arguments of cuTensorMapEncodeTiled after the first, for an array [B H T c].

    Parameters
    ----------
    array : array[B H T c]
        Channels adjacent; other strides multiples of 16 bytes.
    address : int
        Of its first element, a multiple of 16.
    rows, columns : int
        Of a box; 128 bytes wide at most, rows swizzled within 1024 bytes.
    extent : int, optional
        Rows from here on read as zeros; T if not given.
    """
    B, H, T, c = array.shape
    dims = (c, T if extent is None else extent, H, B)
    strides = [array.strides[axis] for axis in (2, 1, 0)]
    return (
        ctypes.c_int(_DATA_TYPE[storage(array.dtype)]), ctypes.c_uint32(4), ctypes.c_void_p(address),
        (ctypes.c_uint64 * 4)(*dims), (ctypes.c_uint64 * 3)(*strides),
        (ctypes.c_uint32 * 4)(columns, rows, 1, 1), (ctypes.c_uint32 * 4)(1, 1, 1, 1),
        ctypes.c_int(0), ctypes.c_int(_SWIZZLE_128), ctypes.c_int(_PROMOTE_128), ctypes.c_int(0),
    )  # fmt: skip
