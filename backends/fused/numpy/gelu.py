"""GELU (Hendrycks & Gimpel 2016, 1606.08415): x Phi(x), or its tanh approximation (sec. 2).

    exact   Phi(x) = erfc(-x / sqrt 2) / 2          d/dx = Phi(x) + x phi(x)
    tanh    x s, s = (1 + tanh u) / 2 = sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
            d/dx = s + 2 x s (1 - s) u'

erfc and the sigmoid keep their relative accuracy where 1 + erf and 1 + tanh cancel. Saved: Phi for
the exact form (erfc costs ten times the rest), nothing for the other.
"""

import math

import numpy as np
from scipy.special import erfc

from backends.fused.numpy._rows import by_blocks, floats, sigmoid

__all__ = ["READS_OUTPUT", "forward", "supports", "vjp"]

READS_OUTPUT = False  # the vjp does not: the tape need not keep it

_ROOT = math.sqrt(2 / math.pi)
_CUBIC = 0.044715
_FAR = 100.0  # s (1 - s) is 0 there, and z^3 must not be inf


def supports(x, *, approximate=None, **others):
    """Whether `forward` takes these: float32 or float64, approximate None or "tanh"."""
    return not others and floats(x) and approximate in (None, "tanh")


def forward(x, *, approximate=None):
    """x[*B] -> gelu(x), (Phi[n],) or ()."""
    flat = x.reshape(-1)
    y, weight = np.empty(flat.shape, x.dtype), np.empty(flat.shape, x.dtype)

    def part(r, _):
        if approximate is None:
            np.multiply(flat[r], -math.sqrt(0.5), out=weight[r])
            erfc(weight[r], out=weight[r])
            weight[r] *= 0.5
        else:
            sigmoid(_twice_u(flat[r]), weight[r])
        np.multiply(flat[r], weight[r], out=y[r])
        # x = -inf: the limit is 0, the product inf * 0.
        y[r][np.isneginf(flat[r])] = 0

    by_blocks(part, flat.size, 1)
    return y.reshape(x.shape), (weight,) if approximate is None else ()


def vjp(g, out, saved, needs, x, *, approximate=None):
    """Cotangent of x."""
    if not needs[0]:
        return (None,)
    flat, g = x.reshape(-1), g.reshape(-1)
    dx = np.empty(flat.shape, x.dtype)

    def part(r, _):
        z, d = flat[r], dx[r]
        if approximate is None:
            np.square(z, out=d)
            d *= -0.5
            np.exp(d, out=d)
            d *= z
            d *= 1 / math.sqrt(2 * math.pi)
            d += saved[0][r]
        else:
            s = sigmoid(_twice_u(z), np.empty(z.shape, z.dtype))
            z = np.clip(z, -_FAR, _FAR)
            np.square(z, out=d)
            d *= 3 * _CUBIC
            d += 1
            d *= 2 * _ROOT
            d *= z
            d *= 1 - s
            d += 1
            d *= s
        d *= g[r]

    by_blocks(part, flat.size, 1)
    return (dx.reshape(x.shape),)


def _twice_u(z):
    u = np.square(z)
    u *= _CUBIC
    u += 1
    u *= z
    u *= 2 * _ROOT
    return u
