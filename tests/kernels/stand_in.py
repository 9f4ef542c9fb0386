"""A device that is not there: it records launches, and runs each on the emulation, on NumPy arrays.

Arrays that it makes start as NaN and stand between guard bytes, so that a row that is never written shows,
and a row written past the end.
"""

import numpy as np

from backends.kernels import emulation
from backends.kernels.emulation import EmulationError
from backends.kernels.params import pointers


class Guarded:
    """NumPy, but for `empty`."""

    GUARD, BYTE = 4096, 0xA5

    def __init__(self):
        self.buffers = []

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype=float):
        dtype, size = np.dtype(dtype), int(np.prod(shape))
        raw = np.full(2 * self.GUARD + size * dtype.itemsize + 16, self.BYTE, np.uint8)
        start = self.GUARD - raw.ctypes.data % 16
        body = raw[start : start + size * dtype.itemsize]
        body[:] = 0xFF
        self.buffers.append((raw, start, start + len(body)))
        return body.view(dtype).reshape(shape)

    def intact(self):
        """Whether no guard byte was written."""
        return all(
            (raw[:start] == self.BYTE).all() and (raw[stop:] == self.BYTE).all() for raw, start, stop in self.buffers
        )


class StandIn:
    """What `CudaDevice` has. A launch runs at once, and stays in `launches`."""

    wgmma_works = True

    def __init__(self, capability=(9, 0), order=0, bug=0):
        self.capability, self.order, self.bug, self.launches = capability, order, bug, []
        self.xp = Guarded()

    def pointer(self, array):
        return array.ctypes.data

    def launch(self, launch):
        self.launches.append(launch)
        emulation.seed(launch.program, self.bug)
        try:
            emulation.run(launch, self.order)
        finally:
            emulation.seed(launch.program, 0)
        if not self.xp.intact():
            raise EmulationError(f"{launch.kernel}: wrote outside an array")

    def kernels(self):
        """Names of the kernels launched."""
        return [launch.kernel for launch in self.launches]

    def addresses(self):
        """{kernel: {field: address}} of the launches' structs."""
        found = {}
        for launch in self.launches:
            raw = launch.args[-1].view(np.uint8)
            found[launch.kernel] = {
                path: int(raw[at : at + 8].view(np.uint64)[0]) for at, path in pointers(launch.args[-1].dtype)
            }
        return found

    def tensor_map(self, array, rows, columns, extent=None):
        """The emulation's own descriptor: cuda/emulation/emu90.h, struct TensorMap."""
        out = np.zeros(1, np.dtype([("base", np.uint64), ("extent", np.int64, 4), ("stride", np.int64, 4),
                                    ("box", np.int32, 4), ("rest", np.uint8, 40)]))  # fmt: skip
        B, H, T, c = array.shape
        out["base"] = array.ctypes.data
        out["extent"] = c, T if extent is None else extent, H, B
        out["stride"] = array.strides[3], array.strides[2], array.strides[1], array.strides[0]
        out["box"] = columns, rows, 1, 1
        return out
