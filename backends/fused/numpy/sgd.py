"""SGD with momentum in torch's form, plain or Nesterov, in place, a block at a time.

    b <- mu b + (g + decay p),      p <- p - lr d,      d = b,  or  (g + decay p) + mu b  (Nesterov)
"""

import numpy as np

from backends.fused.numpy._blas import axpby
from backends.fused.numpy._blocks import run_blocks

__all__ = ["sgd_"]


def sgd_(param, grad, velocity, *, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """One step of SGD; writes param and velocity.

    Parameters
    ----------
    param, grad, velocity : float[n], or lists of such
        Flat, contiguous, of one dtype; `grad` is only read.
    lr, momentum, weight_decay : float
    nesterov : bool

    Raises
    ------
    ValueError
        Arrays that are not flat, contiguous and of one length and dtype, or lists of different lengths.
    """

    def kernel(w, p, g, b):
        if weight_decay:
            np.multiply(p.x, p.x.dtype.type(weight_decay), out=w.x)
            np.add(w.x, g.x, out=w.x)
            g = w
        np.multiply(b.x, b.x.dtype.type(momentum), out=b.x)
        np.add(b.x, g.x, out=b.x)
        if nesterov:
            # mu b + g, where g may lie in w: p takes the two parts one after the other.
            axpby(-lr, g, 1.0, p, w)
            axpby(-lr * momentum, b, 1.0, p, w)
        else:
            axpby(-lr, b, 1.0, p, w)

    run_blocks("sgd_", kernel, param=param, grad=grad, velocity=velocity)
