"""A first question to a device that claims wgmma and the copy engine: cuda/probe_wgmma.cu on exact integers."""

import numpy as np

from backends.kernels import FLOAT16, Launch, Program
from backends.kernels.params import fill, struct

__all__ = ["probe_wgmma"]

_EXTENT = 100  # rows of B that its map lets through; 28 must come as zeros


def probe_wgmma(device):
    """What is wrong, in words; empty if both products are exact.

    Parameters
    ----------
    device : CudaDevice
        Of compute capability 9.0.
    """
    xp, rng = device.xp, np.random.default_rng(0)
    a, b = (rng.integers(-3, 4, (1, 1, n, 128)).astype(np.float16) for n in (64, 128))
    on_device = [xp.asarray(x) for x in (a, b)]
    rows, columns = (xp.full((64, 128), np.nan, "float32") for _ in range(2))
    maps = device.tensor_map(on_device[0], 64, 64), device.tensor_map(on_device[1], 128, 64, _EXTENT)
    values = {"a": on_device[0], "rows": rows, "columns": columns}
    args = (*maps, fill(struct("probe_wgmma", "Probe"), values, device.pointer))
    program = Program("probe_wgmma", (("STORAGE", FLOAT16),))
    device.launch(Launch(program, "probe_wgmma", (1,), 128, (64 + 128) * 256 + 8, args))
    A, B = a[0, 0].astype(np.float64), b[0, 0].astype(np.float64)
    B[_EXTENT:] = 0
    wrong = []
    for name, found, wanted in (("rows", rows, A @ B.T), ("columns", columns, A @ B)):
        found = np.asarray(found.get() if hasattr(found, "get") else found)
        if not np.array_equal(found, wanted):
            bad = int((found != wanted).sum())
            wrong.append(f"the product by {name} is wrong in {bad} of {wanted.size} elements")
    return "; ".join(wrong)
