"""AdamW (Loshchilov & Hutter 2019, 1711.05101, Alg. 2), in place, every number read and written once.

The equations and the scalars are those of backends/fused/numpy/adamw.py.
"""

import numpy as np

from backends.fused.compiled._loop import loop
from backends.fused.numpy._blocks import run_blocks
from backends.fused.numpy.adamw import scalars

__all__ = ["adamw_"]

_BLOCK = 512 * 1024  # elements: nothing is kept between passes, so a block is what a thread takes


@loop("g[n], keep, rate, beta1, rest1, beta2, rest2, eps -> p[n], m[n], v[n]")
def _step(g, keep, rate, beta1, rest1, beta2, rest2, eps, p, m, v):
    for i in range(p.size):
        mean = rest1 * g[i] + beta1 * m[i]
        square = rest2 * (g[i] * g[i]) + beta2 * v[i]
        m[i] = mean
        v[i] = square
        p[i] = keep * p[i] - rate * (mean / (np.sqrt(square) + eps))


def adamw_(param, grad, m, v, t, *, lr, beta1, beta2, eps, weight_decay):
    """backends.fused.numpy.adamw.adamw_ over aligned arrays of float32 or float64."""
    numbers = scalars(t, lr, beta1, beta2, eps, weight_decay)

    def kernel(p, g, mean, square):
        dtype = p.x.dtype
        _step(dtype)(g.x, *[dtype.type(x) for x in numbers], p.x, mean.x, square.x)

    run_blocks("adamw_", kernel, scratches=0, block=_BLOCK, param=param, grad=grad, m=m, v=v)
