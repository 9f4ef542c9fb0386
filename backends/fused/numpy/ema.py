"""Exponential moving average of parameters (`optim.ema`, uncorrected), in place, a block at a time.

    e <- d e + (1 - d) x
"""

from backends.fused.numpy._blas import axpby
from backends.fused.numpy._blocks import run_blocks

__all__ = ["ema_"]


def ema_(average, param, *, decay):
    """Take in a parameter's next value; writes average.

    Parameters
    ----------
    average, param : float[n], or lists of such
        Flat, contiguous, of one dtype; `param` is only read.
    decay : float

    Raises
    ------
    ValueError
        Arrays that are not flat, contiguous and of one length and dtype, or lists of different lengths.
    """
    run_blocks("ema_", lambda w, e, x: axpby(1 - decay, x, decay, e, w), average=average, param=param)
