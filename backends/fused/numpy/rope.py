"""Rotary position embedding (Su et al. 2021, 2104.09864, Eq. 34), both layouts.

    theta_i = base^{-2 i / d},   angle = position theta_i
    (a, b) -> (a cos - b sin, a sin + b cos)
    interleaved: (a, b) = (x_{2i}, x_{2i+1})        half: (a, b) = (x_i, x_{i + d/2})

The gradient is the rotation by the opposite angle. Interleaved pairs are one complex multiply;
halves are x [cos, cos] + (x with its halves exchanged) [-sin, sin], which runs along whole rows.
Other frequencies may be given as theta; an attention factor multiplies the result and the gradient.
Angles are formed in float64: at position 10^5 a float32 angle is wrong in the second digit.
"""

from functools import lru_cache

import numpy as np

from backends.fused.numpy._rows import by_blocks, floats
from backends.fused.numpy._scratch import scratch

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it

LAYOUTS = ("interleaved", "half")


def supports(x, positions, *, layout="interleaved", base=10000.0, theta=None, attention_factor=1.0, **others):
    """Whether `forward` takes these: float32 or float64, d even, integer positions."""
    return (
        not others
        and floats(x)
        and layout in LAYOUTS
        and x.ndim >= 2
        and x.shape[-1] % 2 == 0
        and positions.dtype.kind in "iu"
        and (theta is None or (theta.dtype.kind == "f" and theta.shape == (x.shape[-1] // 2,)))
        and _spread(positions, x) is not None
    )


def forward(x, positions, *, layout="interleaved", base=10000.0, theta=None, attention_factor=1.0):
    """Rotate every pair of x by its position.

    Parameters
    ----------
    x : float[*B H T d]
    positions : int[T], or broadcastable to [*B T]
    layout : {"interleaved", "half"}
    base : float
    theta : float[d/2], optional
    attention_factor : float

    Returns
    -------
    float[*B H T d], ()

    Raises
    ------
    ValueError
        d is odd, another layout, or positions that do not fit.
    """
    return _rotate(x, positions, layout, _key(x, base, theta), attention_factor, 1), ()


def vjp(
    g, out, saved, needs, x, positions, *, layout="interleaved", base=10000.0, theta=None, attention_factor=1.0
):
    """Cotangent of x: g rotated back, times the factor."""
    return (_rotate(g, positions, layout, _key(x, base, theta), attention_factor, -1) if needs[0] else None,)


def _key(x, base, theta):
    """The frequencies as bytes of float64."""
    return _plain(x.shape[-1], float(base)) if theta is None else theta.astype(np.float64).tobytes()


@lru_cache(maxsize=16)
def _plain(d, base):
    return (base ** (-np.arange(0, d, 2) / max(d, 1))).tobytes()


def _rotate(x, positions, layout, theta, factor, sign):
    d = x.shape[-1]
    if d % 2:
        raise ValueError(f"rope: x has d={d}; needs an even head dimension")
    if layout not in LAYOUTS:
        raise ValueError(f"rope: layout={layout!r}; needed one of {LAYOUTS}")
    where = _spread(positions, x)
    if where is None:
        raise ValueError(
            f"rope: positions have shape {positions.shape}, x has {x.shape}; needs [T] or [*B T]"
        )
    turn = _turns(where.tobytes(), where.shape, where.dtype.str, layout, theta, float(factor), x.dtype.str)
    y = np.empty(x.shape, x.dtype)
    if not y.size:
        return y
    rotate = _interleaved if layout == "interleaved" else _half
    turn = [np.broadcast_to(part, (*x.shape[:-1], part.shape[-1])) for part in turn]
    by_blocks(lambda r, _: rotate(x[r], *(part[r] for part in turn), y[r], sign), len(x), x[0].size)
    return y


def _interleaved(x, turn, y, sign):
    if x.strides[-1] != x.itemsize:
        x = np.ascontiguousarray(x)
    pairs = x.view(turn.dtype)
    np.multiply(pairs, turn if sign > 0 else turn.conj(), out=y.view(turn.dtype))


def _half(x, cos, sin, y, sign):
    n = x.shape[-1] // 2
    np.multiply(x, cos, out=y)
    with scratch() as work:
        other = work.take("other", x.shape, x.dtype)
        other[..., :n] = x[..., n:]
        other[..., n:] = x[..., :n]
        other *= sin
        (np.add if sign > 0 else np.subtract)(y, other, out=y)


def _spread(positions, x):
    """Positions with an axis for the heads, [T] or [*b 1 T] broadcastable to [*B H T]; or None."""
    where = positions if positions.ndim < 2 else positions[..., None, :]
    padded = where.shape
    full = x.shape[:-1]
    if where.ndim > len(full) or where.ndim == 0:
        return None
    fits = all(n in (1, m) for n, m in zip(padded[::-1], full[::-1], strict=False))
    return where if fits else None


@lru_cache(maxsize=16)
def _turns(positions, shape, kind, layout, theta, factor, dtype):
    """factor e^{i position theta} [*shape d/2], or for halves factor [cos, cos] and factor [-sin, sin], each [* d].

    Kept, as sines cost more than the rotation.
    """
    where = np.frombuffer(positions, kind).reshape(shape).astype(np.float64)
    angle = where[..., None] * np.frombuffer(theta)
    cos, sin = np.cos(angle) * factor, np.sin(angle) * factor
    if layout == "half":
        parts = [np.concatenate(pair, -1).astype(dtype) for pair in ((cos, cos), (-sin, sin))]
    else:
        parts = [np.empty(angle.shape, np.result_type(np.dtype(dtype), np.complex64))]
        parts[0].real, parts[0].imag = cos, sin
    for part in parts:
        part.flags.writeable = False
    return parts
