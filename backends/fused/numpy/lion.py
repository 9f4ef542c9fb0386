"""Lion (Chen et al. 2023, 2302.06675, Alg. 2), in place, a block at a time.

    p <- p (1 - lr decay) - lr sign(b1 m + (1 - b1) g),      m <- b2 m + (1 - b2) g
"""

import numpy as np

from backends.fused.numpy._blas import axpby
from backends.fused.numpy._blocks import run_blocks

__all__ = ["lion_"]


def lion_(param, grad, m, *, lr, beta1, beta2, weight_decay=0.0):
    """One step of Lion; writes param and m.

    Parameters
    ----------
    param, grad, m : float[n], or lists of such
        Flat, contiguous, of one dtype; `grad` is only read.
    lr, beta1, beta2, weight_decay : float

    Raises
    ------
    ValueError
        Arrays that are not flat, contiguous and of one length and dtype, or lists of different lengths.
    """

    def kernel(w, toward, p, g, mean):
        number = p.x.dtype.type
        np.multiply(mean.x, number(beta1), out=toward.x)
        np.multiply(g.x, number(1 - beta1), out=w.x)
        np.add(toward.x, w.x, out=toward.x)
        _signed(lr, toward.x, w.x)
        axpby(-1.0, toward, 1 - lr * weight_decay, p, w)
        axpby(1 - beta2, g, beta2, mean, w)

    run_blocks("lion_", kernel, scratches=2, param=param, grad=grad, m=m)


def _signed(size, x, junk):
    """size sign(x), in place, by bits: np.sign alone costs twice as much.

    The sign bit of x beside the bits of `size`; zeros, which are rare, are put back.
    """
    whole = np.int32 if x.itemsize == 4 else np.int64
    bits, moves = x.view(whole), junk.view(np.bool_)[: x.size]
    np.not_equal(x, 0, out=moves)
    np.bitwise_and(bits, whole(-(1 << (8 * x.itemsize - 1))), out=bits)
    np.bitwise_or(bits, x.dtype.type(size).view(whole), out=bits)
    if not moves.all():
        np.multiply(x, moves, out=x)
