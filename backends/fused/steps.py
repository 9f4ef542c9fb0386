"""In-place optimizer steps, by the backend of the arrays; NumPy's are compiled where Numba is installed."""

import importlib

from backends import namespace
from backends.fused.compiled._loop import takes

__all__ = ["adamw_"]

_ADAMW = {
    "numpy": "backends.fused.numpy.adamw",
    "compiled": "backends.fused.compiled.adamw",
    "cupy": "backends.fused.cupy.adamw",
}


def adamw_(params, grads, ms, vs, t, *, lr, beta1, beta2, eps, weight_decay):
    """One step of AdamW (1711.05101, Alg. 2) over all tensors; writes params, ms and vs.

    Parameters
    ----------
    params, grads, ms, vs : float[n], or lists of such
        Flat and contiguous; the i-th of each list are alike. Gradients are only read. CuPy's are float32.
    t : int
        Number of this step, from 1.
    lr, beta1, beta2, eps, weight_decay : float

    Raises
    ------
    ValueError
        Lists or arrays that differ in size, arrays that are not contiguous, or t < 1.
    TypeError
        Arrays of several backends, of one that has no such step, or of a dtype that it does not take.

    Examples
    --------
    >>> import numpy as np
    >>> p, m, v = np.ones(1), np.zeros(1), np.zeros(1)
    >>> adamw_([p], [np.ones(1)], [m], [v], 1, lr=0.5, beta1=0.9, beta2=0.99, eps=0.0, weight_decay=0.0)
    >>> p
    array([0.5])
    """
    lists = [x if isinstance(x, list | tuple) else [x] for x in (params, grads, ms, vs)]
    arrays = [x for each in lists for x in each]
    if not arrays:
        return
    name = namespace(*arrays).name
    if name not in _ADAMW:
        raise TypeError(f"adamw_: arrays of {name}; needed one of numpy, cupy")
    if name == "numpy" and takes(*arrays):
        name = "compiled"
    step = importlib.import_module(_ADAMW[name]).adamw_
    step(*lists, t, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
