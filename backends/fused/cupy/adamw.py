"""AdamW on CUDA (1711.05101, Alg. 2): one launch for all tensors, in place; the kernel of cuda/adamw.cu."""

import math

import numpy as np

from backends.kernels import FLOAT32, Launch, Program
from backends.kernels import device as devices
from backends.kernels.params import fill, struct

__all__ = ["adamw_"]

_CHUNK = 32 * 1024  # elements of a block


def adamw_(params, grads, ms, vs, t, *, lr, beta1, beta2, eps, weight_decay):
    """One step of AdamW; writes params, ms and vs.

    Parameters
    ----------
    params, grads, ms, vs : list of float32 array
        Contiguous; the i-th of each list are alike. Gradients are only read.
    t : int
        Number of this step, from 1.
    lr, beta1, beta2, eps, weight_decay : float

    Raises
    ------
    ValueError
        Lists or arrays that differ in size, arrays that are not contiguous, or t < 1.
    TypeError
        An array that is not float32.
    """
    groups = _check(params, grads, ms, vs, t)
    device = devices.current()
    rows = [[*map(device.pointer, group), group[0].size] for group in groups]
    chunks = [(i, first) for i, group in enumerate(groups) for first in range(0, group[0].size, _CHUNK)]
    if not chunks:
        return
    c1, c2 = 1 - beta1**t, math.sqrt(1 - beta2**t)
    values = {
        "tensors": device.xp.asarray(np.array(rows, np.uint64)),
        "chunks": device.xp.asarray(np.array(chunks, np.int64)),
        "chunk": _CHUNK, "b1": beta1, "b2": beta2, "a1": 1 - beta1, "a2": 1 - beta2,
        "keep": 1 - lr * weight_decay, "rate": lr * c2 / c1, "floor": eps * c2,
    }  # fmt: skip
    args = (fill(struct("adamw", "AdamW"), values, device.pointer),)
    device.launch(Launch(Program("adamw", (("STORAGE", FLOAT32),)), "adamw", (len(chunks),), 256, 0, args))


def _check(params, grads, ms, vs, t):
    if not len(params) == len(grads) == len(ms) == len(vs):
        sizes = f"{len(params)} params, {len(grads)} grads, {len(ms)} ms, {len(vs)} vs"
        raise ValueError(f"adamw_: {sizes}; needed as many of each")
    if t < 1:
        raise ValueError(f"adamw_: t={t}; the first step is t=1")
    groups = list(zip(params, grads, ms, vs, strict=True))
    for i, group in enumerate(groups):
        for name, x in zip(("param", "grad", "m", "v"), group, strict=True):
            if x.dtype != "float32":
                raise TypeError(f"adamw_: {name} {i} is {x.dtype}; needed float32")
            if x.size != group[0].size or not x.flags.c_contiguous:
                raise ValueError(f"adamw_: {name} {i} has shape {x.shape}, strides {x.strides}; needed contiguous, of "
                                 f"{group[0].size} elements")  # fmt: skip
    return groups
