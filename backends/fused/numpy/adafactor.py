"""Adafactor (Shazeer & Stern 2018, 1804.04235, Alg. 4 and 5), in place, a block of rows at a time.

    R <- b R + (1 - b) (g^2 + eps1) 1,   C likewise over columns;   u = g / sqrt(R C / sum R)
    p <- p - alpha u / max(1, RMS(u) / d)

Three times over the gradient (its squares' sums, the size of u, the step) and twice over the parameter, without a
temporary of their size. Sums are folded in the blocks' order: the bits do not depend on the threads.
"""

import math

import numpy as np

from backends.fused.numpy._rows import by_blocks, count_blocks

__all__ = ["adafactor_"]


def adafactor_(param, grad, rows, columns, t, *, lr, decay_exponent, clip, eps1, eps2, scale_parameter):
    """Step t (the first is 1) of Adafactor; writes param, rows and columns.

    Parameters
    ----------
    param, grad : float[r c], or float[n]
        Contiguous, of one dtype; `grad` is only read.
    rows, columns : float[r], float[c]; of a vector float[n], None
    t : int
    lr : float or None
        In place of min(1e-2, 1 / sqrt(t)).
    decay_exponent, clip, eps1, eps2 : float
    scale_parameter : bool

    Raises
    ------
    ValueError
        Arrays whose shapes do not belong together, of several dtypes, or not contiguous; t < 1.
    """
    if t < 1:
        raise ValueError(f"adafactor_: t={t}; the first step is t=1")
    _check(param, grad, rows, columns)
    if columns is None:
        param, grad = param[:, None], grad[:, None]
    height, width = param.shape
    b, count = 1 - t**-decay_exponent, count_blocks(height, width)
    sums, sizes, along = np.zeros((count, width), param.dtype), np.zeros(count), np.empty(height, param.dtype)

    def squares(r, i):
        w = np.square(grad[r])
        w += param.dtype.type(eps1)
        np.sum(w, axis=1, out=along[r])
        np.sum(w, axis=0, out=sums[i])
        sizes[i] = np.vdot(param[r], param[r])

    by_blocks(squares, height, width)
    _fade(rows, b, along)
    size = math.sqrt(sizes.sum() / max(param.size, 1))
    if columns is None:
        left, right = _reciprocal_root(rows), None
    else:
        _fade(columns, b, sums.sum(axis=0))
        total = rows.sum()
        left, right = _reciprocal_root(rows / (total if total else 1)), _reciprocal_root(columns)

    def update(r):
        u = grad[r] * left[r, None]
        return u if right is None else np.multiply(u, right, out=u)

    def measure(r, i):
        u = update(r)
        sizes[i] = np.vdot(u, u)

    by_blocks(measure, height, width)
    over = math.sqrt(sizes.sum() / max(param.size, 1)) / clip
    rho = min(1e-2, 1 / math.sqrt(t)) if lr is None else lr
    step = param.dtype.type(rho * (max(size, eps2) if scale_parameter else 1.0) / max(over, 1.0))

    def move(r, _):
        u = update(r)
        u *= step
        param[r] -= u

    by_blocks(move, height, width)


def _fade(kept, b, new):
    kept *= b
    kept += (1 - b) * new


def _reciprocal_root(x):
    """1 / sqrt(x), and 1 where x is 0: what it multiplies is 0 there."""
    return 1 / np.sqrt(np.where(x == 0, x.dtype.type(1), x))


def _check(param, grad, rows, columns):
    wanted = {"grad": (grad, param.shape), "rows": (rows, param.shape[:1])}
    if param.ndim == 2:
        wanted["columns"] = (columns, param.shape[1:])
    if param.ndim not in (1, 2) or (param.ndim == 1) != (columns is None):
        raise ValueError(f"adafactor_: param has {param.ndim} axes, columns is {type(columns).__name__}; needed [r c] "
                         "with columns or [n] without")  # fmt: skip
    for name, (x, shape) in {"param": (param, param.shape), **wanted}.items():
        if x is None or x.shape != shape or x.dtype != param.dtype or not x.flags.c_contiguous:
            found = "None" if x is None else f"{x.dtype}{list(x.shape)}"
            raise ValueError(f"adafactor_: {name} is {found}; needed contiguous {param.dtype}{list(shape)}")
