"""Muon (Jordan et al. 2024; Liu et al. 2025, 2502.16982), in place, on one hidden matrix.

    v <- mu v + g;   X = (g + mu v) / (|g + mu v|_F + eps);   steps times  G = X X^T,  X <- a X + (b G + c G^2) X
    W <- W (1 - lr wd) - lr k X

BLAS forms X X^T and G G^T, which is G^2, by halves: a quarter of the arithmetic is saved. Work arrays are kept.
"""

import numpy as np

from backends.fused.numpy._blas import axpby
from backends.fused.numpy._blocks import run_blocks
from backends.fused.numpy._scratch import scratch

__all__ = ["muon_"]


def muon_(param, grad, velocity, *, lr, momentum, nesterov, weight_decay, factor, steps, coefficients, eps):
    """One step of Muon; writes param and velocity.

    Parameters
    ----------
    param, grad, velocity : float[r c]
        Contiguous, of one dtype; `grad` is only read.
    lr, momentum, weight_decay, eps : float
    nesterov : bool
    factor : float
        What lr is multiplied by in front of the orthogonalised matrix: k of ref.optim.muon.
    steps : int
    coefficients : (float, float, float)
        (a, b, c).

    Raises
    ------
    ValueError
        Arrays that are not matrices of one shape and dtype, or not contiguous.
    """
    for name, x in {"param": param, "grad": grad, "velocity": velocity}.items():
        if x.ndim != 2 or x.shape != param.shape or x.dtype != param.dtype or not x.flags.c_contiguous:
            raise ValueError(
                f"muon_: {name} is {x.dtype}{list(x.shape)}, param is {param.dtype}{list(param.shape)}; all must be "
                "contiguous matrices and alike"
            )
    with scratch() as work:
        held = [work.take(name, param.shape, param.dtype) for name in ("muon X", "muon next")]
        X, other = held
        _momentum(X, grad, velocity, momentum, nesterov)
        norm = float(np.sqrt(np.vdot(X, X))) + eps
        np.multiply(X, 1 / norm if norm else 1.0, out=X)
        side = min(param.shape)
        gram, square = (work.take(name, (side, side), param.dtype) for name in ("muon gram", "muon square"))
        for _ in range(steps):
            X, other = _iterated(X, other, gram, square, coefficients)

        def apply(junk, p, x):
            axpby(-lr * factor, x, 1 - lr * weight_decay, p, junk)

        run_blocks("muon_", apply, param=param.reshape(-1), update=X.reshape(-1))


def _momentum(X, grad, velocity, momentum, nesterov):
    """velocity <- momentum velocity + grad, and into X what is made orthogonal."""

    def kernel(junk, x, g, v):
        axpby(1.0, g, momentum, v, junk)
        np.copyto(x.x, v.x)
        if nesterov:
            axpby(1.0, g, momentum, x, junk)

    run_blocks("muon_", kernel, X=X.reshape(-1), grad=grad.reshape(-1), velocity=velocity.reshape(-1))


def _iterated(X, other, gram, square, coefficients):
    """(a X + (b G + c G^2) X, the array that is free now), G the Gram matrix of the shorter side."""
    a, b, c = coefficients
    tall = X.shape[0] > X.shape[1]
    np.matmul(X.T if tall else X, X if tall else X.T, out=gram)
    np.matmul(gram, gram.T, out=square)
    run_blocks("muon_", lambda junk, s, g: axpby(b, g, c, s, junk), square=square.reshape(-1), gram=gram.reshape(-1))
    np.matmul(X if tall else square, square if tall else X, out=other)
    run_blocks("muon_", lambda junk, o, x: axpby(a, x, 1.0, o, junk), other=other.reshape(-1), X=X.reshape(-1))
    return other, X
