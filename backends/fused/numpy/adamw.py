"""AdamW (Loshchilov & Hutter 2019, 1711.05101, Alg. 2), in place, a block at a time.

    m <- b1 m + (1 - b1) g            v <- b2 v + (1 - b2) g^2
    p <- p (1 - lr decay) - lr (m / c1) / (sqrt(v / c2) + eps),   c = 1 - b^t

The corrections are moved into scalars, which leaves 13 passes over a block that stays in cache:

    p <- p (1 - lr decay) - (lr sqrt(c2) / c1) m / (sqrt(v) + eps sqrt(c2))
"""

import math

import numpy as np

from backends.fused.numpy._scratch import scratch
from backends.threads import run_tiles

__all__ = ["adamw_"]

_BLOCK = 128 * 1024
_BLOCKS = 1  # of one job


def adamw_(param, grad, m, v, t, *, lr, beta1, beta2, eps, weight_decay):
    """One step of AdamW; writes param, m and v.

    Parameters
    ----------
    param, grad, m, v : float[n]
        Flat, contiguous, of one dtype; `grad` is only read.
    t : int
        Number of this step, from 1.
    lr, beta1, beta2, eps, weight_decay : float

    Raises
    ------
    ValueError
        Arrays that are not flat, contiguous and of one length and dtype, or t < 1.
    """
    _check(param, grad, m, v, t)
    c1, c2 = 1 - beta1**t, math.sqrt(1 - beta2**t)
    number = param.dtype.type
    b1, b2 = number(beta1), number(beta2)
    a1, a2 = number(1 - beta1), number(1 - beta2)
    floor, rate, keep = number(eps * c2), number(lr * c2 / c1), number(1 - lr * weight_decay)

    def job(start):
        stop = min(start + _BLOCKS * _BLOCK, param.size)
        with scratch() as work:
            for i in range(start, stop, _BLOCK):
                j = min(i + _BLOCK, stop)
                p, g, mean, square = param[i:j], grad[i:j], m[i:j], v[i:j]
                w = work.take("adamw", (j - i,), param.dtype)
                np.multiply(mean, b1, out=mean)
                np.multiply(g, a1, out=w)
                np.add(mean, w, out=mean)
                np.multiply(square, b2, out=square)
                np.multiply(g, g, out=w)
                np.multiply(w, a2, out=w)
                np.add(square, w, out=square)
                np.sqrt(square, out=w)
                np.add(w, floor, out=w)
                np.divide(mean, w, out=w)
                np.multiply(w, rate, out=w)
                np.multiply(p, keep, out=p)
                np.subtract(p, w, out=p)

    run_tiles(job, range(0, param.size, _BLOCKS * _BLOCK))


def _check(param, grad, m, v, t):
    for name, x in (("param", param), ("grad", grad), ("m", m), ("v", v)):
        if x.ndim != 1 or x.size != param.size or x.dtype != param.dtype:
            raise ValueError(
                f"adamw_: {name} is {x.dtype}{list(x.shape)}, param is "
                f"{param.dtype}{list(param.shape)}; all four must be flat and alike"
            )
        if not x.flags.c_contiguous:
            raise ValueError(f"adamw_: {name} is not contiguous")
    if t < 1:
        raise ValueError(f"adamw_: t={t}; the first step is t=1")
