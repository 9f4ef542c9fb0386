"""A device that is not there: it records launches, and runs each on the emulation, on NumPy arrays."""

import numpy as np

from backends.kernels import emulation
from backends.kernels.params import pointers


class StandIn:
    """What `CudaDevice` has. A launch runs at once, and stays in `launches`."""

    xp = np

    def __init__(self, capability=(9, 0), order=0):
        self.capability, self.order, self.launches = capability, order, []

    def pointer(self, array):
        return array.ctypes.data

    def launch(self, launch):
        self.launches.append(launch)
        emulation.run(launch, self.order)

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
