"""AdamW (Loshchilov & Hutter 2019, 1711.05101, Alg. 2), in place, a block at a time.

    m <- b1 m + (1 - b1) g            v <- b2 v + (1 - b2) g^2
    p <- p (1 - lr decay) - lr (m / c1) / (sqrt(v / c2) + eps),   c = 1 - b^t

The corrections are moved into scalars, which leaves 7 passes over a block that stays in cache:

    p <- p (1 - lr decay) - (lr sqrt(c2) / c1) m / (sqrt(v) + eps sqrt(c2))
"""

import math

import numpy as np

from backends.fused.numpy._blas import axpby
from backends.fused.numpy._blocks import run_blocks

__all__ = ["adamw_"]


def adamw_(param, grad, m, v, t, *, lr, beta1, beta2, eps, weight_decay):
    """One step of AdamW; writes param, m and v.

    Parameters
    ----------
    param, grad, m, v : float[n], or lists of such
        Flat, contiguous, of one dtype; `grad` is only read.
    t : int
        Number of this step, from 1.
    lr, beta1, beta2, eps, weight_decay : float

    Raises
    ------
    ValueError
        Arrays that are not flat, contiguous and of one length and dtype, lists of different lengths, or t < 1.
    """
    keep, rate, beta1, rest1, beta2, rest2, eps = scalars(t, lr, beta1, beta2, eps, weight_decay)

    def kernel(w, p, g, mean, square):
        axpby(rest1, g, beta1, mean, w)
        np.multiply(g.x, g.x, out=w.x)
        axpby(rest2, w, beta2, square, w)
        np.sqrt(square.x, out=w.x)
        np.add(w.x, p.x.dtype.type(eps), out=w.x)
        np.divide(mean.x, w.x, out=w.x)
        axpby(-rate, w, keep, p, w)

    run_blocks("adamw_", kernel, param=param, grad=grad, m=m, v=v)


def scalars(t, lr, beta1, beta2, eps, weight_decay):
    """1 - lr decay, lr sqrt(c2) / c1, b1, 1 - b1, b2, 1 - b2, eps sqrt(c2); ValueError if t < 1."""
    if t < 1:
        raise ValueError(f"adamw_: t={t}; the first step is t=1")
    c1, root2 = 1 - beta1**t, math.sqrt(1 - beta2**t)
    return 1 - lr * weight_decay, lr * root2 / c1, beta1, 1 - beta1, beta2, 1 - beta2, eps * root2
