"""A Gaussian over the levels of a pixel: the probability of the bin that a level stands for.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Eq. 13.

    ln p(x) = ln( Phi((x + h - mean) / std) - Phi((x - h - mean) / std) ),   h = (high - low) / (2 (bins - 1))
    the lowest bin reaches to -oo, the highest to +oo

Notation
    levels low, low + 2 h, .. high -> bins of them; x is one of them.

Conventions
    C1  Levels are spread over [low, high] with both ends, so that their distance is 2 h: 2 / 255 for 256 levels of
        [-1, 1].
    C2  Far in a tail the difference of Phi underflows; here logarithms of the upper tail are subtracted, so that a
        bin 100 standard deviations away has its true log-probability. The paper's code takes ln max(p, 1e-12)
        instead.
    C3  One number an entry, in nats.

Laws
    L1 all_bins_together_are_certain         L2 narrow_bins_have_the_density
    L3 tails_to_high_precision               L4 mirrored
    L5 gradients_are_of_the_edges
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "x[*S], mean[*S], std[*S] -> [*S]"


@spec("diffusion.discretized_gaussian", SIGNATURE, grads=("mean", "std"))
def discretized_gaussian(x, mean, std, *, bins=256, low=-1.0, high=1.0):
    """Log-probability of each level.

    Parameters
    ----------
    x : float[*S]
        Levels of the grid.
    mean, std : float[*S]
        Of the Gaussian; std > 0.
    bins : int
        Levels, at least 2.
    low, high : float
        The lowest and the highest, low < high.

    Returns
    -------
    float[*S]

    Raises
    ------
    ValueError
        bins < 2, not low < high, shapes that differ, or a std that is not positive.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 4 error functions and a continued fraction of 40 terms an entry.

    >>> import numpy as np
    >>> x = np.array([-1.0, 1.0])
    >>> np.exp(discretized_gaussian(x, np.zeros(2), np.ones(2), bins=2))
    array([0.5, 0.5])
    """
    bind("discretized_gaussian", SIGNATURE, x=x, mean=mean, std=std)
    if bins < 2 or not low < high:
        raise ValueError(f"discretized_gaussian: bins={bins}, low={low}, high={high}; needed bins >= 2 and low < high")
    xp = namespace(x, mean, std)
    if not bool(xp.all(std > 0)):
        raise ValueError("discretized_gaussian: std has a number that is not positive; needed all > 0")
    h = (high - low) / (2 * (bins - 1))
    left, right = xp.subtract(x - h, mean) / std, xp.subtract(x + h, mean) / std
    lowest, highest = x < low + h, x > high - h
    # The bin is mirrored to lie above the mean, where both tails are small.
    below = left + right < 0
    a, b = xp.where(below, -right, left), xp.where(below, -left, right)
    tail_a, tail_b = log_tail(xp, a), log_tail(xp, b)
    inside = tail_a + xp.log(-xp.expm1(tail_b - tail_a))
    up, down = log_tail(xp, left), log_tail(xp, -right)
    return xp.where(highest, up, xp.where(lowest, down, inside))


def log_tail(xp, a):
    """ln(1 - Phi(a)): by erfc up to 5, beyond by the continued fraction of Mills' ratio."""
    one = a * 0 + 1.0
    near = xp.log(xp.erfc(xp.where(a < 5, a, one) / math.sqrt(2)) / 2)
    far = xp.where(a < 5, 5 * one, a)
    ratio = far
    for k in range(40, 0, -1):
        ratio = far + k / ratio
    return xp.where(a < 5, near, -far * far / 2 - math.log(2 * math.pi) / 2 - xp.log(ratio))
